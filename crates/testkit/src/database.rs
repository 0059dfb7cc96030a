//! The same test on every database.

use crate::MariaDb;
use tempfile::TempDir;

/// An empty database for one test.
#[derive(Debug)]
pub struct TestDb {
    url: String,
    _dir: Option<TempDir>,
}

impl TestDb {
    /// A SQLite file in a folder of its own.
    pub fn sqlite() -> TestDb {
        let dir = crate::temp_dir();
        TestDb { url: format!("sqlite:{}", dir.path().join("test.db").display()), _dir: Some(dir) }
    }

    /// A database on the MariaDB server that this process's tests share.
    pub async fn mariadb() -> TestDb {
        TestDb { url: MariaDb::shared().await.fresh_url(), _dir: None }
    }

    /// What `store::DbConfig::new` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is SQLite.
    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }
}

/// Makes of each `async fn name(db: testkit::TestDb) { … }` two tests: `name::sqlite` and `name::mariadb`.
/// The crate that uses it needs tokio with macros among its dev-dependencies.
#[macro_export]
macro_rules! databases {
    ($($(#[$meta:meta])* async fn $name:ident($db:ident : $ty:ty) $body:block)*) => {
        $(
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                $(#[$meta])*
                async fn test($db: $ty) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    test($crate::TestDb::sqlite()).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn mariadb() {
                    test($crate::TestDb::mariadb().await).await;
                }
            }
        )*
    };
}
