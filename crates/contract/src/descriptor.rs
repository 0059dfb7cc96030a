//! The contract as descriptors: reading commands, parameters and fields from options, for code that has no generated
//! types (the gateway, documentation, tests).

use std::borrow::Cow;

use prost::Message;
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value as Dynamic,
};

use crate::api::{self, Access, Command, Execution, Form, Ref, RoleType};
use crate::request::{CommandInfo, ParamInfo, Table, Text, Value, Values, WireType};

/// Links the descriptor sets of areas (`contract_<area>::DESCRIPTOR`) with the shared one into one pool. The sets may
/// come in any order; each holds only its own files.
pub fn pool(areas: &[&[u8]]) -> Result<DescriptorPool, DescriptorError> {
    let mut all = Vec::from(api::DESCRIPTOR);
    // An encoded set is a repeated field: joined bytes are the joined set.
    for set in areas {
        all.extend_from_slice(set);
    }
    let mut pool = DescriptorPool::global();
    pool.decode_file_descriptor_set(all.as_slice())?;
    Ok(pool)
}

/// The value of a message-valued option, decoded.
fn option<M: Message + Default>(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<M> {
    let extension = pool.get_extension_by_name(name)?;
    if !options.has_extension(&extension) {
        return None;
    }
    match options.get_extension(&extension).as_ref() {
        Dynamic::Message(message) => message.transcode_to().ok(),
        _ => None,
    }
}

/// The `param` option of a request field; the default when there is none.
pub fn param(field: &FieldDescriptor) -> api::Param {
    option(field.parent_pool(), &field.options(), "arcus.api.v1.param").unwrap_or_default()
}

/// The `field` option of a response field; the default when there is none.
pub fn field(field: &FieldDescriptor) -> api::Field {
    option(field.parent_pool(), &field.options(), "arcus.api.v1.field").unwrap_or_default()
}

/// The `command` option of an RPC; none for internal ones.
pub fn command_option(method: &MethodDescriptor) -> Option<Command> {
    option(method.parent_pool(), &method.options(), "arcus.api.v1.command")
}

/// The `owner` option of a service.
pub fn owner(service: &ServiceDescriptor) -> Option<String> {
    let extension = service.parent_pool().get_extension_by_name("arcus.api.v1.owner")?;
    let options = service.options();
    options.has_extension(&extension).then(|| options.get_extension(&extension).as_str().map(str::to_owned))?
}

/// Name of a field on the wire, by the one rule or by its option.
pub fn wire_name(field: &FieldDescriptor, given: &str) -> String {
    if given.is_empty() { field.name().replace('_', "") } else { given.to_owned() }
}

/// The comment of an RPC, service, message or field, as it stands in the proto.
pub fn comment(file: &prost_reflect::FileDescriptor, path: &[i32]) -> String {
    let proto = file.file_descriptor_proto();
    let locations = proto.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    let Some(location) = locations.iter().find(|location| location.path == path) else {
        return String::new();
    };
    let lead = location.leading_comments().trim();
    let text = if lead.is_empty() { location.trailing_comments().trim() } else { lead };
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// All commands that the services of a pool declare, by name.
pub fn commands(pool: &DescriptorPool) -> Vec<(MethodDescriptor, CommandInfo)> {
    let mut out: Vec<_> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter_map(|method| command(&method).map(|info| (method, info)))
        .collect();
    out.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    out
}

/// The table of the command that an RPC serves; none for internal RPCs.
pub fn command(method: &MethodDescriptor) -> Option<CommandInfo> {
    let command = command_option(method)?;
    let service = method.parent_service();
    let execution = command.execution();
    let result =
        if execution == Execution::Sync { method.output().full_name().to_owned() } else { command.result.clone() };
    let response = if command.response.is_empty() {
        format!("{}response", command.name.to_lowercase())
    } else {
        command.response.clone()
    };
    Some(CommandInfo {
        owner: owned(&owner(service).unwrap_or_default()),
        service: owned(service.full_name()),
        method: owned(method.name()),
        request: owned(method.input().full_name()),
        execution,
        form: Form::try_from(command.form).unwrap_or(Form::Object),
        response: response.into(),
        result: result.into(),
        roles: roles(&command.roles),
        authorized: roles(&command.authorized),
        post_only: command.post_only,
        sensitive_request: command.sensitive_request,
        sensitive_response: command.sensitive_response,
        authenticator: command.authenticator,
        params: params(&method.input()),
        name: command.name.into(),
        item: command.item.into(),
        event: command.event.into(),
        object: command.object.into(),
        job_class: command.job_class.into(),
        admin_job_class: command.admin_job_class.into(),
        since: command.since.into(),
    })
}

/// The parameter table of a request message.
pub fn params(request: &MessageDescriptor) -> Table<ParamInfo> {
    table(request, "")
}

fn table(message: &MessageDescriptor, within: &str) -> Table<ParamInfo> {
    Cow::Owned(message.fields().map(|field| param_info(&field, within)).collect())
}

fn param_info(field: &FieldDescriptor, within: &str) -> ParamInfo {
    let option = param(field);
    let name = wire_name(field, &option.wire);
    let nested = match field.kind() {
        // Entries of arcus.api.v1 are plain keys and values.
        Kind::Message(entries)
            if field.is_list()
                && within.is_empty()
                && entries.package_name() == field.parent_message().package_name() =>
        {
            table(&entries, &format!("{name}."))
        }
        _ => Cow::Borrowed(&[] as &[ParamInfo]),
    };
    ParamInfo {
        path: format!("{within}{name}").into(),
        name: name.into(),
        field: owned(field.name()),
        kind: wire_type(field, &option),
        required: option.required,
        length: if option.length == 0 { 255 } else { option.length },
        positive: option.positive,
        not_empty: option.not_empty,
        reference: Ref::try_from(option.r#ref).unwrap_or(Ref::None),
        access: Access::try_from(option.access).unwrap_or(Access::Nothing),
        only_for: roles(&option.only_for),
        refused: option.refused,
        sensitive: option.sensitive,
        map_first_only: option.map_first_only,
        not_on_integration_port: option.not_on_integration_port,
        map_keys: option.map_keys.iter().map(|key| owned(key)).collect(),
        since: option.since.into(),
        default: option.default_value.into(),
        nested,
    }
}

/// The wire type of a request field.
pub fn wire_type(field: &FieldDescriptor, option: &api::Param) -> WireType {
    let refers = option.r#ref != Ref::None as i32;
    match (option.kind(), field.kind()) {
        _ if field.is_map() => WireType::Map,
        (_, Kind::Message(_)) => WireType::Map,
        (kind, Kind::String) if field.is_list() && (refers || kind == api::Kind::Uuid) => WireType::UuidList,
        _ if field.is_list() => WireType::List,
        (api::Kind::Text, _) => WireType::String,
        (api::Kind::Uuid, _) => WireType::Uuid,
        (api::Kind::Date, _) => WireType::Date,
        (api::Kind::DateTime, _) => WireType::DateTime,
        (api::Kind::DateTimeEnd, _) => WireType::DateTimeEnd,
        (api::Kind::TzDate, _) => WireType::TzDate,
        (api::Kind::Short, _) => WireType::Short,
        (_, Kind::String) if refers => WireType::Uuid,
        (_, Kind::Bool) => WireType::Boolean,
        (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64) => WireType::Long,
        (_, Kind::Float) => WireType::Float,
        (_, Kind::Double) => WireType::Double,
        (_, Kind::String | Kind::Bytes) => WireType::String,
        _ => WireType::Integer,
    }
}

fn owned(text: &str) -> Text {
    Cow::Owned(text.to_owned())
}

fn roles(numbers: &[i32]) -> Table<RoleType> {
    Cow::Owned(numbers.iter().filter_map(|n| RoleType::try_from(*n).ok()).collect())
}

impl Values for DynamicMessage {
    fn value(&self, index: usize) -> Value<'_> {
        use prost_reflect::ReflectMessage as _;
        let Some(field) = self.descriptor().fields().nth(index) else {
            return Value::Absent;
        };
        if !self.has_field(&field) {
            return Value::Absent;
        }
        // A field that is set is held by the message itself, so this borrows.
        match self.get_field(&field) {
            Cow::Borrowed(value) => dynamic_value(value),
            Cow::Owned(_) => Value::Absent,
        }
    }

    fn each<'a>(&'a self, index: usize, visit: &mut dyn FnMut(&'a dyn Values)) {
        use prost_reflect::ReflectMessage as _;
        let Some(field) = self.descriptor().fields().nth(index) else {
            return;
        };
        if let Cow::Borrowed(Dynamic::List(items)) = self.get_field(&field) {
            for item in items {
                if let Dynamic::Message(entry) = item {
                    visit(entry);
                }
            }
        }
    }
}

fn dynamic_value(value: &Dynamic) -> Value<'_> {
    match value {
        Dynamic::String(text) => Value::Text(text),
        Dynamic::Bool(flag) => Value::Flag(*flag),
        Dynamic::I32(n) | Dynamic::EnumNumber(n) => Value::Integer(i64::from(*n)),
        Dynamic::I64(n) => Value::Integer(*n),
        Dynamic::U32(n) => Value::Integer(i64::from(*n)),
        Dynamic::U64(n) => Value::Integer(i64::try_from(*n).unwrap_or(i64::MAX)),
        Dynamic::F32(n) => Value::Real(f64::from(*n)),
        Dynamic::F64(n) => Value::Real(*n),
        Dynamic::Bytes(bytes) => Value::Count(bytes.len()),
        Dynamic::Message(_) => Value::Count(1),
        Dynamic::Map(map) => Value::Count(map.len()),
        Dynamic::List(items) if items.first().is_some_and(|item| matches!(item, Dynamic::String(_))) => {
            Value::Items(items.iter().filter_map(Dynamic::as_str).collect())
        }
        Dynamic::List(items) => Value::Count(items.len()),
    }
}
