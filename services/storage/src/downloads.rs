//! What extractTemplate, extractIso and extractVolume give: a URL at the gateway, by which whoever has it downloads a file of
//! secondary storage, for a while.
//!
//! The URL carries a token that is sealed with the installation's master key: it names the file and when it ends, and nobody
//! else can read or make one. Nothing is written down for it, so it is as good at all replicas, and after a kill. The gateway
//! asks for pieces ([`read`]), which a host that reaches the store reads; each piece is asked for by itself, so hosts and replicas
//! may come and go in the middle of a download. A template that is deleted can't be downloaded any more. What was copied for a
//! download (a volume) is a debt of the store from the start, due when the URL ends.

use crate::Storage;
use crate::hosts::Tell;
use crate::images::{reach, work};
use crate::store::templates::{Source, TemplateRow};
use crate::store::{images, templates};
use crate::tasks::ExtractImage;
use crate::templates::{check_kind, gone};
use config::keys;
use contract::ApiError;
use contract::api::Caller;
use contract_agent::{ImagePiece, ReadImage, command, outcome};
use contract_storage::{DownloadPiece, Extraction, ReadDownloadRequest};
use model::names::{self, Table};
use model::scope::may_act_for;
use rpc::Cx;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::now_micros;

/// Where tokens stand, for the vault: nothing else that it sealed is taken for one.
const CONTEXT: &str = "download.token";
/// Most bytes of a piece.
const PIECE: u32 = 512 * 1024;
/// How long a host may take for one.
const DEADLINE: Duration = Duration::from_secs(30);
/// Hosts that are tried.
const TRIES: usize = 3;
/// The only mode that there is.
const MODE: &str = "HTTP_DOWNLOAD";
/// Where the gateway serves downloads, beside the API.
const PLACE: &str = "download";

/// A file that can be downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The image store.
    pub store: i64,
    /// The path in it.
    pub path: String,
    /// What it is called.
    pub name: String,
    /// Whose hosts read it.
    pub hypervisor: String,
    /// When that ends, UTC µs.
    pub expires: i64,
}

impl File {
    /// Until when a URL that is made now is good.
    pub fn lifetime(s: &Storage) -> i64 {
        s.node.settings.get(keys::EXTRACT_URL_EXPIRATION_INTERVAL).max(1).saturating_mul(1_000_000)
    }

    /// As the URL has it: letters, digits, `-`, `_` and `.`.
    fn seal(&self, s: &Storage) -> Result<String, ApiError> {
        let plain = serde_json::to_vec(self).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(s.node.vault.seal(CONTEXT, &plain).replace(':', "."))
    }

    /// What a token names that is still good.
    fn open(s: &Storage, token: &str) -> Option<File> {
        let plain = s.node.vault.open_sealed(CONTEXT, &token.replace('.', ":")).ok()?;
        let file: File = serde_json::from_slice(&plain).ok()?;
        (file.expires > now_micros()).then_some(file)
    }

    /// The URL.
    ///
    /// # Errors
    /// Never for texts.
    pub fn url(&self, s: &Storage) -> Result<String, ApiError> {
        let api = s.node.settings.get(keys::ENDPOINT_URL);
        let base = api.trim_end_matches('/');
        let base = base.strip_suffix("/api").unwrap_or(base);
        Ok(format!("{base}/{PLACE}/{}/{}", self.seal(s)?, self.name))
    }
}

/// A file's name of what has this name: only what needs no quotes anywhere.
pub fn file_name(name: &str, format: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let name: String = name.chars().map(plain).take(64).collect();
    let name = if name.is_empty() { "image".to_owned() } else { name };
    format!("{name}.{}", format.to_ascii_lowercase())
}

/// Checks what all three commands have in common.
///
/// # Errors
/// 431 for another mode, 531 when only administrators may.
pub fn check_mode(s: &Storage, cx: &Cx, mode: Option<&str>) -> Result<(), ApiError> {
    let mode = mode.unwrap_or_default().trim();
    if mode.eq_ignore_ascii_case("FTP_UPLOAD") {
        return Err(ApiError::unsupported("uploads to FTP servers aren't supported: use mode=HTTP_DOWNLOAD"));
    }
    if !mode.eq_ignore_ascii_case(MODE) {
        return Err(ApiError::param("Please specify a valid extract Mode. Supported modes: HTTP_DOWNLOAD"));
    }
    if s.node.settings.get(keys::DISABLE_EXTRACTION) && !cx.caller.is_root_admin() {
        return Err(ApiError::permission("Extraction has been disabled by admin"));
    }
    Ok(())
}

/// Checks extractTemplate and extractIso.
///
/// # Errors
/// 431 when it isn't there, or isn't extractable and the caller no administrator; 531 for one of somebody else.
pub async fn check_image(
    s: &Storage,
    cx: &Cx,
    mode: Option<&str>,
    iso: bool,
) -> Result<(TemplateRow, ExtractImage), ApiError> {
    check_mode(s, cx, mode)?;
    let db = &s.node.db;
    let id: i64 = cx.refs.need("id")?;
    let zones = crate::store::template_writes::zones(db, id).await?;
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    let mut found: Option<(Source, i64)> = None;
    for zone in zone.map_or(zones, |zone| vec![zone]) {
        let source = templates::source(db, id, zone).await?.ok_or_else(|| gone(iso))?;
        let there = source.copy.is_some();
        found = Some((source, zone));
        if there {
            break;
        }
    }
    let (source, zone) = found.ok_or_else(|| gone(iso))?;
    let row = source.template.clone();
    check_kind(&row, iso)?;
    let refuse = |text: String| ApiError::param(text).with_entity(&row.uuid, "id");
    if !may_act_for(&cx.caller, &crate::templates::owner(&row)) {
        return Err(ApiError::permission(format!("you may not download {}", row.name)));
    }
    if !row.extractable && !cx.caller.is_root_admin() {
        return Err(refuse(format!("Unable to extract template id={} as it's not extractable", row.uuid)));
    }
    if source.copy.is_none() {
        return Err(refuse(format!("The template {} has not been downloaded to the zone yet", row.name)));
    }
    if row.template_type == "BUILTIN" && row.hypervisor == "Simulator" {
        return Err(refuse(format!("{} comes with simulated hosts: there is no file of it", row.name)));
    }
    Ok((row, ExtractImage { template: id, zone, iso }))
}

/// What a job that extracts ends with.
///
/// # Errors
/// Those of the database.
pub async fn view(
    s: &Storage,
    caller: &Caller,
    (uuid, name): (&str, &str),
    zone: i64,
    file: &File,
) -> Result<Extraction, ApiError> {
    let db = &s.node.db;
    let zones = names::named(db, Table::Zones, [zone]).await?;
    let accounts = names::named(db, Table::Accounts, [caller.account_id]).await?;
    Ok(Extraction {
        id: Some(uuid.to_owned()),
        name: Some(name.to_owned()),
        account_id: accounts.get(&caller.account_id).map(|a| a.uuid.clone()),
        created: Some(now_micros()),
        state: Some("DOWNLOAD_URL_CREATED".to_owned()),
        zone_id: zones.get(&zone).map(|z| z.uuid.clone()),
        zone_name: zones.get(&zone).map(|z| z.name.clone()),
        extract_mode: Some(MODE.to_owned()),
        url: Some(file.url(s)?),
        ..Extraction::default()
    })
}

/// Reads a piece of a file.
///
/// # Errors
/// 431 when the token isn't good, or not any more, or the file is gone; 534 when no host that reaches it is connected.
pub async fn read(s: &Storage, request: &ReadDownloadRequest) -> Result<DownloadPiece, ApiError> {
    let unknown = || ApiError::param("there is no such download, or it isn't offered any more");
    let file = File::open(s, &request.token).ok_or_else(unknown)?;
    let store = reach::find(s, file.store).await?.ok_or_else(unknown)?;
    let zone = images::zone(&s.node.db, file.store).await?;
    let who = work::Who::Zone { zone, hypervisor: file.hypervisor.clone() };
    let mut hosts = work::candidates(s, &who).await?;
    if !hosts.is_empty() {
        // One host for a file: what it has read of it ahead is used. Other files have others.
        let turn = file.path.bytes().fold(0usize, |sum, b| sum.wrapping_mul(31).wrapping_add(usize::from(b)));
        let turn = turn % hosts.len();
        hosts.rotate_left(turn);
    }
    let mut last = ApiError::unavailable("no host that reaches the image store is connected");
    for host in hosts.into_iter().take(TRIES) {
        let body = command::Body::ReadImage(ReadImage {
            store: Some(store.clone()),
            path: file.path.clone(),
            offset: request.offset,
            length: request.length.min(PIECE),
        });
        match s.hosts.ask(&rpc::cx::system_caller(), Tell { host: host.id, body, deadline: DEADLINE }).await {
            Ok(outcome) => {
                let Some(outcome::Body::ImagePiece(ImagePiece { data, total })) = outcome.body else {
                    return Err(ApiError::internal(format!("host {} gave something else than a piece", host.id)));
                };
                return Ok(DownloadPiece { data, total, name: file.name });
            }
            Err(error) if error.code == 431 && error.cs_code != 4390 => {
                return Err(unknown().with_internal(error.full_text()));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
