//! What commands, or their jobs, answer.

use std::collections::BTreeSet;

use conformance::declared::Declared;
use conformance::reference::{Command, Field, Reference};
use contract::api::{self, Format, RoleType};
use contract::{Form, descriptor};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::commands::{names, roles};
use crate::{Finding, Place};

/// Compares the message of an item with the class of 4.11, and what it holds with theirs.
pub fn compare(declared: &Declared, expected: &Command, reference: &Reference, findings: &mut BTreeSet<Finding>) {
    let info = declared.info;
    if matches!(info.form, Form::Success | Form::None) {
        return;
    }
    let pool = declared.method.parent_pool();
    let mut at = Place::at(findings, info.name.to_string());
    let Some(result) = pool.get_message_by_name(&info.result) else {
        return at.add("result", format!("there is no message {}", info.result));
    };
    let item = if info.form == Form::List {
        // Further lists are told in place of the first (4.11's `other_results`).
        match result.fields().find(FieldDescriptor::is_list).map(|first| first.kind()) {
            Some(Kind::Message(item)) => item,
            _ => return at.add("result", format!("{} is no list of messages", info.result)),
        }
    } else {
        result
    };
    message(&item, &expected.response_class, reference, findings, &mut Vec::new());
}

fn message(
    message: &MessageDescriptor,
    class: &str,
    reference: &Reference,
    findings: &mut BTreeSet<Finding>,
    within: &mut Vec<String>,
) {
    if within.iter().any(|known| known == class) {
        return;
    }
    let Some(expected) = reference.responses.get(class) else {
        findings.insert(Finding { place: class.to_owned(), what: "unknown", detail: "no such class".into() });
        return;
    };
    within.push(class.to_owned());
    let wire = |f: &FieldDescriptor| descriptor::wire_name(f, &descriptor::field(f).wire);
    for field in &expected.fields {
        let mut at = Place::at(findings, format!("{class}.{}", field.name));
        match message.fields().find(|f| wire(f) == field.name) {
            None => at.add("missing", format!("a {}", field.kind)),
            Some(found) => {
                one(&found, field, &mut at);
                if let (Some(of), Kind::Message(nested)) = (&field.of, found.kind())
                    && !found.is_map()
                    && reference.responses.contains_key(of)
                {
                    self::message(&nested, of, reference, findings, within);
                }
            }
        }
    }
    for field in message.fields() {
        let name = wire(&field);
        if !expected.fields.iter().any(|f| f.name == name) {
            Place::at(findings, format!("{class}.{name}")).add("unknown", format!("{class} has no such field"));
        }
    }
    within.pop();
}

fn one(declared: &FieldDescriptor, expected: &Field, at: &mut Place<'_>) {
    let option = descriptor::field(declared);
    let written = written(declared, &option);
    let fits = match expected.kind.as_str() {
        "string" => written == "string",
        "integer" | "long" | "short" => written == "number",
        "float" | "double" | "decimal" => written == "real",
        "boolean" => written == "boolean",
        "date" => written == "date",
        "list" | "set" => written == "list",
        "map" => written == "map",
        "object" => written == "object",
        _ => false,
    };
    if !fits {
        at.add("type", format!("declared {written}, 4.11 has {}", expected.kind));
    }
    if let ("list" | "set", Some(of)) = (expected.kind.as_str(), &expected.of) {
        let texts = matches!(declared.kind(), Kind::String);
        if texts != (of == "string" || of == "String") && fits {
            at.add("type", format!("declared a list of {:?}, 4.11 has one of {of}", declared.kind()));
        }
    }
    let visible: Vec<RoleType> = option.visible_to().collect();
    at.same("visible_to", roles(&visible), names(&expected.authorized));
    at.same("sensitive", option.sensitive, expected.sensitive);
    at.same("json_only", option.json_only, expected.json_only);
}

/// What a value looks like on the wire.
fn written(field: &FieldDescriptor, option: &api::Field) -> &'static str {
    if field.is_map() {
        return "map";
    }
    if field.is_list() {
        return "list";
    }
    match (option.format(), field.kind()) {
        (Format::Timestamp, _) => "date",
        (Format::NumberAsString, _) => "string",
        (Format::StringAsNumber, _) => "real",
        (_, Kind::String) => "string",
        (_, Kind::Bool) => "boolean",
        (_, Kind::Float | Kind::Double) => "real",
        (_, Kind::Message(_)) => "object",
        _ => "number",
    }
}
