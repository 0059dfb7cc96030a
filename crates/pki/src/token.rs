//! Enrolment tokens: what lets an unknown agent in.
//!
//! The text is `SECRET.FINGERPRINT`. The database keeps a hash of the secret; the fingerprint is the root's, so that an
//! agent that has only the token can tell the real hub from another.

use crate::Pki;
use crate::agents::AgentKind;
use crate::store::{self, TokenRow};
use crate::subject::hex;
use ::store::now_micros;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::ApiError;
use contract::secret::Secret;
use std::time::Duration;

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What kind of agent it lets in.
    pub kind: AgentKind,
    /// How often it may be used; none: any number of times until it expires.
    pub uses: Option<u32>,
    /// How long it is valid.
    pub valid: Duration,
    /// Who asked for it.
    pub created_by: String,
}

impl NewToken {
    /// For one host: an hour, once.
    pub fn for_host(created_by: impl Into<String>) -> NewToken {
        let valid = Duration::from_secs(3600);
        NewToken { kind: AgentKind::Host, uses: Some(1), valid, created_by: created_by.into() }
    }

    /// For factories of simulated hosts: a day, any number of times.
    pub fn for_factories(created_by: impl Into<String>) -> NewToken {
        let valid = Duration::from_secs(24 * 3600);
        NewToken { kind: AgentKind::Factory, uses: None, valid, created_by: created_by.into() }
    }
}

/// The two parts of a token's text.
pub struct TokenText {
    /// What the hub checks.
    pub secret: Secret<String>,
    /// What the agent checks: SHA-256 of the root certificate, hexadecimal.
    pub fingerprint: String,
}

impl TokenText {
    /// Reads a token.
    ///
    /// # Errors
    /// 431 when it isn't one.
    pub fn parse(text: &str) -> Result<TokenText, ApiError> {
        let (secret, fingerprint) = text.trim().split_once('.').unwrap_or_default();
        let sound = fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit());
        if secret.is_empty() || !sound {
            return Err(ApiError::param("this is no enrolment token: it has the form SECRET.FINGERPRINT"));
        }
        Ok(TokenText { secret: Secret::new(secret.to_owned()), fingerprint: fingerprint.to_ascii_lowercase() })
    }
}

impl Pki {
    /// Makes an enrolment token: its UUID, and the text that is shown this once.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn new_token(&self, new: &NewToken) -> Result<(String, Secret<String>), ApiError> {
        let mut random = [0u8; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| ApiError::internal("the system gives no randomness"))?;
        let secret = URL_SAFE_NO_PAD.encode(random);
        let uuid = uuid::Uuid::new_v4().to_string();
        let valid = i64::try_from(new.valid.as_micros()).unwrap_or(i64::MAX);
        let row = TokenRow {
            uuid: &uuid,
            hash: &hash(&secret),
            kind: new.kind,
            uses: new.uses.map(i64::from),
            expires: now_micros().saturating_add(valid),
            created_by: &new.created_by,
        };
        ::store::tx!(self.db, "new-token", |tx| {
            store::insert_token(tx, &row).await?;
            Ok::<_, ApiError>(())
        })
        .await?;
        Ok((uuid, Secret::new(format!("{secret}.{}", self.fingerprint()))))
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn revoke_token(&self, uuid: &str) -> Result<bool, ApiError> {
        ::store::tx!(self.db, "revoke-token", |tx| Ok::<_, ApiError>(store::revoke_token(tx, uuid).await? > 0)).await
    }
}

/// The secret has 256 random bits: a plain hash can't be guessed back.
pub(crate) fn hash(secret: &str) -> String {
    hash_bytes(secret.as_bytes())
}

pub(crate) fn hash_bytes(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}
