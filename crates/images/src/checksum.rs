//! Checksums as 4.11 writes them: bare hexadecimal MD5, or `{SHA-256}` and the like before it.

use aws_lc_rs::digest;
use md5::{Digest as _, Md5};
use std::fmt;
use std::str::FromStr;

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    /// As in the braces.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha1 => "SHA-1",
            Algorithm::Sha224 => "SHA-224",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha384 => "SHA-384",
            Algorithm::Sha512 => "SHA-512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha224 => 28,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A checksum: read from text, compared, written as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: Algorithm,
    /// Lower-case hexadecimal.
    hex: String,
}

/// A text that is no checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// The braces name an unknown algorithm.
    #[error("the checksum's algorithm is unknown: MD5, SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512 are known")]
    Algorithm,
    /// Not hexadecimal, or of another length.
    #[error("a checksum of {0} has {1} hexadecimal digits")]
    Digits(&'static str, usize),
}

impl Checksum {
    /// How it is computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    /// `d41d8c…` is MD5, `{SHA-256}e3b0c4…` what it says; case doesn't matter.
    fn from_str(text: &str) -> Result<Checksum, ChecksumError> {
        let text = text.trim();
        let (algorithm, digits) = match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            None if text.starts_with('{') => return Err(ChecksumError::Algorithm),
            None => (Algorithm::Md5, text),
            Some((name, digits)) => match name.to_ascii_uppercase().as_str() {
                "MD5" => (Algorithm::Md5, digits),
                "SHA-1" => (Algorithm::Sha1, digits),
                "SHA-224" => (Algorithm::Sha224, digits),
                "SHA-256" => (Algorithm::Sha256, digits),
                "SHA-384" => (Algorithm::Sha384, digits),
                "SHA-512" => (Algorithm::Sha512, digits),
                _ => return Err(ChecksumError::Algorithm),
            },
        };
        let wanted = algorithm.bytes() * 2;
        if digits.len() != wanted || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ChecksumError::Digits(algorithm.name(), wanted));
        }
        Ok(Checksum { algorithm, hex: digits.to_ascii_lowercase() })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.algorithm.name(), self.hex)
    }
}

/// Computes a checksum from pieces.
pub(crate) enum Hasher {
    Md5(Md5),
    Sha(Algorithm, digest::Context),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Hasher {
        let sha = match algorithm {
            Algorithm::Md5 => return Hasher::Md5(Md5::new()),
            Algorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha224 => &digest::SHA224,
            Algorithm::Sha256 => &digest::SHA256,
            Algorithm::Sha384 => &digest::SHA384,
            Algorithm::Sha512 => &digest::SHA512,
        };
        Hasher::Sha(algorithm, digest::Context::new(sha))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        match self {
            Hasher::Md5(md5) => md5.update(piece),
            Hasher::Sha(_, context) => context.update(piece),
        }
    }

    pub(crate) fn finish(self) -> Checksum {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Hasher::Md5(md5) => Checksum { algorithm: Algorithm::Md5, hex: hex(&md5.finalize()) },
            Hasher::Sha(algorithm, context) => Checksum { algorithm, hex: hex(context.finish().as_ref()) },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_sums_of_abc() {
        let sums = [
            "900150983cd24fb0d6963f7d28e17f72",
            "{MD5}900150983CD24FB0D6963F7D28E17F72",
            "{SHA-1}a9993e364706816aba3e25717850c26c9cd0d89d",
            "{SHA-224}23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            "{sha-256}ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "{SHA-384}cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            "{SHA-512}ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ];
        for sum in sums {
            let wanted: Checksum = sum.parse().unwrap();
            let mut hasher = Hasher::new(wanted.algorithm());
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish(), wanted, "{sum}");
        }
    }

    #[test]
    fn no_checksums() {
        for text in [
            "",
            "abc",
            "{SHA-3}00",
            "{MD5",
            "{SHA-256}900150983cd24fb0d6963f7d28e17f72",
            "g00150983cd24fb0d6963f7d28e17f72",
        ] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }
}
