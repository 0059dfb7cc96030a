//! registerTemplate and registerIso.

use super::format;
use super::url;
use crate::images::{nudge, rooms};
use crate::store::copies::{self, NewCopy};
use crate::store::images::{self, Room};
use crate::store::infra;
use crate::store::template_writes::{self as rows, NewTemplate};
use crate::store::templates;
use crate::{Storage, limits};
use config::{Scope, keys};
use contract::ApiError;
use contract_storage::{RegisterIsoRequest, RegisterTemplateRequest};
use events::{EventRecord, EventState, Record};
use model::Owner;
use model::scope::owner_for_create;
use rpc::Cx;
use std::collections::HashMap;

/// The OS type of ISOs that nothing boots from.
const NO_OS: &str = "None";

/// What a request asks for, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The row.
    pub row: NewTemplate,
    /// The zones it is put into.
    pub zones: Vec<i64>,
    /// The copies that are to come in.
    pub copies: Vec<NewCopy>,
}

/// What both commands have in common.
struct Common<'a> {
    iso: bool,
    name: &'a Option<String>,
    display_text: &'a Option<String>,
    url: &'a Option<String>,
    checksum: &'a Option<String>,
    account: &'a Option<String>,
    public: Option<bool>,
    format: &'static str,
}

/// Checks registerTemplate.
///
/// # Errors
/// 431 for what it doesn't allow, 531 for what the caller may not do.
pub async fn template(s: &Storage, cx: &Cx, req: &RegisterTemplateRequest) -> Result<Order, ApiError> {
    let hypervisor = format::hypervisor(word(&req.hypervisor))?;
    let format = format::format(word(&req.format), hypervisor)?;
    if req.template_tag.as_ref().is_some_and(|t| !t.trim().is_empty()) && !cx.caller.is_root_admin() {
        let text = "Parameter templatetag can only be specified by a Root Admin, permission denied";
        return Err(ApiError::permission(text));
    }
    let bits = match req.bits {
        None => 64,
        Some(bits @ (32 | 64)) => i64::from(bits),
        Some(other) => return Err(ApiError::param(format!("bits must be 32 or 64, not {other}"))),
    };
    let everywhere = is_all(&req.zone_id) || req.zone_ids.iter().any(|z| z.trim() == "-1");
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    let mut zones: Vec<i64> = cx.refs.ids("zoneids")?;
    if given(&req.zone_id) && !req.zone_ids.is_empty() {
        return Err(ApiError::param("Both zoneid and zoneids cannot be specified at the same time"));
    }
    if everywhere && req.zone_ids.len() > 1 {
        return Err(ApiError::param("Parameter zoneids cannot combine all zones (-1) option with other zones"));
    }
    zones.extend(zone);
    if zones.is_empty() && !everywhere {
        return Err(ApiError::param("Either zoneid or zoneids is required.Both cannot be null."));
    }
    let common = Common {
        iso: false,
        name: &req.name,
        display_text: &req.display_text,
        url: &req.url,
        checksum: &req.checksum,
        account: &req.account,
        public: req.is_public,
        format,
    };
    let mut order = common.order(s, cx, zones, everywhere).await?;
    let row = &mut order.row;
    row.hypervisor = hypervisor.to_owned();
    row.featured = req.is_featured.unwrap_or(false) && cx.caller.is_admin();
    row.extractable = req.is_extractable.unwrap_or(false);
    row.password_enabled = req.password_enabled.unwrap_or(false);
    row.ssh_key_enabled = req.ssh_key_enabled.unwrap_or(false);
    row.dynamically_scalable = req.is_dynamically_scalable.unwrap_or(false);
    row.requires_hvm = req.requires_hvm.unwrap_or(true);
    row.os_type_id = cx.refs.need("ostypeid")?;
    row.bits = bits;
    row.tag = req.template_tag.clone().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    row.details = checked_details(&req.details)?;
    Ok(order)
}

/// Checks registerIso.
///
/// # Errors
/// As [`template`].
pub async fn iso(s: &Storage, cx: &Cx, req: &RegisterIsoRequest) -> Result<Order, ApiError> {
    let bootable = req.bootable.unwrap_or(true);
    let named: Option<i64> = cx.refs.id("ostypeid")?;
    let none = infra::os_type(&s.node.db, NO_OS).await?;
    let os_type_id = match (bootable, named) {
        (true, Some(id)) if Some(id) != none => id,
        (true, _) => return Err(ApiError::param("Please pass a valid GuestOS Id")),
        (false, named) => none.or(named).ok_or_else(|| ApiError::param("Please pass a valid GuestOS Id"))?,
    };
    let everywhere = is_all(&req.zone_id);
    let zone: Option<i64> = cx.refs.id("zoneid")?;
    if zone.is_none() && !everywhere {
        return Err(ApiError::param("Please specify a valid zone Id."));
    }
    let common = Common {
        iso: true,
        name: &req.name,
        display_text: &req.display_text,
        url: &req.url,
        checksum: &req.checksum,
        account: &req.account,
        public: req.is_public,
        format: "ISO",
    };
    let mut order = common.order(s, cx, zone.into_iter().collect(), everywhere).await?;
    if let Some(uuid) = req.image_store_uuid.as_deref().filter(|u| !u.trim().is_empty()) {
        let zones = order.zones.clone();
        let rooms = images::rooms(&s.node.db, &zones).await?;
        let room = rooms.into_iter().find(|r| r.uuid == uuid.trim());
        let room = room.ok_or_else(|| ApiError::param(format!("image store {uuid} isn't one of the zone's")))?;
        order.copies = copies_in(&[&room], &order.row);
    }
    let row = &mut order.row;
    row.hypervisor = "None".to_owned();
    row.featured = req.is_featured.unwrap_or(false) && cx.caller.is_admin();
    row.extractable = req.is_extractable.unwrap_or(false);
    row.dynamically_scalable = req.is_dynamically_scalable.unwrap_or(false);
    row.bootable = bootable;
    row.os_type_id = os_type_id;
    Ok(order)
}

impl Common<'_> {
    async fn order(&self, s: &Storage, cx: &Cx, zones: Vec<i64>, everywhere: bool) -> Result<Order, ApiError> {
        let db = &s.node.db;
        let what = if self.iso { "ISO" } else { "template" };
        let name = word(self.name);
        if name.is_empty() || name.chars().count() > 255 {
            return Err(ApiError::param(format!("the {what} needs a name of at most 255 characters")));
        }
        let sites = url::allowed(&s.node.settings.get(keys::SECSTORAGE_ALLOWED_INTERNAL_SITES));
        let full = word(self.url);
        let checked = url::check(full, &sites)?;
        format::check_path(&checked.path, self.format)?;
        let checksum = word(self.checksum);
        if !checksum.is_empty() {
            format::check_sum(checksum)?;
        }
        let named = cx.refs.living("domainid")?;
        let domain = named.map(|e| (e.id, e.owner.as_ref().map_or("", |o| o.domain_path.as_str())));
        let account = self.account.as_deref().map(str::trim).filter(|a| !a.is_empty());
        let owner = owner_for_create(db, &cx.caller, account, domain).await?;
        let public = self.public.unwrap_or(false);
        let may = s.node.settings.get_in(keys::ALLOW_PUBLIC_USER_TEMPLATES, Scope::Account(owner.account_id));
        if public && !cx.caller.is_admin() && !may {
            return Err(ApiError::param("Only private templates/ISO can be created."));
        }
        if everywhere && !cx.caller.is_root_admin() {
            return Err(ApiError::param(
                "Please specify a valid zone Id. Only admins can create templates in all zones.",
            ));
        }
        let zones = if everywhere { infra::all_zones(db).await? } else { unique(zones) };
        for zone in zones.iter().filter(|_| !everywhere) {
            check_zone(s, cx, *zone, &owner).await?;
        }
        let id = db.next_id("template").await?;
        let uuid = model::new_uuid();
        let row = NewTemplate {
            id,
            name: name.to_owned(),
            display_text: word(self.display_text).to_owned(),
            owner,
            public,
            featured: false,
            extractable: false,
            cross_zones: everywhere,
            bootable: true,
            password_enabled: false,
            ssh_key_enabled: false,
            dynamically_scalable: false,
            requires_hvm: true,
            format: self.format.to_owned(),
            hypervisor: String::new(),
            os_type_id: 0,
            bits: 64,
            checksum: Some(checksum.to_owned()).filter(|c| !c.is_empty()),
            url: Some(checked.shown),
            url_sealed: Some(super::seal_url(s, &uuid, full)),
            uuid,
            tag: None,
            details: HashMap::new(),
            source_template_id: None,
        };
        let rooms = images::rooms(db, &zones).await?;
        if !everywhere {
            for zone in &zones {
                if rooms::choose(&rooms, *zone, public).is_empty() {
                    let zone = infra::zone_name(db, *zone).await?;
                    let text = format!(
                        "Unable to find image store to download {what} {name}: zone {zone} has no secondary storage, add it \
                         with addImageStore"
                    );
                    return Err(ApiError::failed(text));
                }
            }
        }
        let copies = copies_in(&rooms::choose_all(&rooms, &zones, public), &row);
        Ok(Order { row, zones, copies })
    }
}

fn copies_in(rooms: &[&Room], row: &NewTemplate) -> Vec<NewCopy> {
    let path = || rooms::path(row.owner.account_id, row.id, &row.format);
    rooms.iter().map(|r| NewCopy { store_id: r.id, zone_id: r.zone_id, path: path() }).collect()
}

/// A zone takes templates while it is enabled, and of its domain when it is dedicated to one.
pub async fn check_zone(s: &Storage, cx: &Cx, zone: i64, owner: &Owner) -> Result<(), ApiError> {
    if cx.caller.is_root_admin() {
        return Ok(());
    }
    let db = &s.node.db;
    if !infra::zone_enabled(db, zone).await? {
        let name = infra::zone_name(db, zone).await?;
        let text = format!("Cannot perform this operation, Zone is currently disabled: {name}");
        return Err(ApiError::permission(text));
    }
    match infra::zone_domain(db, zone).await? {
        Some(domain) if !owner.domain_path.split('/').any(|part| part.parse() == Ok(domain)) => {
            Err(ApiError::permission("the zone is dedicated to another domain"))
        }
        _ => Ok(()),
    }
}

/// Registers: counts it, writes the rows, and lets the copies come in. Gives the template's UUID.
///
/// # Errors
/// 535 over a limit; 530 when a store is gone by now.
pub async fn run(s: &Storage, cx: &Cx, order: &Order) -> Result<String, ApiError> {
    let (db, row) = (&s.node.db, &order.row);
    let iso = row.format == "ISO";
    limits::reserve_template(s, &cx.caller, &row.uuid, row.owner.account_id, 0).await?;
    let written = jobs::mutate!(*db, cx.caller, "register-template", |tx| {
        rows::insert(tx, row).await?;
        for zone in &order.zones {
            templates::offer(tx, row.id, *zone).await?;
        }
        for copy in &order.copies {
            if !images::lives(tx, copy.store_id).await? {
                return Err(ApiError::concurrent("an image store was deleted in this moment; try again"));
            }
            copies::insert(tx, row.id, copy, false).await?;
        }
        let kind = if iso { "ISO.CREATE" } else { "TEMPLATE.CREATE" };
        let text = format!(
            "registering {}: {} from {}",
            super::kind(iso).to_lowercase(),
            row.name,
            row.url.as_deref().unwrap_or_default()
        );
        let event = EventRecord::new(&cx.caller, kind, EventState::Completed, text)
            .about(super::kind(iso), &row.uuid)
            .owned_by(&row.owner);
        events::record(tx, &[Record::Event(event)]).await?;
        // Only the id: a repeat shows the template as it is by then.
        Ok(contract_storage::Template { id: Some(row.uuid.clone()), ..Default::default() })
    })
    .await;
    nudge(s);
    let uuid = match written {
        Ok(answer) => answer.id.unwrap_or_default(),
        Err(error) => {
            if rows::find(db, row.id).await.is_ok_and(|found| found.is_none()) {
                limits::give_back_template(s, &cx.caller, &row.uuid).await;
            }
            return Err(error);
        }
    };
    // The same request with the same idempotency key made another template before.
    if uuid != row.uuid {
        limits::give_back_template(s, &cx.caller, &row.uuid).await;
    }
    Ok(uuid)
}

/// Details as they are kept.
///
/// # Errors
/// 431 for names and values that are too long.
pub fn checked_details(details: &HashMap<String, String>) -> Result<HashMap<String, String>, ApiError> {
    for (name, value) in details {
        if name.is_empty() || name.len() > 255 || value.len() > 5120 {
            return Err(ApiError::param(format!("detail {name} has a name or a value that is too long")));
        }
    }
    Ok(details.clone())
}

fn word(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default().trim()
}

fn given(text: &Option<String>) -> bool {
    !word(text).is_empty()
}

fn is_all(zone: &Option<String>) -> bool {
    word(zone) == "-1"
}

fn unique(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
