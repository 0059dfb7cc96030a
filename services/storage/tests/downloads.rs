//! URLs by which templates, ISOs and volumes can be downloaded, up to the storage service's part; the gateway's is the system test's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, World, ZONE, admin, error, exec, user, uuid};
use contract::ApiError;
use contract::api::{Caller, JobRef};
use contract_storage::downloads_client::DownloadsClient;
use contract_storage::templates_client::TemplatesClient;
use contract_storage::volumes_client::VolumesClient;
use contract_storage::*;
use rpc::cx::request;

async fn ended(w: &World, job: JobRef) -> Result<Extraction, ApiError> {
    w.output(&job.job_id).await
}

/// A template of "ann", ready.
async fn template(w: &World, extractable: bool) -> Template {
    exec(w.db(), "UPDATE zones SET allocation_state = 'Enabled'").await;
    let order = RegisterTemplateRequest {
        // A long name: its token is longer than parameters ordinarily may be.
        name: Some(format!("my template/1 {}", "x".repeat(40))),
        display_text: Some("t".into()),
        format: Some("QCOW2".into()),
        hypervisor: Some("Simulator".into()),
        os_type_id: Some(uuid("os", 142)),
        url: Some("http://images.example/a.qcow2".into()),
        zone_id: Some(ZONE.into()),
        is_extractable: Some(extractable),
        ..Default::default()
    };
    let mut api = TemplatesClient::new(w.node.peers.storage());
    let made = api.register(request(&user(), order)).await.unwrap().into_inner().template.remove(0);
    let ready = "SELECT COUNT(*) FROM template_store_refs r JOIN templates t ON t.id = r.template_id \
                 WHERE r.state = 'Ready' AND t.template_type = 'USER'";
    testkit::eventually(|| async { (w.count(ready).await == 1).then_some(()) }).await;
    made
}

/// All of a file, piece by piece, as the gateway asks for it.
async fn download(w: &World, url: &str) -> Result<(Vec<u8>, String), ApiError> {
    let rest = url.strip_prefix("http://localhost:8080/client/download/").expect(url);
    let (token, name) = rest.split_once('/').unwrap();
    assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b)), "{rest}");
    let mut api = DownloadsClient::new(w.node.peers.storage());
    let ask = |offset, length| ReadDownloadRequest { token: token.to_owned(), offset, length };
    let total = api.read(request(&admin(), ask(0, 0))).await.map_err(error)?.into_inner().total;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < total {
        let piece = api.read(request(&admin(), ask(bytes.len() as u64, 1 << 20))).await.map_err(error)?.into_inner();
        assert!(!piece.data.is_empty() && piece.total == total && piece.name == name);
        bytes.extend(piece.data);
    }
    Ok((bytes, name.to_owned()))
}

testkit::databases! {
    // covers: TPL-043
    async fn a_template_can_be_downloaded_by_its_url(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let t = template(&w, true).await;
        let mut api = TemplatesClient::new(w.node.peers.storage());
        let order = ExtractTemplateRequest {
            id: t.id.clone(),
            mode: Some("HTTP_DOWNLOAD".into()),
            zone_id: Some(ZONE.into()),
            ..Default::default()
        };
        let job = api.extract(request(&user(), order.clone())).await.unwrap().into_inner();
        let made = ended(&w, job).await.unwrap();
        assert_eq!((made.id.clone(), made.state.as_deref(), made.extract_mode.as_deref()), (t.id.clone(), Some("DOWNLOAD_URL_CREATED"), Some("HTTP_DOWNLOAD")));
        assert_eq!((made.zone_id.as_deref(), made.account_id), (Some(ZONE), Some(uuid("account", 3))));
        let url = made.url.unwrap();
        let (bytes, name) = download(&w, &url).await.unwrap();
        let path: String = w.db().one("SELECT path FROM template_store_refs WHERE content_sum IS NOT NULL".into()).await.unwrap().at(0).unwrap();
        assert!(bytes == common::content(&path) && name.starts_with("my_template_1_x") && name.ends_with("x.qcow2"), "{name}");

        // A host that is away is no loss; without any the gateway is told to try again.
        for host in 1..=4 {
            w.hosts.away(host, true);
        }
        assert_eq!(download(&w, &url).await.unwrap_err().code, 534);
        w.hosts.away(3, false);
        exec(w.db(), "UPDATE hosts SET status = 'Disconnected' WHERE id IN (1, 2)").await;
        assert!(download(&w, &url).await.is_ok());
        for host in 1..=4 {
            w.hosts.away(host, false);
        }

        // Nobody makes or changes a URL.
        let forged = url.replace("/download/v", "/download/w");
        assert_eq!(download(&w, &forged).await.unwrap_err().code, 431);
        for (code, caller, order) in [
            (431, user(), ExtractTemplateRequest { mode: Some("FTP_UPLOAD".into()), ..order.clone() }),
            (431, user(), ExtractTemplateRequest { mode: None, ..order.clone() }),
            (531, Caller { user_id: 4, account_id: 4, account_name: "bob".into(), ..user() }, order.clone()),
            (431, user(), ExtractTemplateRequest { id: Some(uuid("none", 1)), ..order.clone() }),
        ] {
            let e = error(api.extract(request(&caller, order.clone())).await.unwrap_err());
            assert_eq!(e.code, code, "{} {order:?}", e.text);
        }
        let iso = ExtractIsoRequest { id: t.id.clone(), mode: order.mode.clone(), ..Default::default() };
        assert_eq!(error(api.extract_iso(request(&user(), iso)).await.unwrap_err()).code, 431);

        // A template that is deleted can't be downloaded any more.
        let job = api.delete(request(&user(), DeleteTemplateRequest { id: t.id, ..Default::default() })).await.unwrap().into_inner();
        w.ended(&job.job_id).await;
        common::due(&w).await;
        testkit::eventually(|| async { (w.count("SELECT COUNT(*) FROM image_deletions").await == 0).then_some(()) }).await;
        assert_eq!(download(&w, &url).await.unwrap_err().code, 431);
    }

    // covers: TPL-053
    async fn only_administrators_download_what_is_not_extractable(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let t = template(&w, false).await;
        let mut api = TemplatesClient::new(w.node.peers.storage());
        let order = ExtractTemplateRequest { id: t.id.clone(), mode: Some("HTTP_DOWNLOAD".into()), ..Default::default() };
        let e = error(api.extract(request(&user(), order.clone())).await.unwrap_err());
        assert!(e.code == 431 && e.text.contains("not extractable"), "{}", e.text);
        let job = api.extract(request(&admin(), order.clone())).await.unwrap().into_inner();
        assert!(download(&w, &ended(&w, job).await.unwrap().url.unwrap()).await.is_ok());
        // Forbidden to all but administrators.
        exec(w.db(), "UPDATE templates SET extractable = 1").await;
        common::set(&w, "disable.extraction", "true").await;
        assert_eq!(error(api.extract(request(&user(), order.clone())).await.unwrap_err()).code, 531);
        assert!(api.extract(request(&admin(), order.clone())).await.is_ok());
        common::set(&w, "disable.extraction", "false").await;
        // What ships with simulated hosts is no file.
        let built_in: String = w.db().one("SELECT uuid FROM templates WHERE id = 111".into()).await.unwrap().at(0).unwrap();
        let order = ExtractTemplateRequest { id: Some(built_in), ..order };
        assert_eq!(error(api.extract(request(&admin(), order)).await.unwrap_err()).code, 431);
    }

    async fn urls_end(db: testkit::TestDb) {
        let w = World::new(db).await;
        w.image_store().await;
        let t = template(&w, true).await;
        common::set(&w, "extract.url.expiration.interval", "2").await;
        let mut api = TemplatesClient::new(w.node.peers.storage());
        let order = ExtractTemplateRequest { id: t.id.clone(), mode: Some("HTTP_DOWNLOAD".into()), ..Default::default() };
        let job = api.extract(request(&user(), order)).await.unwrap().into_inner();
        let url = ended(&w, job).await.unwrap().url.unwrap();
        testkit::eventually(|| async { download(&w, &url).await.is_err_and(|e| e.code == 431).then_some(()) }).await;
    }

    async fn a_volume_is_copied_and_the_copy_goes_with_its_url(db: testkit::TestDb) {
        let w = World::new(db).await;
        let store = w.image_store().await;
        w.pool("p1", 1, 100, "").await;
        common::vm(w.db(), 7, 3, "Running", Some(1)).await;
        let small = w.db().one("SELECT uuid FROM disk_offerings WHERE name = 'Small'".into()).await.unwrap().at(0).unwrap();
        let order = CreateVolumeRequest {
            name: Some("data".into()),
            zone_id: Some(ZONE.into()),
            disk_offering_id: Some(small),
            virtual_machine_id: Some(uuid("vm", 7)),
            ..Default::default()
        };
        let mut api = VolumesClient::new(w.node.peers.storage());
        let job = api.create(request(&user(), order)).await.unwrap().into_inner();
        let v: Volume = w.output(&job.job_id).await.unwrap();
        assert_eq!(v.size, Some(5 * GIB));
        let order = ExtractVolumeRequest {
            id: v.id.clone(),
            zone_id: Some(ZONE.into()),
            mode: Some("http_download".into()),
            ..Default::default()
        };
        let e = error(api.extract(request(&user(), order.clone())).await.unwrap_err());
        assert!(e.code == 431 && e.text.contains("stopped state"), "{}", e.text);
        exec(w.db(), "UPDATE vms SET state = 'Stopped', host_id = NULL").await;
        let job = api.extract(request(&user(), order.clone())).await.unwrap().into_inner();
        let made = ended(&w, job).await.unwrap();
        let (bytes, name) = download(&w, made.url.as_deref().unwrap()).await.unwrap();
        let (path, image) = w.hosts.images(Some(&store)).pop().unwrap();
        assert!(image.ready && bytes == common::content(&path) && name == "data.vhd");
        assert!(path.starts_with("downloads/3/"), "{path}");
        let due = "SELECT CAST((not_before - created) / 1000000 AS SIGNED) FROM image_deletions";
        assert_eq!(w.count(due).await, 14_400);
        common::due(&w).await;
        testkit::eventually(|| async { w.hosts.images(Some(&store)).is_empty().then_some(()) }).await;
        assert_eq!(download(&w, made.url.as_deref().unwrap()).await.unwrap_err().code, 431);

        // What fails leaves nothing.
        w.hosts.plan(v.id.as_deref().unwrap(), &[common::Say::Refuse("the disk is damaged")]);
        let job = api.extract(request(&user(), order)).await.unwrap().into_inner();
        assert!(ended(&w, job).await.unwrap_err().text.contains("the disk is damaged"));
        common::due(&w).await;
        testkit::eventually(|| async { (w.count("SELECT COUNT(*) FROM image_deletions").await == 0).then_some(()) }).await;
        assert!(w.hosts.images(Some(&store)).is_empty());
    }
}
