//! Who sees what in lists (api/README, "Lists", owner of what is listed), as one SQL condition over
//! `account_id`, `domain_id` and `domain_path`.

use contract::ApiError;
use contract::api::{Caller, RoleType};
use store::{Db, Sql};

/// Who owns a row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// The account.
    pub account_id: i64,
    /// Its domain.
    pub domain_id: i64,
    /// The domain's id path, "/1/5/".
    pub domain_path: String,
}

impl Owner {
    /// The caller as an owner.
    pub fn caller(caller: &Caller) -> Owner {
        Owner { account_id: caller.account_id, domain_id: caller.domain_id, domain_path: caller.domain_path.clone() }
    }
}

/// The owner-related parameters of a list command.
#[derive(Clone, Debug, Default)]
pub struct ScopeRequest<'a> {
    /// `account`
    pub account: Option<&'a str>,
    /// `domainid`, resolved: number and id path.
    pub domain: Option<(i64, &'a str)>,
    /// `listall`
    pub list_all: bool,
    /// `isrecursive`
    pub recursive: bool,
    /// Whether the command names single entities (`id`, `ids`).
    pub by_id: bool,
}

/// The rows that a list may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListScope {
    /// Everything.
    All,
    /// A domain and everything below it: rows whose path starts so.
    Subtree(String),
    /// One domain alone.
    Domain(i64),
    /// One account.
    Account(i64),
    /// Nothing: the filters exclude each other.
    Nothing,
}

impl ListScope {
    /// Decides the scope of a list for `caller`.
    ///
    /// # Errors
    /// 431 when the named account doesn't exist, 531 when the domain or account is out of reach.
    pub async fn of(db: &Db, caller: &Caller, request: &ScopeRequest<'_>) -> Result<ListScope, ApiError> {
        if let Some((_, path)) = request.domain {
            reach(caller, path)?;
        }
        if let Some(name) = request.account {
            let domain = request.domain.map_or(caller.domain_id, |(id, _)| id);
            return named_account(db, caller, name, domain).await;
        }
        let role = caller.role_type();
        if !is_admin(role) {
            return Ok(match request.domain {
                Some((id, _)) if id != caller.domain_id => ListScope::Nothing,
                _ => ListScope::Account(caller.account_id),
            });
        }
        Ok(match request.domain {
            Some((_, path)) if request.recursive => ListScope::Subtree(path.to_owned()),
            Some((id, _)) => ListScope::Domain(id),
            None if request.list_all || request.by_id => widest(caller),
            None => ListScope::Account(caller.account_id),
        })
    }

    /// Appends ` AND (condition)` over the columns of `alias` (`"v."`, or empty).
    #[must_use]
    pub fn and(&self, sql: Sql, alias: &str) -> Sql {
        match self {
            ListScope::All => sql,
            // A range instead of LIKE: one index scan on both databases. '0' follows '/'.
            ListScope::Subtree(path) => sql
                .push(&format!(" AND {alias}domain_path >= ? AND {alias}domain_path < ?"))
                .bind(path.as_str())
                .bind(format!("{}0", path.trim_end_matches('/'))),
            ListScope::Domain(id) => sql.push(&format!(" AND {alias}domain_id = ?")).bind(*id),
            ListScope::Account(id) => sql.push(&format!(" AND {alias}account_id = ?")).bind(*id),
            ListScope::Nothing => sql.push(" AND 1 = 0"),
        }
    }
}

/// What the caller could see at most.
pub fn widest(caller: &Caller) -> ListScope {
    match caller.role_type() {
        RoleType::Admin => ListScope::All,
        RoleType::ResourceAdmin | RoleType::DomainAdmin => ListScope::Subtree(caller.domain_path.clone()),
        RoleType::User | RoleType::Unspecified => ListScope::Account(caller.account_id),
    }
}

/// Whether the role administers anything beyond its own account.
pub fn is_admin(role: RoleType) -> bool {
    matches!(role, RoleType::Admin | RoleType::ResourceAdmin | RoleType::DomainAdmin)
}

/// Whether `caller` may act for an owner: root admins for all, domain admins for their subtree, users for themselves.
pub fn may_act_for(caller: &Caller, owner: &Owner) -> bool {
    match caller.role_type() {
        RoleType::Admin => true,
        RoleType::ResourceAdmin | RoleType::DomainAdmin => owner.domain_path.starts_with(&caller.domain_path),
        RoleType::User | RoleType::Unspecified => owner.account_id == caller.account_id,
    }
}

/// The owner that a create command names by `account` and `domainid`; the caller when it names no account.
///
/// # Errors
/// 431 when the account doesn't exist, 531 when the caller may not act for it, or the domain is out of its reach.
pub async fn owner_for_create(
    db: &Db,
    caller: &Caller,
    account: Option<&str>,
    domain: Option<(i64, &str)>,
) -> Result<Owner, ApiError> {
    let Some(name) = account else {
        // As in 4.11 a domain alone names nobody; a foreign one is no matter to pass over all the same.
        if let Some((_, path)) = domain {
            reach(caller, path)?;
        }
        return Ok(Owner::caller(caller));
    };
    let domain_id = domain.map_or(caller.domain_id, |(id, _)| id);
    let owner = find_account(db, name, domain_id).await?;
    if may_act_for(caller, &owner) {
        Ok(owner)
    } else {
        Err(ApiError::permission(format!("you may not act for account {name}")))
    }
}

fn reach(caller: &Caller, path: &str) -> Result<(), ApiError> {
    let ok = match caller.role_type() {
        RoleType::Admin => true,
        RoleType::ResourceAdmin | RoleType::DomainAdmin => path.starts_with(&caller.domain_path),
        RoleType::User | RoleType::Unspecified => path == caller.domain_path,
    };
    if ok { Ok(()) } else { Err(ApiError::permission("the domain is outside of what you may see".to_owned())) }
}

async fn named_account(db: &Db, caller: &Caller, name: &str, domain: i64) -> Result<ListScope, ApiError> {
    let owner = find_account(db, name, domain).await?;
    if may_act_for(caller, &owner) {
        Ok(ListScope::Account(owner.account_id))
    } else {
        Err(ApiError::permission(format!("you may not see what account {name} owns")))
    }
}

async fn find_account(db: &Db, name: &str, domain: i64) -> Result<Owner, ApiError> {
    let row = db
        .optional(
            Sql::new(
                "SELECT id, domain_id, domain_path FROM accounts WHERE domain_id = ? AND name = ? AND removed IS NULL",
            )
            .bind(domain)
            .bind(name),
        )
        .await?;
    match row {
        Some(r) => {
            Ok(Owner { account_id: r.get("id")?, domain_id: r.get("domain_id")?, domain_path: r.get("domain_path")? })
        }
        None => Err(ApiError::param(format!("Unable to find account {name} in the domain given"))),
    }
}
