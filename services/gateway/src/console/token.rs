//! What a page may do: open one connection to one VM's console, soon, from where it was served.
//!
//! A token is sealed with the installation's master key (AES-256-GCM-SIV, `crates/vault`): any replica can read it, nobody
//! else can read, change or make one. That it opens only one connection is the database's to say.

use std::time::Duration;

use contract::ApiError;
use vault::Vault;

/// How long after the page was served its connection may be opened.
const LIFE: Duration = Duration::from_secs(60);
/// How long the database remembers a token after that: replicas' clocks differ a little.
pub const KEPT: Duration = Duration::from_secs(600);
/// Where tokens stand, for the vault: nothing else that it sealed is taken for one.
const CONTEXT: &str = "console.token";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The VM's UUID.
    pub vm: String,
    /// Whose it is.
    pub user_id: i64,
    /// The host (with the port) that the page was served from.
    pub host: String,
    /// Tells it from all others.
    pub nonce: String,
    /// When it ends, UTC µs.
    pub expires: i64,
}

impl Token {
    /// A new one that is good from now on.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(vm: &str, user_id: i64, host: &str) -> Result<Token, ApiError> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| ApiError::internal("the system has no random numbers"))?;
        Ok(Token {
            vm: vm.to_owned(),
            user_id,
            host: host.to_ascii_lowercase(),
            nonce: format!("{:032x}", u128::from_be_bytes(nonce)),
            expires: store::now_micros() + LIFE.as_micros() as i64,
        })
    }

    /// As the page gets it: letters, digits, `-`, `_` and `.`, so that it can be the name of a WebSocket's protocol. That
    /// is where browsers may put it so that it stands in no URL, and thus in nobody's log.
    pub fn seal(&self, vault: &Vault) -> String {
        let Token { vm, user_id, host, nonce, expires } = self;
        vault.seal(CONTEXT, format!("{vm}\n{user_id}\n{host}\n{nonce}\n{expires}").as_bytes()).replace(':', ".")
    }

    /// What a token says that is still good; none for all others.
    pub fn open(vault: &Vault, sealed: &str) -> Option<Token> {
        let plain = vault.open_sealed(CONTEXT, &sealed.replace('.', ":")).ok()?;
        let text = String::from_utf8(plain).ok()?;
        let mut parts = text.split('\n');
        let mut next = || parts.next().map(str::to_owned);
        let token = Token {
            vm: next()?,
            user_id: next()?.parse().ok()?,
            host: next()?,
            nonce: next()?,
            expires: next()?.parse().ok()?,
        };
        (token.expires > store::now_micros()).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_installation_sealed_and_has_not_expired_is_good() {
        let vault = Vault::ephemeral();
        let token = Token::new("0b3d", 7, "Cloud.example:8080").unwrap();
        let sealed = token.seal(&vault);
        assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{sealed}");
        assert!(!sealed.contains("0b3d"));
        assert_eq!(Token::open(&vault, &sealed).as_ref(), Some(&token));
        assert_eq!(token.host, "cloud.example:8080");
        // Another installation's, a changed one, another kind of secret, nonsense.
        assert_eq!(Token::open(&Vault::ephemeral(), &sealed), None);
        let last = sealed.len() - 6;
        let mut changed = sealed.clone().into_bytes();
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(Token::open(&vault, &String::from_utf8(changed).unwrap()), None);
        let other = vault.seal("users.secret_key:7", b"0b3d\n7\nh\nn\n9999999999999999").replace(':', ".");
        assert_eq!(Token::open(&vault, &other), None);
        for nonsense in ["", ".", "v1..", "v1.x.y"] {
            assert_eq!(Token::open(&vault, nonsense), None);
        }
        let late = Token { expires: store::now_micros() - 1, ..token };
        assert_eq!(Token::open(&vault, &late.seal(&vault)), None);
    }
}
