//! Recorded answers of a running CloudStack: each is put into the contract's messages, and must come out again the same
//! but for fields that 4.11 doesn't have.

use contract::api::Format;
use contract::{Form, RoleType, descriptor};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

use super::{Language, Style, answer};
use crate::catalogue::{Catalogue, Entry};

fn recordings() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract/golden");
    let mut out: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// The message of a recorded object; what the contract doesn't have is dropped from both.
fn put(of: &MessageDescriptor, object: &Map<String, Value>) -> (DynamicMessage, Map<String, Value>) {
    let mut message = DynamicMessage::new(of.clone());
    let mut kept = Map::new();
    for field in of.fields() {
        let name = descriptor::wire_name(&field, &descriptor::field(&field).wire);
        if let Some(value) = object.get(&name)
            && let Some((proto, shown)) = value_of(&field, value)
        {
            message.set_field(&field, proto);
            kept.insert(name, shown);
        }
    }
    (message, kept)
}

fn value_of(field: &FieldDescriptor, value: &Value) -> Option<(Proto, Value)> {
    if field.is_map() {
        let pairs = value.as_object()?;
        let map = pairs.iter().map(|(k, v)| Some((MapKey::String(k.clone()), Proto::String(v.as_str()?.into()))));
        return Some((Proto::Map(map.collect::<Option<_>>()?), value.clone()));
    }
    if field.is_list() {
        let items: Option<Vec<_>> = value.as_array()?.iter().map(|item| one(field, item)).collect();
        let (protos, shown): (Vec<_>, Vec<_>) = items?.into_iter().unzip();
        return Some((Proto::List(protos), Value::Array(shown)));
    }
    one(field, value)
}

/// `None` when the recording, which is of a later release, has another type there.
fn one(field: &FieldDescriptor, value: &Value) -> Option<(Proto, Value)> {
    let format = descriptor::field(field).format();
    let proto = match (field.kind(), format, value) {
        (Kind::Message(of), _, Value::Object(object)) => {
            let (message, kept) = put(&of, object);
            return Some((Proto::Message(message), Value::Object(kept)));
        }
        (Kind::Int64, Format::Timestamp, Value::String(text)) => {
            Proto::I64(crate::params::dates::zoned(text)? * 1_000_000)
        }
        (Kind::Int64, Format::NumberAsString, Value::String(text)) => Proto::I64(text.parse().ok()?),
        (Kind::Int32, Format::NumberAsString, Value::String(text)) => Proto::I32(text.parse().ok()?),
        (Kind::String, Format::StringAsNumber, Value::Number(number)) => Proto::String(number.to_string()),
        (Kind::String, _, Value::String(text)) => Proto::String(text.clone()),
        (Kind::Bool, _, Value::Bool(flag)) => Proto::Bool(*flag),
        (Kind::Int32, _, Value::Number(number)) => Proto::I32(number.as_i64()?.try_into().ok()?),
        (Kind::Int64, _, Value::Number(number)) => Proto::I64(number.as_i64()?),
        (Kind::Double, _, Value::Number(number)) => Proto::F64(number.as_f64()?),
        (Kind::Float, _, Value::Number(number)) => Proto::F32(number.as_f64()? as f32),
        _ => return None,
    };
    Some((proto, value.clone()))
}

/// Lists that the message has and the recording hasn't are shown empty; that isn't what is looked at here.
fn without_empty(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(without_empty);
            object.retain(|_, v| *v != json!([]) && *v != json!({}));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        _ => {}
    }
}

fn written(catalogue: &Catalogue, entry: &Entry, bytes: &[u8]) -> Value {
    let style = Style { language: Language::Json, role: RoleType::Admin, encode: false };
    let text = answer(catalogue, entry, bytes, style).unwrap();
    let mut value = serde_json::from_str(&text).unwrap();
    without_empty(&mut value);
    value
}

/// What the recording says, put through the contract; `None` when it is no answer of that form.
fn round(catalogue: &Catalogue, entry: &Entry, body: &Value) -> Option<(Value, Value)> {
    let inside = body.get(entry.info.response.as_ref())?.as_object()?;
    let result = catalogue.message(&entry.info.result);
    let (bytes, kept) = match entry.info.form {
        Form::List => {
            let plan = catalogue.messages().get(entry.result);
            let (_, index) = plan.list?;
            let field = result.get_field(plan.fields[index].number)?;
            let Kind::Message(item) = field.kind() else { return None };
            let Some(Value::Array(items)) = inside.get(entry.info.item.as_ref()) else {
                let mut wanted = body.clone();
                without_empty(&mut wanted);
                return Some((written(catalogue, entry, &[]), wanted));
            };
            let (messages, shown): (Vec<_>, Vec<_>) =
                items.iter().filter_map(Value::as_object).map(|object| put(&item, object)).unzip();
            let mut list = DynamicMessage::new(result.clone());
            list.set_field(&field, Proto::List(messages.into_iter().map(Proto::Message).collect()));
            list.set_field_by_name("count", Proto::I64(inside["count"].as_i64()?));
            let kept = json!({"count": inside["count"], entry.info.item.as_ref(): shown});
            (list.encode_to_vec(), kept)
        }
        Form::Object => {
            let (message, kept) = put(&result, inside.get(entry.info.item.as_ref())?.as_object()?);
            (message.encode_to_vec(), json!({entry.info.item.as_ref(): kept}))
        }
        Form::Success | Form::Flat => {
            let (message, kept) = put(&result, inside);
            (message.encode_to_vec(), Value::Object(kept))
        }
        Form::None => return None,
    };
    let mut wanted = json!({entry.info.response.as_ref(): kept});
    without_empty(&mut wanted);
    Some((written(catalogue, entry, &bytes), wanted))
}

// covers: API-043 API-044 API-047
#[test]
fn recorded_answers_come_out_as_they_were() {
    let catalogue = Catalogue::embedded().unwrap();
    let (mut compared, mut fields) = (0, 0);
    for (name, recording) in recordings() {
        let entry = recording["command"].as_str().and_then(|c| catalogue.command(c));
        let (Some(entry), Some(200), body) = (entry, recording["http_status"].as_u64(), &recording["body"]) else {
            continue;
        };
        if entry.is_async() || !body.is_object() || entry.info.authenticator {
            continue;
        }
        let Some((got, wanted)) = round(&catalogue, entry, body) else { panic!("{name}: not of the declared form") };
        assert_eq!(got, wanted, "{name}");
        compared += 1;
        fields += wanted.to_string().matches("\":").count();
    }
    assert!(compared > 40 && fields > 1000, "{compared} answers with {fields} fields");
}

/// Types that a recording of a later release may have changed since: the field is left out of the comparison above.
#[test]
fn recorded_types_are_those_of_the_contract() {
    let catalogue = Catalogue::embedded().unwrap();
    let mut differing = Vec::new();
    for (name, recording) in recordings() {
        let entry = recording["command"].as_str().and_then(|c| catalogue.command(c));
        let Some(entry) = entry.filter(|e| !e.is_async() && e.info.form == Form::List) else { continue };
        let plan = catalogue.messages().get(entry.result);
        let item = plan.list.and_then(|(_, index)| {
            let field = catalogue.message(&entry.info.result).get_field(plan.fields[index].number)?;
            field.kind().as_message().cloned()
        });
        let items = recording["body"][entry.info.response.as_ref()][entry.info.item.as_ref()].as_array();
        for object in items.into_iter().flatten().filter_map(Value::as_object) {
            for field in item.iter().flat_map(MessageDescriptor::fields) {
                let wire = descriptor::wire_name(&field, &descriptor::field(&field).wire);
                if object.get(&wire).is_some_and(|value| value_of(&field, value).is_none()) {
                    differing.push(format!("{name}: {wire}"));
                }
            }
        }
    }
    differing.dedup();
    // A later release made a text of this number.
    assert_eq!(differing, ["016-listHosts-details-min: managementserverid"]);
}
