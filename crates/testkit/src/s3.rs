//! An S3 server: rclone over a folder. It checks signatures. What it gives of a range is right, but for the status, which is 200: haproxy
//! in front of it puts that right, for clients take nothing but 206.

use crate::{Process, free_ports, temp_dir, wait_until};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server whose buckets are the folders of one folder.
#[derive(Debug)]
pub struct S3 {
    // In this order: who is in front ends first.
    _front: Process,
    _server: Process,
    folder: tempfile::TempDir,
    address: String,
}

fn program() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the test binary");
    let target = exe.ancestors().find(|p| p.file_name().is_some_and(|n| n == "target")).expect("target");
    let program = target.join("tools/bin/rclone");
    assert!(program.exists(), "{} is missing: run deploy/setup-dev test", program.display());
    program
}

/// Signatures name the host that was asked: its name is passed on as it came.
fn front(address: &str, behind: &str) -> String {
    format!(
        "defaults\n    mode http\n    timeout connect 60s\n    timeout client 300s\n    timeout server 300s\n\
         frontend s3\n    bind {address}\n    http-response set-status 206 if {{ res.hdr(Content-Range) -m found }}\n    \
         default_backend rclone\n\
         backend rclone\n    server rclone {behind}\n"
    )
}

impl S3 {
    /// The access key that it accepts.
    pub const ACCESS_KEY: &str = "testkit-access";
    /// Its secret.
    pub const SECRET_KEY: &str = "testkit-secret";

    /// Starts a server on 127.0.0.1 with these buckets, empty.
    pub async fn start(buckets: &[&str]) -> S3 {
        S3::start_at("127.0.0.1", buckets).await
    }

    /// The same at another IP address of this machine.
    pub async fn start_at(ip: &str, buckets: &[&str]) -> S3 {
        let folder = temp_dir();
        for bucket in buckets {
            std::fs::create_dir_all(folder.path().join("data").join(bucket)).expect("a bucket");
        }
        let ports = free_ports(2);
        let keys = format!("{},{}", S3::ACCESS_KEY, S3::SECRET_KEY);
        let (address, behind) = (format!("{ip}:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let (data, config) = (folder.path().join("data"), folder.path().join("rclone.conf"));
        let program = program();
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let command = [
            text(&program),
            "serve".into(),
            "s3".into(),
            format!("--config={}", text(&config)),
            format!("--auth-key={keys}"),
            format!("--addr={behind}"),
            text(&data),
        ];
        let server = Process::start(&command, &folder.path().join("log"), None);
        let proxy = folder.path().join("haproxy.cfg");
        std::fs::write(&proxy, front(&address, &behind)).expect("haproxy's configuration");
        let command = ["haproxy".into(), "-db".into(), "-q".into(), "-f".into(), text(&proxy)];
        let front = Process::start(&command, &folder.path().join("haproxy.log"), None);
        for address in [&behind, &address] {
            let reach = || async { tokio::net::TcpStream::connect(address).await.is_ok() };
            wait_until(reach, Duration::from_secs(60)).await;
        }
        S3 { _front: front, _server: server, folder, address }
    }

    /// `http://IP:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where a bucket's objects lie as files.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }
}
