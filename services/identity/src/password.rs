//! Passwords: argon2id, a few at a time, never on a thread that serves requests.

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use contract::ApiError;
use contract::secret::Secret;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Memory of one hash in KiB, and passes over it (OWASP's second profile).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Hashes at once: each takes its memory and a core.
const AT_ONCE: usize = 2;
/// Longest password in bytes.
const LONGEST: usize = 255;

/// Hashes and checks passwords. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    slots: Arc<Semaphore>,
    /// Checked for users that don't exist, so that they take as long as those who do.
    decoy: Arc<str>,
}

impl Passwords {
    /// Gets ready.
    ///
    /// # Errors
    /// 530 when a password can't be hashed here.
    pub async fn new() -> Result<Passwords, ApiError> {
        let decoy = spawn_blocking(|| hash(b"nobody's")).await.map_err(joined)??;
        Ok(Passwords { slots: Arc::new(Semaphore::new(AT_ONCE)), decoy: decoy.into() })
    }

    /// What to keep of a password.
    ///
    /// # Errors
    /// 431 when it is empty or too long.
    pub async fn hash(&self, password: &str) -> Result<String, ApiError> {
        if password.is_empty() {
            return Err(ApiError::param("Empty passwords are not allowed"));
        }
        if password.len() > LONGEST {
            return Err(ApiError::param(format!("A password has at most {LONGEST} bytes")));
        }
        let secret = Secret::new(password.to_owned());
        let _slot = self.slots.acquire().await.map_err(|e| ApiError::internal(e.to_string()))?;
        spawn_blocking(move || hash(secret.expose().as_bytes())).await.map_err(joined)?
    }

    /// Whether `password` is the one that `known` was made of. Takes as long where nothing is known.
    ///
    /// # Errors
    /// 530 when it can't be told.
    pub async fn check(&self, password: &str, known: Option<&str>) -> Result<bool, ApiError> {
        let secret = Secret::new(password.to_owned());
        let against = known.filter(|k| !k.is_empty()).map_or_else(|| self.decoy.to_string(), str::to_owned);
        let exists = known.is_some_and(|k| !k.is_empty());
        let _slot = self.slots.acquire().await.map_err(|e| ApiError::internal(e.to_string()))?;
        let fits = spawn_blocking(move || {
            let parsed = PasswordHash::new(&against).ok()?;
            // The parameters are those in the text, so that older hashes stay good.
            Some(Argon2::default().verify_password(secret.expose().as_bytes(), &parsed).is_ok())
        })
        .await
        .map_err(joined)?;
        Ok(exists && fits.unwrap_or(false))
    }
}

fn hash(password: &[u8]) -> Result<String, ApiError> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|e| ApiError::internal(e.to_string()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password)
        .map(|h| h.to_string())
        .map_err(|e| ApiError::internal(format!("the password can't be hashed: {e}")))
}

fn joined(e: tokio::task::JoinError) -> ApiError {
    ApiError::internal(format!("hashing was broken off: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_fits() {
        let passwords = Passwords::new().await.unwrap();
        let known = passwords.hash("pässword").await.unwrap();
        assert!(known.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{known}");
        assert!(passwords.check("pässword", Some(&known)).await.unwrap());
        assert!(!passwords.check("password", Some(&known)).await.unwrap());
        assert_ne!(known, passwords.hash("pässword").await.unwrap(), "each hash has a salt of its own");
        assert!(!passwords.check("nobody's", None).await.unwrap(), "the decoy lets nobody in");
        assert!(!passwords.check("", Some("")).await.unwrap());
        assert!(!passwords.check("x", Some("no hash")).await.unwrap());
        assert_eq!(passwords.hash("").await.unwrap_err().code, 431);
    }
}
