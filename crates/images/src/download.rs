//! Files over HTTP and HTTPS: hashed while they stream, continued when the connection breaks, there whole or not at all.

use crate::checksum::{Checksum, Hasher};
use crate::errors::{DownloadError, Error};
use crate::place::Temporary;
use crate::resume::Note;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url, redirect};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// A try that brings so many bytes was worth it: the count starts anew.
const HEADWAY: u64 = 1 << 20;
/// Longest pause between two tries.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// What to download, and what it may take.
#[derive(Clone, Debug)]
pub struct Request {
    /// HTTP or HTTPS; may carry a user and password.
    pub url: String,
    /// Largest file.
    pub max_bytes: u64,
    /// What the file must have.
    pub checksum: Option<Checksum>,
    /// Longest standstill: no answer, no bytes. The whole may take any time.
    pub stall: Duration,
    /// Tries in a row that bring less than a MiB, at least one.
    pub tries: u32,
    /// Before the second try; doubled for each further one.
    pub pause: Duration,
}

impl Request {
    /// A request with the usual patience.
    pub fn new(url: impl Into<String>, max_bytes: u64) -> Request {
        Request {
            url: url.into(),
            max_bytes,
            checksum: None,
            stall: Duration::from_secs(60),
            tries: 8,
            pause: Duration::from_millis(500),
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here. Goes back to 0 when a download starts anew.
    pub bytes: u64,
    /// All bytes, when the server says so.
    pub total: Option<u64>,
}

/// A finished download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Length of the file.
    pub bytes: u64,
    /// Times it was continued after a broken connection.
    pub resumed: u32,
}

/// Which addresses may be called.
type Guard = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Downloads files.
#[derive(Clone)]
pub struct Downloader {
    client: reqwest::Client,
    guard: Guard,
}

impl std::fmt::Debug for Downloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloader").field("client", &self.client).finish_non_exhaustive()
    }
}

/// An address that may not be called: a host's name, or what stands for one in a URL.
#[derive(Debug, thiserror::Error)]
#[error("{0} may not be called")]
struct Forbidden(String);

/// Resolves names as the system does, and gives only addresses that may be called: the client connects to those.
struct Guarded(Guard);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.iter().copied().filter(|at| guard(at.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Forbidden(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Addresses that stand in a URL are never resolved.
fn written_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotFollowed(&'static str);

fn follow(attempt: redirect::Attempt<'_>, guard: &Guard) -> redirect::Action {
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error(NotFollowed("more than 5 redirects"));
    }
    if !is_http(attempt.url()) {
        return attempt.error(NotFollowed("neither http nor https"));
    }
    match written_address(attempt.url()) {
        Some(ip) if !guard(ip) => attempt.error(Forbidden(ip.to_string())),
        _ => attempt.follow(),
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

/// Why one try ended.
enum Ended {
    /// Worth another.
    Broken(String),
    Final(DownloadError),
}

impl From<DownloadError> for Ended {
    fn from(error: DownloadError) -> Ended {
        Ended::Final(error)
    }
}

/// The error and its causes in one line, without the URL.
fn broken(error: reqwest::Error) -> Ended {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut texts: Vec<String> = Vec::new();
    while let Some(at) = cause {
        if let Some(NotFollowed(why)) = at.downcast_ref::<NotFollowed>() {
            return Ended::Final(DownloadError::Redirect(why));
        }
        if let Some(Forbidden(host)) = at.downcast_ref::<Forbidden>() {
            return Ended::Final(DownloadError::Forbidden(host.clone()));
        }
        texts.push(at.to_string());
        cause = at.source();
    }
    Ended::Broken(texts.join(": "))
}

/// A download under way: what is in the file, and how to go on.
pub(crate) struct Work<'a> {
    pub request: &'a Request,
    pub path: &'a Path,
    pub file: File,
    pub hasher: Option<Hasher>,
    pub bytes: u64,
    /// Strong, or there is no going on.
    pub etag: Option<String>,
    pub total: Option<u64>,
    pub resumed: u32,
    pub progress: &'a watch::Sender<Progress>,
    /// Where it is written down how far this is.
    pub note: Option<Note>,
}

impl Downloader {
    /// A client that uses no proxies and waits 20 s for a connection. It trusts what the system trusts, and the PEM
    /// certificates in `roots`. It calls any address.
    ///
    /// # Errors
    /// TLS can't be set up: `roots` can't be read, or the system trusts nobody (Debian: ca-certificates is missing).
    pub fn new(roots: &[u8]) -> Result<Downloader, DownloadError> {
        Downloader::guarded(roots, |_| true)
    }

    /// The same, but it calls only addresses that `guard` allows: those in URLs, those that servers redirect to, and those
    /// that names lead to, at the moment of the call.
    ///
    /// # Errors
    /// As [`Downloader::new`].
    pub fn guarded(
        roots: &[u8],
        guard: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Result<Downloader, DownloadError> {
        let guard: Guard = Arc::new(guard);
        let failed = |e: reqwest::Error| DownloadError::Client(e.to_string());
        let roots = reqwest::Certificate::from_pem_bundle(roots).map_err(failed)?;
        let judge = guard.clone();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::custom(move |attempt| follow(attempt, &judge)))
            .dns_resolver(Arc::new(Guarded(guard.clone())))
            .referer(false)
            .connect_timeout(Duration::from_secs(20))
            .tls_certs_merge(roots)
            .build()
            .map_err(failed)?;
        Ok(Downloader { client, guard })
    }

    /// Downloads a file; `target` appears, or is replaced, when it is all there and its checksum is right. Dropping the future
    /// ends the download and leaves nothing.
    ///
    /// # Errors
    /// See [`DownloadError`]. Then there is no new target.
    pub async fn download(
        &self,
        request: &Request,
        target: &Path,
        progress: &watch::Sender<Progress>,
    ) -> Result<Downloaded, DownloadError> {
        let at = target.to_owned();
        let part = join(target, tokio::task::spawn_blocking(move || Temporary::new(&at)).await)?;
        let file = File::options().write(true).open(part.path()).await.map_err(Error::io(part.path()))?;
        let hasher = request.checksum.as_ref().map(|sum| Hasher::new(sum.algorithm()));
        let path = part.path();
        let work =
            Work { request, path, file, hasher, bytes: 0, etag: None, total: None, resumed: 0, progress, note: None };
        let done = self.finish(work).await?;
        join(target, tokio::task::spawn_blocking(move || part.place()).await)?;
        Ok(done)
    }

    /// Tries until all bytes are in the file, and compares the checksum.
    pub(crate) async fn finish(&self, mut work: Work<'_>) -> Result<Downloaded, DownloadError> {
        let request = work.request;
        let url = Url::parse(&request.url).ok().filter(is_http).ok_or(DownloadError::Url)?;
        if let Some(ip) = written_address(&url).filter(|ip| !(self.guard)(*ip)) {
            return Err(DownloadError::Forbidden(ip.to_string()));
        }
        let mut tries = 0;
        let mut pause = request.pause;
        loop {
            tries += 1;
            let before = work.bytes;
            match self.attempt(&url, &mut work).await {
                Ok(()) => break,
                Err(Ended::Final(error)) => return Err(error),
                // Bounded by the largest file: each such try has to get a MiB further than the one before.
                Err(Ended::Broken(_)) if work.etag.is_some() && work.bytes >= before.saturating_add(HEADWAY) => {
                    (tries, pause) = (0, request.pause);
                    tokio::time::sleep(pause).await;
                }
                Err(Ended::Broken(reason)) if tries >= request.tries => {
                    return Err(DownloadError::Broken { tries, reason });
                }
                Err(Ended::Broken(reason)) => {
                    tracing::debug!(tries, bytes = work.bytes, reason, "a download broke off");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MOST_PAUSE);
                }
            }
        }
        if let (Some(expected), Some(hasher)) = (&request.checksum, work.hasher.take()) {
            let found = hasher.finish();
            if found != *expected {
                return Err(DownloadError::Checksum { expected: expected.clone(), found });
            }
        }
        Ok(Downloaded { bytes: work.bytes, resumed: work.resumed })
    }

    async fn attempt(&self, url: &Url, work: &mut Work<'_>) -> Result<(), Ended> {
        let mut ask = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(etag) = work.etag.as_ref().filter(|_| work.bytes > 0) {
            ask = ask.header(RANGE, format!("bytes={}-", work.bytes)).header(IF_RANGE, etag);
        }
        let Ok(answer) = timeout(work.request.stall, ask.send()).await else {
            return Err(Ended::Broken("no answer in time".into()));
        };
        let mut answer = answer.map_err(broken)?;
        work.begin(&answer).await?;
        loop {
            match timeout(work.request.stall, answer.chunk()).await {
                Ok(Ok(Some(piece))) => work.write(&piece).await?,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(work.flushed(broken(error)).await),
                Err(_) => return Err(work.flushed(Ended::Broken("no bytes in time".into())).await),
            }
        }
        work.flush().await?;
        match work.total {
            Some(total) if total != work.bytes => Err(Ended::Broken(format!("{} of {total} bytes came", work.bytes))),
            _ => Ok(()),
        }
    }
}

pub(crate) fn join<T>(target: &Path, done: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    done.unwrap_or_else(|error| Err(Error::io(target)(std::io::Error::other(error))))
}

/// First byte and length of the whole, of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    etag.starts_with('"').then(|| etag.to_owned())
}

impl Work<'_> {
    /// Judges the head of an answer, and goes back to the start when the server does.
    async fn begin(&mut self, answer: &Response) -> Result<(), Ended> {
        let status = answer.status();
        let encoding = answer.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(DownloadError::Encoding.into());
        }
        match status {
            StatusCode::OK => {
                self.restart().await?;
                self.etag = strong_etag(answer.headers());
                self.total = answer.content_length();
            }
            StatusCode::PARTIAL_CONTENT if self.bytes > 0 && self.etag.is_some() => {
                let (from, total) = content_range(answer.headers()).unwrap_or((u64::MAX, None));
                let same = from == self.bytes && strong_etag(answer.headers()).is_none_or(|e| Some(e) == self.etag);
                let fits = total.is_none() || self.total.is_none() || total == self.total;
                if !same || !fits {
                    self.restart().await?;
                    return Err(Ended::Broken("the server continues with another part".into()));
                }
                self.total = self.total.or(total);
                self.resumed += 1;
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.bytes > 0 => {
                self.restart().await?;
                return Err(Ended::Broken("the server does not continue".into()));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Ended::Broken(format!("status {}", status.as_u16())));
            }
            _ if status.is_server_error() => return Err(Ended::Broken(format!("status {}", status.as_u16()))),
            StatusCode::NOT_MODIFIED => return Err(DownloadError::Status(status.as_u16()).into()),
            // What the client takes for no place at all never gets to the policy.
            _ if status.is_redirection() => return Err(DownloadError::Redirect("neither http nor https").into()),
            _ => return Err(DownloadError::Status(status.as_u16()).into()),
        }
        if self.total.is_some_and(|total| total > self.request.max_bytes) {
            return Err(DownloadError::TooLarge { max: self.request.max_bytes }.into());
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        self.progress.send_replace(Progress { bytes: self.bytes, total: self.total });
    }

    fn failed(&self, reason: std::io::Error) -> Ended {
        Ended::Final(Error::io(self.path)(reason).into())
    }

    async fn restart(&mut self) -> Result<(), Ended> {
        self.bytes = 0;
        self.etag = None;
        self.total = None;
        self.hasher = self.request.checksum.as_ref().map(|sum| Hasher::new(sum.algorithm()));
        if let Some(note) = &mut self.note {
            note.remove().await.map_err(DownloadError::from)?;
        }
        self.file.set_len(0).await.map_err(|e| self.failed(e))?;
        self.file.rewind().await.map(|_| ()).map_err(|e| self.failed(e))
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), Ended> {
        let bytes = self.bytes.saturating_add(piece.len() as u64);
        if bytes > self.request.max_bytes {
            return Err(DownloadError::TooLarge { max: self.request.max_bytes }.into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        self.file.write_all(piece).await.map_err(|e| self.failed(e))?;
        self.bytes = bytes;
        self.tell();
        if self.etag.is_some() && self.note.as_ref().is_some_and(|note| note.is_due(bytes)) {
            self.flush().await?;
            self.note_down().await?;
        }
        Ok(())
    }

    /// Writes down how far this is, once that much is certainly in the file.
    async fn note_down(&mut self) -> Result<(), Ended> {
        let Some(note) = &mut self.note else { return Ok(()) };
        self.file.sync_data().await.map_err(Error::io(self.path)).map_err(DownloadError::from)?;
        note.write(self.bytes, self.etag.as_deref(), self.total, false).await.map_err(DownloadError::from)?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        self.file.flush().await.map_err(|e| self.failed(e))
    }

    /// A failed write matters more than a broken connection.
    async fn flushed(&mut self, ended: Ended) -> Ended {
        let noted = match (self.flush().await, &self.etag) {
            (Ok(()), Some(_)) => self.note_down().await,
            (flushed, _) => flushed,
        };
        noted.err().unwrap_or(ended)
    }
}
