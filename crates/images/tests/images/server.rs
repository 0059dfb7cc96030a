//! An HTTP server that does what the test says, one behaviour after the other.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Does {
    /// The file, or the part that is asked for.
    Serves,
    /// That, but the connection breaks after so many bytes.
    Breaks(usize),
    /// That, but nothing comes after so many bytes.
    Stalls(usize),
    /// No answer at all.
    Hangs,
    /// The file with another length announced.
    Claims(u64),
    /// The file without a length.
    Unsized,
    /// No end.
    Endless,
    /// Another file, with another tag, whatever is asked for.
    Other,
    /// The wrong part.
    WrongPart,
    Redirects(String),
    Status(u16),
    /// The file, said to be packed.
    Packs,
}

pub struct Server {
    pub url: String,
    script: Arc<Mutex<VecDeque<Does>>>,
    ranges: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl Server {
    /// Serves `data` with an entity tag; the last behaviour stays.
    pub async fn start(data: Vec<u8>, etag: Option<&'static str>, script: impl Into<VecDeque<Does>>) -> Server {
        Server::start_tls(data, etag, script, None).await
    }

    /// The same, over TLS with a certificate.
    pub async fn start_tls(
        data: Vec<u8>,
        etag: Option<&'static str>,
        script: impl Into<VecDeque<Does>>,
        own: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if own.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/image", listener.local_addr().unwrap());
        let acceptor = own.map(acceptor);
        let script = Arc::new(Mutex::new(script.into()));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (next, seen, data) = (script.clone(), ranges.clone(), Bytes::from(data));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (next, seen, data) = (next.clone(), seen.clone(), data.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let does = {
                        let mut script = next.lock().unwrap();
                        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
                    };
                    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
                    let (range, condition) = (header("range"), header("if-range"));
                    seen.lock().unwrap().push(range.clone().unwrap_or_default());
                    let same = etag.is_some() && condition.as_deref() == etag;
                    let from = range.filter(|_| same).map(|r| r[6..r.len() - 1].parse().unwrap());
                    let data = data.clone();
                    async move {
                        let does = does.unwrap();
                        if matches!(does, Does::Hangs) {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, std::io::Error>(answer(does, &data, etag, from))
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => drop(http.serve_connection(TokioIo::new(socket), service).await),
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                drop(http.serve_connection(TokioIo::new(socket), service).await);
                            }
                        }
                    }
                });
            }
        });
        Server { url, script, ranges, task }
    }

    /// The `Range` of each request that came; empty without.
    pub fn ranges(&self) -> Vec<String> {
        self.ranges.lock().unwrap().clone()
    }

    pub fn then(&self, does: Does) {
        self.script(vec![does]);
    }

    pub fn script(&self, script: Vec<Does>) {
        *self.script.lock().unwrap() = script.into();
    }
}

fn acceptor(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

enum End {
    Done,
    Break,
    Stall,
}

fn body(data: Bytes, end: End) -> BoxBody<Bytes, std::io::Error> {
    let pieces: Vec<_> = data.chunks(64 << 10).map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
    let pieces = stream::iter(pieces);
    match end {
        End::Done => BoxBody::new(StreamBody::new(pieces)),
        End::Break => {
            let last = stream::once(async {
                // What came before reaches the client first.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("broken by the test"))
            });
            BoxBody::new(StreamBody::new(pieces.chain(last)))
        }
        End::Stall => BoxBody::new(StreamBody::new(pieces.chain(stream::pending()))),
    }
}

fn answer(does: Does, data: &Bytes, etag: Option<&str>, from: Option<usize>) -> Answer {
    let mut answer = Response::builder();
    if let Some(etag) = etag.filter(|_| !matches!(does, Does::Other)) {
        answer = answer.header("etag", etag);
    }
    let start = from.unwrap_or(0);
    let rest = data.slice(start..);
    if from.is_some() && !matches!(does, Does::Other) {
        let shift = usize::from(matches!(does, Does::WrongPart));
        let range = format!("bytes {}-{}/{}", start + shift, data.len() - 1, data.len());
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
    }
    let sized = rest.len() as u64;
    match does {
        Does::Serves | Does::WrongPart | Does::Hangs => {
            answer.header("content-length", sized).body(body(rest, End::Done))
        }
        Does::Breaks(after) => answer.header("content-length", sized).body(body(rest.slice(..after), End::Break)),
        Does::Stalls(after) => answer.header("content-length", sized).body(body(rest.slice(..after), End::Stall)),
        Does::Claims(length) => answer.header("content-length", length).body(body(rest, End::Done)),
        Does::Unsized => answer.body(body(rest, End::Done)),
        Does::Endless => {
            let piece = Bytes::from(vec![0; 64 << 10]);
            answer.body(BoxBody::new(StreamBody::new(stream::repeat_with(move || Ok(Frame::data(piece.clone()))))))
        }
        Does::Other => {
            let other = Bytes::from(vec![1; 100_000]);
            answer.header("etag", "\"other\"").header("content-length", 100_000).body(body(other, End::Done))
        }
        Does::Redirects(to) => {
            answer.status(StatusCode::FOUND).header("location", to).body(body(Bytes::new(), End::Done))
        }
        Does::Status(status) => answer.status(status).body(body(Bytes::from_static(b"no"), End::Done)),
        Does::Packs => answer.header("content-encoding", "gzip").body(body(rest, End::Done)),
    }
    .unwrap()
}
