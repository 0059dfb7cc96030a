//! Parameters of every type, against what api/README says of the type.

use contract::{ApiError, RoleType, WireType};
use proptest::prelude::*;
use proptest::sample::Index;
use prost_reflect::{DynamicMessage, MapKey, Value};
use std::sync::LazyLock;

use super::read;
use crate::catalogue::Catalogue;
use crate::catalogue::testing::every_kind;
use crate::query::Query;

static KINDS: LazyLock<Catalogue> = LazyLock::new(every_kind);
static REAL: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::embedded().unwrap());

fn query(pairs: &[(&str, &str)]) -> Query {
    let escape = |t: &str| t.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let raw: Vec<String> = pairs.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect();
    Query::read(&raw.join("&"), b"").unwrap()
}

fn message(
    catalogue: &Catalogue,
    command: &str,
    pairs: &[(&str, &str)],
    role: RoleType,
) -> Result<DynamicMessage, ApiError> {
    let entry = catalogue.command(command).unwrap();
    let bytes = read(entry, &query(pairs), role, false)?.message;
    Ok(DynamicMessage::decode(entry.method().input(), bytes.as_slice()).unwrap())
}

fn kind(pairs: &[(&str, &str)]) -> Result<DynamicMessage, ApiError> {
    message(&KINDS, "getKind", pairs, RoleType::User)
}

/// The field's value, when the message has one.
fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    message.has_field_by_name(name).then(|| message.get_field_by_name(name).unwrap().into_owned())
}

/// What Java's `Double.parseDouble` takes of decimal numbers: one "d" or "f" may follow.
fn java_real(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let plain = digits.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    digits.parse().ok().filter(|_| plain)
}

/// What a text means as a value of this type, written down again from api/README.
fn meaning(kind: WireType, text: &str) -> Result<Option<Value>, ()> {
    let blank = text.trim().is_empty();
    let date = |format: &str| jiff::civil::DateTime::strptime(format, text).map_err(|_| ());
    let micros = |at: jiff::civil::DateTime| {
        let zoned = at.to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        Ok(Some(Value::I64(zoned.timestamp().as_microsecond())))
    };
    let day = || jiff::civil::Date::strptime("%Y-%m-%d", text).map_err(|_| ());
    match kind {
        WireType::String => Ok(Some(Value::String(text.into()))),
        WireType::Uuid => Ok((!text.is_empty()).then(|| Value::String(text.into()))),
        WireType::Boolean => Ok(Some(Value::Bool(text.to_lowercase() == "true"))),
        WireType::Integer if blank => Ok(None),
        WireType::Integer => text.parse().map(|n| Some(Value::I32(n))).map_err(|_| ()),
        WireType::Short => text.parse::<i16>().map(|n| Some(Value::I32(n.into()))).map_err(|_| ()),
        WireType::Long => text.parse().map(|n| Some(Value::I64(n))).map_err(|_| ()),
        WireType::Float | WireType::Double if blank => Ok(None),
        WireType::Float => java_real(text).map(|n| Some(Value::F32(n as f32))).ok_or(()),
        WireType::Double => java_real(text).map(|n| Some(Value::F64(n))).ok_or(()),
        WireType::Date => micros(day()?.to_datetime(jiff::civil::Time::midnight())),
        WireType::DateTime | WireType::DateTimeEnd if text.contains(' ') => micros(date("%Y-%m-%d %H:%M:%S")?),
        WireType::DateTime => micros(day()?.to_datetime(jiff::civil::Time::midnight())),
        WireType::DateTimeEnd => micros(day()?.at(23, 59, 59, 0)),
        WireType::TzDate => {
            let zoned = jiff::Zoned::strptime("%Y-%m-%dT%H:%M:%S%z", text).map_err(|_| ())?;
            Ok(Some(Value::I64(zoned.timestamp().as_microsecond())))
        }
        WireType::List | WireType::UuidList => {
            let items: Vec<_> = text.split(',').filter(|t| !t.is_empty()).map(|t| Value::String(t.into())).collect();
            Ok((!items.is_empty()).then_some(Value::List(items)))
        }
        WireType::Map => Err(()),
    }
}

/// Texts that are near to values of some type.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[tT][rR][uU][eE]|false|TRUE |yes|1|on",
        any::<i64>().prop_map(|n| n.to_string()),
        (-40_000i32..40_000).prop_map(|n| n.to_string()),
        "[+-]?[0-9]{1,3}(\\.[0-9]{1,3})?",
        " {0,2}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        "20[0-9]{2}-0[1-9]-[01][0-9]",
        "20[0-9]{2}-0[1-9]-[01][1-9] [01][0-9]:[0-5][0-9]:[0-5][0-9]",
        "20[0-9]{2}-0[1-9]-[01][1-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9][+-]0[0-9][0-5]0",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "(,|[a-z0-9]){0,8}",
        "\\PC{0,20}",
    ]
}

/// A parameter of every type by its field's name.
const TYPES: &[(&str, WireType)] = &[
    ("text", WireType::String),
    ("flag", WireType::Boolean),
    ("number", WireType::Integer),
    ("big_number", WireType::Long),
    ("small", WireType::Short),
    ("single", WireType::Float),
    ("real", WireType::Double),
    ("id", WireType::Uuid),
    ("day", WireType::Date),
    ("start_date", WireType::DateTime),
    ("end_date", WireType::DateTimeEnd),
    ("zoned", WireType::TzDate),
    ("names", WireType::List),
    ("ids", WireType::UuidList),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // covers: API-004
    #[test]
    fn a_value_means_what_its_type_says(which: Index, text in text(), upper: bool) {
        let (name, kind_of) = which.get(TYPES);
        let wire = name.replace('_', "");
        let wire = if upper { wire.to_uppercase() } else { wire };
        match (meaning(*kind_of, &text), kind(&[(&wire, &text)])) {
            (Ok(wanted), Ok(read)) => prop_assert_eq!(field(&read, name), wanted, "{}={}", name, text),
            (Err(()), Err(error)) => prop_assert_eq!((error.code, error.cs_code), (431, 9999)),
            (wanted, read) => prop_assert!(false, "{name}={text:?}: {wanted:?} but {read:?}"),
        }
    }

    /// Each parameter of each command of the real contract, on its own.
    #[test]
    fn every_declared_parameter_is_read_by_its_type(command: Index, param: Index, text in text()) {
        let entry = &REAL.entries()[command.index(REAL.entries().len())];
        prop_assume!(!entry.info.params.is_empty());
        let at = param.index(entry.info.params.len());
        let info = &entry.info.params[at];
        prop_assume!(info.kind != WireType::Map);
        let result = read(entry, &query(&[(&info.name, &text)]), RoleType::Admin, false);
        let others_missing = entry.info.params[..at].iter().any(|p| p.required);
        if others_missing {
            prop_assert_eq!(result.err().map(|e| e.code), Some(431));
            return Ok(());
        }
        let length = text.encode_utf16().count() > info.length as usize && info.kind == WireType::String;
        // Ids that callers choose are UUIDs.
        let chosen = matches!(info.name.as_ref(), "customid" | "customjobid");
        let refused = info.refused || length || info.not_empty || info.positive || chosen;
        match (meaning(info.kind, &text), result) {
            (Ok(wanted), Ok(read)) => {
                let read = DynamicMessage::decode(entry.method().input(), read.message.as_slice()).unwrap();
                prop_assert_eq!(field(&read, &info.field), wanted);
            }
            (Ok(_), Err(error)) => {
                let missing = entry.info.params.iter().any(|p| p.required);
                prop_assert!(refused || missing, "{}: {error}", info.name);
            }
            (Err(()), Err(error)) => prop_assert_eq!(error.code, 431),
            (Err(()), Ok(_)) => prop_assert!(false, "{} took {text:?}", info.name),
        }
    }

    #[test]
    fn no_request_makes_it_panic(pairs in proptest::collection::vec(("[a-zA-Z0-9\\[\\].]{0,12}", "\\PC{0,12}"), 0..8)) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let _ = kind(&pairs);
    }
}

#[test]
fn maps_are_gathered() {
    let read = kind(&[
        ("details[0].cpuNumber", "2"),
        ("Details[1].memory", "512"),
        ("first[3].b", "late"),
        ("first[2].a", "early"),
        ("tags[1].key", "k2"),
        ("tags[0].key", "k1"),
        ("tags[0].value", "v1"),
        ("tags[0].Value", "another case"),
        ("addresses[0].networkid", "n"),
        ("addresses[0].port", "80"),
    ])
    .unwrap();
    let text = |value: &str| Value::String(value.into());
    let map = |pairs: &[(&str, &str)]| {
        Value::Map(pairs.iter().map(|(k, v)| (MapKey::String((*k).into()), text(v))).collect())
    };
    assert_eq!(field(&read, "details"), Some(map(&[("cpuNumber", "2"), ("memory", "512")])));
    assert_eq!(field(&read, "first"), Some(map(&[("a", "early")])));
    let Some(Value::List(tags)) = field(&read, "tags") else { panic!("no tags") };
    let first = tags[0].as_message().unwrap();
    assert_eq!((field(first, "key"), field(first, "value")), (Some(text("k1")), Some(text("v1"))));
    let second = tags[1].as_message().unwrap();
    assert_eq!((field(second, "key"), field(second, "value")), (Some(text("k2")), None));
    let Some(Value::List(addresses)) = field(&read, "addresses") else { panic!("no addresses") };
    assert_eq!(field(addresses[0].as_message().unwrap(), "port"), Some(Value::I32(80)));
}

#[test]
fn faults_have_their_codes_and_name_the_parameter() {
    for (pairs, code, part) in [
        (&[("tags", "x")][..], 430, "tags"),
        (&[("text[0].a", "x")], 430, "text"),
        (&[("tags[0]", "x")], 430, "tags[0]"),
        (&[("unknown[x].a", "x")], 430, "unknown[x].a"),
        (&[("number", "x")], 431, "invalid value x for parameter number"),
        (&[("bignumber", "")], 431, "bignumber"),
        (&[("small", "32768")], 431, "small"),
        (&[("real", "NaN")], 431, "real"),
        (&[("numbers", "1,x")], 431, "numbers"),
        (&[("day", "2018-01-01 00:00:00")], 431, "Unable to parse date"),
        (&[("othername2", "123456")], 431, "Value greater than max allowed length 5 for param: othername2"),
        (&[("later", "x")], 431, "later"),
        (&[("atleastone", "0")], 431, "Invalid value provided for API arg: atleastone"),
        (&[("something", "")], 431, "Empty or null value provided for API arg: something"),
        (&[("addresses[0].ip", "1")], 431, "missing parameter addresses.networkid"),
        (&[("addresses[0].networkid", "n"), ("addresses[0].port", "x")], 431, "addresses.port"),
        (&[("text", "a\u{7}b")], 431, "illegal ASCII non-printable characters"),
        (&[("nosuch", "a\tb")], 431, "nosuch"),
    ] {
        let error = kind(pairs).unwrap_err();
        assert_eq!(error.code, code, "{pairs:?}: {error}");
        assert!(error.text.contains(part), "{pairs:?}: {error}");
    }
    // What comes first in the table decides.
    let error = kind(&[("day", "x"), ("othername2", "123456"), ("number", "y")]).unwrap_err();
    assert!(error.text.contains("parameter number"), "{error}");
    assert!(kind(&[("text", "a\r\nb")]).is_ok());
    assert!(kind(&[("later", "")]).is_ok() && kind(&[("nosuch", "1")]).is_ok());
}

#[test]
fn secrets_are_not_repeated() {
    let secret = "hunter2hunter2";
    let long = kind(&[("password", secret)]).unwrap_err();
    assert!(!long.text.contains(secret));
    let control = kind(&[("password", "hunter2\u{1}")]).unwrap_err();
    assert!(!control.text.contains("hunter2"));
}

#[test]
fn parameters_for_others_are_ignored() {
    let pairs = [("foradmins", "x")];
    let user = message(&KINDS, "getKind", &pairs, RoleType::User).unwrap();
    let admin = message(&KINDS, "getKind", &pairs, RoleType::Admin).unwrap();
    assert_eq!(field(&user, "for_admins"), None);
    assert_eq!(field(&admin, "for_admins"), Some(Value::String("x".into())));
}

#[test]
fn the_integration_port_refuses_some() {
    let entry = KINDS.command("getKind").unwrap();
    let query = query(&[("notThere", "x")]);
    let error = read(entry, &query, RoleType::Admin, true).err().unwrap();
    assert_eq!(error.code, 531);
    assert!(read(entry, &query, RoleType::Admin, false).is_ok());
}

#[test]
fn unknown_names_are_told() {
    let entry = KINDS.command("getKind").unwrap();
    let query = query(&[
        ("command", "getKind"),
        ("Response", "json"),
        ("apiKey", "k"),
        ("signature", "s"),
        ("signatureVersion", "3"),
        ("expires", "x"),
        ("sessionkey", "k"),
        ("_", "1"),
        ("idempotencyKey", "k"),
        ("text", "t"),
        ("zone", "x"),
        ("Alpha[0].a", "x"),
    ]);
    let read = read(entry, &query, RoleType::User, false).unwrap();
    assert_eq!(read.unknown, ["alpha", "zone"]);
}

/// Each required parameter of the contract is missed by name, in the order of the table.
#[test]
fn required_parameters_are_missed() {
    for entry in REAL.entries() {
        let Some(first) = entry.info.params.iter().find(|p| p.required) else { continue };
        let error = read(entry, &Query::default(), RoleType::Admin, false).err().unwrap();
        let command = entry.info.name.to_lowercase();
        assert_eq!(
            error.text,
            format!("Unable to execute API command {command} due to missing parameter {}", first.name)
        );
    }
}
