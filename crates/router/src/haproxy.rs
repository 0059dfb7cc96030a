//! The configuration of haproxy.

use crate::digest::digest;
use crate::layout::Layout;
use crate::plan::{Balancer, Plan, Stick};
use std::fmt::Write as _;

/// Where haproxy's old process hands its stick tables to the new one, within the router's namespace.
const PEER: &str = "127.0.0.1:10001";

/// What haproxy is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// Its configuration.
    pub conf: String,
    /// Its digest; a running haproxy tells it as its `node`.
    pub digest: String,
}

impl Haproxy {
    /// Compiles the load balancing rules of a plan; `None` when there are none. `user` is whom haproxy becomes once it
    /// listens, and its group; absent: it stays who started it.
    pub fn new(plan: &Plan, layout: &Layout, user: Option<&(String, String)>) -> Option<Haproxy> {
        let balance = &plan.balance;
        if balance.rules.is_empty() {
            return None;
        }
        let mut rest = String::new();
        let _ = writeln!(rest, "  localpeer router\n  maxconn {}", balance.max_connections);
        let _ = writeln!(
            rest,
            "  stats socket {} mode 600 level admin expose-fd listeners",
            layout.haproxy_socket().display()
        );
        if let Some((user, group)) = user {
            let _ = writeln!(rest, "  user {user}\n  group {group}");
        }
        // Workers with connections that never end are let go after so many changes.
        rest.push_str("  mworker-max-reloads 50\n");
        rest.push_str("defaults\n  mode tcp\n  timeout connect 5s\n");
        if balance.idle_seconds > 0 {
            let _ = writeln!(rest, "  timeout client {0}s\n  timeout server {0}s", balance.idle_seconds);
        }
        let _ = writeln!(
            rest,
            "  timeout check 5s\n  timeout http-request 10s\n  retries 3\n  option redispatch\npeers router"
        );
        let _ = writeln!(rest, "  peer router {PEER}");
        for rule in &balance.rules {
            listen(&mut rest, rule);
        }
        let digest = digest([rest.as_bytes()]);
        Some(Haproxy {
            conf: format!("# Written by Arcus; changes are lost.\nglobal\n  node {digest}\n{rest}"),
            digest,
        })
    }
}

fn listen(text: &mut String, rule: &Balancer) {
    let _ = writeln!(text, "listen lb-{}\n  bind {}:{}", rule.id, rule.public.0, rule.public.1);
    let _ = writeln!(text, "  balance {}", rule.algorithm.name());
    let cookies = matches!(rule.stick, Some(Stick::Cookie { .. } | Stick::AppCookie { .. }));
    if cookies {
        text.push_str("  mode http\n");
    }
    if let Some(stick) = &rule.stick {
        sticky(text, stick);
    }
    for member in &rule.members {
        let name = member.to_string().replace('.', "-");
        let _ = write!(text, "  server {name} {member}:{} check", rule.port);
        if rule.send_proxy {
            text.push_str(" send-proxy");
        }
        if matches!(rule.stick, Some(Stick::Cookie { .. })) {
            // Not the guest's address: clients would read it.
            let _ = write!(text, " cookie {}", digest([rule.id.as_bytes(), name.as_bytes()]));
        }
        text.push('\n');
    }
}

fn sticky(text: &mut String, stick: &Stick) {
    match stick {
        Stick::Source { size, expire } => {
            let _ = writeln!(text, "  stick-table type ip size {size} expire {expire} peers router\n  stick on src");
        }
        Stick::Cookie { name, mode, nocache, indirect, postonly, domain } => {
            let _ = write!(text, "  cookie {name} {}", mode.name());
            for (set, word) in [(indirect, "indirect"), (nocache, "nocache"), (postonly, "postonly")] {
                if *set {
                    let _ = write!(text, " {word}");
                }
            }
            if let Some(domain) = domain {
                let _ = write!(text, " domain {domain}");
            }
            text.push('\n');
        }
        Stick::AppCookie { name, length, hold, request_learn, path_parameters } => {
            let _ = writeln!(text, "  stick-table type string len {length} size 200k expire {hold} peers router");
            let _ = writeln!(text, "  stick store-response res.cook({name})\n  stick match req.cook({name})");
            let separator = if *path_parameters { ",;" } else { "" };
            let _ = writeln!(text, "  stick match url_param({name}{separator})");
            if *request_learn {
                let _ = writeln!(text, "  stick store-request req.cook({name})");
            }
        }
    }
}
