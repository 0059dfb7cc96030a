//! What a fresh installation has: the root domain, the accounts system and admin with a user each, the built-in roles.
//!
//! Idempotent, and safe when several replicas start at once: rows have fixed numbers, and the first to commit wins.

use crate::keys;
use crate::limits::all_kinds;
use crate::password::Passwords;
use crate::store::accounts::AccountRow;
use crate::store::domains::{self, DomainRow};
use crate::store::roles::{RoleRow, RuleRow};
use crate::store::users::NewUser;
use crate::store::{accounts, limits, roles, users};
use crate::{IdentityOptions, role_type};
use ::store::{Db, Error};
use contract::ApiError;
use model::Owner;
use node::Node;

/// The built-in roles: `[type] name`, then `allow|deny rule` lines in order.
const ROLES: &str = include_str!("../data/roles.txt");

const ROOT: i64 = 1;
const SYSTEM: i64 = 1;
/// Number of the account admin and of its first user.
pub const ADMIN: i64 = 2;

/// Makes what is missing.
///
/// # Errors
/// Those of the database, and a password that can't be used.
pub async fn install(node: &Node, passwords: &Passwords, options: &IdentityOptions) -> Result<(), ApiError> {
    let db = &node.db;
    for (kind, first) in [("domain", 2), ("account", 3), ("user", 3), ("role", 5), ("role_permission", 1)] {
        db.start_ids(kind, first).await?;
    }
    if domains::find(db, ROOT).await?.is_none() {
        let password = passwords.hash(options.admin_password.expose()).await?;
        let roles = built_in_roles(db).await?;
        match make(db, &password, &roles).await {
            Ok(()) => tracing::info!("the root domain, the accounts system and admin and the built-in roles were made"),
            Err(Error::Unique { .. }) => {} // another replica was faster
            Err(e) => return Err(e.into()),
        }
    }
    if options.ensure_admin_keys {
        ensure_admin_keys(node).await?;
    }
    Ok(())
}

async fn make(db: &Db, password: &str, built_in: &[(RoleRow, Vec<RuleRow>)]) -> ::store::Result<()> {
    let root = DomainRow {
        id: ROOT,
        uuid: model::new_uuid(),
        name: "ROOT".into(),
        name_path: "ROOT".into(),
        path: "/1/".into(),
        parent: None,
        level: 0,
        state: domains::ACTIVE.into(),
        network_domain: None,
        removed: false,
    };
    let account = |id, name: &str| AccountRow {
        id,
        uuid: model::new_uuid(),
        name: name.into(),
        kind: role_type::account_type(contract::RoleType::Admin),
        role_id: role_type::built_in(contract::RoleType::Admin),
        domain_id: ROOT,
        domain_path: "/1/".into(),
        state: "enabled".into(),
        cleanup_needed: false,
        is_default: true,
        network_domain: None,
        default_zone_id: None,
        removed: false,
    };
    let user = |id: i64, name: &str, password: &str| NewUser {
        id,
        uuid: model::new_uuid(),
        username: name.into(),
        first_name: name.into(),
        last_name: "cloud".into(),
        email: None,
        timezone: None,
        password: password.into(),
        owner: Owner { account_id: id, domain_id: ROOT, domain_path: "/1/".into() },
        is_default: true,
    };
    let accounts = [account(SYSTEM, "system"), account(ADMIN, "admin")];
    // Nobody can log in as system: no password has an empty hash.
    let users = [user(SYSTEM, "system", ""), user(ADMIN, "admin", password)];
    ::store::tx!(db, "first-install", |tx| {
        domains::insert(tx, &root, ADMIN).await?;
        for (role, rules) in built_in {
            roles::insert(tx, role).await?;
            roles::insert_rules(tx, rules).await?;
        }
        for account in &accounts {
            accounts::insert(tx, account).await?;
            limits::open_account(tx, account.id, all_kinds()).await?;
        }
        for user in &users {
            users::insert(tx, user).await?;
        }
        Ok(())
    })
    .await
}

async fn built_in_roles(db: &Db) -> Result<Vec<(RoleRow, Vec<RuleRow>)>, ApiError> {
    let lines = i64::try_from(ROLES.lines().count()).unwrap_or(i64::MAX);
    let mut next = db.next_ids("role_permission", lines).await?;
    let mut made: Vec<(RoleRow, Vec<RuleRow>)> = Vec::new();
    for line in ROLES.lines() {
        if let Some((kind, name)) = line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
            let role = role_type::parse(kind).ok_or_else(|| ApiError::internal(format!("no role type {kind}")))?;
            let row = RoleRow {
                id: role_type::built_in(role),
                uuid: model::new_uuid(),
                name: name.to_owned(),
                kind: kind.to_owned(),
                description: Some(format!("Default {} role", name.to_lowercase())),
                is_default: true,
                removed: false,
            };
            made.push((row, Vec::new()));
        } else if let (Some((permission, rule)), Some((role, rules))) = (line.split_once(' '), made.last_mut()) {
            rules.push(RuleRow {
                id: next,
                uuid: model::new_uuid(),
                role_id: role.id,
                rule: rule.to_owned(),
                permission: permission.to_owned(),
                description: None,
                order: i64::try_from(rules.len()).unwrap_or(i64::MAX),
            });
            next += 1;
        }
    }
    Ok(made)
}

/// Gives the user admin API keys when it has none.
///
/// # Errors
/// Those of the database.
pub async fn ensure_admin_keys(node: &Node) -> Result<(), ApiError> {
    let has = users::find(&node.db, ADMIN).await?.is_some_and(|u| u.api_key.is_some());
    if has {
        return Ok(());
    }
    let (api, secret) = (keys::fresh()?, keys::fresh()?);
    let sealed = keys::seal(&node.vault, ADMIN, &secret);
    ::store::tx!(node.db, "admin-keys", |tx| users::set_keys_if_none(tx, ADMIN, &api, &sealed).await).await?;
    Ok(())
}

/// The API key and the secret key of the user admin.
///
/// # Errors
/// 530 when it has none, or they can't be opened with this installation's master key.
pub async fn admin_keys(node: &Node) -> Result<(String, String), ApiError> {
    let row = users::find(&node.db, ADMIN).await?;
    let pair = row.and_then(|u| Some((u.api_key?, u.secret_key?)));
    let (api, sealed) = pair.ok_or_else(|| ApiError::failed("the user admin has no API keys: register some"))?;
    let secret = keys::open(&node.vault, ADMIN, &sealed)?;
    Ok((api, secret))
}
