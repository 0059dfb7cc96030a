//! Users: making, changing, their states and keys.

use crate::domain::{ROOT, taken_uuid};
use crate::notify::{self, Changed};
use crate::store::users::{self, Change, NewUser, UserRow};
use crate::store::{accounts, domains};
use crate::{Identity, event, keys, text, view};
use ::store::{Error, Tx};
use contract::api::Success;
use contract::{ApiError, Caller, CommandInfo};
use contract_identity::{
    CREATE_USER, CreateUserRequest, DELETE_USER, ENABLE_USER, LOCK_USER, MOVE_USER, REGISTER_USER_KEYS, UPDATE_USER,
    UpdateUserRequest, User, UserKeys,
};

impl Identity {
    /// Makes a user of an account.
    ///
    /// # Errors
    /// 431 for an account that isn't there or enabled, 530 for a name that is taken, 531 for one out of reach.
    pub async fn create_user(
        &self,
        caller: &Caller,
        domain: Option<i64>,
        request: &CreateUserRequest,
    ) -> Result<User, ApiError> {
        let username = text::filled(request.username.as_deref(), "Username")?;
        let first_name = text::filled(request.first_name.as_deref(), "Firstname")?;
        let last_name = text::filled(request.last_name.as_deref(), "Lastname")?;
        let domain = self.domain(domain.unwrap_or(ROOT)).await?;
        self.may_administer(caller, &domain)?;
        let account = request.account.as_deref().unwrap_or_default();
        let account = accounts::by_name(&self.node.db, domain.id, account)
            .await?
            .filter(|a| a.state == "enabled")
            .ok_or_else(|| {
                ApiError::param(format!("Unable to find account {account} in domain id={} to create user", domain.uuid))
            })?;
        self.may_change_account(caller, &account, "adding a user").await?;
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
        jobs::mutate!(self.node.db, *caller, "create-user", |tx| {
            if !domains::touch(tx, domain.id).await? {
                let text = format!("The user cannot be created as domain {} is being deleted", domain.name);
                return Err(ApiError::failed(text));
            }
            if !accounts::touch(tx, account.id).await? {
                return Err(ApiError::param(format!("Account {} has been removed", account.name)));
            }
            match users::insert(tx, &user).await {
                Err(Error::Unique { key }) if key.contains("uuid") => return Err(taken_uuid(&user.uuid)),
                Err(Error::Unique { .. }) => {
                    return Err(ApiError::failed(format!(
                        "The user {username} already exists in domain {}",
                        domain.id
                    )));
                }
                other => other?,
            }
            let done = format!("Successfully completed creating User. User Name: {username}");
            event::completed(tx, caller, &CREATE_USER.event, done, &account.owner(), ("User", &user.uuid)).await?;
            Ok(view::user(&self.user_again(tx, user.id).await?, None))
        })
        .await
    }

    /// Changes a user.
    ///
    /// # Errors
    /// 431 for names and keys that are taken, 531 for a user out of reach.
    pub async fn update_user(&self, caller: &Caller, id: i64, request: &UpdateUserRequest) -> Result<User, ApiError> {
        let user = self.user_row(id).await?;
        self.may_change_user(caller, &user, "update").await?;
        let given = |text: &Option<String>, what: &str| -> Result<Option<String>, ApiError> {
            text.as_deref().map(|t| text::filled(Some(t), what).map(str::to_owned)).transpose()
        };
        let mut change = Change {
            username: given(&request.username, "Username")?,
            first_name: given(&request.first_name, "Firstname")?,
            last_name: given(&request.last_name, "Lastname")?,
            email: request.email.clone(),
            timezone: request.timezone.clone(),
            password: None,
        };
        if let Some(password) = &request.password {
            change.password = Some(self.passwords.hash(password).await?);
        }
        let pair = key_pair(request)?;
        let shown: User = jobs::mutate!(self.node.db, *caller, "update-user", |tx| {
            match users::update(tx, &user, &change).await {
                Err(Error::Unique { .. }) => {
                    let name = change.username.as_deref().unwrap_or_default();
                    return Err(ApiError::param(format!(
                        "User with name {name} already exists in domain {}",
                        user.domain_id
                    )));
                }
                other => drop(other?),
            }
            if let Some((api, secret)) = pair {
                let sealed = keys::seal(&self.node.vault, id, secret);
                match users::set_keys(tx, id, api, &sealed).await {
                    Err(Error::Unique { .. }) => return Err(ApiError::param("The api key is used by another user")),
                    other => drop(other?),
                }
            }
            self.changed(tx, caller, &UPDATE_USER, "updating User", &user).await
        })
        .await?;
        Ok(shown)
    }

    /// Notes a change of a user, and gives the user as it is now.
    async fn changed(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        command: &'static CommandInfo,
        what: &str,
        user: &UserRow,
    ) -> Result<User, ApiError> {
        let now = self.user_again(tx, user.id).await?;
        notify::after(tx, &self.node.coord, Changed::User(user.id));
        let done = format!("Successfully completed {what}. User Id: {}", user.uuid);
        event::completed(tx, caller, &command.event, done, &user.owner(), ("User", &user.uuid)).await?;
        Ok(view::user(&now, None))
    }

    /// Gives a user to another account of its domain, by number or name; it keeps its id, password and keys (REL-025).
    ///
    /// # Errors
    /// 431 for a built-in user and an account that isn't there or is in another domain, 531 for one out of reach.
    pub async fn move_user(
        &self,
        caller: &Caller,
        id: i64,
        account: Option<i64>,
        name: Option<&str>,
    ) -> Result<Success, ApiError> {
        let user = self.user_row(id).await?;
        self.may_change_user(caller, &user, "move").await?;
        if user.is_default {
            return Err(ApiError::param("The user is default and can't be moved"));
        }
        let db = &self.node.db;
        let target = match (account, name.filter(|name| !name.is_empty())) {
            (Some(id), _) => accounts::find(db, id).await?.filter(|a| !a.removed),
            (None, Some(name)) => accounts::by_name(db, user.domain_id, name).await?,
            (None, None) => return Err(ApiError::param("Give the account that gets the user: account or accountid")),
        };
        let target = target.ok_or_else(|| ApiError::param("Unable to find the account that is to get the user"))?;
        self.may_change_account(caller, &target, "moving a user").await?;
        if target.domain_id != user.domain_id {
            let text = "Users can be moved only between accounts of one domain";
            return Err(ApiError::param(text));
        }
        jobs::mutate!(*db, *caller, "move-user", |tx| {
            // Both accounts: neither is deleted meanwhile.
            let both = [user.account_id.min(target.id), user.account_id.max(target.id)];
            for account in both {
                if !accounts::touch(tx, account).await? {
                    return Err(ApiError::param("The account has been removed"));
                }
            }
            if target.id != user.account_id {
                if !users::move_to(tx, id, target.id).await? {
                    return Err(ApiError::param(format!("Unable to find active user by id {id}")));
                }
                notify::after(tx, &self.node.coord, Changed::User(id));
            }
            let done = format!("Successfully completed moving User. User Id: {} to account {}", user.uuid, target.name);
            event::completed(tx, caller, &MOVE_USER.event, done, &target.owner(), ("User", &user.uuid)).await?;
            Ok(Success { success: true, display_text: None })
        })
        .await
    }

    /// Removes a user; its keys stop working.
    ///
    /// # Errors
    /// 431 for a built-in user or oneself, 531 for one out of reach.
    pub async fn delete_user(&self, caller: &Caller, id: i64) -> Result<(), ApiError> {
        let user = self.user_row(id).await?;
        self.may_change_user(caller, &user, "delete").await?;
        if user.is_default {
            return Err(ApiError::param("The user is default and can't be removed"));
        }
        if caller.user_id == id {
            return Err(ApiError::param("You can't remove the user that you are"));
        }
        jobs::mutate!(self.node.db, *caller, "delete-user", |tx| {
            if !users::remove(tx, id).await? {
                return Err(ApiError::param(format!("Unable to find active user by id {id}")));
            }
            notify::after(tx, &self.node.coord, Changed::User(id));
            let done = format!("Successfully completed deleting User. User Id: {}", user.uuid);
            event::completed(tx, caller, &DELETE_USER.event, done, &user.owner(), ("User", &user.uuid)).await?;
            Ok(contract::api::Success { success: true, display_text: None })
        })
        .await?;
        Ok(())
    }

    /// Enables a user, and its account with it.
    ///
    /// # Errors
    /// 531 for one out of reach.
    pub async fn enable_user(&self, caller: &Caller, id: i64) -> Result<User, ApiError> {
        let user = self.user_row(id).await?;
        self.may_change_user(caller, &user, "enable").await?;
        jobs::mutate!(self.node.db, *caller, "enable-user", |tx| {
            users::set_state(tx, id, "enabled").await?;
            // Made sure of, as in 4.11: a user of a locked account couldn't log in.
            accounts::set_state(tx, user.account_id, "enabled").await?;
            notify::after(tx, &self.node.coord, Changed::Account(user.account_id));
            self.changed(tx, caller, &ENABLE_USER, "enabling User", &user).await
        })
        .await
    }

    /// Locks a user; the account too when none of its users is left enabled.
    ///
    /// # Errors
    /// 431 for a built-in user, 530 for one that is disabled, 531 for one out of reach.
    pub async fn lock_user(&self, caller: &Caller, id: i64) -> Result<User, ApiError> {
        let user = self.user_row(id).await?;
        self.may_change_user(caller, &user, "locking").await?;
        if user.is_default {
            return Err(ApiError::param("The user is default and can't be locked"));
        }
        jobs::mutate!(self.node.db, *caller, "lock-user", |tx| {
            match self.user_again(tx, id).await?.state.as_str() {
                "locked" => {}
                "enabled" => {
                    users::set_state(tx, id, "locked").await?;
                    let account = accounts::find(&mut *tx, user.account_id).await?;
                    let lockable = account.is_some_and(|a| a.state == "enabled" && !a.is_default);
                    if lockable && !users::any_enabled(tx, user.account_id).await? {
                        accounts::set_state(tx, user.account_id, "locked").await?;
                        notify::after(tx, &self.node.coord, Changed::Account(user.account_id));
                    }
                }
                state => return Err(ApiError::failed(format!("Unable to lock user {}: it is {state}", user.uuid))),
            }
            self.changed(tx, caller, &LOCK_USER, "locking User", &user).await
        })
        .await
    }

    /// Makes a new pair of keys; the old one stops working.
    ///
    /// # Errors
    /// 531 for a user out of reach.
    pub async fn register_keys(&self, caller: &Caller, id: i64) -> Result<UserKeys, ApiError> {
        let user = self.user_row(id).await?;
        self.may_use_keys(caller, &user, "registering keys").await?;
        let (api, secret) = (keys::fresh()?, keys::fresh()?);
        let sealed = keys::seal(&self.node.vault, id, &secret);
        let made: UserKeys = jobs::mutate!(self.node.db, *caller, "register-user-keys", |tx| {
            if !users::set_keys(tx, id, &api, &sealed).await? {
                return Err(ApiError::param(format!("Unable to find active user by id {id}")));
            }
            self.changed(tx, caller, &REGISTER_USER_KEYS, "register for the developer API keys", &user).await?;
            // The answer is kept for repeats of the request: without the secret, which is kept sealed.
            Ok(UserKeys { api_key: Some(api.clone()), ..UserKeys::default() })
        })
        .await?;
        let now = self.keys_of(&self.user_row(id).await?)?;
        if now.api_key == made.api_key { Ok(now) } else { Ok(made) }
    }

    /// The keys of a user.
    ///
    /// # Errors
    /// 531 for a user out of reach.
    pub async fn user_keys(&self, caller: &Caller, id: i64) -> Result<UserKeys, ApiError> {
        let user = self.user_row(id).await?;
        self.may_use_keys(caller, &user, "reading keys").await?;
        self.keys_of(&user)
    }

    fn keys_of(&self, user: &UserRow) -> Result<UserKeys, ApiError> {
        let secret = user.secret_key.as_deref().map(|s| keys::open(&self.node.vault, user.id, s)).transpose()?;
        Ok(UserKeys { api_key: user.api_key.clone(), secret_key: secret, ..UserKeys::default() })
    }
}

/// Keys that the request brings: both or none.
fn key_pair(request: &UpdateUserRequest) -> Result<Option<(&str, &str)>, ApiError> {
    let part = |text: &'_ Option<String>| text.as_deref().map(str::trim).is_some_and(|t| !t.is_empty());
    match (&request.user_api_key, &request.user_secret_key) {
        (None, None) => Ok(None),
        (api, secret) if part(api) && part(secret) => Ok(api.as_deref().zip(secret.as_deref())),
        _ => Err(ApiError::param("Please specify an userApiKey/userSecretKey pair")),
    }
}
