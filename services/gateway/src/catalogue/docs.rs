//! What listApis tells: commands, parameters and answers, in the words of the contract's comments.

use std::collections::HashMap;

use bytes::Bytes;
use contract::api::Format;
use contract::{ParamInfo, Ref, WireType, descriptor};
use contract_identity::{Api, ApiField, ApiParameter};
use prost::Message as _;
use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

use super::{Catalogue, Entry};

/// What listApis shows as the length of parameters that aren't texts.
const LENGTH: i32 = 255;

/// One `Api` a command, encoded, in the order of [`Catalogue::entries`].
pub struct Docs {
    apis: Vec<Bytes>,
}

impl Docs {
    pub(super) fn of(catalogue: &Catalogue) -> Docs {
        let mut writer = Writer {
            comments: HashMap::new(),
            related: HashMap::new(),
            by_simple_name: catalogue
                .entries()
                .iter()
                .filter_map(|e| Some((simple_name(&item_message(catalogue, e)?), item_message(catalogue, e)?)))
                .collect(),
        };
        for entry in catalogue.entries() {
            if let Some(message) = item_message(catalogue, entry)
                && message != "arcus.api.v1.Success"
            {
                writer.related.entry(message).or_default().push(entry.info.name.to_string());
            }
        }
        let apis = catalogue.entries().iter().map(|e| writer.api(catalogue, e).encode_to_vec().into()).collect();
        Docs { apis }
    }

    /// The encoded `Api` of the command with this index.
    pub fn api(&self, index: usize) -> Option<&Bytes> {
        self.apis.get(index)
    }
}

/// The message of what a command answers: of one item, when it is a list.
fn item_message(catalogue: &Catalogue, entry: &Entry) -> Option<String> {
    let result = catalogue.pool().get_message_by_name(&entry.info.result)?;
    let list = catalogue.messages().get(entry.result).list.filter(|_| entry.info.form == contract::Form::List);
    let Some((_, index)) = list else { return Some(result.full_name().to_owned()) };
    let number = catalogue.messages().get(entry.result).fields.get(index)?.number;
    match result.get_field(number)?.kind() {
        Kind::Message(item) => Some(item.full_name().to_owned()),
        _ => None,
    }
}

fn simple_name(full: &str) -> String {
    full.rsplit('.').next().unwrap_or_default().to_owned()
}

struct Writer {
    /// Comments by file and path within it.
    comments: HashMap<String, HashMap<Vec<i32>, String>>,
    /// Names of the commands that answer with a message.
    related: HashMap<String, Vec<String>>,
    /// Full names of such messages by their last part.
    by_simple_name: HashMap<String, String>,
}

impl Writer {
    fn api(&mut self, catalogue: &Catalogue, entry: &Entry) -> Api {
        let method = entry.method();
        let item = item_message(catalogue, entry);
        let related = item.as_ref().and_then(|of| self.related.get(of)).map(|names| {
            let others: Vec<&str> = names.iter().map(String::as_str).filter(|n| *n != entry.info.name).collect();
            others.join(",")
        });
        let input = method.input();
        let params = input.fields().zip(entry.info.params.iter()).map(|(f, info)| self.param(&f, info)).collect();
        let response = item
            .and_then(|name| catalogue.pool().get_message_by_name(&name))
            .map(|message| self.fields(&message, &mut Vec::new()))
            .unwrap_or_default();
        Api {
            name: Some(entry.info.name.to_string()),
            description: Some(self.comment(&method.parent_file(), method.path())),
            since: given(&entry.info.since),
            is_async: Some(entry.is_async()),
            related: related.filter(|r| !r.is_empty()),
            params,
            response,
            ..Api::default()
        }
    }

    fn param(&mut self, field: &FieldDescriptor, info: &ParamInfo) -> ApiParameter {
        let related = self.by_simple_name.get(&message_of(info.reference)).and_then(|m| self.related.get(m));
        let related = related.map(|names| names.join(","));
        ApiParameter {
            name: Some(info.name.to_string()),
            description: Some(self.comment(&field.parent_file(), field.path())),
            r#type: Some(type_of(info.kind).to_owned()),
            length: Some(i32::try_from(info.length).unwrap_or(LENGTH)),
            required: Some(info.required),
            since: given(&info.since),
            related,
            ..ApiParameter::default()
        }
    }

    /// The fields of a message; `within` are the messages around it, so that one that holds itself ends.
    fn fields(&mut self, message: &MessageDescriptor, within: &mut Vec<String>) -> Vec<ApiField> {
        if within.iter().any(|name| name == message.full_name()) {
            return Vec::new();
        }
        within.push(message.full_name().to_owned());
        let mut out = Vec::new();
        for field in message.fields() {
            let option = descriptor::field(&field);
            let nested = match field.kind() {
                Kind::Message(of)
                    if !field.is_map() && of.package_name() == "arcus.api.v1" && of.name() == "JobResult" =>
                {
                    Vec::new()
                }
                Kind::Message(of) if !field.is_map() => self.fields(&of, within),
                _ => Vec::new(),
            };
            out.push(ApiField {
                name: Some(descriptor::wire_name(&field, &option.wire)),
                description: Some(self.comment(&field.parent_file(), field.path())),
                r#type: Some(field_type(&field, option.format())),
                response: nested,
                ..ApiField::default()
            });
        }
        within.pop();
        out
    }

    fn comment(&mut self, file: &FileDescriptor, path: &[i32]) -> String {
        let comments = self.comments.entry(file.name().to_owned()).or_insert_with(|| comments(file));
        comments.get(path).cloned().unwrap_or_default()
    }
}

fn comments(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let proto = file.file_descriptor_proto();
    let locations = proto.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    locations
        .iter()
        .filter_map(|location| {
            let lead = location.leading_comments().trim();
            let text = if lead.is_empty() { location.trailing_comments().trim() } else { lead };
            let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
            (!text.is_empty()).then(|| (location.path.clone(), text))
        })
        .collect()
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `VIRTUAL_MACHINE` as the name of its message.
fn message_of(reference: Ref) -> String {
    reference
        .as_str_name()
        .trim_end_matches("_REF")
        .split('_')
        .map(|word| {
            let (head, tail) = word.split_at(word.len().min(1));
            head.to_owned() + &tail.to_lowercase()
        })
        .collect()
}

fn type_of(kind: WireType) -> &'static str {
    match kind {
        WireType::String => "string",
        WireType::Boolean => "boolean",
        WireType::Integer => "integer",
        WireType::Long => "long",
        WireType::Short => "short",
        WireType::Float => "float",
        WireType::Double => "double",
        WireType::Uuid => "uuid",
        WireType::Date | WireType::DateTime | WireType::DateTimeEnd => "date",
        WireType::TzDate => "tzdate",
        WireType::List | WireType::UuidList => "list",
        WireType::Map => "map",
    }
}

fn field_type(field: &FieldDescriptor, format: Format) -> String {
    if field.is_map() {
        return "map".to_owned();
    }
    if field.is_list() {
        return "list".to_owned();
    }
    match (format, field.kind()) {
        (Format::Timestamp, _) => "date".to_owned(),
        (Format::NumberAsString, _) => "string".to_owned(),
        (Format::StringAsNumber, _) => "long".to_owned(),
        (_, Kind::Bool) => "boolean".to_owned(),
        (_, Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32) => "integer".to_owned(),
        (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64) => "long".to_owned(),
        (_, Kind::Float) => "float".to_owned(),
        (_, Kind::Double) => "double".to_owned(),
        (_, Kind::Message(of)) => of.name().to_lowercase(),
        _ => "string".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_messages() {
        assert_eq!(message_of(Ref::VirtualMachine), "VirtualMachine");
        assert_eq!(message_of(Ref::UserRef), "User");
        assert_eq!(message_of(Ref::Zone), "Zone");
    }

    // covers: API-008 API-009 API-010
    #[test]
    fn every_command_is_described() {
        let catalogue = Catalogue::embedded().unwrap();
        let docs = catalogue.docs();
        for entry in catalogue.entries() {
            let api = Api::decode(docs.api(entry.index).unwrap().clone()).unwrap();
            assert_eq!(api.name(), entry.info.name);
            assert!(!api.description().is_empty(), "{}: no comment", entry.info.name);
            assert_eq!(api.is_async(), entry.is_async());
            assert_eq!(api.params.len(), entry.info.params.len());
        }
        let zones = Api::decode(docs.api(catalogue.command("listZones").unwrap().index).unwrap().clone()).unwrap();
        assert!(zones.related().split(',').any(|n| n == "createZone"), "{}", zones.related());
        assert!(zones.related().split(',').all(|n| n != "listZones"));
        let id = zones.params.iter().find(|p| p.name() == "id").unwrap();
        assert_eq!((id.r#type(), id.length(), id.required()), ("uuid", 255, false));
        assert!(id.related().split(',').any(|n| n == "listZones"));
        let tags = zones.params.iter().find(|p| p.name() == "tags").map(|p| p.r#type().to_owned());
        assert!(tags.is_none_or(|t| t == "map"));
    }
}
