//! Where a router's files are.

use std::path::{Path, PathBuf};

/// The folder of one router and the files in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.dir.join($path) })*
    };
}

impl Layout {
    /// Of the router whose folder this is.
    pub fn new(dir: impl Into<PathBuf>) -> Layout {
        Layout { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    files! {
        /// The newest wanted state, as a whole `ApplyRouter`.
        wanted = "wanted";
        /// The sections that are in force, as a `RouterSpec`.
        in_force = "in-force";
        /// Is there while the router is being removed.
        leaving = "leaving";
        /// The networks whose bridges the router may have made.
        segments = "segments";
        /// Which guests took which password.
        taken = "taken";
        /// The ruleset, for nft.
        rules = "rules";
        /// dnsmasq's folder.
        dnsmasq = "dnsmasq";
        /// Its configuration.
        dnsmasq_conf = "dnsmasq/conf";
        /// Who gets which address.
        dnsmasq_leases = "dnsmasq/guests";
        /// What else they are told.
        dnsmasq_options = "dnsmasq/options";
        /// Names.
        dnsmasq_names = "dnsmasq/names";
        /// The leases that were given; dnsmasq's own.
        dnsmasq_given = "dnsmasq/given";
        /// Written by dnsmasq.
        dnsmasq_pid = "dnsmasq/pid";
        /// Our record of the process.
        dnsmasq_process = "dnsmasq/process";
        /// haproxy's folder.
        haproxy = "haproxy";
        /// Its configuration.
        haproxy_conf = "haproxy/conf";
        /// Its control socket.
        haproxy_socket = "haproxy/stats";
        /// Written by haproxy.
        haproxy_pid = "haproxy/pid";
        /// Our record of the process.
        haproxy_process = "haproxy/process";
    }
}
