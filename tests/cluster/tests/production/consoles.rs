//! Consoles through any gateway and any orchestrator to the host's agent.

use crate::{alone, deploy, few_hosts};
use cluster::{Api, Cluster};
use futures::{SinkExt as _, StreamExt as _};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TcpStream>;

/// "127.0.0.1:8080" of an endpoint.
fn host(endpoint: &str) -> &str {
    endpoint.split('/').nth(2).unwrap()
}

/// The token of a console's page at this gateway.
async fn token(api: &Api, vm: &str) -> String {
    let query = api.signed("console", &[("cmd", "access"), ("vm", vm)]).unwrap();
    let url = format!("http://{}/client/console?{query}", host(&api.endpoint));
    let page = reqwest::get(url).await.unwrap().text().await.unwrap();
    let (_, rest) = page.split_once("name=\"console-token\" content=\"").unwrap_or_else(|| panic!("{page}"));
    rest.split_once('"').unwrap().0.to_owned()
}

/// Connects with one gateway by a token of a page that another one served.
async fn connect(endpoint: &str, served: &str, token: &str) -> Result<Socket, u16> {
    let mut request = format!("ws://{}/client/console/socket", host(endpoint)).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", format!("binary, token.{token}").parse().unwrap());
    headers.insert("origin", format!("http://{}", host(served)).parse().unwrap());
    let stream = TcpStream::connect(host(endpoint)).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Bytes of the console, until there are so many.
async fn read(socket: &mut Socket, least: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < least {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(more) => bytes.extend_from_slice(&more),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    bytes
}

async fn say(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).await.unwrap();
}

/// From the version to a whole picture.
async fn look(socket: &mut Socket) {
    assert_eq!(read(socket, 12).await, b"RFB 003.008\n");
    say(socket, b"RFB 003.008\n").await;
    assert_eq!(read(socket, 2).await, [1, 1]);
    say(socket, &[1]).await;
    assert_eq!(read(socket, 4).await, [0; 4]);
    say(socket, &[1]).await;
    assert_eq!(read(socket, 24).await[..4], [2, 128, 1, 144]);
    say(socket, &[3, 0, 0, 0, 0, 0, 2, 128, 1, 144]).await;
    read(socket, 640 * 400 * 4).await;
}

async fn ended(mut socket: Socket) -> bool {
    let end = async { while let Some(Ok(Message::Binary(_) | Message::Ping(_))) = socket.next().await {} };
    tokio::time::timeout(PATIENCE, end).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of real processes: make test-chaos"]
async fn any_replica_shows_a_console() {
    if !std::path::Path::new("/usr/share/novnc/core/rfb.js").exists() {
        eprintln!("SKIPPED: noVNC isn't installed (apt-get install novnc, or deploy/setup-dev test)");
        return;
    }
    let _alone = alone().await;
    let dir = testkit::temp_dir();
    let cluster = Cluster::start(few_hosts(dir.path())).await.unwrap();
    let vm = deploy(cluster.api(), "screen").await;
    let gateways = cluster.endpoints();
    let at = |endpoint: &str| cluster.api().at(endpoint);

    // A page of one gateway connects with the other, and with the balancer; only once with either. Which orchestrator is
    // asked is chance: of many, some don't hold the host's line.
    let mut times = Vec::new();
    for n in 0..12 {
        let (served, other) = (&gateways[n % 2], &gateways[(n + 1) % 2]);
        let begun = Instant::now();
        let token = token(&at(served), &vm).await;
        let mut socket = connect(other, served, &token).await.unwrap();
        look(&mut socket).await;
        times.push(begun.elapsed());
        for endpoint in &gateways {
            assert_eq!(connect(endpoint, served, &token).await.err(), Some(403));
        }
    }
    let front = cluster.api().endpoint.clone();
    let through = token(cluster.api(), &vm).await;
    let mut socket = connect(&front, &front, &through).await.unwrap();
    look(&mut socket).await;
    times.sort();
    println!("from the request of the page to a whole picture: {:?} in the middle, {:?} at most", times[6], times[11]);

    // An orchestrator is killed: consoles end or go on, and new ones open through the other.
    cluster.kill("orchestrator-1").await;
    let begun = Instant::now();
    let mut socket = loop {
        let fresh = token(&at(&gateways[0]), &vm).await;
        match connect(&gateways[0], &gateways[0], &fresh).await {
            Ok(socket) => break socket,
            Err(status) => assert!(begun.elapsed() < PATIENCE, "{status}"),
        }
    };
    look(&mut socket).await;
    cluster.restart("orchestrator-1").await.unwrap();

    // The agent is killed: its consoles end.
    cluster.kill("agent-1").await;
    assert!(ended(socket).await);
}
