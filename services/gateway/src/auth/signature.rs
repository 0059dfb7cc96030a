//! Request signatures of the query API: HMAC over the sorted, encoded, lower-cased parameters.

use crate::query::Query;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the signing parameters of a request say.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// `apikey`.
    pub api_key: &'a str,
    /// `signature`: base64 with padding.
    pub signature: &'a str,
}

impl<'a> Signed<'a> {
    /// The signing parameters, when both are there.
    pub fn of(query: &'a Query) -> Option<Signed<'a>> {
        Some(Signed { api_key: query.any_case("apikey")?, signature: query.any_case("signature")? })
    }
}

/// How a client wrote the string it signed, where clients differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Style {
    /// Sorted after lower-casing the names instead of by the names as sent.
    sort_lower: bool,
    /// `*` as `%2A` (Go), against Java's `*`.
    escape_star: bool,
    /// `~` as it is (Python 3, Go), against Java's `%7E`.
    keep_tilde: bool,
    /// `[` and `]` as they are (libcloud).
    keep_brackets: bool,
    /// `/` as it is (Python's default).
    keep_slash: bool,
}

/// Largest request that is tried in all ways: four times the largest user data.
const MOST_TRIED: usize = 128 * 1024;

const JAVA: Style =
    Style { sort_lower: false, escape_star: false, keep_tilde: false, keep_brackets: false, keep_slash: false };

/// A user's secret key, ready for use: both HMAC keys, made once.
pub struct SecretKey {
    sha1: hmac::Key,
    sha256: hmac::Key,
}

impl SecretKey {
    /// The key of this secret.
    pub fn new(secret: &[u8]) -> SecretKey {
        SecretKey {
            sha1: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret),
            sha256: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// The key for HMAC-SHA256.
    pub fn sha256(&self) -> &hmac::Key {
        &self.sha256
    }
}

/// Whether `signature` is the one of `query` under `secret`. HMAC-SHA1; HMAC-SHA256 is told by its length.
pub fn verify(query: &Query, secret: &SecretKey, signature: &str) -> bool {
    let Ok(given) = STANDARD.decode(signature) else { return false };
    let key = match given.len() {
        20 => &secret.sha1,
        32 => &secret.sha256,
        _ => return false,
    };
    // hmac::verify compares in constant time.
    let fits = |style| hmac::verify(key, canonical(query, style).as_bytes(), &given).is_ok();
    // Other ways of writing are only looked at when the usual one fails, and no forged request costs much by it.
    let size: usize = query.pairs().iter().map(|(name, value)| name.len() + value.len()).sum();
    fits(JAVA) || (size <= MOST_TRIED && styles(query).any(|style| style != JAVA && fits(style)))
}

/// The string to sign, as Java clients write it.
pub fn string_to_sign(query: &Query) -> String {
    canonical(query, JAVA)
}

/// The signature of a request, for clients within this project.
pub fn sign(query: &Query, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    STANDARD.encode(hmac::sign(&key, string_to_sign(query).as_bytes()))
}

/// The styles that give different strings for this request, the usual one first.
fn styles(query: &Query) -> impl Iterator<Item = Style> {
    let has = |c: &[char]| query.pairs().iter().any(|(_, v)| v.contains(c));
    let sort = order(query, false) != order(query, true);
    let (star, tilde, brackets, slash) = (has(&['*']), has(&['~']), has(&['[', ']']), has(&['/']));
    let both = |wanted: bool| if wanted { &[false, true][..] } else { &[false][..] };
    both(sort).iter().flat_map(move |&sort_lower| {
        both(star).iter().flat_map(move |&escape_star| {
            both(tilde).iter().flat_map(move |&keep_tilde| {
                both(brackets).iter().flat_map(move |&keep_brackets| {
                    both(slash).iter().map(move |&keep_slash| Style {
                        sort_lower,
                        escape_star,
                        keep_tilde,
                        keep_brackets,
                        keep_slash,
                    })
                })
            })
        })
    })
}

fn order(query: &Query, lower: bool) -> Vec<&(String, String)> {
    let mut pairs: Vec<_> = query.pairs().iter().filter(|(n, _)| !n.eq_ignore_ascii_case("signature")).collect();
    if lower {
        pairs.sort_by_cached_key(|(n, _)| (units(&n.to_lowercase()), units(n)));
    } else {
        // Java compares UTF-16 code units, which differs from bytes beyond the basic plane.
        pairs.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    pairs
}

fn units(name: &str) -> Vec<u16> {
    name.encode_utf16().collect()
}

fn canonical(query: &Query, style: Style) -> String {
    let mut out = String::with_capacity(256);
    for (name, value) in order(query, style.sort_lower) {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        encode(&mut out, value, style);
    }
    if out.is_ascii() {
        out.make_ascii_lowercase();
        return out;
    }
    out.to_lowercase()
}

fn encode(out: &mut String, value: &str, style: Style) {
    for byte in value.bytes() {
        let keep = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => true,
            b'*' => !style.escape_star,
            b'~' => style.keep_tilde,
            b'[' | b']' => style.keep_brackets,
            b'/' => style.keep_slash,
            _ => false,
        };
        if keep {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
    }
}

/// Whether a request that names `signatureversion=3` is still valid at `now` (seconds since 1970). Other versions have no
/// expiry.
pub fn in_time(query: &Query, now: i64) -> bool {
    if query.any_case("signatureversion") != Some("3") {
        return true;
    }
    query.any_case("expires").and_then(crate::params::dates::zoned).is_some_and(|until| until >= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verify(query: &Query, secret: &[u8], signature: &str) -> bool {
        super::verify(query, &SecretKey::new(secret), signature)
    }

    fn query(raw: &str) -> Query {
        Query::read(raw, b"").unwrap_or_default()
    }

    // The sample of the documentation: string to sign for six parameters.
    // covers: API-018 API-019 API-023
    #[test]
    fn the_documented_request_gives_the_documented_string() {
        let q = query(
            "apiKey=miVr6X7u6bN_sdahOBpjNejPgEsT35eXq-jB8CG20YI3yaxXcgpyuaIRmFI_EJTVwZ0nUkkJbPmY3y2bciKwFQ\
             &command=deployVirtualMachine&diskOfferingId=1&serviceOfferingId=1&templateId=2&zoneId=4",
        );
        assert_eq!(
            string_to_sign(&q),
            "apikey=mivr6x7u6bn_sdahobpjnejpgest35exq-jb8cg20yi3yaxxcgpyuairmfi_ejtvwz0nukkjbpmy3y2bcikwfq\
             &command=deployvirtualmachine&diskofferingid=1&serviceofferingid=1&templateid=2&zoneid=4"
        );
    }

    // The published sample: keys, parameters and signature.
    // covers: API-019 API-020
    #[test]
    fn the_published_vector_verifies() {
        let q = query(
            "command=listUsers&response=json\
             &apikey=plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUDP66mg",
        );
        let secret = b"VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ";
        assert!(verify(&q, secret, "TTpdDq/7j/J58XCRHomKoQXEQds="));
        assert!(!verify(&q, secret, "TTpdDQ/7j/J58XCRHomKoQXEQds="));
        let q = query("command=listVirtualMachines&name=my%20vm&response=json&apiKey=AAAABBBBCCCCDDDDEEEE_-01");
        assert!(verify(&q, b"SECRETkey_-02", "FGcnvsXPbjaiSKEw5uvuca7DiX4="));
    }

    // covers: API-020
    #[test]
    fn any_order_and_any_transfer_verifies() {
        let parts = ["apiKey=k", "command=listUsers", "response=json", "name=a%20b"];
        let plain = query(&parts.join("&"));
        let signature = sign(&plain, b"secret");
        for rotate in 0..parts.len() {
            let mut parts = parts.to_vec();
            parts.rotate_left(rotate);
            let encoded = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            let q = query(&format!("{}&signature={encoded}", parts.join("&")));
            let given = Signed::of(&q).map(|s| s.signature.to_owned()).unwrap_or_default();
            assert!(verify(&q, b"secret", &given));
            assert!(!verify(&q, b"Secret", &given));
        }
    }

    // covers: API-021 API-022
    #[test]
    fn every_change_breaks_it() {
        let q = query("apiKey=k&command=listUsers&name=abc");
        let signature = sign(&q, b"s");
        assert!(verify(&q, b"s", &signature));
        for changed in [
            "apiKey=k&command=listUsers&name=abd",
            "apiKey=j&command=listUsers&name=abc",
            "apiKey=k&command=listUserz&name=abc",
            "apiKey=k&command=listUsers&name=abc&response=json",
            "apiKey=k&command=listUsers",
        ] {
            assert!(!verify(&query(changed), b"s", &signature), "{changed}");
        }
        for bad in ["", "x", "AAAA", "====", "ä"] {
            assert!(!verify(&q, b"s", bad));
        }
    }

    // Strings as the `cs` client, libcloud, Go's QueryEscape and Java write them for the same request.
    // covers: API-024
    #[test]
    fn clients_that_write_it_differently_are_understood() {
        let q = query("Command=x&apiKey=k&name=a*b~c%5B0%5D%2Fd%20e");
        for (text, who) in [
            ("command=x&apikey=k&name=a*b%7ec%5b0%5d%2fd%20e", "Java, names as sent"),
            ("apikey=k&command=x&name=a*b%7ec%5b0%5d%2fd%20e", "Java, lower-cased names"),
            ("apikey=k&command=x&name=a%2ab~c%5b0%5d%2fd%20e", "Go"),
            ("apikey=k&command=x&name=a*b~c%5b0%5d%2fd%20e", "Python 3"),
            ("apikey=k&command=x&name=a*b~c[0]%2fd%20e", "libcloud"),
            ("apikey=k&command=x&name=a%2ab%7ec%5b0%5d/d%20e", "Python 2"),
        ] {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"s");
            let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
            assert!(verify(&q, b"s", &signature), "{who}");
        }
    }

    #[test]
    fn sha256_is_taken_too() {
        let q = query("apiKey=k&command=x");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s");
        let signature = STANDARD.encode(hmac::sign(&key, string_to_sign(&q).as_bytes()));
        assert!(verify(&q, b"s", &signature));
    }

    // covers: API-026 API-027
    #[test]
    fn expiry_counts_only_with_version_3() {
        let at = |raw: &str| in_time(&query(raw), 1_318_401_000); // 2011-10-12T12:00:00+0530
        assert!(at("signatureVersion=3&expires=2011-10-12T12:00:00%2B0530"));
        assert!(at("signatureversion=3&Expires=2011-10-12T06:30:00%2B0000"));
        assert!(at("signatureVersion=3&expires=2011-10-11T22:30:00-0800"));
        assert!(!at("signatureVersion=3&expires=2011-10-12T11:59:59%2B0530"));
        assert!(!at("signatureVersion=3&expires=2011-10-12T12:00:00Z"));
        assert!(!at("signatureVersion=3&expires=soon"));
        assert!(!at("signatureVersion=3"));
        assert!(at("signatureVersion=2&expires=2001-01-01T00:00:00%2B0000"));
        assert!(at("expires=2001-01-01T00:00:00%2B0000"));
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies(pairs in proptest::collection::vec(("[a-zA-Z0-9\\[\\]._ä]{1,12}", "\\PC{0,20}"), 0..12), secret in "\\PC{0,40}") {
            let raw: Vec<String> = pairs.iter().map(|(n, v)| {
                let escape = |t: &str| t.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
                format!("{}={}", escape(n), escape(v))
            }).collect();
            let q = query(&raw.join("&"));
            let signature = sign(&q, secret.as_bytes());
            let mut reversed = raw.clone();
            // Of a repeated name the last counts, so only the order of distinct names may change.
            reversed.reverse();
            if pairs.iter().map(|(n, _)| n).collect::<std::collections::HashSet<_>>().len() == pairs.len() {
                prop_assert!(verify(&query(&reversed.join("&")), secret.as_bytes(), &signature));
            }
            prop_assert!(verify(&q, secret.as_bytes(), &signature));
        }
    }
}
