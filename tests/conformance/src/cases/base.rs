//! A request with nothing wrong: all that a command requires, and no more.

use contract::api::Ref;
use contract::{CommandInfo, ParamInfo, WireType};

use super::Actor;

/// The UUID of nothing.
pub const NOTHING: &str = "0a0b0c0d-dead-4bad-8bad-0123456789ab";

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its parameters.
    pub params: Vec<(String, String)>,
    /// Whether each entity that it names exists. Without that, only static faults can be expected.
    pub resolves: bool,
}

impl Base {
    /// What `info` requires, except `without`, in the name of `actor`.
    pub fn of(info: &CommandInfo, without: Option<&str>, actor: &Actor) -> Base {
        let mut base = Base { params: Vec::new(), resolves: true };
        let required = info.params.iter().filter(|p| p.required && Some(p.name.as_ref()) != without);
        for param in required.filter(|p| p.is_for(actor.role)) {
            base.resolves &= resolves(param, actor);
            base.params.extend(valid(param, actor));
        }
        base
    }

    /// The same with one parameter more.
    pub fn with(&self, name: &str, value: &str) -> Vec<(String, String)> {
        let mut params = self.params.clone();
        params.push((name.to_owned(), value.to_owned()));
        params
    }

    /// The same with some parameters more.
    pub fn with_all(&self, more: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut params = self.params.clone();
        params.extend(more);
        params
    }
}

fn resolves(param: &ParamInfo, actor: &Actor) -> bool {
    let nested = || param.nested.iter().filter(|p| p.required).all(|p| resolves(p, actor));
    (param.reference == Ref::None || actor.id(param.reference).is_some()) && nested()
}

/// A value that the parameter's declaration takes, as parameters: one, or the keys of a map's entry.
pub fn valid(param: &ParamInfo, actor: &Actor) -> Vec<(String, String)> {
    let name = param.name.to_string();
    if param.kind != WireType::Map {
        return vec![(name, text(param, actor))];
    }
    let keys: Vec<(String, String)> = if param.nested.is_empty() {
        vec![("key".into(), "k".into()), ("value".into(), "v".into())]
    } else {
        let required: Vec<&ParamInfo> = param.nested.iter().filter(|p| p.required).collect();
        let first = param.nested.iter().take(1).collect();
        let keys = if required.is_empty() { first } else { required };
        keys.into_iter().map(|p| (p.name.to_string(), text(p, actor))).collect()
    };
    keys.into_iter().map(|(key, value)| (format!("{name}[0].{key}"), value)).collect()
}

fn text(param: &ParamInfo, actor: &Actor) -> String {
    if param.reference != Ref::None {
        return actor.id(param.reference).unwrap_or(NOTHING).to_owned();
    }
    if let Some(value) = actor.values.get(param.name.as_ref()) {
        return value.clone();
    }
    match param.kind {
        WireType::String | WireType::List => "x1",
        WireType::Boolean => "true",
        WireType::Integer | WireType::Long | WireType::Short | WireType::Float | WireType::Double => "1",
        WireType::Date | WireType::DateTime | WireType::DateTimeEnd => "2026-01-31",
        WireType::TzDate => "2026-01-31T12:00:00+0000",
        WireType::Uuid | WireType::UuidList => NOTHING,
        // Sub-keys are no maps.
        WireType::Map => "",
    }
    .to_owned()
}
