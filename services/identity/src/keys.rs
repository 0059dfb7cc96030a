//! API keys: a public one that names the user and a secret one that signs.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::ApiError;
use vault::Vault;

/// Random bytes of a key; 86 characters in text, as CloudStack's.
const BYTES: usize = 64;

/// A fresh key.
///
/// # Errors
/// 530 when the system gives no randomness.
pub fn fresh() -> Result<String, ApiError> {
    loop {
        let mut bytes = [0u8; BYTES];
        rand::fill(&mut bytes).map_err(|_| ApiError::internal("the system gives no random bytes"))?;
        let key = URL_SAFE_NO_PAD.encode(bytes);
        // A key that begins with a dash would be taken for a flag by every command line.
        if !key.starts_with('-') {
            return Ok(key);
        }
    }
}

fn place(user: i64) -> String {
    format!("users.secret_key:{user}")
}

/// Seals the secret key of a user for its column.
pub fn seal(vault: &Vault, user: i64, secret: &str) -> String {
    vault.seal(&place(user), secret.as_bytes())
}

/// Opens a sealed secret key.
///
/// # Errors
/// 530 when it was altered or belongs to another user.
pub fn open(vault: &Vault, user: i64, sealed: &str) -> Result<String, ApiError> {
    let bytes = vault.open_sealed(&place(user), sealed)?;
    String::from_utf8(bytes).map_err(|_| ApiError::internal(format!("the secret key of user {user} is no text")))
}
