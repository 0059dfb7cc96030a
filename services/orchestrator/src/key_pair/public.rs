//! Public keys as OpenSSH writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::ApiError;
use md5::{Digest as _, Md5};

/// Kinds of keys that guests' SSH servers know.
const KINDS: &[&str] = &[
    "ssh-rsa",
    "ssh-dss",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: String,
    blob: Vec<u8>,
}

impl PublicKey {
    /// An RSA key of its numbers, as DER keeps them.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> PublicKey {
        let mut blob = Vec::with_capacity(modulus.len() + 32);
        // DER and SSH keep numbers alike: signed, big end first.
        for part in [b"ssh-rsa".as_slice(), exponent, modulus] {
            blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or(0).to_be_bytes());
            blob.extend_from_slice(part);
        }
        PublicKey { kind: "ssh-rsa".to_owned(), blob }
    }

    /// Reads "ssh-rsa AAAA… comment"; the whole may be base64 once more, as some clients send it.
    ///
    /// # Errors
    /// 431 for anything else.
    pub fn parse(text: &str) -> Result<PublicKey, ApiError> {
        Self::line_of(text.trim())
            .or_else(|| {
                let inner = STANDARD.decode(text.trim()).ok()?;
                Self::line_of(std::str::from_utf8(&inner).ok()?.trim())
            })
            .ok_or_else(|| ApiError::param("Public key is invalid: give it as OpenSSH writes it, \"ssh-rsa AAAA…\""))
    }

    fn line_of(line: &str) -> Option<PublicKey> {
        if line.contains(['\n', '\r']) {
            return None;
        }
        let mut parts = line.split_ascii_whitespace();
        let (kind, data) = (parts.next()?, parts.next()?);
        if !KINDS.contains(&kind) {
            return None;
        }
        let blob = STANDARD.decode(data).ok()?;
        // The data begins with the kind again: a check against truncated and mixed-up keys.
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        (rest.get(..length)? == kind.as_bytes() && rest.len() > length)
            .then(|| PublicKey { kind: kind.to_owned(), blob })
    }

    /// As `authorized_keys` has it, without a comment.
    pub fn line(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }

    /// MD5 in pairs of digits, as 4.11 shows it. It only names the key.
    pub fn fingerprint(&self) -> String {
        Md5::digest(&self.blob).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl user@host";

    #[test]
    fn keys_are_read_and_named() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.line(), KEY.trim_end_matches(" user@host"));
        assert_eq!(key.fingerprint().len(), 47);
        assert_eq!(PublicKey::parse(&STANDARD.encode(KEY)).unwrap(), key);
        for wrong in [
            "",
            "ssh-rsa",
            "ssh-rsa AAAA",
            "hello world",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
        ] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
