//! Typed parameters: named values that carry their type.

use crate::wire::{Decode, Decoder, Encode, Encoder, WireError};

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Int(i32),
    UInt(u32),
    Long(i64),
    ULong(u64),
    Double(f64),
    Bool(bool),
    Text(String),
}

impl Encode for Value {
    fn encode(&self, to: &mut Encoder) {
        match self {
            Value::Int(v) => (1_u32, v).encode(to),
            Value::UInt(v) => (2_u32, v).encode(to),
            Value::Long(v) => (3_u32, v).encode(to),
            Value::ULong(v) => (4_u32, v).encode(to),
            Value::Double(v) => (5_u32, v).encode(to),
            Value::Bool(v) => (6_u32, v).encode(to),
            Value::Text(v) => (7_u32, v).encode(to),
        }
    }
}

impl Decode for Value {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(match from.u32()? {
            1 => Value::Int(Decode::decode(from)?),
            2 => Value::UInt(Decode::decode(from)?),
            3 => Value::Long(Decode::decode(from)?),
            4 => Value::ULong(Decode::decode(from)?),
            5 => Value::Double(Decode::decode(from)?),
            6 => Value::Bool(i32::decode(from)? != 0),
            7 => Value::Text(Decode::decode(from)?),
            other => return Err(WireError::BadValue { what: "type of parameter", value: other.into() }),
        })
    }
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name: `"balloon.current"`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Encode for Param {
    fn encode(&self, to: &mut Encoder) {
        (&self.name, &self.value).encode(to);
    }
}

impl Decode for Param {
    /// `REMOTE_CONNECT_GET_ALL_DOMAIN_STATS_MAX`, the greatest limit of any list of parameters.
    const LIST_MAX: usize = 262_144;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Param { name: from.string()?, value: Value::decode(from)? })
    }
}

/// A list of parameters. A name may occur more than once (`migrate_disks`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(pub Vec<Param>);

impl Params {
    /// None.
    pub fn new() -> Params {
        Params::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Params {
        self.0.push(Param { name: name.to_owned(), value: value.into() });
        self
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|p| p.name == name).map(|p| &p.value)
    }

    /// A number that isn't negative, of whatever integer type.
    pub fn number(&self, name: &str) -> Option<u64> {
        match *self.get(name)? {
            Value::Int(v) => u64::try_from(v).ok(),
            Value::UInt(v) => Some(v.into()),
            Value::Long(v) => u64::try_from(v).ok(),
            Value::ULong(v) => Some(v),
            Value::Bool(v) => Some(v.into()),
            Value::Double(_) | Value::Text(_) => None,
        }
    }

    /// Text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The parameters of a numbered group without its prefix, e.g. of `"net"` number 0: `net.0.rx.bytes` → `rx.bytes`. Bulk
    /// statistics tell in `net.count` how many there are.
    #[must_use]
    pub fn group(&self, group: &str, number: u64) -> Params {
        let prefix = format!("{group}.{number}.");
        let own = self.0.iter().filter_map(|p| {
            p.name.strip_prefix(&prefix).map(|name| Param { name: name.to_owned(), value: p.value.clone() })
        });
        Params(own.collect())
    }
}

impl Encode for Params {
    fn encode(&self, to: &mut Encoder) {
        self.0.as_slice().encode(to);
    }
}

impl Decode for Params {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Vec::decode(from).map(Params)
    }
}

macro_rules! values {
    ($($variant:ident $of:ty),*) => {$(
        impl From<$of> for Value {
            fn from(value: $of) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}
values!(Int i32, UInt u32, Long i64, ULong u64, Double f64, Bool bool, Text &str, Text String);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::decode_all;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i32>().prop_map(Value::Int),
            any::<u32>().prop_map(Value::UInt),
            any::<i64>().prop_map(Value::Long),
            any::<u64>().prop_map(Value::ULong),
            (-1e9..1e9).prop_map(Value::Double),
            any::<bool>().prop_map(Value::Bool),
            "[a-z ]{0,9}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn parameters_come_back(list in prop::collection::vec(("[a-z.]{1,9}", value()), 0..9)) {
            let params = list.into_iter().fold(Params::new(), |p, (name, value)| p.with(&name, value));
            let mut to = Encoder::new();
            params.encode(&mut to);
            prop_assert_eq!(decode_all::<Params>(&to.finish().unwrap()).unwrap(), params);
        }

        #[test]
        fn any_bytes_are_parameters_or_an_error(bytes in prop::collection::vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..200)) {
            let _ = decode_all::<Params>(&bytes);
        }
    }

    #[test]
    fn groups_lose_their_prefix() {
        let all = Params::new().with("net.count", 2_u32).with("net.1.name", "tap1").with("net.10.name", "x");
        assert_eq!(all.number("net.count"), Some(2));
        assert_eq!(all.group("net", 1), Params::new().with("name", "tap1"));
        assert_eq!(all.group("net", 1).text("name"), Some("tap1"));
        assert_eq!(Params::new().with("n", -1).number("n"), None);
    }
}
