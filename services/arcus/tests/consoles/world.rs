//! A system with a machine, an account that may use it, and one that may not.

use crate::dev::{Dev, deploy_params};
use crate::rfb::Rfb;
use arcus::api_client::ApiClient;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Socket = WebSocketStream<TcpStream>;

pub struct World {
    pub dev: Dev,
    pub admin: ApiClient,
    pub owner: ApiClient,
    pub stranger: ApiClient,
    /// The owner's running machine.
    pub vm: String,
    http: reqwest::Client,
}

/// What a page answered.
pub struct Page {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Page {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The token that the page carries.
    pub fn token(&self) -> String {
        let text = self.text();
        let (_, rest) = text.split_once("name=\"console-token\" content=\"").unwrap_or_else(|| panic!("{text}"));
        rest.split_once('"').unwrap().0.to_owned()
    }
}

pub fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

impl World {
    pub async fn new() -> World {
        let dev = Dev::with_zone(2).await;
        let admin = dev.api();
        let (owner, stranger) = (user(&dev, &admin, "owner").await, user(&dev, &admin, "stranger").await);
        let ids = dev.ids().await;
        let vm = deploy(&owner, &ids, "web1").await;
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        World { dev, admin, owner, stranger, vm, http }
    }

    /// "127.0.0.1:8080".
    pub fn host(&self) -> String {
        self.dev.api_address().to_string()
    }

    /// The address of a console's page, signed by this user.
    pub fn url(&self, who: &ApiClient, params: &[(&str, &str)]) -> String {
        format!("http://{}/client/console?{}", self.host(), who.signed("console", params).unwrap())
    }

    pub async fn get(&self, url: &str) -> Page {
        self.send(self.http.get(url)).await
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Page { status, headers, body: answer.bytes().await.unwrap().to_vec() }
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub async fn access(&self, who: &ApiClient, vm: &str) -> Page {
        self.get(&self.url(who, &[("cmd", "access"), ("vm", vm)])).await
    }

    /// Opens the WebSocket with this token, as a page of `origin` does.
    pub async fn socket(&self, token: &str, origin: Option<&str>) -> Result<Socket, u16> {
        let host = self.host();
        let mut request = format!("ws://{host}/client/console/socket").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", format!("binary, token.{token}").parse().unwrap());
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().unwrap());
        }
        let stream = TcpStream::connect(host).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], "binary");
                Ok(socket)
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The same from the page that was served.
    pub async fn own_socket(&self, token: &str) -> Result<Socket, u16> {
        self.socket(token, Some(&format!("http://{}", self.host()))).await
    }

    /// Looks at a machine's console.
    pub async fn look(&self, who: &ApiClient, vm: &str) -> Rfb<DuplexStream> {
        let token = self.access(who, vm).await.token();
        Rfb::connect(bytes(self.own_socket(&token).await.unwrap())).await.unwrap()
    }

    /// How often an event was noted about the machine.
    pub async fn events(&self, kind: &str) -> usize {
        let listed = self.owner.call("listEvents", &[("type", kind), ("listall", "true")]).await.unwrap();
        listed.pointer("/event").and_then(Value::as_array).map_or(0, Vec::len)
    }

    pub async fn set(&self, name: &str, value: &str) {
        self.admin.call("updateConfiguration", &[("name", name), ("value", value)]).await.unwrap();
    }
}

/// The bytes of a WebSocket.
pub fn bytes(socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(far);
    let (mut sink, mut source) = socket.split();
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(bytes) = message
                && writer.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
        writer.shutdown().await
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let read = reader.read(&mut buffer).await.unwrap_or(0);
            if read == 0 || sink.send(Message::Binary(buffer[..read].to_vec().into())).await.is_err() {
                break;
            }
        }
        sink.close().await
    });
    near
}

pub async fn deploy(who: &ApiClient, ids: &[String; 4], name: &str) -> String {
    // Of the account's own network: the zone's first one belongs to another.
    let params: Vec<_> = deploy_params(ids, name).into_iter().filter(|(name, _)| *name != "networkids").collect();
    let done = who.run("deployVirtualMachine", &params).await.unwrap();
    text(&done, "/virtualmachine/id")
}

/// A new account's user.
async fn user(dev: &Dev, admin: &ApiClient, name: &str) -> ApiClient {
    let params = [
        ("accounttype", "0"),
        ("username", name),
        ("password", "password"),
        ("firstname", name),
        ("lastname", name),
        ("email", "a@example.com"),
    ];
    let made = admin.call("createAccount", &params).await.unwrap();
    let user = text(&made, "/account/user/0/id");
    let keys = admin.call("registerUserKeys", &[("id", &user)]).await.unwrap();
    dev.api_as(&text(&keys, "/userkeys/apikey"), &text(&keys, "/userkeys/secretkey"))
}
