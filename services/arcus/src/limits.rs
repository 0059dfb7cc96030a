//! `[gateway.limits]`: how many requests are at work and may wait, how long, and what is refused as too large or too many.

use anyhow::{Context, Result, bail, ensure};
use gateway::Limits;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The table; what isn't set has the gateway's default. All numbers are wide, so that one out of range is told by its key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// Requests at work for each service behind.
    at_work: Option<i64>,
    /// Requests of one account that may wait for a service.
    account_queue: Option<i64>,
    /// Requests of all accounts that may wait for a service.
    queue: Option<i64>,
    /// Look-ups and logins at work for callers who aren't known yet.
    strangers: Option<i64>,
    /// Of them, those of one address that may wait.
    address_queue: Option<i64>,
    /// How long a request waits at most.
    wait_seconds: Option<f64>,
    /// The wait that a queue may keep up.
    target_wait_seconds: Option<f64>,
    /// How long a queue may stand before its waits are cut to the target.
    standing_seconds: Option<f64>,
    /// Most connections at a time, of each port.
    connections: Option<i64>,
    /// Of them, those of one address.
    address_connections: Option<i64>,
    /// Most bytes of the request line and headers.
    head_bytes: Option<i64>,
    /// Most bytes of a body.
    body_bytes: Option<i64>,
    /// Most bytes of large bodies at a time.
    large_bodies_bytes: Option<i64>,
    /// How long a head or a body may take to arrive, and a connection may be idle.
    arrival_seconds: Option<f64>,
    /// How long an answer may take, its wait included.
    answer_seconds: Option<f64>,
}

/// Files that aren't clients' connections: the database, etcd, other services, logs.
const OTHER_FILES: usize = 256;
/// Most of anything that is counted: more is a mistake in the file.
const MANY: i64 = 1_000_000;
/// Largest head and body that may be allowed.
const LARGE: i64 = 1 << 30;
/// Longest time that may be set.
const LONG: f64 = 86_400.0;
/// The server reads at least this much of a head.
const LEAST_HEAD: i64 = 8192;

impl LimitsTable {
    /// The table of `key=value` flags, written as in the file.
    ///
    /// # Errors
    /// The flag that isn't one.
    pub fn of_flags(flags: &[String]) -> Result<LimitsTable> {
        for flag in flags {
            toml::from_str::<LimitsTable>(flag).map_err(|e| anyhow::anyhow!("--limit {flag}: {}", e.message()))?;
        }
        toml::from_str(&flags.join("\n")).map_err(|e| anyhow::anyhow!("--limit: {}", e.message()))
    }

    /// The gateway's limits. What follows from another key, and isn't set itself, keeps within that.
    ///
    /// # Errors
    /// The key whose value can't be, and why.
    pub fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        let queues = &mut limits.queues;
        count("at_work", self.at_work, 1..=MANY, &mut queues.at_work)?;
        count("queue", self.queue, 1..=MANY, &mut queues.all)?;
        queues.account = queues.account.min(queues.all);
        count("account_queue", self.account_queue, 1..=MANY, &mut queues.account)?;
        count("strangers", self.strangers, 2..=MANY, &mut queues.strangers)?;
        count("address_queue", self.address_queue, 1..=MANY, &mut queues.address)?;
        let patience = &mut queues.patience;
        time("wait_seconds", self.wait_seconds, &mut patience.longest)?;
        patience.target = patience.target.min(patience.longest);
        time("target_wait_seconds", self.target_wait_seconds, &mut patience.target)?;
        time("standing_seconds", self.standing_seconds, &mut patience.standing)?;
        count("connections", self.connections, 1..=MANY, &mut limits.connections)?;
        limits.address_connections = limits.address_connections.min(limits.connections.div_ceil(2));
        count("address_connections", self.address_connections, 1..=MANY, &mut limits.address_connections)?;
        count("head_bytes", self.head_bytes, LEAST_HEAD..=LARGE, &mut limits.head)?;
        count("body_bytes", self.body_bytes, 1024..=LARGE, &mut limits.body)?;
        limits.bodies = limits.bodies.max(limits.body);
        count("large_bodies_bytes", self.large_bodies_bytes, 1024..=64 * LARGE, &mut limits.bodies)?;
        time("arrival_seconds", self.arrival_seconds, &mut limits.arrival)?;
        time("answer_seconds", self.answer_seconds, &mut limits.answer)?;
        fit(&limits)?;
        Ok(limits)
    }

    /// The gateway's limits in this process, which may have so many files open at a time: a default number of connections
    /// shrinks to that, because a process without a file left can't even serve those who are connected.
    ///
    /// # Errors
    /// As [`LimitsTable::limits`]; or more connections are set than there can be.
    pub fn limits_within(&self, open_files: Option<usize>) -> Result<Limits> {
        let mut limits = self.limits()?;
        let Some(room) = open_files.map(|files| files.saturating_sub(OTHER_FILES).max(1)) else { return Ok(limits) };
        if limits.connections <= room {
            return Ok(limits);
        }
        let (wanted, files) = (limits.connections, room + OTHER_FILES);
        ensure!(
            self.connections.is_none(),
            "[gateway.limits] connections = {wanted}: this process may open {files} files, of which {OTHER_FILES} are kept for \
             other things: raise its limit (LimitNOFILE, ulimit -n) or set less"
        );
        tracing::warn!(open_files = files, connections = room, "fewer connections than {wanted}: raise LimitNOFILE");
        limits.connections = room;
        if self.address_connections.is_none() {
            limits.address_connections = limits.address_connections.min(room.div_ceil(2));
        }
        fit(&limits)?;
        Ok(limits)
    }
}

/// How many files this process may have open at a time; none when the system doesn't tell.
pub fn open_files() -> Option<usize> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(table: &str) -> Option<usize> {
    table.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// Whether the limits go together.
fn fit(limits: &Limits) -> Result<()> {
    let queues = &limits.queues;
    let most = |key: &str, value: usize, other: &str, bound: usize| {
        ensure!(value <= bound, "[gateway.limits] {key} = {value} is more than {other} = {bound}");
        Ok(())
    };
    most("account_queue", queues.account, "queue", queues.all)?;
    most("address_connections", limits.address_connections, "connections", limits.connections)?;
    most("body_bytes", limits.body, "large_bodies_bytes", limits.bodies)?;
    let patience = queues.patience;
    let (target, wait, answer) = (patience.target.as_secs_f64(), patience.longest.as_secs_f64(), limits.answer);
    ensure!(target <= wait, "[gateway.limits] target_wait_seconds = {target} is more than wait_seconds = {wait}");
    // Else a request that has only waited would be told that it may have been done.
    let answer = answer.as_secs_f64();
    ensure!(wait < answer, "[gateway.limits] wait_seconds = {wait} must be less than answer_seconds = {answer}");
    Ok(())
}

fn count(key: &str, set: Option<i64>, range: RangeInclusive<i64>, value: &mut usize) -> Result<()> {
    let Some(set) = set else { return Ok(()) };
    if !range.contains(&set) {
        bail!("[gateway.limits] {key} = {set}: must be from {} to {}", range.start(), range.end());
    }
    *value = usize::try_from(set).with_context(|| format!("[gateway.limits] {key}"))?;
    Ok(())
}

fn time(key: &str, set: Option<f64>, value: &mut Duration) -> Result<()> {
    let Some(set) = set else { return Ok(()) };
    ensure!((0.001..=LONG).contains(&set), "[gateway.limits] {key} = {set}: must be from 0.001 to {LONG} seconds");
    *value = Duration::try_from_secs_f64(set).with_context(|| format!("[gateway.limits] {key}"))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits> {
        toml::from_str::<LimitsTable>(text).unwrap().limits()
    }

    #[test]
    fn nothing_set_is_the_gateways_default() {
        assert_eq!(limits("").unwrap(), Limits::default());
    }

    #[test]
    fn each_key_sets_its_limit() {
        let set = limits(
            "at_work = 3\naccount_queue = 4\nqueue = 5\nstrangers = 6\naddress_queue = 7\nwait_seconds = 8\n\
             target_wait_seconds = 0.25\nstanding_seconds = 9.5\nconnections = 11\naddress_connections = 10\n\
             head_bytes = 12288\nbody_bytes = 13000\nlarge_bodies_bytes = 14000\narrival_seconds = 15\nanswer_seconds = 16",
        );
        let set = set.unwrap();
        let queues = &set.queues;
        assert_eq!((queues.at_work, queues.account, queues.all, queues.strangers, queues.address), (3, 4, 5, 6, 7));
        let seconds = Duration::from_secs_f64;
        let patience = &queues.patience;
        assert_eq!((patience.longest, patience.target, patience.standing), (seconds(8.0), seconds(0.25), seconds(9.5)));
        assert_eq!(
            (set.connections, set.address_connections, set.head, set.body, set.bodies),
            (11, 10, 12288, 13000, 14000)
        );
        assert_eq!((set.arrival, set.answer), (seconds(15.0), seconds(16.0)));
    }

    #[test]
    fn what_is_not_set_keeps_within_what_is() {
        let set = limits("queue = 10\nconnections = 20\nwait_seconds = 0.5\nbody_bytes = 100000000").unwrap();
        assert_eq!((set.queues.account, set.address_connections, set.bodies), (10, 10, 100_000_000));
        assert_eq!(set.queues.patience.target, Duration::from_millis(500));
    }

    #[test]
    fn what_cannot_be_is_told_by_its_key() {
        let wrong = [
            ("at_work = 0", "at_work = 0"),
            ("account_queue = -1", "account_queue = -1"),
            ("account_queue = 5000", "account_queue = 5000 is more than queue = 4096"),
            ("queue = 2000000", "queue = 2000000"),
            ("strangers = 1", "strangers = 1: must be from 2"),
            ("address_queue = 0", "address_queue = 0"),
            ("wait_seconds = -3", "wait_seconds = -3"),
            ("wait_seconds = nan", "wait_seconds = NaN"),
            ("wait_seconds = 300", "wait_seconds = 300 must be less than answer_seconds = 300"),
            ("target_wait_seconds = 30", "target_wait_seconds = 30 is more than wait_seconds = 20"),
            ("standing_seconds = inf", "standing_seconds = inf"),
            ("connections = 0", "connections = 0"),
            ("connections = 10\naddress_connections = 11", "address_connections = 11 is more than connections = 10"),
            ("head_bytes = 100", "head_bytes = 100"),
            ("body_bytes = 0", "body_bytes = 0"),
            ("large_bodies_bytes = 2000", "body_bytes = 2097152 is more than large_bodies_bytes = 2000"),
            ("arrival_seconds = 0", "arrival_seconds = 0"),
            ("answer_seconds = 1e9", "answer_seconds = 1000000000"),
        ];
        for (text, told) in wrong {
            let error = format!("{:#}", limits(text).expect_err(text));
            assert!(error.starts_with("[gateway.limits] ") && error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn connections_fit_in_what_may_be_open() {
        let table = |text: &str| toml::from_str::<LimitsTable>(text).unwrap();
        let within = table("").limits_within(Some(1024)).unwrap();
        assert_eq!((within.connections, within.address_connections), (768, 384));
        for files in [Some(20_000), None] {
            assert_eq!(table("").limits_within(files).unwrap(), Limits::default());
        }
        assert_eq!(table("connections = 768").limits_within(Some(1024)).unwrap().connections, 768);
        let error = table("connections = 769").limits_within(Some(1024)).unwrap_err().to_string();
        assert!(error.contains("connections = 769: this process may open 1024 files"), "{error}");
        let error = table("address_connections = 5000").limits_within(Some(1024)).unwrap_err().to_string();
        assert!(error.contains("address_connections = 5000 is more than connections = 768"), "{error}");
        assert_eq!(
            soft_limit("Limit  Soft  Hard  Units\nMax open files            1024      4096      files\n"),
            Some(1024)
        );
        assert_eq!(soft_limit("Max open files            unlimited unlimited files\n"), None);
        assert!(open_files().is_none_or(|n| n > 2));
    }

    #[test]
    fn flags_are_written_as_the_file() {
        let flags = |all: &[&str]| LimitsTable::of_flags(&all.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        assert_eq!(flags(&[]).unwrap(), LimitsTable::default());
        let two = flags(&["at_work=3", "wait_seconds=0.5"]).unwrap();
        assert_eq!((two.at_work, two.wait_seconds), (Some(3), Some(0.5)));
        for wrong in [&["at_wrok=3"][..], &["at_work=many"], &["at_work"], &["at_work=1", "at_work=2"]] {
            let error = format!("{:#}", flags(wrong).unwrap_err());
            assert!(error.starts_with("--limit"), "{error}");
        }
    }
}
