//! Load balancing rules.

use crate::values::{self, Refusal};
use contract_agent as agent;
use ipnet::Ipv4Net;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

/// All rules of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Of all rules together.
    pub max_connections: u32,
    /// When a silent connection is closed, in seconds; 0: never.
    pub idle_seconds: u32,
    /// The rules.
    pub rules: Vec<Balancer>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// The rule.
    pub id: String,
    /// Where it is reached.
    pub public: (Ipv4Addr, u16),
    /// Of the members.
    pub port: u16,
    /// Who is next.
    pub algorithm: Algorithm,
    /// Whether members are told of the client by the PROXY protocol.
    pub send_proxy: bool,
    /// Guests.
    pub members: Vec<Ipv4Addr>,
    /// Who is served; empty: all.
    pub from: Vec<Ipv4Net>,
    /// Who comes back to the same member.
    pub stick: Option<Stick>,
}

/// How the next member is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// By the client's address.
    Source,
}

impl Algorithm {
    /// As haproxy and CloudStack call it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "roundrobin",
            Algorithm::LeastConnections => "leastconn",
            Algorithm::Source => "source",
        }
    }
}

/// A stickiness policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stick {
    /// By the client's address.
    Source {
        /// Clients that are remembered: "200k".
        size: String,
        /// For how long: "30m".
        expire: String,
    },
    /// By a cookie that the balancer makes.
    Cookie {
        /// Its name.
        name: String,
        /// What is done to it.
        mode: CookieMode,
        /// No caching of answers that set it.
        nocache: bool,
        /// Members don't see it.
        indirect: bool,
        /// Only answers to POST set it.
        postonly: bool,
        /// For which domain; absent: the browser's own.
        domain: Option<String>,
    },
    /// By a cookie of the application.
    AppCookie {
        /// Its name.
        name: String,
        /// Characters of it that count.
        length: String,
        /// For how long: "3h".
        hold: String,
        /// Whether clients' cookies that no answer set are learnt too.
        request_learn: bool,
        /// Whether the cookie may stand in the URL's path; false: in its query.
        path_parameters: bool,
    },
}

/// What the balancer does to its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieMode {
    /// Adds its own.
    Insert,
    /// Overwrites the application's.
    Rewrite,
    /// Prefixes the application's.
    Prefix,
}

impl CookieMode {
    /// As haproxy and CloudStack call it.
    pub fn name(self) -> &'static str {
        match self {
            CookieMode::Insert => "insert",
            CookieMode::Rewrite => "rewrite",
            CookieMode::Prefix => "prefix",
        }
    }
}

pub(super) fn balance(section: &agent::LoadBalancers) -> Result<Balance, Refusal> {
    let rules = section.list.iter().map(balancer).collect::<Result<Vec<_>, _>>()?;
    let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for rule in &rules {
        if !places.insert(rule.public) {
            return Err(format!("two load balancing rules want port {} of {}", rule.public.1, rule.public.0));
        }
        if !ids.insert(&rule.id) {
            return Err(format!("two load balancing rules are called {}", rule.id));
        }
    }
    let max_connections = section.max_connections.unwrap_or(4096);
    if !(1..=1_000_000).contains(&max_connections) {
        return Err(format!("{max_connections} connections at most can't be (1-1000000)"));
    }
    Ok(Balance { max_connections, idle_seconds: section.idle_seconds.unwrap_or(50).min(2_000_000), rules })
}

fn balancer(rule: &agent::LoadBalancer) -> Result<Balancer, Refusal> {
    let id = values::id("the rule's id", &rule.id)?;
    let in_rule = |reason: Refusal| format!("rule {id}: {reason}");
    let algorithm = match rule.algorithm.as_str() {
        "roundrobin" | "" => Algorithm::RoundRobin,
        "leastconn" => Algorithm::LeastConnections,
        "source" => Algorithm::Source,
        other => return Err(in_rule(format!("there is no algorithm {other:?}"))),
    };
    let send_proxy = match rule.protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => false,
        "tcp-proxy" => true,
        other => return Err(in_rule(format!("this router balances TCP only, not {other:?}"))),
    };
    let members = rule.members.iter().map(|m| values::ip4("the member", m)).collect::<Result<Vec<_>, _>>();
    let members = members.map_err(in_rule)?;
    if members.iter().collect::<BTreeSet<_>>().len() < members.len() {
        return Err(in_rule("a member is there twice".into()));
    }
    let from = values::cidrs("the source", &rule.cidrs).map_err(in_rule)?;
    Ok(Balancer {
        public: (
            values::ip4("the public address", &rule.public_ip).map_err(in_rule)?,
            values::port("the public port", rule.public_port).map_err(in_rule)?,
        ),
        port: values::port("the private port", rule.private_port).map_err(in_rule)?,
        algorithm,
        send_proxy,
        members,
        from: if from.iter().any(|n| n.prefix_len() == 0) { Vec::new() } else { from },
        stick: rule.stickiness.as_ref().map(|s| stick(&id, s)).transpose().map_err(in_rule)?,
        id,
    })
}

fn stick(rule: &str, policy: &agent::Stickiness) -> Result<Stick, Refusal> {
    let params = Params { method: &policy.method, all: &policy.params };
    match policy.method.to_ascii_lowercase().as_str() {
        "sourcebased" => {
            params.only(&["tablesize", "expire"])?;
            Ok(Stick::Source {
                size: params.quantity("tablesize", "200k", &["k", "m", "g"])?,
                expire: params.quantity("expire", "30m", &["us", "ms", "s", "m", "h", "d"])?,
            })
        }
        "lbcookie" => {
            params.only(&["cookie-name", "mode", "nocache", "indirect", "postonly", "domain"])?;
            let mode = match params.get("mode") {
                None | Some("insert") => CookieMode::Insert,
                Some("rewrite") => CookieMode::Rewrite,
                Some("prefix") => CookieMode::Prefix,
                Some(other) => return Err(format!("there is no cookie mode {other:?}")),
            };
            Ok(Stick::Cookie {
                name: params.cookie(rule)?,
                mode,
                nocache: params.flag("nocache")?,
                indirect: params.flag("indirect")?,
                postonly: params.flag("postonly")?,
                domain: params.get("domain").map(|d| values::word("the cookie's domain", d)).transpose()?,
            })
        }
        "appcookie" => {
            params.only(&["cookie-name", "length", "holdtime", "request-learn", "prefix", "mode"])?;
            if params.flag("prefix")? {
                return Err("haproxy no longer matches cookies by the beginning of their name".into());
            }
            let path_parameters = match params.get("mode") {
                None | Some("path-parameters") => true,
                Some("query-string") => false,
                Some(other) => return Err(format!("there is no cookie mode {other:?}")),
            };
            Ok(Stick::AppCookie {
                name: params.cookie(rule)?,
                length: params.quantity("length", "52", &[])?,
                hold: params.quantity("holdtime", "3h", &["us", "ms", "s", "m", "h", "d"])?,
                request_learn: params.flag("request-learn")?,
                path_parameters,
            })
        }
        _ => Err(format!("there is no stickiness method {:?}", policy.method)),
    }
}

struct Params<'a> {
    method: &'a str,
    all: &'a HashMap<String, String>,
}

impl Params<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.all.keys().filter(|k| !known.contains(&k.as_str())).min() {
            Some(unknown) => Err(format!("stickiness method {} has no parameter {unknown:?}", self.method)),
            None => Ok(()),
        }
    }

    fn quantity(&self, name: &str, default: &str, units: &[&str]) -> Result<String, Refusal> {
        values::quantity(name, self.get(name).unwrap_or(default), units)
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(format!("{name} is true or false, not {other:?}")),
        }
    }

    /// The cookie's name; generated from the rule where none is given.
    fn cookie(&self, rule: &str) -> Result<String, Refusal> {
        match self.get("cookie-name") {
            Some(name) => values::word("the cookie's name", name),
            None => Ok(format!("LB-{rule}")),
        }
    }
}
