//! One copy of a template that comes in.
//!
//! ```text
//! NOT_DOWNLOADED ─▶ DOWNLOAD_IN_PROGRESS (percent) ─▶ DOWNLOADED  (Ready)
//!                                                 └─▶ DOWNLOAD_ERROR (Failed, with the reason)
//! ```
//! The bytes are counted against the owner's limit as soon as their number is known, before most of them have come
//! (TPL-048), and by the length of the file in its place at the end.

use super::reach;
use super::work::{self, Ended, Next, Watcher, Who};
use crate::store::copies::{self, Wanted};
use crate::store::deletions;
use crate::store::infra::Worker;
use crate::store::template_writes as rows;
use crate::templates::{self, url};
use crate::{Storage, limits};
use config::keys;
use contract::ApiError;
use contract::api::Caller;
use contract_agent::image_state::Phase;
use contract_agent::{FetchImage, ImageState, command};
use coord::Term;
use events::{EventRecord, EventState, Record};
use store::Tx;

/// How long the image of a copy that failed is left alone before it is deleted, in µs: no host is asked for it any more then.
const HEAD_START: i64 = 60_000_000;

/// Brings a copy in, or notes why it can't be.
///
/// # Errors
/// Those of the database: the same copy is taken up again later.
pub async fn bring_in(s: &Storage, term: Option<&Term>, w: &Wanted) -> Result<(), ApiError> {
    let Some(store) = reach::find(s, w.copy.store_id).await? else {
        return fail(s, term, w, &ApiError::failed("the image store is gone")).await;
    };
    let url = match &w.url_sealed {
        Some(sealed) => templates::open_url(s, &w.uuid, sealed)?,
        None => return fail(s, term, w, &ApiError::param("there is no URL to download it from")).await,
    };
    if w.copy.download_state == "NOT_DOWNLOADED" {
        let begun = store::tx!(s.node.db, "download-begins", |tx| {
            fence(term, tx).await?;
            let begun = copies::begin(tx, &w.copy).await?;
            if begun {
                let text = format!("download of {} begins", w.name);
                events::record(tx, &[event(w, "TEMPLATE.DOWNLOAD.START", EventState::Started, text)]).await?;
            }
            Ok::<_, ApiError>(begun)
        })
        .await?;
        if !begun {
            return Ok(());
        }
    }
    let limit = crate::size::Limits::of(&s.node.settings);
    let gib: i64 = s.node.settings.get(keys::MAX_TEMPLATE_ISO_SIZE);
    let allowed = url::allowed(&s.node.settings.get(keys::SECSTORAGE_ALLOWED_INTERNAL_SITES));
    let fetch = FetchImage {
        store: Some(store),
        path: w.copy.path.clone(),
        url,
        format: w.format.to_lowercase(),
        checksum: w.checksum.clone().unwrap_or_default(),
        max_bytes: bytes(gib),
        max_virtual_bytes: bytes(limit.max),
        report_after_millis: 0,
        internal_cidrs_allowed: allowed.iter().map(ToString::to_string).collect(),
    };
    let order = |millis| command::Body::FetchImage(FetchImage { report_after_millis: millis, ..fetch.clone() });
    let who = Who::Zone { zone: w.copy.zone_id, hypervisor: w.hypervisor.clone() };
    let caller = rpc::cx::system_caller();
    let mut watch = Watch { s, term, w, caller: &caller, shown: None, held: w.copy.held_bytes };
    match work::follow(s, &caller, &who, w.copy.host_id, order, &mut watch).await? {
        Ended::Ready(host, state) => finish(s, term, w, &host, &state).await,
        Ended::Failed(error) => fail(s, term, w, &error).await,
        Ended::Stopped => Ok(()),
    }
}

fn bytes(gib: i64) -> u64 {
    u64::try_from(gib).unwrap_or_default().saturating_mul(1 << 30)
}

async fn fence(term: Option<&Term>, tx: &mut Tx) -> Result<(), ApiError> {
    match term {
        Some(term) => term.fence(tx).await,
        None => Ok(()),
    }
}

/// Writes down how far a copy is.
struct Watch<'a> {
    s: &'a Storage,
    term: Option<&'a Term>,
    w: &'a Wanted,
    caller: &'a Caller,
    /// Host and percent that stand in the row.
    shown: Option<(i64, i64)>,
    /// What the row counts.
    held: i64,
}

impl Watcher for Watch<'_> {
    async fn seen(&mut self, host: &Worker, state: &ImageState) -> Result<Next, ApiError> {
        let (w, db) = (self.w, &self.s.node.db);
        let total = state.total.map_or(0, signed);
        if total > 0 && self.held < total && state.phase() != Phase::Ready {
            if !hold(self.s, self.term, w, total).await? {
                return Ok(Next::Stop);
            }
            self.held = total;
            match limits::recount_template(self.s, self.caller, w).await {
                Ok(()) => {}
                Err(error) if error.code == 535 => return Ok(Next::Refuse(error)),
                Err(error) => return Err(error),
            }
        }
        let percent = match state.phase() {
            Phase::Installing | Phase::Ready => 100,
            // 100 means that all are there and are put in place.
            _ if total > 0 => (signed(state.received).saturating_mul(100) / total).clamp(0, 99),
            _ => 0,
        };
        if self.shown == Some((host.id, percent)) {
            return Ok(Next::Go);
        }
        let wanted = store::tx!(*db, "download-progress", |tx| {
            fence(self.term, tx).await?;
            Ok::<_, ApiError>(copies::progress(tx, &w.copy, percent, host.id, &host.hypervisor).await?)
        })
        .await?;
        self.shown = Some((host.id, percent));
        Ok(if wanted { Next::Go } else { Next::Stop })
    }
}

async fn hold(s: &Storage, term: Option<&Term>, w: &Wanted, bytes: i64) -> Result<bool, ApiError> {
    store::tx!(s.node.db, "download-size", |tx| {
        fence(term, tx).await?;
        Ok::<_, ApiError>(copies::hold(tx, &w.copy, bytes).await?)
    })
    .await
}

/// The image is in its place: the copy is ready, when it is what the others are.
async fn finish(
    s: &Storage,
    term: Option<&Term>,
    w: &Wanted,
    host: &Worker,
    state: &ImageState,
) -> Result<(), ApiError> {
    let physical = signed(state.physical_size);
    // An ISO is what it is.
    let size = if w.format == "ISO" { physical } else { signed(state.virtual_size) };
    if size == 0 || physical == 0 {
        let text = format!("host {} put an image of {physical} bytes with a disk of {size} in place", host.id);
        return fail(s, term, w, &ApiError::failed(text)).await;
    }
    if !hold(s, term, w, physical).await? {
        return Ok(());
    }
    match limits::recount_template(s, &rpc::cx::system_caller(), w).await {
        Ok(()) => {}
        Err(error) if error.code == 535 => return fail(s, term, w, &error).await,
        Err(error) => return Err(error),
    }
    let sum = Some(state.checksum.as_str()).filter(|sum| !sum.is_empty());
    let same = store::tx!(s.node.db, "download-done", |tx| {
        fence(term, tx).await?;
        if let Some((known, known_size)) = copies::content(tx, w.copy.template_id).await? {
            let differs = known.as_deref().zip(sum).is_some_and(|(known, sum)| !known.eq_ignore_ascii_case(sum));
            if differs || known_size != size {
                return Ok(false);
            }
        }
        let zones = match w.copy.zone_id {
            Some(zone) => vec![zone],
            None => rows::zones_in(tx, w.copy.template_id).await?,
        };
        let mut facts = Vec::new();
        for zone in zones {
            // A second store of the zone changes nothing for whoever pays.
            if !copies::ready_in(tx, w.copy.template_id, zone).await? {
                facts.push(templates::usage(w, zone, if w.copy.copied { "COPY" } else { "CREATE" }, Some(physical)));
            }
        }
        if copies::ready(tx, &w.copy, size, physical, sum).await? {
            rows::note_facts(tx, w.copy.template_id, size, physical).await?;
            let text = format!("download of {} has ended: {physical} bytes, by host {}", w.name, host.id);
            facts.push(event(w, "TEMPLATE.DOWNLOAD.SUCCESS", EventState::Completed, text));
            events::record(tx, &facts).await?;
        }
        Ok::<_, ApiError>(true)
    })
    .await?;
    if same {
        return Ok(());
    }
    let text = "the URL gives another image now than when the template was registered: register it anew";
    fail(s, term, w, &ApiError::failed(text)).await
}

/// Notes why a copy can't be made. What may lie in the store is deleted.
async fn fail(s: &Storage, term: Option<&Term>, w: &Wanted, error: &ApiError) -> Result<(), ApiError> {
    tracing::info!(template = w.uuid, store = w.copy.store_id, %error, "a download has failed");
    let text = error.text.clone();
    store::tx!(s.node.db, "download-failed", |tx| {
        fence(term, tx).await?;
        if copies::failed(tx, &w.copy, &text).await? {
            let wanted = Some(w.hypervisor.as_str());
            deletions::owe_image(tx, w.copy.store_id, &w.copy.path, wanted, HEAD_START).await?;
            let text = format!("download of {} has failed: {text}", w.name);
            events::record(tx, &[event(w, "TEMPLATE.DOWNLOAD.FAILED", EventState::Completed, text)]).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    limits::recount_template(s, &rpc::cx::system_caller(), w).await
}

fn event(w: &Wanted, kind: &str, state: EventState, text: String) -> Record {
    let about =
        EventRecord::new(&rpc::cx::system_caller(), kind, state, text).about(w.kind(), &w.uuid).owned_by(&w.owner);
    Record::Event(if kind.ends_with("FAILED") { about.failed() } else { about })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
