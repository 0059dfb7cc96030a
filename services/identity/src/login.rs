//! Who someone is: by API key, by session, by password.

use crate::notify::{self, Changed};
use crate::store::domains::{self, DomainRow};
use crate::store::users::{self, UserRow};
use crate::{Identity, keys, role_type};
use config::{Scope, keys as settings};
use contract::{ApiError, Caller, RoleType};
use contract_identity::password_login_answer::Outcome;
use contract_identity::{Credentials, PasswordLogin, PasswordLoginAnswer};
use events::{EventRecord, EventState, Record};

/// What the setting says when any address may call.
const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

impl Identity {
    /// The living user with this API key.
    ///
    /// # Errors
    /// Those of the database and of the vault.
    pub async fn by_api_key(&self, key: &str) -> Result<Option<Credentials>, ApiError> {
        users::by_api_key(&self.node.db, key).await?.map(|u| self.credentials(&u)).transpose()
    }

    /// The living user with this number.
    ///
    /// # Errors
    /// Those of the database and of the vault.
    pub async fn by_user(&self, id: i64) -> Result<Option<Credentials>, ApiError> {
        let found = users::find(&self.node.db, id).await?.filter(|u| !u.removed);
        found.map(|u| self.credentials(&u)).transpose()
    }

    /// Checks a user name and a password. Who is refused never learns why; a wrong password and an unknown user take as long.
    ///
    /// # Errors
    /// Those of the database and of the vault.
    pub async fn login(&self, request: &PasswordLogin) -> Result<PasswordLoginAnswer, ApiError> {
        let Some(domain) = self.login_domain(request).await? else {
            return Ok(answer(Outcome::NoDomain, 0));
        };
        let user = users::by_name(&self.node.db, domain.id, &request.user_name).await?;
        let known = match &user {
            Some(user) => users::password(&self.node.db, user.id).await?,
            None => None,
        };
        let fits = self.passwords.check(&request.password, known.as_ref().map(|(hash, _)| hash.as_str())).await?;
        let Some(user) = user else {
            return Ok(answer(Outcome::Refused, domain.id));
        };
        if !is_enabled(&user) {
            return Ok(answer(Outcome::Refused, domain.id));
        }
        if !fits {
            self.count_failure(&user).await?;
            return Ok(answer(Outcome::Refused, domain.id));
        }
        let failures = known.map_or(0, |(_, attempts)| attempts);
        self.note_login(&user, failures, &request.remote_address).await?;
        Ok(PasswordLoginAnswer { credentials: Some(self.credentials(&user)?), ..answer(Outcome::Accepted, domain.id) })
    }

    async fn login_domain(&self, request: &PasswordLogin) -> Result<Option<DomainRow>, ApiError> {
        if let Some(id) = request.domain_id.as_deref().filter(|d| !d.is_empty()) {
            return Ok(domains::by_id_text(&self.node.db, id).await?);
        }
        let path = request.domain_path.as_deref().unwrap_or_default();
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        Ok(domains::by_names(&self.node.db, &names).await?)
    }

    async fn count_failure(&self, user: &UserRow) -> Result<(), ApiError> {
        // As in 4.11, root administrators can't be shut out so.
        if user.role_type == role_type::name(RoleType::Admin) {
            return Ok(());
        }
        let allowed = self.node.settings.get(settings::INCORRECT_LOGIN_ATTEMPTS_ALLOWED);
        if allowed < 1 {
            return Ok(());
        }
        ::store::tx!(self.node.db, "login-failed", |tx| {
            if users::count_failure(tx, user.id, allowed).await? {
                tracing::warn!(user = user.uuid, allowed, "disabled after too many failed logins");
                notify::after(tx, &self.node.coord, Changed::User(user.id));
            }
            Ok::<_, ApiError>(())
        })
        .await
    }

    async fn note_login(&self, user: &UserRow, failures: i64, address: &str) -> Result<(), ApiError> {
        let caller = Caller {
            user_id: user.id,
            account_id: user.account_id,
            domain_id: user.domain_id,
            domain_path: user.domain_path.clone(),
            remote_address: address.to_owned(),
            ..Caller::default()
        };
        let text = format!("user has logged in from IP Address {address}");
        let event = EventRecord::new(&caller, "USER.LOGIN", EventState::Completed, text).about("User", &user.uuid);
        ::store::tx!(self.node.db, "login", |tx| {
            if failures > 0 {
                users::forget_failures(tx, user.id).await?;
            }
            events::record(tx, &[Record::Event(event.clone())]).await?;
            Ok::<_, ApiError>(())
        })
        .await
    }

    fn credentials(&self, user: &UserRow) -> Result<Credentials, ApiError> {
        let secret = user.secret_key.as_deref().map(|s| keys::open(&self.node.vault, user.id, s)).transpose()?;
        let cidrs = self.node.settings.get_in(settings::API_ALLOWED_SOURCE_CIDR_LIST, Scope::Account(user.account_id));
        let cidrs: Vec<String> = cidrs.split(',').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
        let anywhere = ANYWHERE.iter().all(|a| cidrs.iter().any(|c| c == a));
        Ok(Credentials {
            user_id: user.id,
            user_uuid: user.uuid.clone(),
            user_name: user.username.clone(),
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            time_zone: user.timezone.clone(),
            registered: user.registered,
            user_enabled: user.state == "enabled",
            api_key: user.api_key.clone(),
            secret_key: secret,
            account_id: user.account_id,
            account_uuid: user.account_uuid.clone(),
            account_name: user.account_name.clone(),
            account_type: user.account_type,
            account_enabled: user.account_state == "enabled",
            domain_id: user.domain_id,
            domain_uuid: user.domain_uuid.clone(),
            domain_path: user.domain_path.clone(),
            domain_active: user.domain_state == domains::ACTIVE,
            role_id: user.role_id,
            role_type: role_type::parse(&user.role_type).unwrap_or(RoleType::Unspecified).into(),
            allowed_cidrs: if anywhere { Vec::new() } else { cidrs },
        })
    }
}

fn is_enabled(user: &UserRow) -> bool {
    user.state == "enabled" && user.account_state == "enabled" && user.domain_state == domains::ACTIVE
}

fn answer(outcome: Outcome, domain_id: i64) -> PasswordLoginAnswer {
    PasswordLoginAnswer { outcome: outcome.into(), credentials: None, domain_id }
}
