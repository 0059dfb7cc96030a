//! Downloads: `/client/download/TOKEN/NAME`, the URLs that extractTemplate, extractIso and extractVolume give.
//!
//! Whoever has the URL may have the file, as in 4.11; what a token means, and whether it is still good, the storage service says.
//! Bytes come from there in pieces, each asked for by itself, so a replica or host that is lost in the middle costs a moment, and
//! a download that broke off is resumed by a range (RFC 9110), at whichever replica. A few pieces are fetched ahead, and no more
//! than a slow client takes.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use contract::ApiError;
use contract_storage::downloads_client::DownloadsClient;
use contract_storage::{DownloadPiece, ReadDownloadRequest};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use node::Node;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::Answer;

/// What is below it is served here.
const ROOT: &str = "/client/download/";
/// Bytes of a piece.
const PIECE: u64 = 512 * 1024;
/// Pieces that are fetched ahead.
const AHEAD: usize = 4;
/// Downloads at a time, of one replica.
const MOST: usize = 256;
/// How often a piece is asked for again, and the first wait in between.
const RETRIES: usize = 7;
const WAIT: Duration = Duration::from_millis(250);

/// The body of an answer: whole, or as it comes.
pub type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>>;

/// What downloads need of a replica.
pub struct Downloads {
    node: Node,
    places: Arc<Semaphore>,
}

/// The token in a path; none when it isn't about downloads.
pub fn token(path: &str) -> Option<&str> {
    path.strip_prefix(ROOT)?.split('/').next().filter(|token| !token.is_empty())
}

/// An answer that isn't the file.
type Refused = (StatusCode, &'static str);

impl Downloads {
    /// Downloads through this node's peers.
    pub fn new(node: &Node) -> Downloads {
        Downloads { node: node.clone(), places: Arc::new(Semaphore::new(MOST)) }
    }

    /// Serves the file that a token names.
    pub async fn serve(&self, token: &str, parts: &Parts, request_id: &str) -> Response<Body> {
        match self.answer(token, &parts.method, &parts.headers).await {
            Ok(response) => response,
            Err((status, text)) => {
                let mut response = Answer::text(status, text).into_response(request_id, "", false);
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
                }
                response.map(Either::Left)
            }
        }
    }

    async fn answer(&self, token: &str, method: &Method, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        if method != Method::GET && method != Method::HEAD {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "A download is a GET"));
        }
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "There are too many downloads"))?;
        let first = piece(&self.node, token, 0..0).await.map_err(|error| refusal(&error))?;
        let total = first.total;
        let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        let (status, range) = match asked.map(|text| wanted(text, total)) {
            None | Some(Wanted::Whole) => (StatusCode::OK, 0..total),
            Some(Wanted::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
            Some(Wanted::Nothing) => {
                let mut response = Response::new(Either::Left(Full::default()));
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                set(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{total}"));
                return Ok(response);
            }
        };
        let body = if method == Method::HEAD {
            Either::Left(Full::default())
        } else {
            Either::Right(StreamBody::new(self.bytes(token, range.clone(), place)))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        out.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        set(out, header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", first.name));
        set(out, header::CONTENT_LENGTH, (range.end - range.start).to_string());
        if status == StatusCode::PARTIAL_CONTENT {
            let (from, to) = (range.start, range.end - 1);
            set(out, header::CONTENT_RANGE, format!("bytes {from}-{to}/{total}"));
        }
        Ok(response)
    }

    /// The bytes of a part of a file. It breaks off when a piece can't be had, and when the replica is to end: the client goes on
    /// elsewhere.
    fn bytes(
        &self,
        token: &str,
        range: Range<u64>,
        place: OwnedSemaphorePermit,
    ) -> BoxStream<'static, io::Result<Frame<Bytes>>> {
        let starts = (range.start..range.end).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
        let (node, token, stop) = (self.node.clone(), token.to_owned(), self.node.stop.clone());
        let pieces = stream::iter(starts).map(move |start| {
            let (node, token) = (node.clone(), token.clone());
            let part = start..range.end.min(start + PIECE);
            async move {
                let mut data = Vec::new();
                while part.start + (data.len() as u64) < part.end {
                    let left = part.start + data.len() as u64..part.end;
                    let more =
                        piece(&node, &token, left).await.map_err(|e| io::Error::other(e.full_text().to_owned()))?;
                    if more.data.is_empty() {
                        return Err(io::Error::other("the file has become shorter"));
                    }
                    data.extend_from_slice(&more.data);
                }
                Ok(Frame::data(Bytes::from(data)))
            }
        });
        let ended = async move {
            stop.cancelled().await;
            Err(io::Error::other("the replica ends"))
        };
        let pieces = pieces.buffered(AHEAD).map(move |piece| {
            let _place = &place;
            piece
        });
        // Whichever comes first: the next piece, or the end of the replica.
        let ended = stream::once(ended);
        stream::unfold(Some((pieces.boxed(), ended.boxed())), |state| async move {
            let (mut pieces, mut ended) = state?;
            tokio::select! {
                biased;
                piece = pieces.next() => match piece? {
                    Ok(frame) => Some((Ok(frame), Some((pieces, ended)))),
                    Err(error) => Some((Err(error), None)),
                },
                error = ended.next() => error.map(|error| (error, None)),
            }
        })
        .boxed()
    }
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(name, value);
    }
}

/// Asks for a piece, again and again while the reason may pass.
async fn piece(node: &Node, token: &str, range: Range<u64>) -> Result<DownloadPiece, ApiError> {
    let length = u32::try_from((range.end - range.start).min(PIECE)).unwrap_or(u32::MAX);
    let request = ReadDownloadRequest { token: token.to_owned(), offset: range.start, length };
    let ask = || async {
        let asked = rpc::cx::repeatable(&rpc::cx::system_caller(), request.clone());
        let answer = DownloadsClient::new(node.peers.storage()).read(asked).await;
        answer.map(tonic::Response::into_inner).map_err(ApiError::from)
    };
    let waits = ExponentialBuilder::default().with_min_delay(WAIT).with_factor(2.0).with_max_times(RETRIES);
    // Whoever begins a download is told at once.
    ask.retry(waits).when(|error| error.code != 431 && length > 0).await
}

fn refusal(error: &ApiError) -> Refused {
    match error.code {
        431 => (StatusCode::NOT_FOUND, "There is no such download, or it isn't offered any more"),
        _ => {
            tracing::info!(error = error.full_text(), "a download can't begin");
            (StatusCode::SERVICE_UNAVAILABLE, "The file can't be read now: try later")
        }
    }
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: also for what isn't understood, and for several parts at once.
    Whole,
    /// A part.
    Part(Range<u64>),
    /// What the file doesn't have.
    Nothing,
}

fn wanted(text: &str, total: u64) -> Wanted {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|part| part.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, false) => match number(last) {
            Some(length) => total.saturating_sub(length)..total,
            None => return Wanted::Whole,
        },
        (false, true) => match number(first) {
            Some(first) => first..total,
            None => return Wanted::Whole,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(total),
            _ => return Wanted::Whole,
        },
        (true, true) => return Wanted::Whole,
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, part) in [
            ("bytes=0-99", Wanted::Part(0..100)),
            ("bytes=10-", Wanted::Part(10..1000)),
            ("bytes=-10", Wanted::Part(990..1000)),
            ("bytes=-5000", Wanted::Part(0..1000)),
            ("bytes=990-5000", Wanted::Part(990..1000)),
            ("bytes=1000-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=9-1", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(text, 1000), part, "{text}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn tokens_stand_in_paths() {
        assert_eq!(token("/client/download/v1.a-b_c/x.qcow2"), Some("v1.a-b_c"));
        assert_eq!(token("/client/download/t"), Some("t"));
        assert_eq!(
            (token("/client/download/"), token("/client/downloads/x"), token("/client/api")),
            (None, None, None)
        );
    }
}
