//! createTemplate: what may be made of a snapshot, or of the volume of a machine that is off.

use super::register::{check_zone, checked_details};
use crate::Storage;
use crate::disks::format_of;
use crate::images::rooms;
use crate::snapshots::usable;
use crate::store::template_writes::NewTemplate;
use crate::store::volumes;
use crate::store::{images, infra, templates, vms};
use crate::tasks::{self, CreateTemplate, create_template::Origin};
use config::{Scope, keys};
use contract::ApiError;
use contract_storage::CreateTemplateRequest;
use model::Owner;
use model::scope::may_act_for;
use model::state::VmState;
use rpc::Cx;

/// Longest name (TPL-025).
const NAME: usize = 32;

/// What createTemplate asks for, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The row to insert.
    pub row: NewTemplate,
    /// The job.
    pub job: CreateTemplate,
    /// Bytes that it counts until its length is known.
    pub bytes: i64,
}

/// What a template is made of.
struct Source {
    origin: Origin,
    zone: i64,
    bytes: i64,
    hypervisor: String,
    volume: i64,
}

/// Checks createTemplate.
///
/// # Errors
/// 431 for what the request or its source doesn't allow, 531 for one out of reach, 530 when the zone has no secondary storage.
pub async fn check(s: &Storage, cx: &Cx, req: &CreateTemplateRequest) -> Result<Order, ApiError> {
    let db = &s.node.db;
    let name = req.name.as_deref().unwrap_or_default().trim();
    if name.is_empty() || name.chars().count() > NAME {
        return Err(ApiError::param(format!("Template name can't be empty, nor have more than {NAME} characters")));
    }
    let tag = req.template_tag.as_deref().map(str::trim).filter(|tag| !tag.is_empty());
    if tag.is_some() && !cx.caller.is_root_admin() {
        let text = "Parameter templatetag can only be specified by a Root Admin, permission denied";
        return Err(ApiError::permission(text));
    }
    let bits = match req.bits {
        None => 64,
        Some(bits @ (32 | 64)) => i64::from(bits),
        Some(other) => return Err(ApiError::param(format!("bits must be 32 or 64, not {other}"))),
    };
    let owner = Owner {
        account_id: cx.caller.account_id,
        domain_id: cx.caller.domain_id,
        domain_path: cx.caller.domain_path.clone(),
    };
    let public = req.is_public.unwrap_or(false);
    let may = s.node.settings.get_in(keys::ALLOW_PUBLIC_USER_TEMPLATES, Scope::Account(owner.account_id));
    if public && !cx.caller.is_admin() && !may {
        return Err(ApiError::param("Only private templates/ISO can be created."));
    }
    let source = source(s, cx).await?;
    check_zone(s, cx, source.zone, &owner).await?;
    let found = images::rooms(db, &[source.zone]).await?;
    let Some(store_id) = rooms::choose(&found, source.zone, false).first().map(|room| room.id) else {
        let zone = infra::zone_name(db, source.zone).await?;
        let text = format!("Zone {zone} has no secondary storage for the template: add it with addImageStore");
        return Err(ApiError::failed(text));
    };
    // What the disk was made from once says whether users may download it.
    let volume = volumes::find(db, source.volume).await?;
    let first = volume.as_ref().filter(|v| v.is_root()).and_then(|v| v.template_id);
    let label = templates::labels(db, first).await?.into_values().next();
    let format = format_of(&source.hypervisor);
    let id = db.next_id("template").await?;
    let row = NewTemplate {
        id,
        uuid: model::new_uuid(),
        name: name.to_owned(),
        display_text: req.display_text.as_deref().unwrap_or_default().trim().to_owned(),
        public,
        featured: req.is_featured.unwrap_or(false) && cx.caller.is_admin(),
        extractable: label.as_ref().is_some_and(|l| l.extractable),
        cross_zones: false,
        bootable: true,
        password_enabled: req.password_enabled.unwrap_or(false),
        ssh_key_enabled: false,
        dynamically_scalable: req.is_dynamically_scalable.unwrap_or(false),
        requires_hvm: req.requires_hvm.unwrap_or(true),
        format: format.to_owned(),
        hypervisor: source.hypervisor,
        os_type_id: cx.refs.need("ostypeid")?,
        bits,
        checksum: None,
        url: None,
        url_sealed: None,
        tag: tag.map(str::to_owned),
        details: checked_details(&req.details)?,
        source_template_id: first.filter(|_| label.is_some_and(|l| !l.iso)),
        owner,
    };
    let path = rooms::path(row.owner.account_id, id, format);
    let job = CreateTemplate { template: id, zone: source.zone, store: store_id, path, origin: source.origin };
    Ok(Order { row, job, bytes: source.bytes })
}

/// What the request names: exactly one thing.
async fn source(s: &Storage, cx: &Cx) -> Result<Source, ApiError> {
    let snapshot: Option<i64> = cx.refs.id("snapshotid")?;
    let volume: Option<i64> = cx.refs.id("volumeid")?;
    match (snapshot, volume) {
        (Some(id), None) => {
            let from = usable(s, cx, id, "template").await?;
            Ok(Source {
                origin: Origin::Snapshot(id),
                zone: from.zone_id,
                bytes: from.size,
                hypervisor: from.hypervisor,
                volume: from.volume_id,
            })
        }
        (None, Some(id)) => of_volume(s, cx, id).await,
        _ => Err(ApiError::param(
            "Failed to create private template record, one of: volumeid and snapshotid must be given",
        )),
    }
}

async fn of_volume(s: &Storage, cx: &Cx, id: i64) -> Result<Source, ApiError> {
    let v = tasks::volume(s, id).await?;
    let refuse = |text: String| ApiError::param(text).with_entity(&v.uuid, "volumeid");
    if !may_act_for(&cx.caller, &v.owner) {
        return Err(ApiError::permission("you may not act on that volume"));
    }
    if let Some(vm) = v.vm_id
        && let Some(vm) = vms::find(&s.node.db, vm).await?
        && vm.state != VmState::Stopped
    {
        return Err(refuse(format!(
            "Unable to create private template for volume: {}; volume is attached to a non-stopped VM, please stop the VM first",
            v.name
        )));
    }
    match &v.hypervisor {
        Some(hypervisor) if v.state == "Ready" && v.pool_id.is_some() => Ok(Source {
            origin: Origin::Volume { volume: v.id, vm: v.vm_id },
            zone: v.zone_id,
            bytes: v.size,
            hypervisor: hypervisor.clone(),
            volume: v.id,
        }),
        _ => Err(refuse(format!("volume {} is {}: a template needs one that is Ready", v.name, v.state))),
    }
}
