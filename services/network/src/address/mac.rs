//! MAC addresses from a sequence: local and unicast by the leading 02.

use contract::ApiError;

/// A unicast MAC address in lower-case text, "02:00:00:00:00:01".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub String);

/// The address of a number of the sequence: `02`, the installation's identifier (setting `mac.identifier`), four bytes of the number.
pub fn mac_of(identifier: i64, sequence: i64) -> Mac {
    let id = u8::try_from(identifier.rem_euclid(256)).unwrap_or_default();
    let n = u32::try_from(sequence.rem_euclid(1 << 32)).unwrap_or_default().to_be_bytes();
    Mac(format!("02:{id:02x}:{:02x}:{:02x}:{:02x}:{:02x}", n[0], n[1], n[2], n[3]))
}

impl Mac {
    /// Reads an address that a request gives.
    ///
    /// # Errors
    /// 431 when it is malformed or isn't unicast.
    pub fn parse(text: &str) -> Result<Mac, ApiError> {
        let mut bytes = [0u8; 6];
        let parts: Vec<&str> = text.trim().split([':', '-']).collect();
        let well_formed = parts.len() == 6
            && parts.iter().zip(&mut bytes).all(|(part, byte)| {
                // `from_str_radix` alone would take a sign.
                part.len() == 2
                    && part.bytes().all(|b| b.is_ascii_hexdigit())
                    && u8::from_str_radix(part, 16).map(|b| *byte = b).is_ok()
            });
        if !well_formed {
            return Err(ApiError::param(format!("Mac address is not valid: {text}")));
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(ApiError::param(format!("Mac address is not unicast: {text}")));
        }
        Ok(Mac(bytes.map(|b| format!("{b:02x}")).join(":")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requested_addresses_are_checked() {
        assert_eq!(Mac::parse("02-00-AB-00-00-01").unwrap().0, "02:00:ab:00:00:01");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:zz",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(Mac::parse(bad).unwrap_err().code, 431, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn numbers_give_distinct_local_unicast_addresses(id in 0i64..256, a in 0i64..1 << 32, b in 0i64..1 << 32) {
            let (x, y) = (mac_of(id, a), mac_of(id, b));
            prop_assert_eq!(a == b, x == y);
            prop_assert!(x.0.starts_with("02:"));
            prop_assert_eq!(Mac::parse(&x.0).unwrap(), x);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}") {
            if let Ok(mac) = Mac::parse(&text) {
                prop_assert_eq!(mac.0.len(), 17);
            }
        }
    }
}
