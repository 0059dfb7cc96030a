//! An HTTP server that does what the test says.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What happens to a request.
#[derive(Clone, Debug)]
pub(super) enum Does {
    Serves,
    /// Nothing comes after so many bytes.
    Stalls(usize),
    /// The connection ends after so many bytes.
    Breaks(usize),
    Redirects(String),
    Status(u16),
}

pub(super) struct Server {
    pub url: String,
    does: Arc<Mutex<Does>>,
    /// The `Range` of each request that came; empty without.
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
    pub async fn start(data: Vec<u8>, does: Does) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let (does, ranges) = (Arc::new(Mutex::new(does)), Arc::new(Mutex::new(Vec::new())));
        let (now, seen, data) = (does.clone(), ranges.clone(), Bytes::from(data));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (now, seen, data) = (now.clone(), seen.clone(), data.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let range = request.headers().get("range").map(|v| v.to_str().unwrap().to_owned());
                    seen.lock().unwrap().push(range.clone().unwrap_or_default());
                    let from = range.map_or(0, |r| r[6..r.len() - 1].parse().unwrap());
                    let answer = answer(&now.lock().unwrap(), &data, from);
                    async move { Ok::<_, std::io::Error>(answer) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { drop(http.serve_connection(TokioIo::new(socket), service).await) });
            }
        });
        Server { url, does, ranges, task }
    }

    pub fn ranges(&self) -> Vec<String> {
        self.ranges.lock().unwrap().clone()
    }

    pub fn then(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }
}

fn answer(does: &Does, data: &Bytes, from: usize) -> Answer {
    let rest = data.slice(from..);
    let mut answer = Response::builder().header("etag", "\"v1\"").header("content-length", rest.len());
    if from > 0 {
        let range = format!("bytes {from}-{}/{}", data.len() - 1, data.len());
        answer = answer.status(206).header("content-range", range);
    }
    let pieces = |bytes: &Bytes| {
        let pieces: Vec<_> = bytes.chunks(64 << 10).map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
        stream::iter(pieces)
    };
    match does {
        Does::Serves => answer.body(BoxBody::new(StreamBody::new(pieces(&rest)))),
        Does::Stalls(after) => {
            let bytes = rest.slice(..(*after).min(rest.len()));
            answer.body(BoxBody::new(StreamBody::new(pieces(&bytes).chain(stream::pending()))))
        }
        Does::Breaks(after) => {
            let bytes = rest.slice(..(*after).min(rest.len()));
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("broken by the test"))
            });
            answer.body(BoxBody::new(StreamBody::new(pieces(&bytes).chain(end))))
        }
        Does::Redirects(to) => Response::builder()
            .status(302)
            .header("location", to)
            .body(BoxBody::new(StreamBody::new(pieces(&Bytes::new())))),
        Does::Status(status) => {
            Response::builder().status(*status).body(BoxBody::new(StreamBody::new(pieces(&Bytes::new()))))
        }
    }
    .unwrap()
}
