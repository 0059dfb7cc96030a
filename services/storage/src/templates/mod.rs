//! Templates and ISOs: what may be registered, and what their owners change.
//!
//! [`format`] and [`url`] say what an image may be and where it may come from; [`register`] checks a request and makes the
//! rows; [`capture`] checks what a template may be made of; [`change`] is updateTemplate and the permissions; [`warm`] brings a template to primary storage before it is needed.
//! The copies on secondary storage are [`crate::images`]' work.

pub mod capture;
pub mod change;
pub mod format;
pub mod register;
pub mod url;
pub mod warm;

use crate::Storage;
use crate::store::copies::{Copy, Wanted};
use crate::store::templates::TemplateRow;
use contract::ApiError;
use events::{Record, UsageRecord};
use model::Owner;
use store::now_micros;

/// The error for a template that isn't there.
pub fn gone(iso: bool) -> ApiError {
    let what = if iso { "ISO" } else { "template" };
    ApiError::param(format!("Unable to find the {what}: it doesn't exist or has been deleted"))
}

/// The kind of the entity, as jobs and events name it.
pub fn kind(iso: bool) -> &'static str {
    if iso { "Iso" } else { "Template" }
}

/// Makes sure that a command for templates gets a template, and one for ISOs an ISO.
///
/// # Errors
/// 431 when it is the other kind, or part of the system.
pub fn check_kind(t: &TemplateRow, iso: bool) -> Result<(), ApiError> {
    if t.is_iso() != iso {
        let (wanted, command) = if iso { ("an iso", "template") } else { ("a template", "ISO") };
        let text = format!("Please specify {wanted}: {} isn't one; there are {command} commands for it", t.name);
        return Err(ApiError::param(text).with_entity(&t.uuid, "id"));
    }
    if t.template_type == "SYSTEM" {
        let text = format!("template {} is part of the system: it can't be changed", t.name);
        return Err(ApiError::param(text).with_entity(&t.uuid, "id"));
    }
    Ok(())
}

/// The owner of a template.
pub fn owner(t: &TemplateRow) -> Owner {
    Owner { account_id: t.account_id, domain_id: t.domain_id, domain_path: t.domain_path.clone() }
}

/// Seals where a template comes from: it may hold a password.
pub fn seal_url(s: &Storage, template_uuid: &str, url: &str) -> String {
    s.node.vault.seal(&context(template_uuid), url.as_bytes())
}

/// Opens it.
///
/// # Errors
/// 530 when it can't be opened.
pub fn open_url(s: &Storage, template_uuid: &str, sealed: &str) -> Result<String, ApiError> {
    String::from_utf8(s.node.vault.open_sealed(&context(template_uuid), sealed)?)
        .map_err(|_| ApiError::internal(format!("the URL of template {template_uuid} is no text")))
}

fn context(template_uuid: &str) -> String {
    format!("templates.url_sealed:{template_uuid}")
}

/// How far a template is in a zone, in the words of 4.11 (`status`), and whether it can be used.
pub fn status(copies: &[Copy], zone: i64, iso: bool) -> (String, bool) {
    let mut here: Vec<&Copy> = copies.iter().filter(|c| c.serves(zone)).collect();
    // The best of them: there, on its way (the further the better), failed.
    here.sort_by_key(|c| (!c.is_ready(), !c.is_coming(), -c.percent, c.store_id));
    let Some(copy) = here.first() else { return ("Processing".to_owned(), false) };
    let text = match (copy.state.as_str(), copy.download_state.as_str()) {
        ("Ready", _) => "Download Complete".to_owned(),
        ("Creating", "DOWNLOAD_IN_PROGRESS") if copy.percent >= 100 => {
            if iso { "Installing ISO" } else { "Installing Template" }.to_owned()
        }
        ("Creating", "DOWNLOAD_IN_PROGRESS") => format!("{}% Downloaded", copy.percent),
        ("Failed", _) => copy.error.clone().unwrap_or_else(|| "Download failed".to_owned()),
        _ => "Processing".to_owned(),
    };
    (text, copy.is_ready())
}

/// A fact for accounting about a template in a zone. `what`: CREATE, COPY.
pub fn usage(w: &Wanted, zone: i64, what: &str, size: Option<i64>) -> Record {
    let family = if w.format == "ISO" { "ISO" } else { "TEMPLATE" };
    Record::Usage(UsageRecord {
        kind: format!("{family}.{what}"),
        owner: w.owner.clone(),
        zone_id: zone,
        resource_id: w.copy.template_id,
        resource_uuid: w.uuid.clone(),
        resource_name: w.name.clone(),
        offering_id: None,
        template_id: None,
        size,
        resource_type: Some(w.hypervisor.clone()),
        created: now_micros(),
    })
}

/// The fact that a template is gone from a zone.
pub fn usage_end(t: &TemplateRow, zone: i64) -> Record {
    let family = if t.is_iso() { "ISO" } else { "TEMPLATE" };
    Record::Usage(UsageRecord {
        kind: format!("{family}.DELETE"),
        owner: owner(t),
        zone_id: zone,
        resource_id: t.id,
        resource_uuid: t.uuid.clone(),
        resource_name: t.name.clone(),
        offering_id: None,
        template_id: t.source_template_id,
        size: Some(t.physical_size),
        resource_type: Some(t.hypervisor.clone()),
        created: now_micros(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(store_id: i64, state: &str, download: &str, percent: i64) -> Copy {
        Copy {
            template_id: 1,
            store_id,
            zone_id: Some(1),
            state: state.into(),
            download_state: download.into(),
            error: (state == "Failed").then(|| "404".into()),
            path: "p".into(),
            size: 0,
            physical_size: 0,
            percent,
            held_bytes: 0,
            host_id: None,
            hypervisor: None,
            content_sum: None,
            copied: false,
        }
    }

    #[test]
    fn the_status_is_that_of_the_best_copy() {
        let of = |copies: &[Copy]| status(copies, 1, false);
        assert_eq!(of(&[]), ("Processing".into(), false));
        let (new, half) = (copy(1, "Creating", "NOT_DOWNLOADED", 0), copy(2, "Creating", "DOWNLOAD_IN_PROGRESS", 50));
        assert_eq!(of(std::slice::from_ref(&new)), ("Processing".into(), false));
        assert_eq!(of(&[new.clone(), half.clone()]), ("50% Downloaded".into(), false));
        let all = copy(3, "Creating", "DOWNLOAD_IN_PROGRESS", 100);
        assert_eq!(of(&[half.clone(), all.clone()]), ("Installing Template".into(), false));
        assert_eq!(status(&[all], 1, true).0, "Installing ISO");
        let bad = copy(4, "Failed", "DOWNLOAD_ERROR", 10);
        assert_eq!(of(std::slice::from_ref(&bad)), ("404".into(), false));
        assert_eq!(of(&[bad.clone(), half]), ("50% Downloaded".into(), false));
        assert_eq!(of(&[bad, copy(5, "Ready", "DOWNLOADED", 100)]), ("Download Complete".into(), true));
        assert_eq!(status(&[copy(5, "Ready", "DOWNLOADED", 100)], 2, false).0, "Processing", "another zone's copy");
    }
}
