//! Images on secondary stores: nothing is downloaded or copied, but it takes its time and gives what it should.
//!
//! # What a simulated download does
//! The URL's query says it; everything has a default:
//! * `bytes=N`: length of the file (64 MiB); `virtual=N`: size of the disk in it (2 GiB; of an ISO the file's length);
//! * `millis=N`: how long the bytes take to come in (200); putting them in place takes a tenth of that;
//! * `sum=TEXT`: the checksum of the file: an order that expects another is refused when all bytes are in;
//! * `refuse=TEXT`: refused with this text when all bytes are in.
//!
//! Two downloads of one URL give the same content. The copy of a volume is as long as the volume, and takes 200 ms.
//! What is here lasts as long as the agent: one that was restarted begins anew, with the same result. Faults and delays
//! that tests ask for (`FetchImage` or 4.11's `DownloadCommand`) apply to each order, so to each look, too.

use super::driver::Simulator;
use super::state::State;
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use aws_lc_rs::digest::{SHA256, digest};
use contract::ApiError;
use contract_agent::image_state::Phase;
use contract_agent::{DeleteImage, FetchImage, ImagePiece, ImageState, ImageStore, ReadImage, StoreDisk, outcome};
use std::time::Duration;
use tokio::time::Instant;

/// Most bytes of a piece.
const MOST: u64 = 1 << 20;
/// Length of a file whose URL doesn't say.
const BYTES: u64 = 64 << 20;
/// Size of the disk in it.
const VIRTUAL: u64 = 2 << 30;
/// Time for the bytes to come in.
const MILLIS: u64 = 200;

/// An image, in its place or on its way there.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// The URL or volume that it comes from.
    source: String,
    begun: Instant,
    millis: u64,
    bytes: u64,
    virtual_size: u64,
    format: String,
    /// What is found wrong with it when all bytes are in.
    refusal: Option<String>,
}

/// What tells an image from all others: the store's UUID and the path in it.
pub(super) type Place = (String, String);

impl Simulator {
    pub(super) async fn do_fetch_image(&self, work: &Work, order: FetchImage) -> Result<Done, Failure> {
        let mute = self.before(work, &["FetchImage", "DownloadCommand"]).await?;
        let place = place(order.store.as_ref(), &order.path)?;
        let patience = Duration::from_millis(order.report_after_millis.into());
        let done = self.watch(work, &place, patience, |_| Image::fetched(&order)).await?;
        Ok(done.mute(mute))
    }

    pub(super) async fn do_store_disk(&self, work: &Work, order: StoreDisk) -> Result<Done, Failure> {
        let mute = self.before(work, &["StoreDisk", "CopyCommand", "BackupSnapshotCommand"]).await?;
        let place = place(order.store.as_ref(), &order.store_path)?;
        let patience = Duration::from_millis(order.report_after_millis.into());
        let done = self.watch(work, &place, patience, |state| Image::stored(state, &order)).await?;
        Ok(done.mute(mute))
    }

    pub(super) async fn do_delete_image(&self, work: &Work, order: DeleteImage) -> Result<Done, Failure> {
        let mute = self.before(work, &["DeleteImage", "DeleteTemplateCommand", "DeleteCommand"]).await?;
        let place = place(order.store.as_ref(), &order.path)?;
        let done = work.commit(|_| {
            let mut state = self.alive(work)?;
            state.images.remove(&place);
            Ok((nothing(), state))
        });
        Ok(done?.mute(mute))
    }

    /// What is read is made up: it follows from where the image came from, so that all readers read the same.
    pub(super) async fn do_read_image(&self, work: &Work, order: ReadImage) -> Result<Done, Failure> {
        let mute = self.before(work, &["ReadImage", "CreateEntityDownloadURLCommand"]).await?;
        let place = place(order.store.as_ref(), &order.path)?;
        let done = work.commit(|_| {
            let state = self.alive(work)?;
            let image = state.images.get(&place).filter(|image| image.seen(&place.1, Instant::now()).1.is_zero());
            let image = image.ok_or_else(|| ApiError::param(format!("there is no image {} in the store", place.1)))?;
            let length = u64::from(order.length).min(MOST).min(image.bytes.saturating_sub(order.offset));
            let piece = ImagePiece { data: image.piece(order.offset, length), total: image.bytes };
            Ok((outcome::Body::ImagePiece(piece), state))
        });
        Ok(done?.mute(mute))
    }

    /// Begins what isn't under way, and answers when it is done or `patience` is over.
    async fn watch(
        &self,
        work: &Work,
        place: &Place,
        patience: Duration,
        make: impl Fn(&State) -> Result<Image, ApiError>,
    ) -> Result<Done, Failure> {
        let end = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let (seen, left) = self.alive(work)?.look(place, now, &make)?;
            if left.is_zero() || now >= end {
                return work.commit(|_| Ok((outcome::Body::Image(seen), self.alive(work)?)));
            }
            tokio::time::sleep_until((now + left).min(end)).await;
        }
    }
}

impl State {
    /// Where an image stands, and the time until that changes; zero for one in its place.
    fn look(
        &mut self,
        place: &Place,
        now: Instant,
        make: &impl Fn(&State) -> Result<Image, ApiError>,
    ) -> Result<(ImageState, Duration), Failure> {
        let wanted = make(self)?;
        let image = self.images.entry(place.clone()).or_insert(wanted.clone()).clone();
        let (seen, left) = image.seen(&place.1, now);
        if !left.is_zero() && image.source != wanted.source {
            let text = format!("another image is on its way to {}: delete it first", place.1);
            return Err(ApiError::failed(text).into());
        }
        if seen.phase() != Phase::Downloading
            && let Some(why) = image.refusal
        {
            self.images.remove(place);
            return Err(ApiError::param(why).into());
        }
        Ok((seen, left))
    }
}

impl Image {
    /// What a URL says of itself.
    fn fetched(order: &FetchImage) -> Result<Image, ApiError> {
        let query = order.url.split_once('?').map_or("", |(_, query)| query);
        let said = |name: &str| {
            query.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name)).map(|(_, value)| value)
        };
        let number = |name: &str, default: u64| said(name).and_then(|v| v.parse().ok()).unwrap_or(default);
        let bytes = number("bytes", BYTES);
        let iso = order.format.eq_ignore_ascii_case("iso");
        let virtual_size = number("virtual", if iso { bytes } else { VIRTUAL });
        if order.max_bytes > 0 && bytes > order.max_bytes {
            let text = format!("the file has {bytes} bytes: more than the {} that are allowed", order.max_bytes);
            return Err(ApiError::param(text));
        }
        let wrong_sum =
            said("sum").filter(|sum| !order.checksum.is_empty() && !sum.eq_ignore_ascii_case(&order.checksum));
        let refusal = if let Some(text) = said("refuse") {
            Some(text.replace(['+', '_'], " "))
        } else if let Some(sum) = wrong_sum {
            Some(format!("the checksum of the file is {sum}, not {}", order.checksum))
        } else if order.max_virtual_bytes > 0 && virtual_size > order.max_virtual_bytes {
            Some(format!("the disk has {virtual_size} bytes: more than the {} allowed", order.max_virtual_bytes))
        } else {
            None
        };
        Ok(Image {
            source: order.url.clone(),
            begun: Instant::now(),
            millis: number("millis", MILLIS),
            bytes,
            virtual_size,
            format: if iso { "raw".to_owned() } else { order.format.clone() },
            refusal,
        })
    }

    /// The copy of a volume, or of another image.
    fn stored(state: &State, order: &StoreDisk) -> Result<Image, ApiError> {
        if let Some(from) = &order.source {
            return Ok(Image {
                source: format!("image {}", from.store_path),
                begun: Instant::now(),
                millis: MILLIS,
                bytes: from.virtual_size,
                virtual_size: from.virtual_size,
                format: order.format.clone(),
                refusal: None,
            });
        }
        let key = (order.volume_uuid.clone(), order.path.clone());
        let disk = state.pools.get(&order.pool_uuid).and_then(|pool| pool.disks.get(&key));
        let disk = disk.ok_or_else(|| {
            ApiError::failed(format!("volume {} isn't on pool {}", order.volume_uuid, order.pool_uuid))
        })?;
        Ok(Image {
            source: format!("volume {} at {}", order.volume_uuid, order.path),
            begun: Instant::now(),
            millis: MILLIS,
            bytes: disk.size,
            virtual_size: disk.size,
            format: order.format.clone(),
            refusal: None,
        })
    }

    /// A piece of its bytes: the digest of its source, again and again.
    fn piece(&self, offset: u64, length: u64) -> Vec<u8> {
        let digest = digest(&SHA256, self.source.as_bytes());
        let start = usize::try_from(offset % 32).unwrap_or_default();
        let length = usize::try_from(length).unwrap_or_default();
        digest.as_ref().iter().copied().cycle().skip(start).take(length).collect()
    }

    fn seen(&self, path: &str, now: Instant) -> (ImageState, Duration) {
        let incoming = Duration::from_millis(self.millis);
        let installed = incoming + incoming / 10;
        let passed = now.saturating_duration_since(self.begun);
        let mut seen = ImageState {
            path: path.to_owned(),
            received: self.bytes,
            total: Some(self.bytes),
            format: self.format.clone(),
            ..ImageState::default()
        };
        if passed < incoming {
            seen.phase = Phase::Downloading.into();
            let done = u128::from(self.bytes) * passed.as_micros() / incoming.as_micros().max(1);
            seen.received = u64::try_from(done).unwrap_or(self.bytes);
            return (seen, incoming - passed);
        }
        if passed < installed {
            seen.phase = Phase::Installing.into();
            return (seen, installed - passed);
        }
        seen.phase = Phase::Ready.into();
        (seen.physical_size, seen.virtual_size) = (self.bytes, self.virtual_size);
        let sum = digest(&SHA256, self.source.as_bytes());
        seen.checksum = format!("{{SHA-256}}{}", sum.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>());
        (seen, Duration::ZERO)
    }
}

fn place(store: Option<&ImageStore>, path: &str) -> Result<Place, ApiError> {
    let store =
        store.filter(|s| !s.uuid.is_empty()).ok_or_else(|| ApiError::param("the order names no image store"))?;
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(ApiError::param(format!("{path} is no path in an image store")));
    }
    Ok((store.uuid.clone(), path.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    fn order(query: &str) -> FetchImage {
        let store = Some(ImageStore { uuid: "s".into(), url: "file:///s".into(), ..ImageStore::default() });
        FetchImage {
            store,
            path: "t/1".into(),
            url: format!("http://h/x.qcow2?{query}"),
            format: "qcow2".into(),
            ..FetchImage::default()
        }
    }

    fn look(state: &mut State, order: &FetchImage, after: u64) -> Result<ImageState, ApiError> {
        let place = place(order.store.as_ref(), &order.path).unwrap();
        let begun = state.images.get(&place).map_or_else(Instant::now, |image| image.begun);
        let now = begun + Duration::from_millis(after);
        match state.look(&place, now, &|_| Image::fetched(order)) {
            Ok((seen, _)) => Ok(seen),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Silent) => panic!("a look is never silent"),
        }
    }

    #[test]
    fn a_download_takes_its_time_and_gives_what_its_url_says() {
        let mut state = State::default();
        let order = order("bytes=1000&virtual=5000&millis=100");
        assert_eq!(look(&mut state, &order, 0).unwrap().phase(), Phase::Downloading);
        let half = look(&mut state, &order, 50).unwrap();
        assert_eq!((half.received, half.total, half.physical_size), (500, Some(1000), 0));
        assert_eq!(look(&mut state, &order, 105).unwrap().phase(), Phase::Installing);
        let ready = look(&mut state, &order, 111).unwrap();
        assert_eq!((ready.phase(), ready.physical_size, ready.virtual_size), (Phase::Ready, 1000, 5000));
        assert!(ready.checksum.starts_with("{SHA-256}") && ready.checksum.len() == 9 + 64);
        let other = FetchImage { url: "http://h/y.qcow2".into(), ..order };
        assert_eq!(look(&mut state, &other, 200).unwrap(), ready, "what is there is left alone");
    }

    #[test]
    fn what_is_wrong_is_refused_and_begins_anew() {
        let mut state = State::default();
        let order = FetchImage { checksum: "aa".into(), max_bytes: 10, ..order("bytes=9&sum=bb&millis=100") };
        look(&mut state, &order, 0).unwrap();
        let other = FetchImage { url: "http://h/y.qcow2?bytes=9".into(), ..order.clone() };
        assert_eq!(look(&mut state, &other, 10).unwrap_err().code, 530, "another image for the same place");
        let error = look(&mut state, &order, 101).unwrap_err();
        assert_eq!((error.code, error.text.as_str()), (431, "the checksum of the file is bb, not aa"));
        assert!(state.images.is_empty());
        let large = FetchImage { url: "http://h/x.qcow2?bytes=11".into(), ..order.clone() };
        assert_eq!(look(&mut state, &large, 0).unwrap_err().code, 431);
        let told = FetchImage { url: "http://h/x.qcow2?bytes=1&refuse=it+is+no+image".into(), ..order };
        look(&mut state, &told, 0).unwrap();
        assert_eq!(look(&mut state, &told, 1000).unwrap_err().text, "it is no image");
    }
}
