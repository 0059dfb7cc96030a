//! A user as requests need it: everything that is derived from the credentials is derived once.

use std::net::IpAddr;

use contract::RoleType;
use contract::api::Caller;
use contract_identity::Credentials;
use ipnet::IpNet;
use prost::Message as _;

use super::signature::SecretKey;

/// An authenticated user.
pub struct Principal {
    credentials: Credentials,
    caller: Vec<u8>,
    key: Option<SecretKey>,
    allowed: Option<Vec<IpNet>>,
}

impl Principal {
    /// The user of these credentials.
    pub fn new(mut credentials: Credentials) -> Principal {
        let key = credentials.secret_key.take().filter(|s| !s.is_empty()).map(|s| SecretKey::new(s.as_bytes()));
        let caller = Caller {
            user_id: credentials.user_id,
            user_uuid: credentials.user_uuid.clone(),
            user_name: credentials.user_name.clone(),
            account_id: credentials.account_id,
            account_uuid: credentials.account_uuid.clone(),
            account_name: credentials.account_name.clone(),
            domain_id: credentials.domain_id,
            domain_uuid: credentials.domain_uuid.clone(),
            domain_path: credentials.domain_path.clone(),
            role_type: credentials.role_type,
            role_id: credentials.role_id,
            ..Caller::default()
        };
        let allowed = (!credentials.allowed_cidrs.is_empty()).then(|| {
            credentials.allowed_cidrs.iter().filter_map(|text| network(text, &credentials.account_name)).collect()
        });
        Principal { caller: caller.encode_to_vec(), credentials, key, allowed }
    }

    /// The built-in system account, in whose name the integration port calls.
    pub fn system() -> Principal {
        let system = rpc::cx::system_caller();
        Principal::new(Credentials {
            user_id: system.user_id,
            user_name: system.user_name,
            user_enabled: true,
            account_id: system.account_id,
            account_name: system.account_name,
            account_enabled: true,
            domain_id: system.domain_id,
            domain_path: system.domain_path,
            domain_active: true,
            role_id: system.role_id,
            role_type: system.role_type,
            ..Credentials::default()
        })
    }

    /// What identity said; without the secret key.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The encoded [`Caller`]. What a request adds may be appended: joined bytes are the joined message.
    pub fn caller(&self) -> &[u8] {
        &self.caller
    }

    /// The secret key, when the user has one.
    pub fn key(&self) -> Option<&SecretKey> {
        self.key.as_ref()
    }

    /// Whether user, account and domain are in use.
    pub fn is_enabled(&self) -> bool {
        self.credentials.user_enabled && self.credentials.account_enabled && self.credentials.domain_active
    }

    /// The type of the account's role.
    pub fn role_type(&self) -> RoleType {
        self.credentials.role_type()
    }

    /// Whether the caller reads internal details.
    pub fn is_root_admin(&self) -> bool {
        self.role_type() == RoleType::Admin
    }

    /// Whether requests may come from this address.
    pub fn is_allowed_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.as_ref().is_none_or(|networks| networks.iter().any(|n| n.contains(&address)))
    }
}

/// A network of the setting; what is no network allows nobody.
fn network(text: &str, account: &str) -> Option<IpNet> {
    let text = text.trim();
    let parsed = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if parsed.is_none() {
        tracing::warn!(account, network = text, "api.allowed.source.cidr.list holds something that is no network");
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(cidrs: &[&str], from: &str) -> bool {
        let allowed_cidrs = cidrs.iter().map(|c| (*c).to_owned()).collect();
        Principal::new(Credentials { allowed_cidrs, ..Credentials::default() }).is_allowed_from(from.parse().unwrap())
    }

    #[test]
    fn source_addresses() {
        assert!(allowed(&[], "203.0.113.1"));
        assert!(allowed(&["0.0.0.0/0", "::/0"], "203.0.113.1"));
        assert!(allowed(&["0.0.0.0/0", "::/0"], "2001:db8::1"));
        assert!(allowed(&[" 192.0.2.0/24 "], "::ffff:192.0.2.7"));
        assert!(allowed(&["192.0.2.7"], "192.0.2.7"));
        assert!(!allowed(&["192.0.2.0/24"], "192.0.3.1"));
        assert!(!allowed(&["nonsense"], "192.0.3.1"));
    }
}
