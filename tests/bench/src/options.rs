//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// A MariaDB server of its own with `innodb_flush_log_at_trx_commit=1`.
    Mariadb,
    /// SQLite in a folder of its own.
    Sqlite,
}

/// The command line.
#[derive(Parser)]
#[command(about = "Measures a cloud that speaks the CloudStack API")]
pub struct Cli {
    /// What is measured.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Subcommand)]
pub enum What {
    /// Starts an Arcus of its own and measures it.
    Own(Box<OwnArgs>),
    /// Measures a running server; its first enabled advanced zone has hosts, a template and room.
    Drive(Box<DriveArgs>),
    /// What disk and database give without Arcus.
    Raw(RawArgs),
}

/// The load.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Machines to grow to; at each size everything is measured.
    #[arg(long, value_delimiter = ',', default_value = "0,1000,10000")]
    pub vms: Vec<usize>,
    /// Isolated networks that they are spread over.
    #[arg(long, default_value_t = 10)]
    pub networks: usize,
    /// Accounts without limits that the networks belong to.
    #[arg(long, default_value_t = 5)]
    pub accounts: usize,
    /// Concurrent clients that deploy the machines of a size.
    #[arg(long, default_value_t = 64)]
    pub grow_clients: usize,
    /// Concurrent clients of deploys and destroys, a batch each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pub clients: Vec<usize>,
    /// Machines of a batch for each of its clients.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Seconds for which the open loop sends deploys; 0: no open loop.
    #[arg(long, default_value_t = 8.0)]
    pub open_seconds: f64,
    /// Deploys and destroys a second of the open loop; without: half of the most that the batches reached.
    #[arg(long)]
    pub deploy_rate: Option<f64>,
    /// Concurrent clients of the lists that the incumbent was measured with, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    pub readers: Vec<usize>,
    /// The same for the other lists.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    pub other_readers: Vec<usize>,
    /// Seconds of each run of a list.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Lists a second of the open loop: sent at that rate whether answered or not; without: half of the most that clients
    /// reached; 0: no open loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Hosts to enrol with `addHost`, in a cluster of their own; 0: none.
    #[arg(long, default_value_t = 0)]
    pub enrol: usize,
    /// Leave what was made (`drive`).
    #[arg(long)]
    pub keep: bool,
    /// Also write the figures there, one JSON object a line.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl Load {
    /// The sizes, growing, each once.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.vms.clone();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Flags of `own`.
#[derive(Args)]
pub struct OwnArgs {
    /// The database.
    #[arg(long, value_enum, default_value = "mariadb")]
    pub on: On,
    /// Simulated hosts.
    #[arg(long, default_value_t = 32)]
    pub hosts: usize,
    /// The binary.
    #[arg(long, default_value = "target/release/arcus")]
    pub arcus: String,
    /// Starts to measure.
    #[arg(long, default_value_t = 3)]
    pub starts: usize,
    /// Seconds after the start at which idle memory is measured.
    #[arg(long, default_value_t = 30)]
    pub idle: u64,
    /// How often to `kill -9` in a batch of 32 deploys; 0: never.
    #[arg(long = "recovery", num_args = 0..=1, default_value_t = 0, default_missing_value = "3")]
    pub kills: usize,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Flags of `drive`.
#[derive(Args)]
pub struct DriveArgs {
    /// "http://127.0.0.1:8080/client/api".
    #[arg(long)]
    pub url: String,
    /// Key of a root administrator.
    #[arg(long, env = "CLOUDSTACK_KEY")]
    pub apikey: String,
    /// Its secret key.
    #[arg(long, env = "CLOUDSTACK_SECRET", hide_env_values = true)]
    pub secretkey: String,
    /// The server's process, when it is on this machine: for memory and processor time.
    #[arg(long)]
    pub pid: Option<u32>,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Flags of `raw`.
#[derive(Args)]
pub struct RawArgs {
    /// Also write the figures there, one JSON object a line.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn own(words: &[&str]) -> Box<OwnArgs> {
        let all = ["arcus-bench", "own"].iter().chain(words);
        match Cli::try_parse_from(all).unwrap().what {
            What::Own(args) => args,
            _ => unreachable!("own was asked for"),
        }
    }

    #[test]
    fn flags() {
        assert_eq!(own(&["--vms", "300,0,100,300"]).load.sizes(), [0, 100, 300]);
        assert_eq!((own(&[]).kills, own(&["--recovery"]).kills, own(&["--recovery", "1"]).kills), (0, 3, 1));
        assert!(own(&["--recovery", "--enrol", "9"]).load.enrol == 9);
        assert!(Cli::try_parse_from(["arcus-bench", "drive", "--url", "http://x"]).is_err());
    }
}
