//! What extractTemplate and extractVolume give, downloaded as anybody downloads files: whole, in parts, and after the URL's end.

use crate::dev::{Dev, deploy_params};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::time::Duration;
use testkit::wait_until;

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

async fn part(web: &Client, url: &str, range: &str) -> (StatusCode, String, Vec<u8>) {
    let answer = web.get(url).header(RANGE, range).send().await.unwrap();
    let status = answer.status();
    let said = answer.headers().get(CONTENT_RANGE).map(|r| r.to_str().unwrap().to_owned()).unwrap_or_default();
    (status, said, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_and_volumes_are_downloaded() {
    let dev = Dev::with_zone(2).await;
    let api = dev.api();
    let ids = dev.ids().await;
    let endpoint = format!("http://{}/client/api", dev.api_address());
    api.call("updateConfiguration", &[("name", "endpointe.url"), ("value", &endpoint)]).await.unwrap();
    let os_types = api.call("listOsTypes", &[("pagesize", "1"), ("page", "1")]).await.unwrap();
    let total: usize = 5_000_000;
    let params = [
        ("name", "large one"),
        ("displaytext", "t"),
        ("format", "QCOW2"),
        ("hypervisor", "Simulator"),
        ("ostypeid", &text(&os_types, "/ostype/0/id")),
        ("zoneid", &ids[0]),
        ("url", "http://images.example/a.qcow2?bytes=5000000&millis=1"),
    ];
    let template = text(&api.call("registerTemplate", &params).await.unwrap(), "/template/0/id");
    let ready = || async {
        let listed = api.call("listTemplates", &[("templatefilter", "self"), ("id", &template)]).await.unwrap();
        listed.pointer("/template/0/isready") == Some(&Value::Bool(true))
    };
    wait_until(ready, Duration::from_secs(60)).await;
    let order = [("id", template.as_str()), ("zoneid", &ids[0]), ("mode", "HTTP_DOWNLOAD")];
    let given = api.run("extractTemplate", &order).await.unwrap();
    assert_eq!(text(&given, "/template/state"), "DOWNLOAD_URL_CREATED");
    assert_eq!(text(&given, "/template/extractMode"), "HTTP_DOWNLOAD");
    let url = text(&given, "/template/url");

    // No key, no session: the URL is enough.
    let web = Client::new();
    let answer = web.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[CONTENT_LENGTH], "5000000");
    assert_eq!(answer.headers()[CONTENT_DISPOSITION], "attachment; filename=\"large_one.qcow2\"");
    let whole = answer.bytes().await.unwrap();
    assert_eq!(whole.len(), total);
    // A simulated image's bytes follow from where it came from.
    assert!(whole.chunks(32).all(|piece| piece == &whole[..piece.len()]) && whole[..16] != whole[16..32]);

    // Resumed in the middle, its beginning, its end, and more than there is.
    let (status, said, rest) = part(&web, &url, "bytes=1234567-").await;
    assert_eq!((status, said.as_str()), (StatusCode::PARTIAL_CONTENT, "bytes 1234567-4999999/5000000"));
    assert!(rest == whole[1_234_567..]);
    let (status, said, first) = part(&web, &url, "bytes=0-99").await;
    assert_eq!((status, said.as_str()), (StatusCode::PARTIAL_CONTENT, "bytes 0-99/5000000"));
    assert!(first == whole[..100]);
    assert!(part(&web, &url, "bytes=-7").await.2 == whole[total - 7..]);
    let (status, said, none) = part(&web, &url, "bytes=5000000-").await;
    assert_eq!((status, said.as_str(), none.len()), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */5000000", 0));
    let head = web.head(&url).send().await.unwrap();
    assert_eq!((head.status(), &head.headers()[CONTENT_LENGTH]), (StatusCode::OK, &"5000000".parse().unwrap()));
    assert_eq!(web.post(&url).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    // Not another's, and not changed.
    let forged = url.replacen("/download/", "/download/x", 1);
    assert_eq!(web.get(&forged).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    // A volume, once its machine is off.
    let vm = text(&api.run("deployVirtualMachine", &deploy_params(&ids, "one")).await.unwrap(), "/virtualmachine/id");
    let root = api.call("listVolumes", &[("virtualmachineid", &vm), ("type", "ROOT")]).await.unwrap();
    let (root, size) = (text(&root, "/volume/0/id"), root.pointer("/volume/0/size").and_then(Value::as_u64).unwrap());
    let order = [("id", root.as_str()), ("zoneid", &ids[0]), ("mode", "HTTP_DOWNLOAD")];
    let refused = api.run("extractVolume", &order).await.unwrap_err().to_string();
    assert!(refused.contains("stopped state"), "{refused}");
    api.run("stopVirtualMachine", &[("id", &vm), ("forced", "true")]).await.unwrap();
    let given = text(&api.run("extractVolume", &order).await.unwrap(), "/volume/url");
    let head = web.head(&given).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()[CONTENT_LENGTH].to_str().unwrap()),
        (StatusCode::OK, size.to_string().as_str())
    );
    assert_eq!(part(&web, &given, "bytes=10-19").await.2.len(), 10);

    // What is deleted can't be downloaded any more.
    api.run("deleteTemplate", &[("id", &template)]).await.unwrap();
    let gone = || async { web.get(&url).send().await.unwrap().status() == StatusCode::NOT_FOUND };
    wait_until(gone, Duration::from_secs(60)).await;

    // Set back to a snapshot, by a policy that keeps one.
    let policy = [
        ("volumeid", root.as_str()),
        ("intervaltype", "HOURLY"),
        ("schedule", "5"),
        ("timezone", "Europe/Berlin"),
        ("maxsnaps", "1"),
    ];
    let policy = text(&api.call("createSnapshotPolicy", &policy).await.unwrap(), "/snapshotpolicy/id");
    let listed = api.call("listSnapshotPolicies", &[("volumeid", &root)]).await.unwrap();
    assert_eq!(
        (text(&listed, "/snapshotpolicy/0/id"), listed.pointer("/snapshotpolicy/0/intervaltype")),
        (policy.clone(), Some(&Value::from(0)))
    );
    let snapshot =
        text(&api.run("createSnapshot", &[("volumeid", &root), ("name", "s")]).await.unwrap(), "/snapshot/id");
    let back = api.run("revertSnapshot", &[("id", &snapshot)]).await.unwrap();
    assert_eq!(text(&back, "/snapshot/id"), snapshot);
    api.call("deleteSnapshotPolicies", &[("id", &policy)]).await.unwrap();
    api.run("startVirtualMachine", &[("id", &vm)]).await.unwrap();
    dev.settle().await;
    dev.audit().await;
}
