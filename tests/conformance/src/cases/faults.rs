//! Requests that break what the contract declares: the error is known to the letter.

use contract::api::Ref;
use contract::{CommandInfo, ParamInfo, WireType};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::base::{Base, NOTHING, valid};
use super::{Actor, Case, Expect, some};

/// The faults of one command.
pub fn faults(info: &CommandInfo, actor: &Actor, each: usize, random: &mut StdRng) -> Vec<Case> {
    let mut out = Vec::new();
    for param in info.params.iter().filter(|p| p.is_for(actor.role)) {
        let base = Base::of(info, Some(&param.name), actor);
        let of = Faulty { info, param, base, actor };
        out.extend(of.missing());
        out.extend(of.refused());
        out.extend(of.limits(random));
        out.extend(some(of.values(), each, random));
        out.extend(some(of.ids(), each, random));
        out.extend(some(of.names(), each, random));
        out.extend(of.control(random));
        out.extend(of.sub_keys());
    }
    out.extend(of_the_whole(info, actor));
    out
}

struct Faulty<'a> {
    info: &'a CommandInfo,
    param: &'a ParamInfo,
    base: Base,
    actor: &'a Actor,
}

impl Faulty<'_> {
    fn command(&self) -> String {
        self.info.name.to_lowercase()
    }

    fn case(&self, fault: &'static str, value: &str, expect: Expect) -> Case {
        Case { fault, params: self.base.with(&self.param.name, value), post: value.len() > 4000, expect }
    }

    fn missing(&self) -> Vec<Case> {
        let text =
            format!("Unable to execute API command {} due to missing parameter {}", self.command(), self.param.name);
        let params = self.base.params.clone();
        if !self.param.required {
            return Vec::new();
        }
        let mut out = Vec::new();
        if matches!(self.param.kind, WireType::Uuid | WireType::UuidList) {
            // An empty id is none.
            out.push(self.case("missing", "", Expect::request(text.clone())));
        }
        out.push(Case { fault: "missing", params, post: false, expect: Expect::request(text) });
        out
    }

    fn refused(&self) -> Option<Case> {
        let text = format!(
            "Unable to execute API command {} due to invalid value. Parameter {} is not supported yet: leave it out.",
            self.command(),
            self.param.name
        );
        let params = self.base.with_all(valid(self.param, self.actor));
        let case = Case { fault: "refused", params, post: false, expect: Expect::request(text) };
        self.param.refused.then_some(case)
    }

    /// Values that aren't of the type.
    fn values(&self) -> Vec<Case> {
        let (fault, pool): (&'static str, &[&str]) = match self.param.kind {
            WireType::Integer => {
                ("no integer", &["12x", "x", "1.5", "2147483648", "-2147483649", "0x10", "1,000", "--1", " 1"])
            }
            WireType::Long => {
                ("no long", &["", "  ", "x", "1e3", "9223372036854775808", "-9223372036854775809", "1L", "12 ", "½"])
            }
            WireType::Short => ("no short", &["", " ", "32768", "-32769", "x", "1.0"]),
            WireType::Float | WireType::Double => ("no number", &["x", "1,5", "1e999", "0x1g", "1.2.3", "--1"]),
            WireType::Date => {
                ("no date", &["", "yesterday", "2026-13-01", "2026-02-30", "01.02.2026", "2026-01-01T00:00:00"])
            }
            WireType::DateTime | WireType::DateTimeEnd => {
                ("no date", &["", "now", "2026-02-29", "2026-01-01 25:00:00", "2026-01-01 10:00", "2026-1"])
            }
            WireType::TzDate => ("no date", &["", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "x"]),
            _ => return Vec::new(),
        };
        let dates = fault == "no date";
        let command = self.command();
        pool.iter()
            .map(|value| {
                let shown = if self.param.sensitive { "***" } else { value };
                let text = if dates {
                    format!(
                        "Unable to parse date {shown} for command {command}, please pass dates in the format mentioned in the api \
                         documentation"
                    )
                } else {
                    format!(
                        "Unable to execute API command {command} due to invalid value {shown} for parameter {}",
                        self.param.name
                    )
                };
                self.case(fault, value, Expect::request(text))
            })
            .collect()
    }

    /// Values of the right type that a validation refuses.
    fn limits(&self, random: &mut StdRng) -> Vec<Case> {
        let (command, name) = (self.command(), &self.param.name);
        let mut out = Vec::new();
        if self.param.kind == WireType::String && !self.param.refused {
            let length = self.param.length as usize;
            let text = format!(
                "Unable to execute API command {command} due to invalid value. Value greater than max allowed length {length} for \
                 param: {name}"
            );
            // A character beyond the first plane counts twice.
            let mut wide = "𝄞".repeat(length / 2);
            wide.push_str("ab".get(..1 + length % 2).unwrap_or_default());
            let mut pool = vec!["a".repeat(length + 1), wide, "ä".repeat(length + random.random_range(1..40))];
            pool.push("x".repeat(length + 200_000));
            let value = some(pool, 1, random).pop().unwrap_or_default();
            out.push(self.case("too long", &value, Expect::request(text)));
        }
        if self.param.positive && !self.param.refused {
            let numeric = !matches!(self.param.kind, WireType::String | WireType::Uuid);
            for value in if numeric { &["0", "-1", "-2147483648"][..] } else { &["0"] } {
                out.push(self.case(
                    "not positive",
                    value,
                    Expect::request(format!("Invalid value provided for API arg: {name}")),
                ));
            }
        }
        if self.param.not_empty && !self.param.refused && self.param.kind == WireType::String {
            out.push(self.case(
                "empty",
                "",
                Expect::request(format!("Empty or null value provided for API arg: {name}")),
            ));
        }
        out
    }

    /// Ids that name nothing.
    fn ids(&self) -> Vec<Case> {
        if self.param.reference == Ref::None || self.param.refused || !self.base.resolves {
            return Vec::new();
        }
        let mut pool: Vec<&str> = vec![NOTHING];
        // A parameter that came later drops what is no UUID.
        if self.param.since.is_empty() {
            let upper = "0A0B0C0D-DEAD-4BAD-8BAD-0123456789AB";
            pool.extend(["not-a-uuid", "999999999999", "99999999999999999999", upper, "' OR '1'='1", "%", " ", "1;2"]);
        }
        if self.param.since.is_empty() && !self.param.positive {
            pool.extend(["0", "-2"]);
        }
        let list = self.param.kind == WireType::UuidList;
        let mut out: Vec<Case> = pool
            .iter()
            .filter(|v| !list || !v.contains(','))
            .map(|v| self.case("unknown id", v, self.not_found(v)))
            .collect();
        if let Some(known) = self.actor.id(self.param.reference)
            && list
        {
            out.push(self.case("unknown id", &format!("{known},{NOTHING}"), self.not_found(NOTHING)));
        }
        out
    }

    fn not_found(&self, value: &str) -> Expect {
        Expect::request(format!(
            "Unable to execute API command {} due to invalid value. Invalid parameter {} value={value} due to incorrect long value \
             format, or entity does not exist or due to incorrect parameter annotation for the field in api cmd class.",
            self.command(),
            self.param.name
        ))
    }

    /// Names of map entries that can't be read, and such names where no map is.
    fn names(&self) -> Vec<Case> {
        let name = &self.param.name;
        let unreadable = |given: &str| {
            let text = format!(
                "Unable to decode parameter {given}; if specifying an object array, please use parameter[index].field=XXX, e.g. \
                 userGroupList[0].group=httpGroup"
            );
            let mut params = self.base.params.clone();
            params.push((given.to_owned(), "v".into()));
            Case { fault: "malformed name", params, post: false, expect: Expect::malformed(text) }
        };
        let mut out: Vec<Case> = if self.param.kind == WireType::Map {
            let mut given = vec![
                format!("{name}[0]"),
                format!("{name}[x].key"),
                format!("{name}[].key"),
                format!("{name}[0][1].key"),
                format!("{name}[99999999999].key"),
                format!("{name}[0.key"),
            ];
            given.push(format!("{name}[0]key"));
            given.iter().map(|g| unreadable(g)).collect()
        } else {
            vec![unreadable(&format!("{name}[0]")), unreadable(&format!("{name}[-].a"))]
        };
        let (given, text) = if self.param.kind == WireType::Map {
            (name.to_string(), format!("Parameter {name} is a map: write {name}[0].key=value"))
        } else {
            (format!("{name}[0].key"), format!("Parameter {name} is no map: write {name}=value"))
        };
        let mut params = self.base.params.clone();
        params.push((given, "v".into()));
        out.push(Case { fault: "map or not", params, post: false, expect: Expect::malformed(text) });
        out
    }

    /// Control characters are refused wherever they stand.
    fn control(&self, random: &mut StdRng) -> Option<Case> {
        if self.param.kind == WireType::Map {
            return None;
        }
        let value = some(vec!["a\u{1}b", "\u{0}", "1\t", "x\u{7f}", "\u{1b}[31m"], 1, random).pop()?;
        let shown = if self.param.sensitive { "" } else { value };
        let text = format!(
            "Received value {shown} for parameter {} is invalid, contains illegal ASCII non-printable characters",
            self.param.name
        );
        Some(self.case("control character", value, Expect::request(text)))
    }

    /// Faults within the entries of a map.
    fn sub_keys(&self) -> Vec<Case> {
        let mut out = Vec::new();
        if self.param.refused {
            return out;
        }
        let map = &self.param.name;
        for key in self.param.nested.iter() {
            let others: Vec<(String, String)> = self
                .param
                .nested
                .iter()
                .filter(|p| p.required && p.name != key.name)
                .flat_map(|p| valid(p, self.actor))
                .map(|(name, value)| (format!("{map}[0].{name}"), value))
                .collect();
            let mut add = |fault, value: Option<&str>, text: String| {
                let mut params = self.base.with_all(others.clone());
                match value {
                    Some(value) => params.push((format!("{map}[0].{}", key.name), value.to_owned())),
                    // So that the entry is there.
                    None if others.is_empty() => params.push((format!("{map}[0].nothing"), "x".into())),
                    None => {}
                }
                out.push(Case { fault, params, post: false, expect: Expect::request(text) });
            };
            let command = self.command();
            let path = &key.path;
            if key.required {
                let text = format!("Unable to execute API command {command} due to missing parameter {path}");
                add("sub-key missing", None, text);
            }
            if key.refused {
                let text = format!(
                    "Unable to execute API command {command} due to invalid value. Parameter {path} is not supported yet: leave it out."
                );
                let value = valid(key, self.actor).pop().map(|(_, v)| v).unwrap_or_default();
                add("sub-key refused", Some(&value), text);
                continue;
            }
            if matches!(key.kind, WireType::Integer | WireType::Long | WireType::Short) {
                let text =
                    format!("Unable to execute API command {command} due to invalid value x for parameter {path}");
                add("sub-key no number", Some("x"), text);
            }
            if key.reference != Ref::None && self.base.resolves {
                let text = format!(
                    "Unable to execute API command {command} due to invalid value. Invalid parameter {path} value={NOTHING} due to \
                     incorrect long value format, or entity does not exist or due to incorrect parameter annotation for the field in \
                     api cmd class."
                );
                add("sub-key unknown id", Some(NOTHING), text);
            }
        }
        out
    }
}

/// Faults that belong to no declared parameter.
fn of_the_whole(info: &CommandInfo, actor: &Actor) -> Vec<Case> {
    let base = Base::of(info, None, actor);
    let mut out = Vec::new();
    let mut add = |fault, name: &str, value: &str, expect| {
        out.push(Case { fault, params: base.with(name, value), post: value.len() > 4000, expect });
    };
    let text = "Received value \u{2} for parameter nosuchparameter is invalid, contains illegal ASCII non-printable characters";
    add("control character", "nosuchparameter", "\u{2}", Expect::request(text.into()));
    for name in ["customid", "customjobid"] {
        if info.param(name).is_some_and(|p| p.is_for(actor.role) && !p.refused) {
            let command = info.name.to_lowercase();
            let text =
                format!("Unable to execute API command {command} due to invalid value mine for parameter {name}");
            add("chosen id", name, "mine", Expect::request(text));
        }
    }
    let paged = info.param("page").is_some() && info.param("pagesize").is_some();
    if paged && base.resolves && super::reads(info) {
        let request = |text: &str| Expect::request(text.into());
        let value = |text: &str| Expect::Error { code: 431, cs_code: Some(4350), text: text.into() };
        let mut add = |params: &[(&str, &str)], expect| {
            let more = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            out.push(Case { fault: "page", params: base.with_all(more), post: false, expect });
        };
        add(&[("page", "1")], request("\"pagesize\" parameter is required when \"page\" is specified"));
        add(&[("pagesize", "10")], request("\"page\" parameter is required when \"pagesize\" is specified"));
        add(&[("page", "1"), ("pagesize", "501")], value("Page size can't exceed max allowed page size value: 500"));
        add(
            &[("page", "1"), ("pagesize", "-1")],
            value("Can't specify page parameter when pagesize is -1 (Unlimited)"),
        );
    }
    out
}
