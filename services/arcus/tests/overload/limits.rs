//! The limits that an operator sets are those in force.

use super::ALONE;
use super::dev::{Dev, binary};
use super::load::{Source, Tally};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use testkit::{Etcd, Process, eventually, free_ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Whether a new connection is let in; it is kept then.
async fn let_in(address: SocketAddr) -> Result<TcpStream, String> {
    let mut tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let mut text = vec![0; 4096];
    let exchange = async {
        tcp.write_all(b"GET /client HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        tcp.read(&mut text).await
    };
    let n = exchange.await.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    if text.starts_with("HTTP/1.1 200 OK") { Ok(tcp) } else { Err(text) }
}

#[tokio::test]
async fn a_gateway_keeps_the_limits_of_its_file() {
    let _alone = ALONE.lock().await;
    let (etcd, dir, ports) = (Etcd::start().await, testkit::temp_dir(), free_ports(1));
    let (file, log) = (dir.path().join("arcus.toml"), dir.path().join("log"));
    let command = || [binary().as_str(), "gateway", "--config", file.to_str().unwrap()].map(str::to_owned);
    let write = |limits: &str| {
        let path = dir.path().display();
        let text = format!(
            "[common]\ndatabase = \"sqlite:{path}/arcus.db\"\netcd = [\"{}\"]\nmaster_key = \"{path}/master.key\"\n\
             [gateway]\nlisten = \"127.0.0.1:{}\"\n[gateway.limits]\n{limits}\n",
            etcd.endpoint(),
            ports[0],
        );
        std::fs::write(&file, text).unwrap();
    };
    // What can't be is told before anything is begun.
    for (limits, told) in [
        ("at_work = 0", "[gateway.limits] at_work = 0: must be from 1"),
        ("wait_seconds = 400.0", "[gateway.limits] wait_seconds = 400 must be less than answer_seconds = 300"),
        ("conections = 2", "conections"),
    ] {
        write(limits);
        let [binary, args @ ..] = command();
        let out = tokio::process::Command::new(binary).args(args).output().await.unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(told), "{said}");
    }
    write("connections = 2\naddress_connections = 2");
    let process = Process::start(&command(), &log, None);
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports[0]);
    let first = eventually(|| async {
        assert!(process.alive(), "{}", process.log_tail());
        let_in(address).await.ok()
    });
    let first = first.await;
    let second = let_in(address).await.unwrap();
    let third = let_in(address).await.unwrap_err();
    assert!(third.starts_with("HTTP/1.1 503 ") && third.contains("\r\nRetry-After: 1\r\n"), "{third}");
    drop((first, second));
    eventually(|| async { let_in(address).await.ok() }).await;
}

#[tokio::test]
async fn arcus_dev_takes_limits_too() {
    let _alone = ALONE.lock().await;
    let dev = Dev::empty(&["--limit=at_work=1".into(), "--limit=account_queue=1".into()]).await;
    let query = dev.api().signed("listOsTypes", &[("pagesize", "500"), ("page", "1")]).unwrap();
    let source = Source::new(dev.api_address(), Ipv4Addr::LOCALHOST, &query);
    let tally = Arc::new(Tally::default());
    // One is at work, one waits: of many that come together some are refused, and some done.
    let refused = eventually(|| async {
        let mut sent = JoinSet::new();
        for _ in 0..30 {
            let (source, tally) = (source.clone(), tally.clone());
            sent.spawn(async move { tally.note(source.ask().await) });
        }
        sent.join_all().await;
        (tally.refused() > 0).then(|| tally.refusals.lock().unwrap().clone())
    });
    // The administrator reads why.
    let refused = refused.await;
    let why = refused.iter().map(|body| String::from_utf8_lossy(body)).collect::<Vec<_>>().join("\n");
    assert!(why.contains("too many requests wait (orchestrator)") && tally.done() > 0, "{why}");
}
