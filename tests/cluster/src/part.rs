//! The parts of a cluster.

use std::fmt;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A replica of this service.
    Service(&'static str),
    /// An agent with simulated hosts.
    Agent,
    /// A member of etcd.
    Etcd,
    /// A node of the database.
    Database,
    /// The load balancer in front.
    Balancer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Service(service) => service,
            Kind::Agent => "agent",
            Kind::Etcd => "etcd",
            Kind::Database => "database",
            Kind::Balancer => "balancer",
        })
    }
}

/// One process of a cluster.
#[derive(Clone, Debug)]
pub struct Part {
    /// "orchestrator-1".
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its process, unless it was killed or stopped.
    pub pid: Option<u32>,
}
