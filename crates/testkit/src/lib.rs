//! Real parts for tests: MariaDB, Galera, etcd, libvirt, guests, free ports, temporary folders, waiting on conditions.
//!
//! Nothing here is a double. Each server is a plain process with a port, a socket and a folder of its own, and dies
//! with the test process even when that is killed (see [`Process`]).
//!
//! ```ignore
//! testkit::databases! {
//!     /// Runs once on SQLite and once on MariaDB, each with an empty database.
//!     async fn rows_survive(db: testkit::TestDb) {
//!         let db = store::Db::connect(&store::DbConfig::new(db.url())).await.unwrap();
//!     }
//! }
//! ```
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test that can't set up its parts has failed

pub mod container;
mod database;
pub mod debian;
mod etcd;
mod galera;
pub mod guest;
mod libvirt;
mod mariadb;
mod place;
mod ports;
mod process;
mod s3;
mod wait;

pub use database::TestDb;
pub use etcd::Etcd;
pub use galera::Galera;
pub use libvirt::{HostOptions, Libvirtd};
pub use mariadb::{Durability, MariaDb};
pub use place::{Place, ServerOptions};
pub use ports::{free_port, free_ports};
pub use process::Process;
pub use s3::S3;
pub use wait::{eventually, least, until_ok, wait_until};

/// A temporary folder, removed when dropped.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("arcus-").tempdir().expect("a temporary folder")
}

/// Where prepared data is kept between runs: `target/tmp/testkit`.
pub(crate) fn cache_dir() -> std::path::PathBuf {
    let exe = std::env::current_exe().expect("the path of the test binary");
    let target = exe.ancestors().find(|p| p.file_name().is_some_and(|n| n == "target"));
    let dir = target.map_or_else(std::env::temp_dir, |t| t.join("tmp")).join("testkit");
    std::fs::create_dir_all(&dir).expect("the cache folder");
    dir
}
