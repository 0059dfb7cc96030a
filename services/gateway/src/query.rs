//! Parameters as they came over HTTP: names and values decoded, letter case kept. Signatures are made over exactly this.

use std::collections::HashMap;

/// The parameters of one request. A name occurs once: in the query string the last occurrence counts, in a form body the
/// first, and the query string wins over the body.
#[derive(Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// More parameters than this are refused: the longest 4.11 commands take some dozens, maps included.
pub const MOST_PARAMETERS: usize = 2000;

/// A request with more than [`MOST_PARAMETERS`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Query {
    /// Reads a raw query string and a raw form body.
    pub fn read(query: &str, body: &[u8]) -> Result<Query, TooMany> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in split(body) {
            if !places.contains_key(&name) {
                places.insert(name.clone(), pairs.len());
                pairs.push((name, value));
            }
            if pairs.len() > MOST_PARAMETERS {
                return Err(TooMany);
            }
        }
        for (name, value) in split(query.as_bytes()) {
            match places.get(&name).and_then(|i| pairs.get_mut(*i)) {
                Some(pair) => pair.1 = value,
                None => {
                    places.insert(name.clone(), pairs.len());
                    pairs.push((name, value));
                }
            }
            if pairs.len() > MOST_PARAMETERS {
                return Err(TooMany);
            }
        }
        Ok(Query { pairs })
    }

    /// The value of the parameter with exactly this name.
    pub fn exact(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The value of a parameter whose name is recognised in any case. Of several spellings the last in sorting order counts,
    /// as in 4.11.
    pub fn any_case(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .max_by(|a, b| a.0.cmp(&b.0))
            .map(|(_, v)| v.as_str())
    }

    /// All parameters, in the order in which they were first met.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn split(raw: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    raw.split(|b| *b == b'&').filter(|part| !part.is_empty()).map(|part| {
        let cut = part.iter().position(|b| *b == b'=');
        let (name, value) = match cut {
            Some(at) => (part.get(..at).unwrap_or_default(), part.get(at + 1..).unwrap_or_default()),
            None => (part, &[][..]),
        };
        (decode(name), decode(value))
    })
}

/// Percent-decoding of form data: `+` is a space, a `%` that begins no escape stands for itself, and what isn't UTF-8 is
/// replaced as Java does.
pub fn decode(raw: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = tail.first().zip(tail.get(1)).and_then(|(a, b)| Some(hex(*a)? << 4 | hex(*b)?));
                match digits {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = tail.get(2..).unwrap_or_default();
                    }
                    None => bytes.push(b'%'),
                }
            }
            other => bytes.push(*other),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, body: &str) -> Query {
        Query::read(query, body.as_bytes()).unwrap_or_default()
    }

    #[test]
    fn plus_and_percent_20_are_spaces() {
        let q = read("name=a+b%20c%2Bd&empty&x=%zz%4", "");
        assert_eq!(q.exact("name"), Some("a b c+d"));
        assert_eq!(q.exact("empty"), Some(""));
        assert_eq!(q.exact("x"), Some("%zz%4"));
    }

    #[test]
    fn the_query_string_wins_over_the_body() {
        let q = read("a=2&a=3", "a=1&b=4&b=5");
        assert_eq!((q.exact("a"), q.exact("b")), (Some("3"), Some("4")));
        assert_eq!(q.pairs().len(), 2);
    }

    #[test]
    fn some_names_are_known_in_any_case() {
        let q = read("apiKey=k&Signature=s", "");
        assert_eq!(q.any_case("apikey"), Some("k"));
        assert_eq!(q.any_case("signature"), Some("s"));
        assert_eq!(q.exact("apikey"), None);
    }

    #[test]
    fn broken_utf8_is_replaced() {
        assert_eq!(decode(b"%ff%C3%A4"), "\u{fffd}ä");
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        let flood: String = (0..=MOST_PARAMETERS).map(|i| format!("p{i}=&")).collect();
        assert!(Query::read(&flood, b"").is_err());
        assert!(Query::read("", flood.as_bytes()).is_err());
    }
}
