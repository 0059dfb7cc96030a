//! Secrets at rest: what a database column must not show in clear.
//!
//! Each text is sealed with AES-256-GCM-SIV (a repeated nonce costs little) and bound to where it stands, so that a sealed
//! value copied into another row or column doesn't open. The key's id travels in the text: a file may hold several keys,
//! of which the last one seals and all open.

mod keyfile;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::ApiError;
use keyfile::MasterKey;
use std::path::Path;
use std::sync::Arc;

/// Begins every sealed text; names the format.
const FORMAT: &str = "v1";
/// Bytes of the nonce that stands before the ciphertext.
const NONCE: usize = 12;

/// The keys of an installation. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Vault {
    keys: Arc<[Key]>,
}

struct Key {
    id: String,
    key: RandomizedNonceKey,
}

impl Vault {
    /// Opens the key file at `path`; makes one (mode 0600) when there is none. Replicas that race make one key only.
    ///
    /// # Errors
    /// 530 when the file can't be read or made, holds no key, or may be read by others than its owner.
    pub fn open(path: &Path) -> Result<Vault, ApiError> {
        Vault::of(&keyfile::open(path)?)
    }

    /// A vault with a key that dies with it: for tests.
    ///
    /// # Panics
    /// Never: a fresh key always fits the cipher.
    #[allow(clippy::expect_used)]
    pub fn ephemeral() -> Vault {
        Vault::of(&[MasterKey::random()]).expect("a fresh key fits the cipher")
    }

    fn of(keys: &[MasterKey]) -> Result<Vault, ApiError> {
        let keys = keys
            .iter()
            .map(|k| {
                let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, k.bytes())
                    .map_err(|_| ApiError::internal(format!("master key {} doesn't fit the cipher", k.id())))?;
                Ok(Key { id: k.id().to_owned(), key })
            })
            .collect::<Result<Vec<_>, ApiError>>()?;
        if keys.is_empty() {
            return Err(ApiError::internal("there is no master key"));
        }
        Ok(Vault { keys: keys.into() })
    }

    /// Seals `plain`. `context` says where the text will stand (`"users.secret_key:17"`): it opens only there.
    ///
    /// # Panics
    /// Never for secrets of sensible size: the cipher refuses only texts beyond 64 GiB.
    #[allow(clippy::expect_used)]
    pub fn seal(&self, context: &str, plain: &[u8]) -> String {
        let current = self.keys.last().expect("a vault holds a key");
        let mut body = plain.to_vec();
        let nonce =
            current.key.seal_in_place_append_tag(Aad::from(context), &mut body).expect("a short text can be sealed");
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut body);
        format!("{FORMAT}:{}:{}", current.id, URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens what [`Vault::seal`] made for the same `context`.
    ///
    /// # Errors
    /// 530 when the text is damaged, stands elsewhere than it was sealed for, or its key isn't in the file.
    pub fn open_sealed(&self, context: &str, sealed: &str) -> Result<Vec<u8>, ApiError> {
        let broken = |why: &str| ApiError::internal(format!("the secret at {context} can't be opened: {why}"));
        let mut parts = sealed.splitn(3, ':');
        let (Some(FORMAT), Some(id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(broken("not a sealed text"));
        };
        let key = self
            .keys
            .iter()
            .find(|k| k.id == id)
            .ok_or_else(|| broken(&format!("master key {id} isn't in the key file")))?;
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| broken("damaged text"))?;
        if bytes.len() < NONCE {
            return Err(broken("damaged text"));
        }
        let mut body = bytes.split_off(NONCE);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| broken("damaged text"))?;
        let length = key
            .key
            .open_in_place(nonce, Aad::from(context), &mut body)
            .map_err(|_| broken("altered, or sealed for another place or key"))?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// Whether `sealed` was made with another key than the one that seals now, so that it should be sealed anew.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        let id = sealed.split(':').nth(1);
        self.keys.last().is_some_and(|current| id != Some(current.id.as_str()))
    }
}
