//! Users and roles as identity tells them, cached. One look-up a key at a time; whatever identity says has changed is
//! loaded again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::{ApiError, CommandInfo};
use contract_identity::authority_client::AuthorityClient;
use contract_identity::password_login_answer::Outcome;
use contract_identity::{
    ByApiKeyRequest, ByUserRequest, CredentialsAnswer, PasswordLogin, PasswordLoginAnswer, RoleRulesRequest,
};
use coord::Notice;
use moka::future::Cache;
use rpc::PeerChannel;

use super::fences::Fences;
use super::principal::Principal;
use super::roles::{Decision, Role, static_decision};
use crate::catalogue::{Catalogue, Entry};
use crate::gates::Gates;

/// The topic of changes.
pub const TOPIC: &str = "identity";
/// What is cached is loaded again after this time even when no change was heard of.
const KEPT: Duration = Duration::from_secs(60);
const MOST_USERS: u64 = 20_000;
const MOST_ROLES: u64 = 2_000;

/// What identity's changes name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(i64),
    Account(i64),
    Domain(i64),
    Role(i64),
}

/// Something loaded, and when; `None`: identity has no such thing.
struct Loaded<T> {
    since: u64,
    value: Option<Arc<T>>,
}

type Users<K> = Cache<K, Arc<Loaded<Principal>>>;

/// What identity knows.
pub struct Authority {
    client: AuthorityClient<PeerChannel>,
    catalogue: Arc<Catalogue>,
    gates: Arc<Gates>,
    by_key: Users<String>,
    by_user: Users<i64>,
    roles: Cache<i64, Arc<Loaded<Role>>>,
    fences: Fences<Subject>,
}

impl Authority {
    /// Asks identity over this channel; look-ups for strangers wait for their turn.
    pub fn new(channel: PeerChannel, catalogue: Arc<Catalogue>, gates: Arc<Gates>) -> Authority {
        let users = || Cache::builder().max_capacity(MOST_USERS).time_to_live(KEPT);
        Authority {
            client: AuthorityClient::new(channel),
            catalogue,
            gates,
            by_key: users().build(),
            by_user: Cache::builder().max_capacity(MOST_USERS).time_to_live(KEPT).build(),
            roles: Cache::builder().max_capacity(MOST_ROLES).time_to_live(KEPT).build(),
            fences: Fences::default(),
        }
    }

    /// Takes note of a change.
    pub fn notice(&self, notice: &Notice) {
        let Notice::Message(text) = notice else { return self.fences.raise_all() };
        let subject = text.split_once('/').and_then(|(kind, id)| {
            let id = id.parse().ok()?;
            match kind {
                "user" => Some(Subject::User(id)),
                "account" => Some(Subject::Account(id)),
                "domain" => Some(Subject::Domain(id)),
                "role" => Some(Subject::Role(id)),
                _ => None,
            }
        });
        match subject {
            Some(subject) => self.fences.raise(subject),
            // `all`, or something that a newer identity says.
            None => self.fences.raise_all(),
        }
    }

    /// The user that an API key names, for a request from this address.
    ///
    /// # Errors
    /// When identity doesn't answer; 503 when too many ask.
    pub async fn by_api_key(&self, api_key: &str, from: IpAddr) -> Result<Option<Arc<Principal>>, ApiError> {
        loop {
            let load = async {
                let _pass = self.gates.stranger(from).await?;
                let since = self.fences.now();
                let request = internal(ByApiKeyRequest { api_key: api_key.to_owned() });
                let answer = self.client.clone().by_api_key(request).await?.into_inner();
                Ok(user(since, answer))
            };
            let loaded = self.by_key.try_get_with_by_ref(api_key, load).await.map_err(unshare)?;
            if self.holds_user(&loaded) {
                return Ok(loaded.value.clone());
            }
            self.by_key.invalidate(api_key).await;
        }
    }

    /// A user by number, for a request from this address.
    ///
    /// # Errors
    /// When identity doesn't answer; 503 when too many ask.
    pub async fn by_user(&self, user_id: i64, from: IpAddr) -> Result<Option<Arc<Principal>>, ApiError> {
        loop {
            let load = async {
                let _pass = self.gates.stranger(from).await?;
                let since = self.fences.now();
                let answer = self.client.clone().by_user(internal(ByUserRequest { user_id })).await?.into_inner();
                Ok(user(since, answer))
            };
            let loaded = self.by_user.try_get_with(user_id, load).await.map_err(unshare)?;
            if self.holds_user(&loaded) {
                return Ok(loaded.value.clone());
            }
            self.by_user.invalidate(&user_id).await;
        }
    }

    /// A role.
    ///
    /// # Errors
    /// When identity doesn't answer.
    pub async fn role(&self, role_id: i64) -> Result<Option<Arc<Role>>, ApiError> {
        loop {
            let load = async {
                let since = self.fences.now();
                let request = internal(RoleRulesRequest { role_id });
                let answer = self.client.clone().role_rules(request).await?.into_inner();
                let value = answer.role.map(|rules| Arc::new(Role::new(&rules, &self.catalogue)));
                Ok(Arc::new(Loaded { since, value }))
            };
            let loaded = self.roles.try_get_with(role_id, load).await.map_err(unshare)?;
            if self.fences.hold(loaded.since, [Subject::Role(role_id)]) {
                return Ok(loaded.value.clone());
            }
            self.roles.invalidate(&role_id).await;
        }
    }

    /// Whether the role of this user may call the command. `dynamic`: by the role's rules.
    ///
    /// # Errors
    /// When identity doesn't answer.
    pub async fn decide(&self, principal: &Principal, entry: &Entry, dynamic: bool) -> Result<Decision, ApiError> {
        if !dynamic {
            return Ok(static_decision(&entry.info, principal.role_type()));
        }
        let role = self.role(principal.credentials().role_id).await?;
        Ok(role.map_or(Decision::Denied, |role| role.decision(entry.index)))
    }

    /// The commands that the role of this user may call.
    ///
    /// # Errors
    /// When identity doesn't answer.
    pub async fn commands(&self, principal: &Principal, dynamic: bool) -> Result<Vec<&Entry>, ApiError> {
        let role = if dynamic { self.role(principal.credentials().role_id).await? } else { None };
        let decide = |info: &CommandInfo, index| match &role {
            Some(role) => role.decision(index),
            None if dynamic => Decision::Denied,
            None => static_decision(info, principal.role_type()),
        };
        Ok(self.catalogue.entries().iter().filter(|e| decide(&e.info, e.index) == Decision::Allowed).collect())
    }

    /// Checks user name and password.
    ///
    /// # Errors
    /// When identity doesn't answer.
    pub async fn login(&self, login: PasswordLogin) -> Result<Login, ApiError> {
        let answer = self.client.clone().login(internal(login)).await?.into_inner();
        Ok(Login::of(answer))
    }

    fn holds_user(&self, loaded: &Loaded<Principal>) -> bool {
        let Some(principal) = &loaded.value else {
            // Nobody knows yet whose key it will be: any change may be it.
            return loaded.since == self.fences.now();
        };
        let known = principal.credentials();
        let domains = known.domain_path.split('/').filter_map(|id| id.parse().ok()).map(Subject::Domain);
        let subjects = [Subject::User(known.user_id), Subject::Account(known.account_id)];
        self.fences.hold(loaded.since, subjects.into_iter().chain(domains))
    }
}

/// How a login went.
pub enum Login {
    /// The user is who they say.
    Accepted(Arc<Principal>),
    /// There is no such domain.
    NoDomain,
    /// Nobody learns why.
    Refused {
        /// The domain that was searched.
        domain_id: i64,
    },
}

impl Login {
    fn of(answer: PasswordLoginAnswer) -> Login {
        match (answer.outcome(), answer.credentials) {
            (Outcome::Accepted, Some(credentials)) => Login::Accepted(Arc::new(Principal::new(credentials))),
            (Outcome::NoDomain, _) => Login::NoDomain,
            _ => Login::Refused { domain_id: answer.domain_id },
        }
    }
}

fn user(since: u64, answer: CredentialsAnswer) -> Arc<Loaded<Principal>> {
    Arc::new(Loaded { since, value: answer.credentials.map(|c| Arc::new(Principal::new(c))) })
}

/// A request of the gateway itself.
fn internal<M: prost::Message>(message: M) -> tonic::Request<M> {
    let mut request = rpc::cx::request(&rpc::cx::system_caller(), message);
    // A login that is counted twice is counted in the attacker's disfavour.
    request.extensions_mut().insert(rpc::Repeatable);
    request
}

fn unshare(error: Arc<ApiError>) -> ApiError {
    Arc::unwrap_or_clone(error)
}
