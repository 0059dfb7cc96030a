//! A secondary store that is a bucket of an S3 server.

use crate::world::{World, text};
use crate::zone;
use std::path::PathBuf;
use testkit::S3;

/// The bucket.
const BUCKET: &str = "images";

/// The server, and where the bucket's objects lie.
pub struct Bucket {
    _server: S3,
    pub folder: PathBuf,
}

impl Bucket {
    /// A server that hosts reach, whose bucket is the zone's only secondary store.
    pub async fn add(world: &World) -> Bucket {
        let server = S3::start_at(&world.network.control().to_string(), &[BUCKET]).await;
        let endpoint = server.endpoint().trim_start_matches("http://").to_owned();
        let params = [
            ("accesskey", S3::ACCESS_KEY),
            ("secretkey", S3::SECRET_KEY),
            ("endpoint", endpoint.as_str()),
            ("bucket", BUCKET),
            ("usehttps", "false"),
        ];
        world.run("addImageStoreS3", &params).await;
        let listed = world.first("listImageStores", "imagestore", &[("provider", "S3")]).await;
        assert_eq!((&listed["protocol"], &listed["scope"]), (&"http".into(), &"REGION".into()), "{listed}");
        assert!(!listed.to_string().contains(S3::SECRET_KEY), "{listed}");
        Bucket { folder: server.bucket(BUCKET), _server: server }
    }

    /// Sizes of its objects.
    pub fn sizes(&self) -> Vec<u64> {
        let out = std::process::Command::new("find").arg(&self.folder).args(["-type", "f", "-printf", "%s\n"]).output();
        let out = String::from_utf8_lossy(&out.unwrap().stdout).into_owned();
        out.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The template is downloaded from it by whoever has the URL, whole and in parts.
    pub async fn downloaded(&self, world: &World) {
        let endpoint = format!("http://{}/client/api", world.control.address());
        world.run("updateConfiguration", &[("name", "endpointe.url"), ("value", &endpoint)]).await;
        let order = [("id", world.id("template")), ("zoneid", world.id("zone")), ("mode", "HTTP_DOWNLOAD")];
        let url = text(&world.run("extractTemplate", &order).await, "/template/url");
        let image = std::fs::read(world.folder("images").join("guest.qcow2")).unwrap();
        let web = reqwest::Client::new();
        let whole = web.get(&url).send().await.unwrap();
        assert_eq!(whole.status(), reqwest::StatusCode::OK);
        assert!(whole.bytes().await.unwrap() == image);
        let part = web.get(&url).header(reqwest::header::RANGE, "bytes=1234567-2345678").send().await.unwrap();
        assert_eq!(part.status(), reqwest::StatusCode::PARTIAL_CONTENT);
        assert!(part.bytes().await.unwrap() == image[1_234_567..=2_345_678]);
    }

    /// A template lies in it as it was downloaded.
    pub async fn template(&self, world: &mut World) {
        let size = zone::good_template(world).await;
        assert!(self.sizes().contains(&size), "{:?} of {size}", self.sizes());
    }
}
