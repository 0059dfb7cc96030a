//! `arcus audit --config` against the running whole: over mTLS to hosts, and without a right to write to the database.

use crate::{alone, deploy, few_hosts};
use cluster::Cluster;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// What an audit said: its exit code, and all that it printed.
pub struct Said {
    pub code: Option<i32>,
    pub text: String,
}

/// Runs `arcus audit --config FILE`.
pub async fn audit(config: &Path) -> Said {
    let mut command = Command::new(cluster::arcus_binary().unwrap());
    command.args(["audit", "--config"]).arg(config).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(180), command.output()).await.expect("it ends").unwrap();
    let text = [output.stdout, output.stderr].concat();
    Said { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
}

/// The configuration of the cluster with `from` replaced by `to`.
fn changed(cluster: &Cluster, name: &str, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(cluster.config_file()).unwrap();
    assert!(text.contains(from), "{from} isn't in the configuration");
    let file = cluster.dir().join(name);
    std::fs::write(&file, text.replace(from, to)).unwrap();
    file
}

/// A configuration whose database user may only read.
pub async fn looker(cluster: &Cluster) -> PathBuf {
    let user = "CREATE USER looker@'%' IDENTIFIED BY 'looks'; GRANT SELECT ON arcus.* TO looker@'%'";
    cluster.sql(user).await.unwrap();
    let url = cluster.database_url();
    let (_, hosts) = url.split_once('@').unwrap();
    changed(cluster, "looker.toml", &url, &format!("mysql://looker:looks@{hosts}"))
}

fn clean(said: &Said, hosts: usize) {
    let all = format!("{hosts} hosts told what they run");
    let clean = said.code == Some(0) && said.text.contains(" 0 violations") && said.text.contains(&all);
    assert!(clean && !said.text.contains("not asked"), "{:?}: {}", said.code, said.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn an_audit_reads_and_names_what_is_wrong() {
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let cluster = Cluster::start(few_hosts(dir.path())).await.unwrap();
    deploy(cluster.api(), "one").await;
    let written = async || {
        let sql = "SELECT (SELECT COUNT(*) FROM arcus.issued_certificates), (SELECT COUNT(*) FROM arcus.schema_steps)";
        cluster.sql(sql).await.unwrap()
    };
    let before = written().await;
    clean(&audit(&cluster.config_file()).await, 4);
    let looker = looker(&cluster).await;
    clean(&audit(&looker).await, 4);
    assert_eq!(written().await, before, "an audit writes nothing");

    // What is wrong is named, whoever asks.
    let count = |by: &str| format!("UPDATE arcus.resource_counts SET used = used {by} WHERE slot = 'account/2/0'");
    cluster.sql(&count("+ 1")).await.unwrap();
    for config in [cluster.config_file(), looker.clone()] {
        let said = audit(&config).await;
        let named = said.text.contains("limit-count") && said.text.contains("count/account/2/0");
        assert!(said.code == Some(1) && named && said.text.contains(" 1 violations"), "{:?}: {}", said.code, said.text);
    }
    cluster.sql(&count("- 1")).await.unwrap();
    clean(&audit(&looker).await, 4);

    // What can't be checked isn't called clean, and nothing is made to help it.
    let refused = async |config: &Path, why: &str| {
        let said = audit(config).await;
        assert!(said.code == Some(2) && said.text.contains(why), "{:?}: {}", said.code, said.text);
    };
    let key = cluster.dir().join("master.key").display().to_string();
    let no_key = changed(&cluster, "no-key.toml", &key, &format!("{key}.none"));
    refused(&no_key, "master.key.none doesn't exist").await;
    assert!(!Path::new(&format!("{key}.none")).exists());
    let no_database = changed(&cluster, "no-database.toml", "/arcus\"", "/nowhere\"");
    refused(&no_database, "nowhere").await;
    assert_eq!(cluster.sql("SHOW DATABASES LIKE 'nowhere'").await.unwrap(), "");
    let future = "INSERT INTO arcus.schema_steps (owner, file, step, checksum, applied) VALUES ('usage', '9999_new.sql', 0, 'x', 0)";
    cluster.sql(future).await.unwrap();
    refused(&cluster.config_file(), "the schema is a newer version's: usage/9999_new.sql").await;
    cluster.sql("DELETE FROM arcus.schema_steps WHERE file = '9999_new.sql'").await.unwrap();
    let past = "DELETE FROM arcus.schema_steps WHERE owner = 'usage' AND file = '0003_database_nodes.sql'";
    cluster.sql(past).await.unwrap();
    let before = written().await;
    refused(&cluster.config_file(), "the schema is an older version's: usage/0003_database_nodes.sql").await;
    assert_eq!(written().await, before);
    cluster.shut_down().await;
}
