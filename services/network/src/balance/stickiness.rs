//! Stickiness methods of the virtual router, and what their parameters may be (NET-174, NET-175). Pure.
//!
//! What passes here a host can apply: names and values are those that its load balancer takes.

use contract::ApiError;
use std::collections::BTreeMap;

/// A method of the virtual router's load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a cookie that the load balancer makes.
    LbCookie,
    /// By a cookie that the application makes.
    AppCookie,
    /// By the client's address.
    SourceBased,
}

/// What a parameter's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Set or not.
    Flag,
    /// Letters, digits, dots, hyphens and underscores.
    Word,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A number, with one of these units or none.
    Quantity(&'static [&'static str]),
    /// 4.11 knows it, and no load balancer of today can do it: why.
    Impossible(&'static str),
}

const TIME: Kind = Kind::Quantity(&["d", "h", "m", "s"]);
const SIZE: Kind = Kind::Quantity(&["k", "m", "g"]);

impl Method {
    const ALL: [Method; 3] = [Method::LbCookie, Method::AppCookie, Method::SourceBased];

    /// As clients and hosts call it.
    pub fn name(self) -> &'static str {
        match self {
            Method::LbCookie => "LbCookie",
            Method::AppCookie => "AppCookie",
            Method::SourceBased => "SourceBased",
        }
    }

    /// The method of this name, in any case.
    pub fn find(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|m| m.name().eq_ignore_ascii_case(name))
    }

    fn params(self) -> &'static [(&'static str, Kind)] {
        match self {
            Method::LbCookie => &[
                ("cookie-name", Kind::Word),
                ("mode", Kind::OneOf(&["insert", "rewrite", "prefix"])),
                ("nocache", Kind::Flag),
                ("indirect", Kind::Flag),
                ("postonly", Kind::Flag),
                ("domain", Kind::Word),
            ],
            Method::AppCookie => &[
                ("cookie-name", Kind::Word),
                ("length", Kind::Quantity(&[])),
                ("holdtime", TIME),
                ("request-learn", Kind::Flag),
                ("prefix", Kind::Impossible("load balancers no longer match cookies by the beginning of their name")),
                ("mode", Kind::OneOf(&["path-parameters", "query-string"])),
            ],
            Method::SourceBased => &[("tablesize", SIZE), ("expire", TIME)],
        }
    }
}

/// A policy's method with its parameters, by 4.11's names; a flag that is set is "true".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The method.
    pub method: Method,
    /// What was asked for.
    pub params: BTreeMap<String, String>,
}

/// Reads a policy: names in any case, flags with "true" or without a value.
///
/// # Errors
/// 431 naming the method, the parameter or the value that there isn't.
pub fn check<'a>(
    method: &str,
    params: impl IntoIterator<Item = (Option<&'a str>, Option<&'a str>)>,
) -> Result<Policy, ApiError> {
    let method = Method::find(method).ok_or_else(|| {
        ApiError::param(format!(
            "Failed to match Stickiness method name for LB rule: {method} is none of LbCookie, AppCookie, SourceBased"
        ))
    })?;
    let mut taken = BTreeMap::new();
    for (name, value) in params {
        let name = name.map(str::trim).unwrap_or_default();
        let known = method.params().iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (name, kind) = known.ok_or_else(|| {
            ApiError::param(format!(
                "Failed : Stickiness policy does not support param name :{name}. {} has {}",
                method.name(),
                method.params().iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
            ))
        })?;
        if let Some(value) = read(name, *kind, value.map(str::trim).unwrap_or_default())? {
            taken.insert((*name).to_owned(), value);
        }
    }
    Ok(Policy { method, params: taken })
}

/// The value as hosts take it; none: the same as if it weren't there.
fn read(name: &str, kind: Kind, value: &str) -> Result<Option<String>, ApiError> {
    let wrong = |what: &str| {
        Err(ApiError::param(format!("Failed to create Stickiness policy: {name} is {what}, which {value:?} isn't")))
    };
    if value.is_empty() && !matches!(kind, Kind::Flag | Kind::Impossible(_)) {
        return Err(ApiError::param(format!("Failed : Value expected for the Param :{name}")));
    }
    match kind {
        Kind::Flag => match value.to_ascii_lowercase().as_str() {
            "" | "true" => Ok(Some("true".to_owned())),
            "false" => Ok(None),
            _ => wrong("a flag"),
        },
        Kind::Word => {
            let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if value.len() <= 128 && value.bytes().all(fine) {
                return Ok(Some(value.to_owned()));
            }
            wrong("letters, digits, dots, hyphens and underscores")
        }
        Kind::OneOf(words) => match words.iter().find(|w| w.eq_ignore_ascii_case(value)) {
            Some(word) => Ok(Some((*word).to_owned())),
            None => wrong(&format!("one of {}", words.join(", "))),
        },
        Kind::Quantity(units) => {
            let digits = value.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = value.split_at(digits);
            // Leading zeros aside, a thousand million of anything is beyond what a load balancer holds.
            if (1..=9).contains(&digits)
                && number.bytes().any(|b| b != b'0')
                && (unit.is_empty() || units.contains(&unit))
            {
                return Ok(Some(value.to_owned()));
            }
            wrong(&match units {
                [] => "a number of at least 1".to_owned(),
                units => format!("a number of at least 1 with one of the units {}", units.join(", ")),
            })
        }
        Kind::Impossible(_) if value.eq_ignore_ascii_case("false") => Ok(None),
        Kind::Impossible(why) => {
            Err(ApiError::param(format!("Failed to create Stickiness policy: {name} can't be had: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, params: &[(&str, &str)]) -> Result<BTreeMap<String, String>, ApiError> {
        check(method, params.iter().map(|(n, v)| (Some(*n), Some(*v)))).map(|p| p.params)
    }

    #[test]
    fn each_method_takes_its_parameters() {
        let all = [
            (
                "LbCookie",
                vec![
                    ("cookie-name", "C_1.x"),
                    ("mode", "rewrite"),
                    ("nocache", "true"),
                    ("indirect", ""),
                    ("postonly", "TRUE"),
                    ("domain", ".example.com"),
                ],
            ),
            (
                "appcookie",
                vec![
                    ("Cookie-Name", "JSESSIONID"),
                    ("length", "52"),
                    ("holdtime", "3h"),
                    ("request-learn", "true"),
                    ("mode", "query-string"),
                ],
            ),
            ("SOURCEBASED", vec![("tablesize", "200k"), ("expire", "30m")]),
        ];
        for (method, params) in all {
            let read = of(method, &params).unwrap();
            assert_eq!(read.len(), params.len(), "{method}: {read:?}");
            for (name, value) in params {
                let stored = &read[&name.to_lowercase()];
                assert!(
                    stored.eq_ignore_ascii_case(value) || (value.is_empty() && stored == "true"),
                    "{name}: {stored}"
                );
            }
        }
        assert_eq!(of("LbCookie", &[("nocache", "false")]).unwrap(), BTreeMap::new());
        assert_eq!(of("AppCookie", &[("prefix", "false")]).unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (method, params, named) in [
            ("Sticky", vec![], "Sticky"),
            ("SourceBased", vec![("cookie-name", "x")], "cookie-name"),
            ("LbCookie", vec![("tablesize", "1k")], "tablesize"),
            ("LbCookie", vec![("mode", "append")], "mode"),
            ("LbCookie", vec![("cookie-name", "a b")], "cookie-name"),
            ("LbCookie", vec![("cookie-name", "")], "cookie-name"),
            ("LbCookie", vec![("nocache", "perhaps")], "nocache"),
            ("LbCookie", vec![("domain", "a\nserver x")], "domain"),
            ("AppCookie", vec![("length", "52k")], "length"),
            ("AppCookie", vec![("length", "0")], "length"),
            ("AppCookie", vec![("holdtime", "3 h")], "holdtime"),
            ("AppCookie", vec![("prefix", "true")], "prefix"),
            ("SourceBased", vec![("expire", "30x")], "expire"),
            ("SourceBased", vec![("expire", "soon")], "expire"),
            ("SourceBased", vec![("tablesize", "12345678901k")], "tablesize"),
        ] {
            let error = of(method, &params).unwrap_err();
            assert_eq!(error.code, 431, "{method} {params:?}");
            assert!(error.text.contains(named), "{}", error.text);
        }
    }
}
