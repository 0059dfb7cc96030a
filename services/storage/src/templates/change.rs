//! updateTemplate, updateIso, and who may use a template.

use super::format;
use super::register::checked_details;
use super::{check_kind, gone, owner};
use crate::Storage;
use crate::store::template_writes::{self as rows, Change};
use crate::store::templates::TemplateRow;
use crate::store::{infra, shares};
use config::{Scope, keys};
use contract::ApiError;
use contract::api::Success;
use contract_storage::{TemplatePermissions, UpdateTemplatePermissionsRequest, UpdateTemplateRequest};
use model::names;
use rpc::Cx;
use std::collections::HashMap;

/// The living template or ISO that `id` names.
///
/// # Errors
/// 431 when there is none, or it is the other kind.
pub async fn named(s: &Storage, cx: &Cx, iso: bool) -> Result<TemplateRow, ApiError> {
    let id: i64 = cx.refs.need("id")?;
    let row = rows::find(&s.node.db, id).await?.ok_or_else(|| gone(iso))?;
    check_kind(&row, iso)?;
    Ok(row)
}

/// updateTemplate and updateIso. Gives the template's number.
///
/// # Errors
/// 431 for what can't be changed.
pub async fn update(s: &Storage, cx: &Cx, req: &UpdateTemplateRequest, iso: bool) -> Result<i64, ApiError> {
    let row = named(s, cx, iso).await?;
    if let Some(word) = given(&req.format)
        && !word.eq_ignore_ascii_case(&row.format)
    {
        if !iso {
            format::format(word, "Any")?;
        }
        let text = format!("the image is of format {}: register it anew to have another", row.format);
        return Err(ApiError::param(text).with_entity(&row.uuid, "id"));
    }
    let details = match (req.cleanup_details.unwrap_or(false), req.details.is_empty()) {
        (true, _) => Some(HashMap::new()),
        (false, false) => Some(checked_details(&req.details)?),
        (false, true) => None,
    };
    let change = Change {
        name: given(&req.name).map(str::to_owned),
        display_text: given(&req.display_text).map(str::to_owned),
        os_type_id: cx.refs.id("ostypeid")?,
        bootable: req.bootable,
        requires_hvm: req.requires_hvm,
        password_enabled: req.password_enabled,
        dynamically_scalable: req.is_dynamically_scalable,
        sort_key: req.sort_key.map(i64::from),
        details,
        ..Change::default()
    };
    jobs::mutate!(s.node.db, cx.caller, "update-template", |tx| {
        if !rows::update(tx, row.id, &change).await? {
            return Err(gone(iso));
        }
        Ok(Success { success: true, display_text: None })
    })
    .await?;
    Ok(row.id)
}

/// What happens to accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Reset,
}

impl Op {
    fn of(word: Option<&str>, accounts: bool) -> Result<Option<Op>, ApiError> {
        let op = match word.map(str::to_ascii_lowercase).as_deref() {
            None if !accounts => return Ok(None),
            Some("add") => Op::Add,
            Some("remove") => Op::Remove,
            Some("reset") => Op::Reset,
            given => {
                return Err(ApiError::param(format!(
                    "Invalid operation on accounts, the operation must be either 'add' or 'remove' in order to modify launch \
                     permissions.  Given operation is: '{}'",
                    given.unwrap_or_default()
                )));
            }
        };
        if op == Op::Reset && accounts {
            return Err(ApiError::param("op reset takes the permission from all accounts: name none"));
        }
        Ok(Some(op))
    }
}

/// updateTemplatePermissions and updateIsoPermissions.
///
/// # Errors
/// 431 for what the caller may not set, and for accounts that don't exist; nothing is changed then.
pub async fn permissions(
    s: &Storage,
    cx: &Cx,
    req: &UpdateTemplatePermissionsRequest,
    iso: bool,
) -> Result<Success, ApiError> {
    let (db, caller) = (&s.node.db, &cx.caller);
    let row = named(s, cx, iso).await?;
    let owner = owner(&row);
    let names: Vec<&str> = req.accounts.iter().map(|a| a.trim()).filter(|a| !a.is_empty()).collect();
    let op = Op::of(given(&req.op), !names.is_empty())?;
    let may = s.node.settings.get_in(keys::ALLOW_PUBLIC_USER_TEMPLATES, Scope::Account(owner.account_id));
    if req.is_public == Some(true) && !caller.is_admin() && !may {
        let what = if iso { "ISO" } else { "template" };
        return Err(ApiError::param(format!("Only private {what}s can be created.")));
    }
    if req.is_extractable.is_some() && !caller.is_root_admin() {
        return Err(ApiError::param("Only ROOT admins are allowed to modify this attribute."));
    }
    let mut accounts = Vec::new();
    for name in &names {
        let found = infra::account(db, owner.domain_id, name).await?.ok_or_else(|| {
            let verb = if op == Some(Op::Add) { "grant" } else { "remove" };
            ApiError::param(format!(
                "Unable to {verb} a launch permission to account {name} in the domain of the owner, account not found.  No \
                 permissions updated, please verify the account names and retry."
            ))
        })?;
        // Its owner needs no permission.
        if found != owner.account_id {
            accounts.push(found);
        }
    }
    let mut change = Change {
        public: req.is_public,
        // As when it is registered: for others it stays as it is.
        featured: req.is_featured.filter(|_| caller.is_admin()),
        extractable: req.is_extractable,
        ..Change::default()
    };
    if op == Some(Op::Reset) {
        (change.public, change.featured) = (Some(false), Some(false));
    }
    jobs::mutate!(*db, caller, "template-permissions", |tx| {
        if !rows::update(tx, row.id, &change).await? {
            return Err(gone(iso));
        }
        match op {
            None => {}
            Some(Op::Reset) => shares::clear(tx, row.id).await?,
            Some(op) => {
                for account in &accounts {
                    match op {
                        Op::Add => shares::add(tx, row.id, *account).await?,
                        _ => shares::remove(tx, row.id, *account).await?,
                    }
                }
            }
        }
        Ok(Success { success: true, display_text: None })
    })
    .await
}

/// listTemplatePermissions and listIsoPermissions.
///
/// # Errors
/// As [`named`].
pub async fn list_permissions(s: &Storage, cx: &Cx, iso: bool) -> Result<TemplatePermissions, ApiError> {
    let db = &s.node.db;
    let row = named(s, cx, iso).await?;
    let domain = match cx.caller.is_admin() {
        true => names::domains(db, [row.domain_id]).await?.remove(&row.domain_id).map(|d| d.uuid),
        false => None,
    };
    Ok(TemplatePermissions {
        id: Some(row.uuid),
        is_public: Some(row.is_public),
        domain_id: domain,
        account: shares::names(db, row.id).await?,
        ..TemplatePermissions::default()
    })
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|t| !t.is_empty())
}
