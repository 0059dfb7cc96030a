//! Accounts: making, changing, enabling.

use crate::domain::{ROOT, taken_uuid};
use crate::limits::all_kinds;
use crate::notify::{self, Changed};
use crate::role_type;
use crate::store::accounts::{self, AccountRow};
use crate::store::users::NewUser;
use crate::store::{domains, limits, roles, users};
use crate::{Identity, event, text};
use ::store::Error;
use contract::{ApiError, Caller, RoleType};
use contract_identity::{
    Account, CREATE_ACCOUNT, CREATE_USER, CreateAccountRequest, ENABLE_ACCOUNT, UPDATE_ACCOUNT, UpdateAccountRequest,
};
use std::collections::HashMap;

impl Identity {
    /// Makes an account with its first user.
    ///
    /// # Errors
    /// 431 for names that are taken and types that don't fit, 531 for a domain out of reach or a role beyond the caller's.
    pub async fn create_account(
        &self,
        caller: &Caller,
        domain: Option<i64>,
        role: Option<i64>,
        request: &CreateAccountRequest,
    ) -> Result<Account, ApiError> {
        let username = text::filled(request.username.as_deref(), "Username")?;
        let first_name = text::filled(request.first_name.as_deref(), "Firstname")?;
        let last_name = text::filled(request.last_name.as_deref(), "Lastname")?;
        let name = request.account.as_deref().filter(|a| !a.trim().is_empty()).map_or(username, str::trim);
        let domain = self.domain(domain.unwrap_or(ROOT)).await?;
        self.may_administer(caller, &domain)?;
        let role = self.role_for(caller, role, request.account_type, &domain).await?;
        let kind = role_type::parse(&role.kind).unwrap_or(RoleType::Unspecified);
        let network_domain = text::network_domain(request.network_domain.as_deref())?;
        let details = details(&request.account_details)?;
        let account = AccountRow {
            id: self.node.db.next_id("account").await?,
            uuid: text::new_uuid(request.account_id.as_deref(), "accountid")?,
            name: name.to_owned(),
            kind: role_type::account_type(kind),
            role_id: role.id,
            domain_id: domain.id,
            domain_path: domain.path.clone(),
            state: "enabled".to_owned(),
            cleanup_needed: false,
            is_default: false,
            network_domain: network_domain.map(str::to_owned),
            default_zone_id: None,
            removed: false,
        };
        let user = NewUser {
            id: self.node.db.next_id("user").await?,
            uuid: text::new_uuid(request.user_id.as_deref(), "userid")?,
            username: username.to_owned(),
            first_name: first_name.to_owned(),
            last_name: last_name.to_owned(),
            email: request.email.clone(),
            timezone: request.timezone.clone(),
            password: self.passwords.hash(request.password.as_deref().unwrap_or_default()).await?,
            owner: account.owner(),
            is_default: false,
        };
        jobs::mutate!(self.node.db, *caller, "create-account", |tx| {
            // Domain and role first: neither may go, nor the domain get a limit, unseen.
            if !domains::touch(tx, domain.id).await? {
                let text = format!("The account cannot be created as domain {} is being deleted", domain.name);
                return Err(ApiError::failed(text));
            }
            if !role.is_default && !roles::touch(tx, role.id).await? {
                return Err(ApiError::param("The role has been removed"));
            }
            match accounts::insert(tx, &account).await {
                Err(Error::Unique { key }) if key.contains("uuid") => return Err(taken_uuid(&account.uuid)),
                Err(Error::Unique { .. }) => {
                    return Err(ApiError::param(format!("The specified account: {name} already exists")));
                }
                other => other?,
            }
            match users::insert(tx, &user).await {
                Err(Error::Unique { key }) if key.contains("uuid") => return Err(taken_uuid(&user.uuid)),
                Err(Error::Unique { .. }) => {
                    return Err(ApiError::param(format!("The user {username} already exists in domain {}", domain.id)));
                }
                other => other?,
            }
            limits::open_account(tx, account.id, all_kinds()).await?;
            if !details.is_empty() {
                accounts::set_details(tx, account.id, details).await?;
            }
            let owner = account.owner();
            let done = format!("Successfully completed creating Account. Account Name: {name}");
            event::completed(tx, caller, &CREATE_ACCOUNT.event, done, &owner, ("Account", &account.uuid)).await?;
            let done = format!("Successfully completed creating User. User Name: {username}");
            event::completed(tx, caller, &CREATE_USER.event, done, &owner, ("User", &user.uuid)).await?;
            self.account_again(tx, account.id).await
        })
        .await
    }

    async fn role_for(
        &self,
        caller: &Caller,
        role: Option<i64>,
        account_type: Option<i32>,
        domain: &domains::DomainRow,
    ) -> Result<roles::RoleRow, ApiError> {
        let id = match (role, account_type) {
            (Some(id), _) => id,
            (None, Some(number)) => {
                let kind = role_type::of_account_type(i64::from(number));
                let kind = kind.ok_or_else(|| {
                    ApiError::param(format!("Invalid account type {number} given; unable to create user"))
                })?;
                role_type::built_in(kind)
            }
            (None, None) => return Err(ApiError::request("Neither account type and role ID are not provided")),
        };
        let role = roles::find(&self.node.db, id).await?.filter(|r| !r.removed);
        let role = role.ok_or_else(|| ApiError::param("Unable to find role by id"))?;
        if role_type::parse(&role.kind) == Some(RoleType::Admin) && domain.id != ROOT {
            return Err(ApiError::param(format!(
                "Invalid account type 1 given for an account in domain {}; unable to create user.",
                domain.uuid
            )));
        }
        self.may_give(caller, &role).await?;
        Ok(role)
    }

    /// The account that a request names by id, or by name and domain.
    ///
    /// # Errors
    /// 431 when there is none.
    pub async fn named_account(
        &self,
        caller: &Caller,
        id: Option<i64>,
        name: Option<&str>,
        domain: Option<i64>,
    ) -> Result<AccountRow, ApiError> {
        if let Some(id) = id {
            return self.account_row(id).await;
        }
        let Some(name) = name.filter(|n| !n.is_empty()) else {
            return Err(ApiError::param("Give the account by id, or by account and domainid"));
        };
        let domain = domain.unwrap_or(caller.domain_id);
        let unknown = || ApiError::param(format!("Unable to find active account by name: {name} in domain {domain}"));
        accounts::by_name(&self.node.db, domain, name).await?.ok_or_else(unknown)
    }

    /// Changes an account's name, DNS domain and details.
    ///
    /// # Errors
    /// 431 for a name that is taken, 531 when the account is out of reach.
    pub async fn update_account(
        &self,
        caller: &Caller,
        account: &AccountRow,
        request: &UpdateAccountRequest,
    ) -> Result<Account, ApiError> {
        self.may_change_account(caller, account, "update").await?;
        let name = text::filled(request.new_name.as_deref(), "The new name of the account")?;
        let network_domain = text::network_domain(request.network_domain.as_deref())?;
        let details = details(&request.account_details)?;
        jobs::mutate!(self.node.db, *caller, "update-account", |tx| {
            alive(tx, account).await?;
            match accounts::rename(tx, account, name).await {
                Err(Error::Unique { .. }) => {
                    let text = format!(
                        "There already exists an account with the name: {name} in the domain: {}",
                        account.domain_id
                    );
                    return Err(ApiError::param(text));
                }
                other => other?,
            }
            if request.network_domain.is_some() {
                accounts::set_network_domain(tx, account.id, network_domain).await?;
            }
            if !details.is_empty() {
                accounts::set_details(tx, account.id, details).await?;
            }
            notify::after(tx, &self.node.coord, Changed::Account(account.id));
            let done = format!("Successfully completed updating Account. Account Id: {}", account.uuid);
            event::completed(tx, caller, &UPDATE_ACCOUNT.event, done, &account.owner(), ("Account", &account.uuid))
                .await?;
            self.account_again(tx, account.id).await
        })
        .await
    }

    /// Enables an account that was locked or disabled.
    ///
    /// # Errors
    /// 531 when it is out of reach.
    pub async fn enable_account(&self, caller: &Caller, account: &AccountRow) -> Result<Account, ApiError> {
        self.may_change_account(caller, account, "enable").await?;
        jobs::mutate!(self.node.db, *caller, "enable-account", |tx| {
            alive(tx, account).await?;
            accounts::set_state(tx, account.id, "enabled").await?;
            notify::after(tx, &self.node.coord, Changed::Account(account.id));
            let done = format!("Successfully completed enabling Account. Account Id: {}", account.uuid);
            event::completed(tx, caller, &ENABLE_ACCOUNT.event, done, &account.owner(), ("Account", &account.uuid))
                .await?;
            self.account_again(tx, account.id).await
        })
        .await
    }
}

async fn alive(tx: &mut ::store::Tx, account: &AccountRow) -> Result<(), ApiError> {
    if accounts::touch(tx, account.id).await? {
        return Ok(());
    }
    Err(ApiError::param(format!("Account {} has been removed", account.name)))
}

/// Details that a row can keep.
fn details(given: &HashMap<String, String>) -> Result<&HashMap<String, String>, ApiError> {
    let fits = |(k, v): (&String, &String)| k.chars().count() <= 255 && v.chars().count() <= 4096;
    if given.iter().all(fits) { Ok(given) } else { Err(ApiError::param("An account detail is too long")) }
}
