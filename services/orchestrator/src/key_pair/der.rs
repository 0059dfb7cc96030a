//! As much of DER as RSA keys need.

/// Splits off the first element: its tag, its content, and what follows.
pub fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (length, rest) = rest.split_at(count);
        (length.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    (rest.len() >= length).then(|| {
        let (content, rest) = rest.split_at(length);
        (tag, content, rest)
    })
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The `RSAPrivateKey` within a PKCS #8 `PrivateKeyInfo`.
pub fn pkcs1_of(pkcs8: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, info, _) = element(pkcs8)? else { return None };
    let (INTEGER, _, rest) = element(info)? else { return None };
    let (SEQUENCE, _, rest) = element(rest)? else { return None };
    let (OCTETS, key, _) = element(rest)? else { return None };
    Some(key)
}

/// Modulus and public exponent of an `RSAPrivateKey`, as DER keeps them: signed, big end first.
pub fn public_of(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (SEQUENCE, key, _) = element(pkcs1)? else { return None };
    let (INTEGER, _, rest) = element(key)? else { return None };
    let (INTEGER, modulus, rest) = element(rest)? else { return None };
    let (INTEGER, exponent, _) = element(rest)? else { return None };
    Some((modulus, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_read() {
        assert_eq!(element(&[2, 1, 5, 9]), Some((2, &[5][..], &[9][..])));
        assert_eq!(element(&[2, 0x81, 2, 5, 6]), Some((2, &[5, 6][..], &[][..])));
        assert_eq!(element(&[2, 3, 5]), None);
        assert_eq!(element(&[]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = pkcs1_of(&bytes);
            let _ = public_of(&bytes);
        }
    }
}
