//! New RSA key pairs.

use super::der;
use super::public::PublicKey;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::ApiError;
use contract::secret::Secret;
use std::fmt::Write as _;

/// A key pair that nobody has seen yet.
pub struct NewPair {
    /// PEM of PKCS #1, as 4.11 gives it.
    pub private_pem: Secret<String>,
    /// The public half.
    pub public: PublicKey,
}

/// Makes a key pair. Takes up to seconds: not for async code.
///
/// # Errors
/// Internal, when the library fails.
pub fn generate(bits: i64) -> Result<NewPair, ApiError> {
    let size = match bits {
        i64::MIN..=2048 => KeySize::Rsa2048,
        2049..=3072 => KeySize::Rsa3072,
        3073..=4096 => KeySize::Rsa4096,
        _ => KeySize::Rsa8192,
    };
    let failed = || ApiError::internal("an RSA key can't be made");
    let pair = KeyPair::generate(size).map_err(|_| failed())?;
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| failed())?;
    let pkcs1 = der::pkcs1_of(pkcs8.as_ref()).ok_or_else(failed)?;
    let (modulus, exponent) = der::public_of(pkcs1).ok_or_else(failed)?;
    Ok(NewPair { private_pem: Secret::new(pem(pkcs1)), public: PublicKey::rsa(modulus, exponent) })
}

fn pem(pkcs1: &[u8]) -> String {
    let text = STANDARD.encode(pkcs1);
    let mut pem = String::from("-----BEGIN RSA PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        let _ = writeln!(pem, "{line}"); // a String takes everything
        rest = after;
    }
    pem.push_str("-----END RSA PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: VM-275
    #[test]
    fn a_new_pair_is_an_openssh_pair() {
        let pair = generate(2048).unwrap();
        let pem = pair.private_pem.expose().clone();
        assert!(
            pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n") && pem.ends_with("-----END RSA PRIVATE KEY-----\n")
        );
        assert!(pem.lines().all(|l| l.len() <= 64));
        let line = pair.public.line();
        assert!(line.starts_with("ssh-rsa AAAAB3NzaC1yc2E"));
        assert_eq!(PublicKey::parse(&line).unwrap().fingerprint(), pair.public.fingerprint());
        // ssh-keygen reads it, and finds the same public half.
        let dir = testkit::temp_dir();
        let file = dir.path().join("key");
        std::fs::write(&file, &pem).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        match std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&file).output() {
            Ok(out) => assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), line),
            Err(_) => eprintln!("ssh-keygen isn't installed here"),
        }
    }
}
