//! The configuration of haproxy. Its aim: nothing gets lost but what was under way on a process that is killed.

use crate::layout::{Front, Layout, Replica};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The command that runs in the foreground.
pub(crate) fn command(file: &Path) -> Vec<String> {
    vec!["haproxy".to_owned(), "-db".to_owned(), "-f".to_owned(), file.display().to_string()]
}

/// The configuration for these replicas.
pub(crate) fn config(layout: &Layout, socket: &Path) -> String {
    let Front { api, grpc, agents, metrics } = layout.front;
    let socket = socket.display();
    let mut text = format!(
        r#"# Written anew at every start.
global
  log stdout format raw local0 info
  maxconn 8000
  hard-stop-after 30s
  stats socket {socket} mode 600 level admin
  # Gateways take heads of 256 KiB; the balancer must not take less.
  tune.bufsize 278528

defaults
  mode http
  log global
  option httplog
  # Only what went wrong.
  option dontlog-normal
  option log-separate-errors
  timeout connect 2s
  timeout check 2s
  timeout queue 5s
  timeout client 310s
  timeout http-request 60s
  # Longer than a gateway's own limit for an answer. A gateway that hangs is found by its checks, much earlier.
  timeout server 310s
  timeout tunnel 1h
  # A connection that is refused was never heard: another replica gets the request, at once.
  retries 3
  option redispatch 1
  http-error status 502 content-type text/plain string "A gateway died before it answered; the command may have been done.\n"
  http-error status 503 content-type text/plain string "No gateway serves at the moment: ask again.\n" hdr Retry-After 1
  http-error status 504 content-type text/plain string "The gateway didn't answer in time; the command may have been done.\n"
  # Three outcomes of a check. 200: in use. Another answer (503 while draining): nothing new, but what is under way may
  # end. No answer: down, and what hangs there is cut.
  option httpchk
  http-check send meth GET uri /readyz
  http-check expect status 200 error-status L7OKC
  default-server check inter 250ms fastinter 100ms downinter 250ms fall 2 rise 1 on-marked-down shutdown-sessions

frontend api
  bind {api}
  # Connections of its own for each request. On one that is kept, a request can meet the server's closing it, and nobody
  # knows then whether it was heard. And when a gateway dies, haproxy closes a client's kept connection without a word:
  # some clients take that as leave to send a GET again, which may be a deploy. On a new connection it answers 502.
  option httpclose
  option forwardfor
  default_backend gateways

backend gateways
  # A replica that hangs collects requests and so gets few new ones until its checks find out.
  balance leastconn
  http-reuse never
  # An answer that never came: only what reads is asked again elsewhere.
  retry-on conn-failure empty-response
  acl reads urlp(command) -m beg -i list query
  http-request disable-l7-retry unless reads
"#
    );
    servers(&mut text, layout, "gateway", |r| Some(r.listen));
    let _ = write!(text, "\nfrontend grpc\n  mode tcp\n  option tcplog\n  bind {grpc}\n  default_backend grpc\n");
    text.push_str("\nbackend grpc\n  mode tcp\n  balance leastconn\n");
    servers(&mut text, layout, "gateway", |r| r.grpc);
    let _ = write!(text, "\nfrontend agents\n  mode tcp\n  option tcplog\n  bind {agents}\n  default_backend agents\n");
    // Hubs ping their agents, so silence means that one end is gone.
    text.push_str("\nbackend agents\n  mode tcp\n  balance leastconn\n");
    servers(&mut text, layout, "orchestrator", |r| r.agents);
    let _ = write!(
        text,
        "\nfrontend metrics\n  bind {metrics}\n  option dontlog-normal\n  monitor-uri /healthz\n  \
         http-request use-service prometheus-exporter if {{ path /metrics }}\n  \
         http-request return status 200 if {{ path /readyz }} {{ nbsrv(gateways) ge 1 }}\n  \
         http-request return status 503 if {{ path /readyz }}\n  stats enable\n  stats uri /\n"
    );
    text
}

fn servers(text: &mut String, layout: &Layout, service: &str, port: impl Fn(&Replica) -> Option<SocketAddr>) {
    for replica in layout.of(service) {
        if let Some(address) = port(replica) {
            let check = replica.metrics;
            // Down until a check says otherwise would be better, but haproxy starts with "up": a refused connection
            // goes elsewhere in the meantime.
            let _ = writeln!(text, "  server {} {address} port {} addr {}", replica.name, check.port(), check.ip());
        }
    }
}

/// Whether the balancer uses a replica.
pub(crate) async fn uses(socket: &Path, server: &str) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        stream.write_all(b"show stat\n").await.ok()?;
        let mut csv = String::new();
        stream.read_to_string(&mut csv).await.ok()?;
        Some(in_use(&csv, server))
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten() == Some(true)
}

/// The same from its statistics as CSV.
fn in_use(csv: &str, server: &str) -> bool {
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let column = |name: &str| head.iter().position(|h| *h == name);
    let (Some(name), Some(status)) = (column("svname"), column("status")) else { return false };
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split(',').collect()).collect();
    let mut of_server = rows.iter().filter(|row| row.get(name) == Some(&server)).peekable();
    of_server.peek().is_some() && of_server.all(|row| row.get(status) == Some(&"UP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_tell_who_is_in_use() {
        let csv = "# pxname,svname,qcur,status,\ngateways,gateway-1,0,UP,\ngrpc,gateway-1,0,UP,\n\
                   gateways,gateway-2,0,UP,\ngrpc,gateway-2,0,DOWN 1/2,\n";
        assert!(in_use(csv, "gateway-1"));
        assert!(!in_use(csv, "gateway-2"));
        assert!(!in_use(csv, "gateway-3"));
        assert!(!in_use("", "gateway-1"));
    }
}
