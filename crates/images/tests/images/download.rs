//! Downloads from servers that are good, bad and broken.

use crate::server::{Does, Server};
use crate::{MIB, names, noise};
use images::{Checksum, DownloadError, Downloaded, Downloader, Progress, Request};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

const TAG: Option<&str> = Some("\"v1\"");

/// Another program's opinion.
pub fn sha256(data: &[u8]) -> Checksum {
    let dir = testkit::temp_dir();
    std::fs::write(dir.path().join("x"), data).unwrap();
    let said = crate::tool("sha256sum", &["x"], dir.path());
    format!("{{SHA-256}}{}", said.split(' ').next().unwrap()).parse().unwrap()
}

fn quick(url: &str) -> Request {
    Request { pause: Duration::from_millis(1), tries: 3, ..Request::new(url, 64 * MIB) }
}

async fn get(request: &Request, folder: &Path) -> (Result<Downloaded, DownloadError>, Progress) {
    let (progress, seen) = watch::channel(Progress::default());
    let done = Downloader::new(&[]).unwrap().download(request, &folder.join("image"), &progress).await;
    let last = *seen.borrow();
    (done, last)
}

/// A download that gives nothing and leaves nothing, not even when there was a file before.
async fn fails(request: &Request) -> DownloadError {
    let dir = testkit::temp_dir();
    std::fs::write(dir.path().join("image"), "old").unwrap();
    let (done, _) = get(request, dir.path()).await;
    assert_eq!(names(dir.path()), ["image"]);
    assert_eq!(std::fs::read(dir.path().join("image")).unwrap(), b"old");
    done.unwrap_err()
}

#[tokio::test]
async fn a_file_comes_with_progress_and_checksum() {
    let dir = testkit::temp_dir();
    let data = noise(4 << 20);
    for (does, total) in [(Does::Serves, Some(4 * MIB)), (Does::Unsized, None)] {
        let server = Server::start(data.clone(), TAG, [does]).await;
        let mut request = quick(&server.url);
        request.checksum = Some(sha256(&data));
        let (done, progress) = get(&request, dir.path()).await;
        assert_eq!(done.unwrap(), Downloaded { bytes: 4 * MIB, resumed: 0 });
        assert_eq!(progress, Progress { bytes: 4 * MIB, total });
        assert!(std::fs::read(dir.path().join("image")).unwrap() == data);
        assert_eq!(names(dir.path()), ["image"]);
    }
}

#[tokio::test]
async fn a_broken_or_stalled_download_goes_on_where_it_was() {
    let data = noise(4 << 20);
    let script = [Does::Breaks(1 << 20), Does::Status(503), Does::Stalls(1 << 20), Does::Breaks(65_536), Does::Serves];
    let server = Server::start(data.clone(), TAG, script).await;
    let dir = testkit::temp_dir();
    let mut request = quick(&server.url);
    request.stall = Duration::from_millis(500);
    request.checksum = Some(sha256(&data));
    request.tries = 5;
    let (done, progress) = get(&request, dir.path()).await;
    let done = done.unwrap();
    assert_eq!(done.bytes, 4 * MIB);
    assert_eq!(progress, Progress { bytes: 4 * MIB, total: Some(4 * MIB) });
    assert!(std::fs::read(dir.path().join("image")).unwrap() == data);
    let ranges = server.ranges();
    assert_eq!((ranges.len(), ranges[0].as_str()), (5, ""));
    let last: u64 = ranges[4].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    // The stall is noticed after all that was sent; what a break takes with it is the system's choice.
    assert!(last >= MIB, "{ranges:?}");
    assert!(done.resumed >= 2, "{done:?}");
}

#[tokio::test]
async fn without_a_strong_tag_it_starts_anew() {
    let data = noise(1 << 20);
    for tag in [None, Some("W/\"v1\"")] {
        let server = Server::start(data.clone(), tag, [Does::Stalls(300_000), Does::Serves]).await;
        let dir = testkit::temp_dir();
        let mut request = quick(&server.url);
        request.stall = Duration::from_millis(300);
        request.checksum = Some(sha256(&data));
        assert_eq!(get(&request, dir.path()).await.0.unwrap(), Downloaded { bytes: MIB, resumed: 0 });
        assert_eq!(server.ranges(), ["", ""]);
        assert!(std::fs::read(dir.path().join("image")).unwrap() == data);
    }
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_not_mixed() {
    let dir = testkit::temp_dir();
    // The server ignores the range, as the tag is another; or answers with a part that doesn't fit, and then well.
    for (second, wanted) in [(Does::Other, vec![1; 100_000]), (Does::WrongPart, noise(1 << 20))] {
        let server = Server::start(noise(1 << 20), TAG, [Does::Stalls(300_000), second, Does::Serves]).await;
        let mut request = quick(&server.url);
        request.stall = Duration::from_millis(300);
        let (done, _) = get(&request, dir.path()).await;
        assert_eq!(done.unwrap().bytes, wanted.len() as u64);
        assert!(std::fs::read(dir.path().join("image")).unwrap() == wanted);
    }
}

#[tokio::test]
async fn bad_servers_give_nothing() {
    let server = Server::start(noise(1 << 20), TAG, [Does::Serves]).await;
    let mut request = quick(&server.url);
    request.stall = Duration::from_millis(300);

    request.checksum = Some("{SHA-1}a9993e364706816aba3e25717850c26c9cd0d89d".parse().unwrap());
    assert!(matches!(fails(&request).await, DownloadError::Checksum { .. }));
    request.checksum = Some("900150983cd24fb0d6963f7d28e17f72".parse().unwrap());
    assert!(matches!(fails(&request).await, DownloadError::Checksum { .. }));
    request.checksum = None;

    request.max_bytes = MIB - 1;
    assert!(matches!(fails(&request).await, DownloadError::TooLarge { .. }), "announced");
    server.then(Does::Unsized);
    assert!(matches!(fails(&request).await, DownloadError::TooLarge { .. }), "come");
    server.then(Does::Endless);
    assert!(matches!(fails(&request).await, DownloadError::TooLarge { .. }));
    request.max_bytes = 64 * MIB;

    for does in
        [Does::Breaks(70_000), Does::Stalls(0), Does::Stalls(70_000), Does::Hangs, Does::Status(500), Does::Status(429)]
    {
        server.then(does.clone());
        let error = fails(&request).await;
        assert!(matches!(error, DownloadError::Broken { tries: 3, .. }), "{does:?}: {error}");
    }
    server.then(Does::Claims(2 * MIB));
    let error = fails(&request).await;
    assert!(matches!(error, DownloadError::Broken { .. }), "more announced than come: {error}");
    for (status, wanted) in [(404, 404), (403, 403), (204, 204), (304, 304)] {
        server.then(Does::Status(status));
        assert!(matches!(fails(&request).await, DownloadError::Status(s) if s == wanted), "{status}");
    }
    server.then(Does::Packs);
    assert!(matches!(fails(&request).await, DownloadError::Encoding));
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", ""] {
        assert!(matches!(fails(&quick(url)).await, DownloadError::Url), "{url}");
    }
    let nobody = format!("http://user:secret@127.0.0.1:{}/image", testkit::free_port());
    let error = fails(&quick(&nobody)).await.to_string();
    assert!(!error.contains("secret"), "{error}");
}

/// A length that is too small: what comes is a cut file, which only its checksum gives away.
#[tokio::test]
async fn a_length_that_is_too_small_cuts_the_file() {
    let data = noise(1 << 20);
    let server = Server::start(data.clone(), None, [Does::Claims(1000)]).await;
    let mut request = quick(&server.url);
    request.checksum = Some(sha256(&data));
    let error = fails(&request).await;
    assert!(matches!(error, DownloadError::Checksum { .. } | DownloadError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_a_little_way() {
    let dir = testkit::temp_dir();
    let server = Server::start(noise(1 << 20), TAG, [Does::Serves]).await;
    let to = |url: &str| Does::Redirects(url.to_owned());
    let far = Server::start(noise(1 << 20), TAG, [Does::Serves]).await;
    let near = Server::start(Vec::new(), TAG, [to(&server.url)]).await;
    assert_eq!(get(&quick(&near.url), dir.path()).await.0.unwrap().bytes, MIB);
    let own = far.url.clone();
    let circle = |n: usize| vec![to(&own); n].into_iter().chain([Does::Serves]).collect::<Vec<_>>();
    far.script(circle(5));
    assert_eq!(get(&quick(&far.url), dir.path()).await.0.unwrap().bytes, MIB);
    far.script(circle(6));
    let error = fails(&quick(&far.url)).await;
    assert!(matches!(error, DownloadError::Redirect(_)), "{error}");
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"] {
        near.then(to(url));
        let error = fails(&quick(&near.url)).await;
        assert!(matches!(error, DownloadError::Redirect(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let dir = testkit::temp_dir();
    let data = noise(1 << 20);
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let script = [Does::Serves, Does::Redirects("file:///etc/passwd".into())];
    let server = Server::start_tls(data.clone(), TAG, script, Some(&own)).await;
    let mut request = quick(&server.url.replace("127.0.0.1", "localhost"));
    request.checksum = Some(sha256(&data));
    let error = fails(&request).await;
    assert!(matches!(&error, DownloadError::Broken { reason, .. } if reason.contains("certificate")), "{error}");
    assert!(server.ranges().is_empty(), "nothing was asked of it");

    let trusting = Downloader::new(own.cert.pem().as_bytes()).unwrap();
    let progress = watch::Sender::default();
    let done = trusting.download(&request, &dir.path().join("image"), &progress).await.unwrap();
    assert_eq!(done.bytes, MIB);
    assert!(std::fs::read(dir.path().join("image")).unwrap() == data);
    let error = trusting.download(&request, &dir.path().join("image"), &progress).await.unwrap_err();
    assert!(matches!(error, DownloadError::Redirect(_)), "{error}");
    assert!(matches!(
        Downloader::new(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        Err(DownloadError::Client(_))
    ));
}

#[tokio::test]
async fn a_dropped_download_leaves_nothing() {
    let dir = testkit::temp_dir();
    let server = Server::start(noise(1 << 20), TAG, [Does::Stalls(300_000)]).await;
    let (progress, mut seen) = watch::channel(Progress::default());
    let (request, target) = (quick(&server.url), dir.path().join("image"));
    let work = tokio::spawn(async move { Downloader::new(&[]).unwrap().download(&request, &target, &progress).await });
    seen.wait_for(|p| p.bytes > 0).await.unwrap();
    assert_eq!(seen.borrow().total, Some(MIB));
    assert_eq!(names(dir.path()).len(), 2);
    work.abort();
    assert!(work.await.unwrap_err().is_cancelled());
    assert_eq!(names(dir.path()), [""; 0]);
}
