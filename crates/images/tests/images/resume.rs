//! Downloads that go on after the process was killed, and addresses that aren't called.

use crate::server::{Does, Server};
use crate::{MIB, names, noise};
use images::{DownloadError, Downloaded, Downloader, Progress, Request};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const TAG: Option<&str> = Some("\"v1\"");

fn quick(url: &str) -> Request {
    Request { pause: Duration::from_millis(1), tries: 2, ..Request::new(url, 64 * MIB) }
}

async fn get(request: &Request, folder: &Path) -> Result<Downloaded, DownloadError> {
    let (progress, _) = watch::channel(Progress::default());
    Downloader::new(&[]).unwrap().resume(request, &folder.join("data"), &progress).await
}

#[tokio::test]
async fn a_killed_download_goes_on_where_it_certainly_was() {
    let data = noise(40 << 20);
    let server = Server::start(data.clone(), TAG, [Does::Stalls(36 << 20)]).await;
    let dir = testkit::temp_dir();
    let mut request = quick(&server.url);
    request.checksum = Some(crate::download::sha256(&data));
    {
        let (progress, mut seen) = watch::channel(Progress::default());
        let downloader = Downloader::new(&[]).unwrap();
        let target = dir.path().join("data");
        let coming = downloader.resume(&request, &target, &progress);
        // Dropped in the middle, as a killed process would.
        tokio::select! {
            done = coming => panic!("{done:?}"),
            seen = seen.wait_for(|p| p.bytes >= 34 * MIB) => drop(seen.unwrap()),
        }
    }
    assert_eq!(names(dir.path()), ["data", "data.known"]);
    // What a power cut may leave behind the certain part.
    let file = std::fs::File::options().write(true).open(dir.path().join("data")).unwrap();
    file.set_len(39 << 20).unwrap();
    server.then(Does::Serves);
    let done = get(&request, dir.path()).await.unwrap();
    assert_eq!(done, Downloaded { bytes: 40 * MIB, resumed: 1 });
    assert!(std::fs::read(dir.path().join("data")).unwrap() == data);
    let ranges = server.ranges();
    let from: u64 = ranges[1].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!((32 * MIB..36 * MIB).contains(&from), "{ranges:?}");
    // Done is done: nobody is called again.
    assert_eq!(get(&request, dir.path()).await.unwrap().bytes, 40 * MIB);
    assert_eq!(server.ranges().len(), 2);
    // Something else was asked for: from the beginning.
    request.checksum = None;
    assert_eq!(get(&request, dir.path()).await.unwrap(), Downloaded { bytes: 40 * MIB, resumed: 0 });
    assert_eq!(server.ranges()[2..], [""]);
}

#[tokio::test]
async fn what_broke_off_stays_and_what_is_wrong_does_not() {
    let data = noise(1 << 20);
    let server = Server::start(data.clone(), TAG, [Does::Breaks(300_000), Does::Status(503)]).await;
    let dir = testkit::temp_dir();
    let request = quick(&server.url);
    assert!(matches!(get(&request, dir.path()).await, Err(DownloadError::Broken { .. })));
    assert_eq!(names(dir.path()), ["data", "data.known"]);
    server.then(Does::Serves);
    let done = get(&request, dir.path()).await.unwrap();
    assert_eq!(done, Downloaded { bytes: MIB, resumed: 1 });
    let mut wrong = request.clone();
    wrong.checksum = Some(format!("{:032}", 7).parse().unwrap());
    assert!(matches!(get(&wrong, dir.path()).await, Err(DownloadError::Checksum { .. })));
    assert!(names(dir.path()).is_empty());
    // A server without tags: there is no going on, and no note of it.
    let server = Server::start(data, None, [Does::Breaks(300_000)]).await;
    assert!(matches!(get(&quick(&server.url), dir.path()).await, Err(DownloadError::Broken { .. })));
    assert_eq!(names(dir.path()), ["data"]);
}

#[tokio::test]
async fn only_allowed_addresses_are_called() {
    let data = noise(1000);
    let inside = Server::start(data.clone(), TAG, [Does::Serves]).await;
    let port = inside.url.rsplit(':').next().unwrap().to_owned();
    let dir = testkit::temp_dir();
    let target = dir.path().join("data");
    let (progress, _) = watch::channel(Progress::default());
    let none = Downloader::guarded(&[], |_| false).unwrap();
    let named = format!("http://localhost:{port}");
    for url in [&inside.url, &named, &format!("http://[::ffff:127.0.0.1]:{port}"), &format!("http://2130706433:{port}")]
    {
        let done = none.download(&quick(url), &target, &progress).await;
        assert!(matches!(done, Err(DownloadError::Forbidden(_))), "{url}: {done:?}");
    }
    assert!(inside.ranges().is_empty(), "nobody was called");
    // Redirects lead no further than the first call.
    let first: std::net::IpAddr = "127.0.0.1".parse().unwrap();
    let one = Downloader::guarded(&[], move |ip| ip == first).unwrap();
    let elsewhere = inside.url.replace("127.0.0.1", "127.0.0.2");
    for to in [elsewhere, format!("http://[::1]:{port}/image")] {
        let redirecting = Server::start(data.clone(), TAG, [Does::Redirects(to.clone())]).await;
        let done = one.download(&quick(&redirecting.url), &target, &progress).await;
        assert!(matches!(done, Err(DownloadError::Forbidden(_))), "{to}: {done:?}");
    }
    // Judged at every call: a name that leads elsewhere the second time isn't called.
    let open = Arc::new(AtomicBool::new(true));
    let now = open.clone();
    let guard = move |ip: std::net::IpAddr| ip == first && now.swap(false, Ordering::Relaxed);
    let once = Downloader::guarded(&[], guard).unwrap();
    let server = Server::start(data, TAG, [Does::Status(503), Does::Serves]).await;
    let url = server.url.replace("127.0.0.1", "localhost");
    let done = once.download(&quick(&url), &target, &progress).await;
    // The connection of the first call may be used again; what isn't is judged.
    assert!(matches!(&done, Ok(_) | Err(DownloadError::Forbidden(_))), "{done:?}");
    assert!(!open.load(Ordering::Relaxed));
}
