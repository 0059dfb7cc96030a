//! Images on their way into a secondary store: from a URL, or from a volume.
//!
//! At the image's bench lie `data` (what came), `unpacked`, `image` (what will be put in place), and `cancelled` when another
//! host was told to remove it. Whoever works there holds the bench's lock, which dies with its holder; the next one goes on
//! with what is there.

use super::disks::format;
use super::errors::{download_error, foreign_error, image_error, io_error};
use super::guard::Guard;
use super::patience::{Gate, Held, How, LONG, SHORT, hold, try_hold};
use super::stores::{Bench, ImageNote, Store, image_path, note_of};
use super::works::{Place, Reporter, Works};
use super::{Inner, Line, notes};
use contract::ApiError;
use contract_agent::image_state::Phase;
use contract_agent::{
    DeleteImage, FetchImage, ImagePiece, ImageState, ImageStore, ReadImage, StoreDisk, TemplateSource,
};
use images::{Downloader, Format, Origin, Progress, QemuImg, Request};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Most bytes of a piece of an image.
const PIECE: u64 = 1 << 20;

const DATA: &str = "data";
const UNPACKED: &str = "unpacked";
const IMAGE: &str = "image";
const CANCELLED: &str = "cancelled";
/// How often another host's word is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How long another host has to end its work.
const PATIENCE: Duration = Duration::from_secs(60);

fn place(store: &ImageStore, path: &str) -> Result<Place, ApiError> {
    Ok((store.url.trim_end_matches('/').to_owned(), image_path(path)?.to_owned()))
}

fn store_of(store: Option<&ImageStore>) -> Result<ImageStore, ApiError> {
    store.cloned().ok_or_else(|| ApiError::param("An order for an image needs a store"))
}

fn limit(wanted: u64) -> u64 {
    if wanted == 0 { u64::MAX } else { wanted }
}

fn going(path: &str, phase: Phase, progress: Progress) -> ImageState {
    ImageState {
        path: path.to_owned(),
        phase: phase.into(),
        received: progress.bytes,
        total: progress.total,
        ..ImageState::default()
    }
}

impl Inner {
    pub(super) async fn do_fetch(self: &Arc<Self>, works: &Works, order: &FetchImage) -> Result<ImageState, ApiError> {
        let store = store_of(order.store.as_ref())?;
        let place = place(&store, &order.path)?;
        let patience = Duration::from_millis(order.report_after_millis.into());
        let what = notes::digest(&format!("{} {} {}", order.url, order.checksum, order.format.to_lowercase()));
        let (inner, order) = (self.clone(), order.clone());
        let start = |report| async move { inner.fetch(store, order, report).await };
        works.listen(place, what, patience, start).await
    }

    pub(super) async fn do_store(self: &Arc<Self>, works: &Works, order: &StoreDisk) -> Result<ImageState, ApiError> {
        let store = store_of(order.store.as_ref())?;
        let place = place(&store, &order.store_path)?;
        let patience = Duration::from_millis(order.report_after_millis.into());
        let from = order.source.as_ref().map_or("", |from| from.store_path.as_str());
        let what = format!("{} {} {from} {}", order.volume_uuid, order.path, order.format.to_lowercase());
        let what = notes::digest(&what);
        let (inner, order) = (self.clone(), order.clone());
        let start = |report| async move { inner.store(store, order, report).await };
        works.listen(place, what, patience, start).await
    }

    pub(super) async fn do_read_image(&self, order: &ReadImage) -> Result<ImagePiece, ApiError> {
        let store = self.stores.get(&store_of(order.store.as_ref())?).await?;
        let length = u64::from(order.length).min(PIECE);
        let (data, total) = store.piece(&order.path, order.offset, length).await?;
        Ok(ImagePiece { data, total })
    }

    pub(super) async fn do_delete_image(&self, works: &Works, order: &DeleteImage) -> Result<(), ApiError> {
        let store = store_of(order.store.as_ref())?;
        let place = place(&store, &order.path)?;
        works.end(&place).await;
        let store = self.stores.get(&store).await?;
        let bench = store.bench(&order.path);
        let gate = store.gate();
        let (lock, dir) = (bench.lock.clone(), bench.dir.clone());
        let held = gate.run(SHORT, move || {
            let held = try_hold(&lock, How::Alone).map_err(io_error)?;
            if held.is_none() {
                // Another host works on it: it looks for this.
                std::fs::write(dir.join(CANCELLED), b"").map_err(io_error)?;
            }
            Ok(held)
        });
        let _held = match held.await? {
            Some(held) => held,
            None => {
                let waiting = hold(gate, bench.lock.clone(), How::Alone);
                let late = |_| ApiError::concurrent(format!("Another host still works on the image {}", order.path));
                tokio::time::timeout(PATIENCE, waiting).await.map_err(late)??
            }
        };
        // The bench last: an upload to end is noted there.
        store.remove(&order.path).await?;
        clear(gate, &bench, true).await
    }

    /// Takes an image's bench, and tells whether the image is in its place by then.
    async fn begin(
        &self,
        store: &Store,
        path: &str,
        format: Format,
    ) -> Result<(Held, Bench, Option<ImageState>), ApiError> {
        let bench = store.bench(path);
        let held = hold(store.gate(), bench.lock.clone(), How::Alone).await?;
        let found = store.find(path, format, &self.qemu).await?.map(ImageNote::ready);
        let (dir, fresh) = (bench.dir.clone(), found.is_none());
        let made = store.gate().run(SHORT, move || {
            if fresh {
                std::fs::create_dir_all(&dir).map_err(io_error)?;
                // What was cancelled is over: this is a new order.
                notes::remove(&dir.join(CANCELLED)).map_err(io_error)?;
            }
            Ok(())
        });
        made.await?;
        Ok((held, bench, found))
    }

    async fn fetch(
        self: Arc<Self>,
        store: ImageStore,
        order: FetchImage,
        report: Reporter,
    ) -> Result<ImageState, ApiError> {
        let guard = Guard::new(&order.internal_cidrs_allowed)?;
        let format = format(&order.format)?;
        let checksum = match order.checksum.trim() {
            "" => None,
            text => Some(text.parse().map_err(|e| ApiError::param(format!("The checksum can't be read: {e}")))?),
        };
        report.tell(going(&order.path, Phase::Downloading, Progress::default()));
        let store = self.stores.get(&store).await?;
        let (_held, bench, found) = self.begin(&store, &order.path, format).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        let Line { tries, pause } = self.line;
        let request = Request { checksum, tries, pause, ..Request::new(order.url.clone(), limit(order.max_bytes)) };
        let work = async {
            let data = bench.dir.join(DATA);
            let came = download(&guard, &request, &data, |progress| {
                report.tell(going(&order.path, Phase::Downloading, progress));
            });
            let bytes = came.await?;
            report.tell(going(&order.path, Phase::Installing, Progress { bytes, total: Some(bytes) }));
            let image = unpack(&bench, data, limit(order.max_bytes)).await?;
            let qemu = self.qemu_for(order.max_virtual_bytes);
            qemu.verify(&image, format, Origin::Foreign).await.map_err(foreign_error)?;
            let note = note_of(&order.path, &image, format, &qemu).await?;
            store.install(&image, &note).await?;
            Ok(note)
        };
        self.end(&store, &bench, work).await
    }

    /// Runs work at a bench, and clears it when the work is done or can't be gone on with.
    async fn end(
        &self,
        store: &Store,
        bench: &Bench,
        work: impl Future<Output = Result<ImageNote, ApiError>>,
    ) -> Result<ImageState, ApiError> {
        let result = tokio::select! {
            result = work => result,
            () = cancelled(store.gate(), &bench.dir) => Err(ApiError::param("The image was removed meanwhile")),
        };
        match result {
            Ok(note) => {
                clear(store.gate(), bench, false).await?;
                Ok(note.ready())
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                if let Err(left) = clear(store.gate(), bench, false).await {
                    tracing::warn!(error = %left, "what is left of an image can't be removed now");
                }
                Err(error)
            }
        }
    }

    fn qemu_for(&self, max_virtual_bytes: u64) -> QemuImg {
        let max_virtual_bytes = limit(max_virtual_bytes).min(self.qemu.max_virtual_bytes);
        QemuImg { max_virtual_bytes, ..self.qemu.clone() }
    }

    async fn store(
        self: Arc<Self>,
        store: ImageStore,
        order: StoreDisk,
        report: Reporter,
    ) -> Result<ImageState, ApiError> {
        let wanted = format(&order.format)?;
        report.tell(going(&order.store_path, Phase::Downloading, Progress::default()));
        let store = self.stores.get(&store).await?;
        let (_held, bench, found) = self.begin(&store, &order.store_path, wanted).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        let work = async {
            let image = self.copy_disk(&order, wanted, &bench, &report).await?;
            let length = tokio::fs::metadata(&image).await.map_err(io_error)?.len();
            let all = Progress { bytes: length, total: Some(length) };
            report.tell(going(&order.store_path, Phase::Installing, all));
            let note = note_of(&order.store_path, &image, wanted, &self.qemu).await?;
            store.install(&image, &note).await?;
            Ok(note)
        };
        self.end(&store, &bench, work).await
    }

    /// Makes a copy of a store's image at a bench.
    async fn copy_image(&self, from: &TemplateSource, wanted: Format, bench: &Bench) -> Result<PathBuf, ApiError> {
        let store = from.store.as_ref().ok_or_else(|| ApiError::failed("The order names no image store"))?;
        let source = self.stores.source(store, &from.store_path).await?;
        let image = bench.dir.join(IMAGE);
        let made = self.qemu.convert(source.file(), format(&from.format)?, Origin::Foreign, &image, wanted).await;
        made.map_err(foreign_error)?;
        source.done().await;
        Ok(image)
    }

    /// Makes a copy of a disk at a bench that stands alone.
    async fn copy_disk(
        &self,
        order: &StoreDisk,
        wanted: Format,
        bench: &Bench,
        report: &Reporter,
    ) -> Result<PathBuf, ApiError> {
        if let Some(from) = &order.source {
            return self.copy_image(from, wanted, bench).await;
        }
        let pool = self.pools.reach(&order.pool_uuid).await?;
        let disk = {
            let (pools, pool_uuid, path) = (self.pools.clone(), order.pool_uuid.clone(), order.path.clone());
            let volume = order.volume_uuid.clone();
            pool.gate.run(SHORT, move || super::disks::find(&pools, &pool_uuid, &path, Some(&volume))).await?
        };
        let image = bench.dir.join(IMAGE);
        let need = self.qemu.measure(&disk.path, disk.format, Origin::Pool, wanted).await;
        let total = need.ok().map(|need| need.required);
        let copying = async {
            let Some(vm) = &order.vm_uuid else {
                let made = self.qemu.convert(&disk.path, disk.format, Origin::Pool, &image, wanted).await;
                return made.map(|_| ()).map_err(image_error);
            };
            let moment = self.moment.get().cloned();
            let moment = moment.ok_or_else(|| ApiError::unsupported("This host can't copy disks of running VMs"))?;
            let copy = if wanted == Format::Qcow2 { image.clone() } else { bench.dir.join("moment") };
            let at = copy.clone();
            // A killed run may have left a part.
            Gate::new("the store").run(SHORT, move || notes::remove(&at).map_err(io_error)).await?;
            moment.copy(vm, &disk, &copy).await?;
            if wanted != Format::Qcow2 {
                let made = self.qemu.convert(&copy, Format::Qcow2, Origin::Pool, &image, wanted).await;
                made.map_err(image_error)?;
            }
            Ok(())
        };
        let watching = async {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let bytes = written(&bench.dir).await;
                report.tell(going(&order.store_path, Phase::Downloading, Progress { bytes, total }));
            }
        };
        tokio::select! {
            copied = copying => copied.map(|()| image),
            () = watching => Err(ApiError::internal("the watch over a copy ended")),
        }
    }
}

/// Bytes that the files at a bench take.
async fn written(dir: &Path) -> u64 {
    let dir = dir.to_owned();
    let sum = tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(&dir).ok()?.flatten().filter_map(|entry| entry.metadata().ok());
        Some(entries.map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512).sum())
    });
    sum.await.ok().flatten().unwrap_or(0)
}

/// Downloads, or goes on with it, and tells how far it is. Gives the length.
async fn download(guard: &Guard, request: &Request, data: &Path, tell: impl Fn(Progress)) -> Result<u64, ApiError> {
    let guard = guard.clone();
    let downloader = Downloader::guarded(&[], move |ip| guard.allows(ip)).map_err(download_error)?;
    let (progress, mut seen) = watch::channel(Progress::default());
    let coming = downloader.resume(request, data, &progress);
    tokio::pin!(coming);
    loop {
        tokio::select! {
            came = &mut coming => return came.map(|done| done.bytes).map_err(download_error),
            Ok(()) = seen.changed() => tell(*seen.borrow_and_update()),
        }
    }
}

/// What came, unpacked if it is packed.
async fn unpack(bench: &Bench, data: PathBuf, max_bytes: u64) -> Result<PathBuf, ApiError> {
    let at = data.clone();
    let kind = tokio::task::spawn_blocking(move || images::kind(&at)).await;
    let kind = kind.map_err(|e| ApiError::internal(e.to_string()))?.map_err(image_error)?;
    if !kind.is_packed() {
        return Ok(data);
    }
    let unpacked = bench.dir.join(UNPACKED);
    images::unpack(&data, kind, &unpacked, max_bytes).await.map_err(foreign_error)?;
    Ok(unpacked)
}

/// Waits for the word of another host that this isn't wanted any more.
async fn cancelled(gate: &Gate, dir: &Path) {
    let mark = dir.join(CANCELLED);
    loop {
        tokio::time::sleep(LOOK).await;
        let at = mark.clone();
        if gate.run(SHORT, move || notes::look(&at).map_err(io_error)).await.is_ok_and(|found| found.is_some()) {
            return;
        }
    }
}

/// Removes a bench, and the lock too when nobody will come back; the caller holds it.
async fn clear(gate: &Gate, bench: &Bench, with_lock: bool) -> Result<(), ApiError> {
    let Bench { dir, lock } = bench.clone();
    gate.run(LONG, move || {
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io_error(e)),
            _ => {}
        }
        if with_lock { notes::remove(&lock).map_err(io_error) } else { Ok(()) }
    })
    .await
}
