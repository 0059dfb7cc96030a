//! Who may act on whom: reach (the tree), rank (the kind of role) and rights (the rules).

use crate::role_type::{self, rank};
use crate::rules::{Rights, Rule};
use crate::store::accounts::{self, AccountRow};
use crate::store::domains::{self, DomainRow};
use crate::store::roles::{self, RoleRow};
use crate::store::users::{self, UserRow};
use crate::{Identity, store::Source};
use contract::{ApiError, Caller, RoleType};
use model::scope::{is_admin, may_act_for};

impl Identity {
    /// Whether the caller administers a domain.
    ///
    /// # Errors
    /// 531 when not.
    pub fn may_administer(&self, caller: &Caller, domain: &DomainRow) -> Result<(), ApiError> {
        let reaches = match caller.role() {
            RoleType::Admin => true,
            role if is_admin(role) => domain.path.starts_with(&caller.domain_path),
            _ => false,
        };
        if reaches {
            return Ok(());
        }
        // Nothing about a domain that the caller doesn't know: it may have named it by its number.
        let text = format!("{} does not have permission to operate within that domain", caller.account_name);
        Err(ApiError::permission(text))
    }

    /// Whether the caller may change an account: it is within reach, isn't the system's, and is no more powerful.
    ///
    /// # Errors
    /// 531 when not.
    pub async fn may_change_account(&self, caller: &Caller, account: &AccountRow, verb: &str) -> Result<(), ApiError> {
        if account.id == accounts::SYSTEM {
            let text = format!("Account id : {} is a system account, {verb} is not allowed", account.uuid);
            return Err(ApiError::permission(text));
        }
        if !may_act_for(caller, &account.owner()) {
            let text =
                format!("{} does not have permission to operate with account {}", caller.account_name, account.name);
            return Err(ApiError::permission(text));
        }
        let role = roles::find(&self.node.db, account.role_id).await?;
        self.is_no_more_powerful(caller, role.as_ref(), &account.name).await
    }

    /// Whether the caller may change a user: as for its account, and users change nobody but themselves.
    ///
    /// # Errors
    /// 531 when not.
    pub async fn may_change_user(&self, caller: &Caller, user: &UserRow, verb: &str) -> Result<(), ApiError> {
        if user.id == users::SYSTEM || user.account_id == accounts::SYSTEM {
            return Err(ApiError::permission(format!(
                "user id : {} is system account, {verb} is not allowed",
                user.uuid
            )));
        }
        if caller.user_id == user.id {
            return Ok(());
        }
        if !is_admin(caller.role()) || !may_act_for(caller, &user.owner()) {
            let text =
                format!("{} does not have permission to operate with user {}", caller.account_name, user.username);
            return Err(ApiError::permission(text));
        }
        let role = roles::find(&self.node.db, user.role_id).await?;
        self.is_no_more_powerful(caller, role.as_ref(), &user.account_name).await
    }

    /// Whether the caller may make and read a user's keys: as for changing it, and members of one account act for each other
    /// anyway.
    ///
    /// # Errors
    /// 531 when not.
    pub async fn may_use_keys(&self, caller: &Caller, user: &UserRow, verb: &str) -> Result<(), ApiError> {
        if caller.account_id == user.account_id && user.account_id != accounts::SYSTEM {
            return Ok(());
        }
        self.may_change_user(caller, user, verb).await
    }

    async fn is_no_more_powerful(&self, caller: &Caller, role: Option<&RoleRow>, name: &str) -> Result<(), ApiError> {
        let Some(role) = role else {
            return Err(ApiError::internal(format!("account {name} has no role")));
        };
        self.may_give(caller, role).await.map_err(|e| {
            if e.code == 531 {
                ApiError::permission(format!("account {name} has a role with more rights than yours"))
            } else {
                e
            }
        })
    }

    /// Whether the caller may give a role to an account: it gives no right that neither the caller's role nor the
    /// built-in role of its kind has, and no kind above the caller's.
    ///
    /// # Errors
    /// 531 when not.
    pub async fn may_give(&self, caller: &Caller, role: &RoleRow) -> Result<(), ApiError> {
        if caller.role_id == role_type::built_in(RoleType::Admin) || caller.role_id == role.id {
            return Ok(());
        }
        let kind = role_type::parse(&role.kind).unwrap_or(RoleType::Unspecified);
        if rank(kind) < rank(caller.role()) {
            return Err(ApiError::permission(format!("a role of type {} is beyond your own", role.kind)));
        }
        if role.is_default && kind != RoleType::Admin {
            return Ok(());
        }
        let (own, given, built_in) = (
            self.rights(caller.role_id, caller.role()).await?,
            self.rights(role.id, kind).await?,
            self.rights(role_type::built_in(kind), kind).await?,
        );
        // The built-in role of the highest kind allows everything: it excuses nothing.
        let built_in = if kind == RoleType::Admin { own.clone() } else { built_in };
        match given.beyond(&own, &built_in) {
            Some(command) => {
                let text = format!("the role {} allows {command}, which your own role doesn't", role.name);
                Err(ApiError::permission(text))
            }
            None => Ok(()),
        }
    }

    async fn rights(&self, id: i64, kind: RoleType) -> Result<Rights, ApiError> {
        let rules = roles::rules(&self.node.db, Some(id)).await?;
        let rules = rules.into_iter().map(|r| Rule { allow: r.permission == "allow", pattern: r.rule }).collect();
        Ok(Rights { id, kind, rules })
    }

    /// The domain that a request names, or the one that it means without.
    ///
    /// # Errors
    /// 431 when it has been removed.
    pub async fn domain(&self, id: i64) -> Result<DomainRow, ApiError> {
        match domains::find(&self.node.db, id).await? {
            Some(domain) if !domain.removed => Ok(domain),
            _ => Err(ApiError::param(format!("Unable to find domain by id {id}"))),
        }
    }

    /// A living account by number.
    ///
    /// # Errors
    /// 431 when it has been removed.
    pub async fn account_row(&self, id: i64) -> Result<AccountRow, ApiError> {
        match accounts::find(&self.node.db, id).await? {
            Some(account) if !account.removed => Ok(account),
            _ => Err(ApiError::param(format!("Unable to find active account by id {id}"))),
        }
    }

    /// A living user by number.
    ///
    /// # Errors
    /// 431 when it has been removed.
    pub async fn user_row(&self, id: i64) -> Result<UserRow, ApiError> {
        match users::find(&self.node.db, id).await? {
            Some(user) if !user.removed => Ok(user),
            _ => Err(ApiError::param(format!("Unable to find active user by id {id}"))),
        }
    }

    /// A user read again within a transaction.
    ///
    /// # Errors
    /// 431 when it has been removed meanwhile.
    pub async fn user_again(&self, tx: &mut ::store::Tx, id: i64) -> Result<UserRow, ApiError> {
        match users::find(tx, id).await? {
            Some(user) if !user.removed => Ok(user),
            _ => Err(ApiError::param(format!("Unable to find active user by id {id}"))),
        }
    }

    /// An account as answers show it, read again within a transaction.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn account_again(&self, tx: &mut ::store::Tx, id: i64) -> Result<contract_identity::Account, ApiError> {
        let row = accounts::find(&mut *tx, id).await?;
        let row = row.ok_or_else(|| ApiError::internal(format!("account {id} has no row")))?;
        let shown = crate::view::accounts(self, &mut Source::Tx(tx), &[row]).await?;
        shown.into_iter().next().ok_or_else(|| ApiError::internal(format!("account {id} can't be shown")))
    }
}
