//! The nodes of a database URL.

use crate::{Error, Result};
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;
use std::str::FromStr;

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// `host:port`, as metrics show it.
    pub address: String,
    /// How to connect, with the database.
    pub options: MySqlConnectOptions,
}

/// The nodes of `mysql://user:password@h1:p1,h2:p2/database?options`, in their order of preference.
pub(super) fn parse(url: &str) -> Result<Vec<Host>> {
    let bad = || Error::Other("a URL like mysql://user:password@host:port,host:port/database is wanted".into());
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts
        .split(',')
        .map(|host| {
            let host = host.trim();
            if host.is_empty() {
                return Err(bad());
            }
            let options = MySqlConnectOptions::from_str(&format!("{scheme}://{user}{host}{path}"))?
                .charset("utf8mb4")
                .collation("utf8mb4_bin")
                .statement_cache_capacity(250)
                .disable_statement_logging();
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let address = if has_port { host.to_owned() } else { format!("{host}:3306") };
            Ok(Host { address, options })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_have_one_or_several_hosts() {
        let hosts = parse("mysql://root:p%40,w@10.0.0.1:3307,db2,[fe80::1]:3308/arcus?ssl-mode=disabled").unwrap();
        let addresses: Vec<&str> = hosts.iter().map(|h| h.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:3307", "db2:3306", "[fe80::1]:3308"]);
        assert!(hosts.iter().all(|h| h.options.get_database() == Some("arcus")));
        assert_eq!((hosts[1].options.get_host(), hosts[1].options.get_port()), ("db2", 3306));
        assert_eq!(parse("mysql://localhost/d").unwrap().len(), 1);
        assert!(parse("mysql://a,,b/d").is_err() && parse("nonsense").is_err());
    }
}
