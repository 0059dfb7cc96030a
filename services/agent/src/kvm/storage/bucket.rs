//! Secondary stores in S3. An image is an object; what is known of it is another, below `.arcus/images`, written first.

use super::errors::io_error;
use super::notes;
use super::patience::{Gate, SHORT};
use super::pools::OWN;
use super::stores::{Bench, ImageNote, checksum, lock_name};
use contract::ApiError;
use contract_agent::ImageStore;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{ClientOptions, Error, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, RetryConfig};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use url::Url;

/// S3's limits: parts of 5 MiB at least but for the last, 10,000 of them.
const PART: u64 = 16 << 20;
const MOST_PARTS: u64 = 9_000;
/// Parts that are sent at the same time.
const AT_ONCE: usize = 4;
/// Where it is kept which upload was begun, until it is finished.
const UPLOAD: &str = "upload";

/// A bucket, or a part of one.
#[derive(Debug)]
pub(super) struct Bucket {
    url: String,
    client: AmazonS3,
    prefix: String,
    /// Where images come into being.
    work: PathBuf,
    pub gate: Gate,
}

/// An upload that was begun: what it holds costs money until it is finished or ended.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    key: String,
    id: String,
}

fn s3_error(error: Error) -> ApiError {
    match error {
        Error::NotFound { .. } => ApiError::failed("The object store has no such bucket or object"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ApiError::failed("The object store refuses the access key").with_internal(error.to_string())
        }
        Error::Generic { .. } => {
            ApiError::concurrent("The object store doesn't do what it should").with_internal(error.to_string())
        }
        error => ApiError::internal(error.to_string()),
    }
}

impl Bucket {
    /// A client of `s3://bucket/prefix`; nothing is called yet. `work` is a folder of this agent alone.
    pub fn open(store: &ImageStore, work: &Path) -> Result<Bucket, ApiError> {
        let bad = || ApiError::param(format!("{:?} is no URL of a bucket: s3://bucket/prefix is one", store.url));
        let url = Url::parse(&store.url).map_err(|_| bad())?;
        let bucket = url.host_str().filter(|host| !host.is_empty() && url.scheme() == "s3").ok_or_else(bad)?;
        let detail = |name: &str| store.details.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let key = |name: &str| {
            // Without keys the client would look for some on the network.
            detail(name).ok_or_else(|| ApiError::param(format!("A bucket needs the detail {name:?}")))
        };
        let retry = RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(90), ..RetryConfig::default() };
        // The time of a whole request: a part has to come through.
        let options = ClientOptions::new().with_timeout(Duration::from_secs(300));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(detail("region").unwrap_or("us-east-1"))
            .with_access_key_id(key("accesskey")?)
            .with_secret_access_key(key("secretkey")?)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = detail("endpoint") {
            let secure = detail("usehttps").is_none_or(|value| value.eq_ignore_ascii_case("true"));
            let endpoint = match endpoint.contains("://") {
                true => endpoint.to_owned(),
                false => format!("{}://{endpoint}", if secure { "https" } else { "http" }),
            };
            let parsed = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let parsed = parsed.ok_or_else(|| ApiError::param(format!("{endpoint:?} is no endpoint of S3")))?;
            builder = builder.with_allow_http(parsed.scheme() == "http").with_endpoint(endpoint);
        }
        let client = builder.build().map_err(|e| ApiError::param(format!("The bucket can't be used: {e}")))?;
        let prefix = url.path().trim_matches('/').to_owned();
        let (url, gate) = (store.url.clone(), Gate::new(format!("store {}", store.url)));
        Ok(Bucket { url, client, prefix, work: work.to_owned(), gate })
    }

    pub fn bench(&self, path: &str) -> Bench {
        let work = format!("work-{}", notes::digest(&format!("{} {path}", self.url)));
        Bench { dir: self.work.join(&work), lock: self.work.join(lock_name(&work)) }
    }

    fn key(&self, path: &str) -> Result<Key, ApiError> {
        let whole = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Key::parse(whole).map_err(|e| ApiError::param(format!("{path:?} can't be a name in a bucket: {e}")))
    }

    fn note_key(&self, path: &str) -> Result<Key, ApiError> {
        self.key(&format!("{OWN}/images/{}", notes::digest(path)))
    }

    /// What is known of an image, if it is there.
    pub async fn find(&self, path: &str) -> Result<Option<ImageNote>, ApiError> {
        let found = match self.client.head(&self.key(path)?).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(s3_error(error)),
        };
        let strange =
            || ApiError::failed(format!("The store {} has an object {path} that Arcus didn't make", self.url));
        let text = match self.client.get(&self.note_key(path)?).await {
            Ok(note) => note.bytes().await.map_err(s3_error)?,
            Err(Error::NotFound { .. }) => return Err(strange()),
            Err(error) => return Err(s3_error(error)),
        };
        let note: ImageNote = serde_json::from_slice(&text).map_err(|_| strange())?;
        if note.path != path || note.physical != found.size {
            return Err(strange());
        }
        Ok(Some(note))
    }

    /// Copies an image to a file of this host, and looks whether it came as it was sent.
    pub async fn copy_out(&self, note: &ImageNote, target: &Path) -> Result<(), ApiError> {
        let mut pieces = self.client.get(&self.key(&note.path)?).await.map_err(s3_error)?.into_stream();
        let mut file = tokio::fs::File::create(target).await.map_err(io_error)?;
        while let Some(piece) = pieces.try_next().await.map_err(s3_error)? {
            file.write_all(&piece).await.map_err(io_error)?;
        }
        file.flush().await.map_err(io_error)?;
        let at = target.to_owned();
        let sum = tokio::task::spawn_blocking(move || checksum(&at).map_err(io_error)).await;
        if sum.unwrap_or_else(|e| Err(ApiError::internal(e.to_string())))? == note.checksum {
            return Ok(());
        }
        Err(ApiError::failed(format!("The image {} in the store {} isn't what was put there", note.path, self.url)))
    }

    /// A piece of an image, and how long it is; nothing of the piece when it is to have no bytes.
    pub async fn piece(&self, path: &str, offset: u64, length: u64) -> Result<(Vec<u8>, u64), ApiError> {
        let missing = || ApiError::param(format!("The store {} has no image {path}", self.url));
        let key = self.key(path)?;
        let total = match self.client.head(&key).await {
            Ok(found) => found.size,
            Err(Error::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(s3_error(error)),
        };
        let end = offset.saturating_add(length).min(total);
        if offset >= end {
            return Ok((Vec::new(), total));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        match self.client.get_opts(&key, options).await {
            Ok(found) => Ok((found.bytes().await.map_err(s3_error)?.to_vec(), total)),
            Err(Error::NotFound { .. }) => Err(missing()),
            Err(error) => Err(s3_error(error)),
        }
    }

    /// Puts a finished image in its place.
    pub async fn install(&self, image: &Path, note: &ImageNote) -> Result<(), ApiError> {
        let key = self.key(&note.path)?;
        let text = serde_json::to_vec(note).map_err(|e| ApiError::internal(e.to_string()))?;
        self.client.put(&self.note_key(&note.path)?, text.into()).await.map_err(s3_error)?;
        if note.physical <= PART {
            let bytes = tokio::fs::read(image).await.map_err(io_error)?;
            self.client.put(&key, bytes.into()).await.map_err(s3_error)?;
            return Ok(());
        }
        let kept = self.bench(&note.path).dir.join(UPLOAD);
        self.end_upload(&kept).await;
        let id = self.client.create_multipart(&key).await.map_err(s3_error)?;
        let upload = Upload { key: key.to_string(), id: id.clone() };
        let at = kept.clone();
        let noted = self.gate.run(SHORT, move || notes::save(&at, &upload).map_err(io_error)).await;
        let sent = match noted {
            Ok(()) => self.send(&key, &id, image, note.physical).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(parts) => {
                self.client.complete_multipart(&key, &id, parts).await.map_err(s3_error)?;
                Ok(())
            }
            Err(error) => {
                if self.client.abort_multipart(&key, &id).await.is_ok() {
                    let _ = tokio::fs::remove_file(&kept).await; // ending it once more does no harm
                }
                Err(error)
            }
        }
    }

    async fn send(&self, key: &Key, id: &String, image: &Path, length: u64) -> Result<Vec<PartId>, ApiError> {
        let size = PART.max(length.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let parts = (0..length.div_ceil(size)).map(|number| async move {
            let image = image.to_owned();
            let read = move || {
                let mut file = std::fs::File::open(&image)?;
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(number * size))?;
                let mut bytes = Vec::new();
                file.take(size).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            let bytes = self.gate.run(SHORT, move || read().map_err(io_error)).await?;
            let number = usize::try_from(number).map_err(|e| ApiError::internal(e.to_string()))?;
            self.client.put_part(key, id, number, bytes.into()).await.map_err(s3_error)
        });
        futures::stream::iter(parts).buffered(AT_ONCE).try_collect().await
    }

    /// Ends an upload that a killed run began.
    async fn end_upload(&self, kept: &Path) {
        let at = kept.to_owned();
        let begun = self.gate.run(SHORT, move || notes::load::<Upload>(&at).map_err(io_error)).await;
        let Ok(Some(Upload { key, id })) = begun else { return };
        let Ok(key) = Key::parse(key) else { return };
        match self.client.abort_multipart(&key, &id).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            // It may have been finished, or the store knows it no more.
            Err(error) => tracing::info!(%error, "an upload that a killed run began can't be ended"),
        }
    }

    /// Removes an image, what is known of it, and an upload under way.
    pub async fn remove(&self, path: &str) -> Result<(), ApiError> {
        self.end_upload(&self.bench(path).dir.join(UPLOAD)).await;
        for key in [self.key(path)?, self.note_key(path)?] {
            match self.client.delete(&key).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(s3_error(error)),
            }
        }
        Ok(())
    }
}
