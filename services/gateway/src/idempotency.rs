//! Idempotency keys: what makes two requests the same.

use aws_lc_rs::digest::{Context, SHA256};
use contract::ApiError;

use crate::query::Query;

/// Longest key.
const LONGEST: usize = 255;

/// Parameters that don't change what is asked for.
const LEFT_OUT: &[&str] =
    &["apikey", "signature", "signatureversion", "expires", "sessionkey", "response", "idempotencykey", "_"];

/// The key of a request: the header wins over the parameter.
///
/// # Errors
/// 431 for a key that is too long or has characters that aren't printable ASCII.
pub fn key<'a>(header: Option<&'a str>, query: &'a Query) -> Result<Option<&'a str>, ApiError> {
    let Some(key) = header.or_else(|| query.any_case("idempotencykey")).filter(|k| !k.is_empty()) else {
        return Ok(None);
    };
    if key.len() > LONGEST || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::param(format!("An idempotency key has 1 to {LONGEST} printable ASCII characters.")));
    }
    Ok(Some(key))
}

/// SHA-256 of the canonical request: the command and its parameters by lower-case name, without what only carries them.
pub fn request_hash(query: &Query) -> Vec<u8> {
    let mut pairs: Vec<(String, &str)> = query
        .pairs()
        .iter()
        .map(|(name, value)| (canonical_name(name), value.as_str()))
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .collect();
    pairs.sort_unstable();
    digest(pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]))
}

/// The same for a request that came over gRPC.
pub fn message_hash(command: &str, message: &[u8]) -> Vec<u8> {
    digest([command.as_bytes(), message])
}

/// Names are lower-cased, the sub-keys of maps aren't.
fn canonical_name(name: &str) -> String {
    match name.split_once(']') {
        Some((map, key)) => format!("{}]{key}", map.to_lowercase()),
        None => name.to_lowercase(),
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // With its length, so that no two lists of parts give the same bytes.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &str) -> Query {
        Query::read(raw, b"").unwrap_or_default()
    }

    #[test]
    fn the_same_request_has_the_same_hash() {
        let hash = |raw: &str| request_hash(&query(raw));
        let one = hash("command=deployVirtualMachine&zoneId=1&apiKey=a&signature=s&expires=x&response=json&_=1");
        assert_eq!(one, hash("zoneid=1&command=deployVirtualMachine&sessionkey=k&idempotencyKey=q"));
        assert_ne!(one, hash("zoneid=2&command=deployVirtualMachine"));
        assert_ne!(one, hash("zoneid=1&command=deployVirtualMachine&name=x"));
        assert_ne!(hash("a=bc"), hash("ab=c"));
        assert_eq!(hash("Tags[0].Key=a"), hash("tags[0].Key=a"));
        assert_ne!(hash("tags[0].key=a"), hash("tags[0].Key=a"));
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert_eq!(key(Some("h"), &query("idempotencykey=p")).unwrap(), Some("h"));
        assert_eq!(key(None, &query("IdempotencyKey=p")).unwrap(), Some("p"));
        assert_eq!(key(None, &query("a=b")).unwrap(), None);
        assert_eq!(key(Some(""), &query("")).unwrap(), None);
        assert_eq!(key(Some("a b"), &query("")).unwrap_err().code, 431);
        assert_eq!(key(Some(&"x".repeat(256)), &query("")).unwrap_err().code, 431);
    }
}
