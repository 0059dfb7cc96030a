//! What guests ask the router about themselves: user data and metadata on port 80, passwords on port 8080.
//!
//! The sockets are made inside the router's namespace and served by the agent: a socket stays in the namespace that it was
//! made in. Who asks is told by the address that the connection comes from.

use crate::host::HostError;
use crate::host::files;
use crate::host::namespace::Namespace;
use crate::plan::{Guest, Guests};
use bytes::Bytes;
use contract_agent::TakenPassword;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Metadata.
const METADATA_PORT: u16 = 80;
/// Passwords.
const PASSWORD_PORT: u16 = 8080;
/// Connections of one router at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// A connection may last so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The servers of one router. Dropped, they are gone.
pub(crate) struct GuestServer {
    known: Arc<Known>,
    listeners: Mutex<BTreeMap<(Ipv4Addr, u16), JoinHandle<()>>>,
    places: Arc<Semaphore>,
}

/// What is known of guests.
struct Known {
    guests: RwLock<Guests>,
    /// The id of the last password that a guest took.
    taken: Mutex<BTreeMap<Ipv4Addr, String>>,
    taken_file: PathBuf,
}

impl GuestServer {
    /// Serves nobody yet. Which passwords were taken is remembered in `taken_file`.
    pub fn new(taken_file: PathBuf) -> GuestServer {
        let taken = std::fs::read(&taken_file).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
        let known = Known { guests: RwLock::default(), taken: Mutex::new(taken), taken_file };
        GuestServer {
            known: Arc::new(known),
            listeners: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Serves these guests at these addresses of the namespace from now on, and nobody else. Connections that are open go
    /// on.
    pub async fn serve(&self, at: &Namespace, addresses: &[Ipv4Addr], guests: Guests) -> Result<(), HostError> {
        *self.known.guests.write().unwrap_or_else(PoisonError::into_inner) = guests;
        let wanted: BTreeSet<(Ipv4Addr, u16)> =
            addresses.iter().flat_map(|ip| [(*ip, METADATA_PORT), (*ip, PASSWORD_PORT)]).collect();
        let missing: Vec<(Ipv4Addr, u16)> = {
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.retain(|place, task| {
                let keep = wanted.contains(place) && !task.is_finished();
                if !keep {
                    task.abort();
                }
                keep
            });
            wanted.into_iter().filter(|place| !listeners.contains_key(place)).collect()
        };
        for place in missing {
            let socket = at.run(move || std::net::TcpListener::bind(place)).await?;
            let listen = |socket: std::net::TcpListener| {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)
            };
            let (ip, port) = place;
            let listener =
                socket.and_then(listen).map_err(|e| HostError::failed(format!("listening at {ip}:{port}"), e))?;
            let task = tokio::spawn(accept(listener, port, self.known.clone(), self.places.clone()));
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(place, task);
        }
        Ok(())
    }

    /// Passwords that the guests which are served took.
    pub fn taken(&self) -> Vec<TakenPassword> {
        let guests = self.known.guests.read().unwrap_or_else(PoisonError::into_inner);
        let taken = self.known.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(ip, guest): (&Ipv4Addr, &Guest)| {
            let (id, _) = guest.password.as_ref().filter(|(id, _)| taken.get(ip) == Some(id))?;
            Some(TakenPassword { vm_uuid: guest.vm.clone()?, password_id: id.clone() })
        };
        guests.iter().filter_map(of).collect()
    }

    /// Serves nobody any more.
    pub fn stop(&self) {
        for (_, task) in std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
    }
}

impl Drop for GuestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, port: u16, known: Arc<Known>, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, SocketAddr::V4(from)) = (match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: the connection waits in the kernel's queue.
                tracing::warn!(%error, "a guest's connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        }) else {
            continue;
        };
        let known = known.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let known = known.clone();
                async move { Ok::<_, Infallible>(answer(&known, port, IpAddr::V4(*from.ip()), request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(PATIENCE, connection).await;
        });
    }
}

async fn answer(known: &Arc<Known>, port: u16, from: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let IpAddr::V4(from) = from else { return text(StatusCode::NOT_FOUND, "") };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    if port == PASSWORD_PORT {
        let order = request.headers().get("DomU_Request").map(HeaderValue::as_bytes).map(<[u8]>::to_vec);
        return password(known, from, order.as_deref()).await;
    }
    let found = {
        let guests = known.guests.read().unwrap_or_else(PoisonError::into_inner);
        guests.get(&from).and_then(|guest| lookup(guest, request.uri().path()))
    };
    match found {
        Some(content) => with_body(StatusCode::OK, content.into()),
        None => text(StatusCode::NOT_FOUND, ""),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    with_body(status, Bytes::from_static(body.as_bytes()))
}

fn with_body(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The protocol of CloudStack's password server, word for word: scripts in templates depend on it.
async fn password(known: &Arc<Known>, from: Ipv4Addr, order: Option<&[u8]>) -> Response<Full<Bytes>> {
    match order {
        None => text(StatusCode::OK, "bad_request"),
        Some(b"send_my_password") => match known.password(from) {
            Some((_, password)) => with_body(StatusCode::OK, password.into()),
            None => text(StatusCode::OK, "saved_password"),
        },
        Some(b"saved_password") => {
            let known = known.clone();
            match tokio::task::spawn_blocking(move || known.took(from)).await {
                Ok(Ok(())) => text(StatusCode::OK, "saved_password"),
                _ => text(StatusCode::INTERNAL_SERVER_ERROR, ""),
            }
        }
        Some(_) => text(StatusCode::BAD_REQUEST, "bad_request"),
    }
}

impl Known {
    /// The password that a guest hasn't taken yet, with its id.
    fn password(&self, guest: Ipv4Addr) -> Option<(String, String)> {
        let guests = self.guests.read().unwrap_or_else(PoisonError::into_inner);
        let (id, password) = guests.get(&guest)?.password.clone()?;
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.get(&guest) != Some(&id)).then_some((id, password))
    }

    /// The guest has its password now: on disk before it is told so.
    fn took(&self, guest: Ipv4Addr) -> Result<(), HostError> {
        let Some((id, _)) = self.password(guest) else { return Ok(()) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(guest, id);
        let content = serde_json::to_vec(&*taken).map_err(|e| HostError::failed("passwords taken", e))?;
        files::replace(&self.taken_file, &content, 0o600)
    }
}

/// What a guest gets at a path. The versions of EC2's interface are all one here; without one it works, too.
fn lookup(guest: &Guest, path: &str) -> Option<Vec<u8>> {
    let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let is_version =
        |p: &str| p == "latest" || (p.len() >= 3 && p.bytes().all(|b| b.is_ascii_digit() || b".-".contains(&b)));
    if parts.first().is_some_and(|p| is_version(p)) {
        parts.remove(0);
    } else if parts.is_empty() {
        return Some(b"latest/\n".to_vec());
    }
    let path = parts.join("/");
    if let Some(content) = guest.entries.get(&path) {
        return Some(content.clone());
    }
    let listed = listing(guest, &path);
    if listed.is_some() || path.starts_with("meta-data") {
        return listed;
    }
    // As CloudStack's routers do: /latest/instance-id for /latest/meta-data/instance-id.
    guest.entries.get(&format!("meta-data/{path}")).cloned()
}

/// The names below a path, one a line; those that have more below them end in a slash.
fn listing(guest: &Guest, path: &str) -> Option<Vec<u8>> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let below = guest.entries.keys().filter_map(|k| k.strip_prefix(&prefix));
    let names: BTreeSet<String> = below
        .map(|rest| match rest.split_once('/') {
            Some((first, _)) => format!("{first}/"),
            None => rest.to_owned(),
        })
        .collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n").into_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let entries =
            [("meta-data/instance-id", "i-1"), ("meta-data/public-keys/0/openssh-key", "ssh"), ("user-data", "#!")];
        let entries = entries.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into();
        let guest = Guest { entries, ..Guest::default() };
        let get = |path: &str| lookup(&guest, path).map(|b| String::from_utf8(b).unwrap());
        for path in [
            "/latest/meta-data/instance-id",
            "/meta-data/instance-id",
            "/2009-04-04/meta-data/instance-id",
            "/latest/instance-id",
        ] {
            assert_eq!(get(path).as_deref(), Some("i-1"), "{path}");
        }
        assert_eq!(get("/latest/user-data").as_deref(), Some("#!"));
        assert_eq!(get("/latest/meta-data/").as_deref(), Some("instance-id\npublic-keys/"));
        assert_eq!(get("/latest/meta-data/public-keys").as_deref(), Some("0/"));
        assert_eq!(get("/latest/").as_deref(), Some("meta-data/\nuser-data"));
        assert_eq!(get("/"), Some("latest/\n".into()));
        for path in ["/latest/meta-data/x", "/x", "/../user-data", "/latest/meta-data/../user-data"] {
            assert_eq!(get(path), None, "{path}");
        }
    }
}
