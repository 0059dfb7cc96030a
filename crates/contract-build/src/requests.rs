//! Writes `contract.rs`: tables of commands and parameters, accessors over request messages, masking `Debug`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::options::{Read, message};
use crate::{Area, rust_path};

/// What `generate` hands back.
pub struct Generated {
    /// The Rust source.
    pub code: String,
    /// Full names of the messages whose `Debug` is written here.
    pub masked: Vec<String>,
}

/// Generates the tables of one area.
pub fn generate(area: &Area, name: &str) -> Result<Generated> {
    let mut code = String::new();
    let own = |m: &MessageDescriptor| m.package_name() == area.package;
    let mut masked = Vec::new();
    for message in area.pool.all_messages().filter(own).filter(|m| !m.is_map_entry()) {
        if message.fields().any(|f| sensitive(area, &f)) {
            debug_impl(&mut code, area, &message);
            masked.push(message.full_name().to_owned());
        }
    }
    if name == "api" {
        return Ok(Generated { code, masked });
    }

    // One request message may serve several internal RPCs, but at most one command.
    let mut requests: BTreeMap<String, (MessageDescriptor, Option<MethodDescriptor>)> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for service in area.pool.services().filter(|s| s.package_name() == area.package) {
        for method in service.methods() {
            let command = message(&area.pool, &method.options(), "arcus.api.v1.command");
            let input = method.input();
            if let Some(command) = &command {
                ensure!(own(&input), "{}: a command's request must be of its own area", method.full_name());
                ensure!(names.insert(command.text("name")), "{} is declared twice", command.text("name"));
            }
            if method.is_client_streaming() || !own(&input) {
                continue;
            }
            let entry = requests.entry(input.full_name().to_owned()).or_insert_with(|| (input, None));
            if command.is_some() {
                ensure!(entry.1.is_none(), "{} serves two commands", entry.0.full_name());
                entry.1 = Some(method);
            }
        }
    }
    let mut statics = Vec::new();
    for (request, method) in requests.values() {
        statics.extend(request_impl(&mut code, area, name, request, method.as_ref())?);
    }
    for nested in nested_messages(area, requests.values().map(|(m, _)| m)) {
        if own(&nested) {
            values_impl(&mut code, area, &nested, "", true)?;
        }
    }
    writeln!(code, "/// The commands of this area, by name.")?;
    writeln!(code, "pub static COMMANDS: &[&::contract::CommandInfo] = &[{}];", statics.join(", "))?;
    Ok(Generated { code, masked })
}

fn param_option(area: &Area, field: &FieldDescriptor) -> Option<DynamicMessage> {
    message(&area.pool, &field.options(), "arcus.api.v1.param")
}

fn sensitive(area: &Area, field: &FieldDescriptor) -> bool {
    let of = |name: &str| message(&area.pool, &field.options(), name).is_some_and(|o| o.flag("sensitive"));
    of("arcus.api.v1.param") || of("arcus.api.v1.field")
}

fn debug_impl(code: &mut String, area: &Area, message: &MessageDescriptor) {
    let name = message.name();
    let mut fields = String::new();
    for field in message.fields() {
        let (ident, label) = (ident(field.name()), field.name());
        if sensitive(area, &field) {
            let _ = write!(fields, "\n            .field(\"{label}\", &::core::format_args!(\"***\"))");
        } else {
            let _ = write!(fields, "\n            .field(\"{label}\", &self.{ident})");
        }
    }
    let _ = write!(
        code,
        "impl ::core::fmt::Debug for {name} {{\n    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
         f.debug_struct(\"{name}\"){fields}\n            .finish()\n    }}\n}}\n\n"
    );
}

/// The messages of nested parameters of these requests, each once.
fn nested_messages<'a>(area: &Area, of: impl Iterator<Item = &'a MessageDescriptor>) -> Vec<MessageDescriptor> {
    let mut found: BTreeMap<String, MessageDescriptor> = BTreeMap::new();
    for request in of {
        for field in request.fields() {
            if let Some(message) = entries_of(&field)
                && message.package_name() == area.package
            {
                found.insert(message.full_name().to_owned(), message);
            }
        }
    }
    found.into_values().collect()
}

/// The message of a repeated parameter with known sub-keys.
fn entries_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if field.is_list() => Some(message),
        _ => None,
    }
}

fn request_impl(
    code: &mut String,
    area: &Area,
    area_name: &str,
    request: &MessageDescriptor,
    method: Option<&MethodDescriptor>,
) -> Result<Option<String>> {
    let ty = request.name();
    let params = params_table(area, request, "")?;
    let info = match method {
        None => None,
        Some(method) => {
            let command = message(&area.pool, &method.options(), "arcus.api.v1.command").context("command")?;
            let name = constant(&command.text("name"));
            write_command(code, area, area_name, method, &command, &name, ty)?;
            Some(name)
        }
    };
    let restricted: String = request
        .fields()
        .filter_map(|field| {
            let roles = param_option(area, &field)?.numbers("only_for");
            (!roles.is_empty()).then(|| {
                let tests: Vec<String> = roles.iter().map(|r| format!("role as i32 != {r}")).collect();
                let name = ident(field.name());
                format!("\n        if {} {{ self.{name} = ::core::default::Default::default(); }}", tests.join(" && "))
            })
        })
        .collect();
    let command = info.as_ref().map_or("None".to_owned(), |n| format!("Some(&{n})"));
    let role = if restricted.is_empty() { "_role" } else { "role" };
    write!(
        code,
        "impl ::contract::Request for {ty} {{\n    const COMMAND: Option<&'static ::contract::CommandInfo> = {command};\n    \
         const PARAMS: &'static [::contract::ParamInfo] = &{params};\n    \
         fn restrict(&mut self, {role}: ::contract::api::RoleType) {{{restricted}\n    }}\n}}\n\n"
    )?;
    values_impl(code, area, request, "", false)?;
    Ok(info.map(|n| format!("&{n}")))
}

fn write_command(
    code: &mut String,
    area: &Area,
    area_name: &str,
    method: &MethodDescriptor,
    command: &DynamicMessage,
    constant: &str,
    request: &str,
) -> Result<()> {
    let service = method.parent_service();
    let owner = crate::options::extension(&area.pool, &service.options(), "arcus.api.v1.owner");
    let owner = owner.as_ref().and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let name = command.text("name");
    ensure!(!owner.is_empty(), "{}: a service with commands needs an owner", service.full_name());
    let execution = command.enum_name("execution");
    let output = method.output().full_name().to_owned();
    let result = command.text("result");
    if execution == "SYNC" {
        ensure!(result.is_empty(), "{name}: `result` is for asynchronous commands");
    } else {
        ensure!(output == "arcus.api.v1.JobRef", "{name}: an asynchronous command returns JobRef");
        ensure!(rust_path(&result, area_name).is_some(), "{name}: `result` must name a message");
    }
    let response = match command.text("response") {
        given if given.is_empty() => format!("{}response", name.to_lowercase()),
        given => given,
    };
    let result = if execution == "SYNC" { output } else { result };
    writeln!(code, "/// `{name}`.\npub static {constant}: ::contract::CommandInfo = ::contract::CommandInfo {{")?;
    for (field, value) in [
        ("name", &name),
        ("owner", &owner),
        ("service", &service.full_name().to_owned()),
        ("method", &method.name().to_owned()),
        ("request", &method.input().full_name().to_owned()),
        ("item", &command.text("item")),
        ("response", &response),
        ("result", &result),
        ("event", &command.text("event")),
        ("object", &command.text("object")),
        ("job_class", &command.text("job_class")),
        ("admin_job_class", &command.text("admin_job_class")),
        ("since", &command.text("since")),
    ] {
        writeln!(code, "    {field}: {},", text(value))?;
    }
    writeln!(code, "    execution: ::contract::api::Execution::{},", variant("Execution", &execution))?;
    writeln!(code, "    form: ::contract::api::Form::{},", variant("Form", &command.enum_name("form")))?;
    for field in ["roles", "authorized"] {
        writeln!(code, "    {field}: {},", roles(&command.numbers(field))?)?;
    }
    for field in ["post_only", "sensitive_request", "sensitive_response", "authenticator"] {
        writeln!(code, "    {field}: {},", command.flag(field))?;
    }
    writeln!(code, "    params: ::std::borrow::Cow::Borrowed(<{request} as ::contract::Request>::PARAMS),\n}};\n")?;
    Ok(())
}

/// `impl Values`: reads each parameter by its index in the table.
fn values_impl(code: &mut String, area: &Area, message: &MessageDescriptor, _path: &str, nested: bool) -> Result<()> {
    let ty = message.name();
    let (mut values, mut each) = (String::new(), String::new());
    for (index, field) in message.fields().enumerate() {
        let name = ident(field.name());
        let optional = field.field_descriptor_proto().proto3_optional();
        let expr = if field.is_map() {
            format!("V::Count(self.{name}.len())")
        } else if field.is_list() {
            match field.kind() {
                Kind::String => {
                    format!("V::Items(self.{name}.iter().map(String::as_str).collect())")
                }
                _ => format!("V::Count(self.{name}.len())"),
            }
        } else {
            let (pattern, of) = match field.kind() {
                Kind::String => ("v", "V::Text(v.as_str())"),
                Kind::Bool => ("v", "V::Flag(*v)"),
                Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(_) => ("v", "V::Integer(i64::from(*v))"),
                Kind::Int64 | Kind::Sint64 => ("v", "V::Integer(*v)"),
                Kind::Uint64 => ("v", "V::Integer(i64::try_from(*v).unwrap_or(i64::MAX))"),
                Kind::Float => ("v", "V::Real(f64::from(*v))"),
                Kind::Double => ("v", "V::Real(*v)"),
                Kind::Bytes => ("v", "V::Count(v.len())"),
                Kind::Message(_) => ("_", "V::Count(1)"),
                other => bail!("{}: {other:?} isn't a request type", field.full_name()),
            };
            let message = matches!(field.kind(), Kind::Message(_));
            if field.containing_oneof().is_some() && !optional {
                // A oneof of an internal request: nothing to check.
                "V::Absent".to_owned()
            } else if optional || message {
                format!("match &self.{name} {{ Some({pattern}) => {of}, None => V::Absent }}")
            } else {
                format!("{{ let v = &self.{name}; {of} }}")
            }
        };
        writeln!(values, "            {index} => {expr},")?;
        if !nested
            && let Some(entries) = entries_of(&field)
            && has_table(area, &entries)
        {
            writeln!(each, "            {index} => for entry in &self.{name} {{ visit(entry); }},")?;
        }
    }
    let (index, visit) = if each.is_empty() { ("_index", "_visit") } else { ("index", "visit") };
    let value_index = if values.is_empty() { "_index" } else { "index" };
    write!(
        code,
        "impl ::contract::Values for {ty} {{\n    fn value(&self, {value_index}: usize) -> ::contract::Value<'_> {{\n        \
         use ::contract::Value as V;\n        {}\n    }}\n    \
         fn each<'a>(&'a self, {index}: usize, {visit}: &mut dyn FnMut(&'a dyn ::contract::Values)) {{\n        {}\n    }}\n}}\n\n",
        if values.is_empty() {
            "V::Absent".to_owned()
        } else {
            format!("match index {{\n{values}            _ => V::Absent,\n        }}")
        },
        if each.is_empty() {
            "()".to_owned()
        } else {
            format!("match index {{\n{each}            _ => (),\n        }}")
        },
    )?;
    Ok(())
}

/// Whether entries of this message have a table of their own (those of arcus.api.v1 are plain keys and values).
fn has_table(area: &Area, message: &MessageDescriptor) -> bool {
    message.package_name() == area.package
}

fn params_table(area: &Area, message: &MessageDescriptor, path: &str) -> Result<String> {
    let mut out = String::from("[");
    for field in message.fields() {
        out.push_str(&param_entry(area, &field, path)?);
    }
    out.push(']');
    Ok(out)
}

fn param_entry(area: &Area, field: &FieldDescriptor, path: &str) -> Result<String> {
    let empty = DynamicMessage::new(
        area.pool.get_message_by_name("arcus.api.v1.Param").context("options.proto must be imported")?,
    );
    let option = param_option(area, field).unwrap_or(empty);
    let wire = match option.text("wire") {
        given if given.is_empty() => field.name().replace('_', ""),
        given => given,
    };
    let reference = option.enum_name("ref");
    let kind = wire_type(field, &option.enum_name("kind"), &reference)?;
    let nested = match entries_of(field) {
        Some(entries) if path.is_empty() && has_table(area, &entries) => {
            params_table(area, &entries, &format!("{wire}."))?
        }
        _ => "[]".to_owned(),
    };
    let keys: Vec<String> = option.texts("map_keys").iter().map(|k| text(k)).collect();
    let mut out = String::from("\n        ::contract::ParamInfo {");
    for (name, value) in [("name", &wire), ("path", &format!("{path}{wire}")), ("field", &field.name().to_owned())] {
        write!(out, " {name}: {},", text(value))?;
    }
    write!(out, " kind: ::contract::WireType::{kind},")?;
    for name in
        ["required", "positive", "not_empty", "refused", "sensitive", "map_first_only", "not_on_integration_port"]
    {
        write!(out, " {name}: {},", option.flag(name))?;
    }
    let length = match option.number("length") {
        0 => 255,
        n => n,
    };
    write!(out, " length: {length},")?;
    write!(out, " reference: ::contract::api::Ref::{},", variant("Ref", &reference))?;
    write!(out, " access: ::contract::api::Access::{},", variant("Access", &option.enum_name("access")))?;
    write!(out, " since: {}, default: {},", text(&option.text("since")), text(&option.text("default_value")))?;
    write!(out, " only_for: {},", roles(&option.numbers("only_for"))?)?;
    write!(out, " map_keys: ::std::borrow::Cow::Borrowed(&[{}]),", keys.join(", "))?;
    write!(out, " nested: ::std::borrow::Cow::Borrowed(&{nested}) }},")?;
    Ok(out)
}

/// Keep in step with `contract::descriptor::wire_type`, which does the same at run time; a test compares them.
fn wire_type(field: &FieldDescriptor, kind: &str, reference: &str) -> Result<&'static str> {
    let item = field.kind();
    Ok(match (kind, item) {
        _ if field.is_map() => "Map",
        (_, Kind::Message(_)) => "Map",
        (_, Kind::String) if field.is_list() && (reference != "REF_NONE" || kind == "UUID") => "UuidList",
        _ if field.is_list() => "List",
        ("TEXT", _) => "String",
        ("UUID", _) => "Uuid",
        ("DATE", _) => "Date",
        ("DATE_TIME", _) => "DateTime",
        ("DATE_TIME_END", _) => "DateTimeEnd",
        ("TZ_DATE", _) => "TzDate",
        ("SHORT", _) => "Short",
        (_, Kind::String) if reference != "REF_NONE" => "Uuid",
        (_, Kind::String | Kind::Bytes) => "String",
        (_, Kind::Bool) => "Boolean",
        (_, Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(_)) => "Integer",
        (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64) => "Long",
        (_, Kind::Float) => "Float",
        (_, Kind::Double) => "Double",
        (_, other) => bail!("{}: {other:?} isn't a request type", field.full_name()),
    })
}

fn roles(numbers: &[i32]) -> Result<String> {
    let names: Result<Vec<&str>> = numbers
        .iter()
        .map(|n| {
            Ok(match n {
                1 => "::contract::api::RoleType::Admin",
                2 => "::contract::api::RoleType::ResourceAdmin",
                4 => "::contract::api::RoleType::DomainAdmin",
                8 => "::contract::api::RoleType::User",
                other => bail!("{other} isn't a role type"),
            })
        })
        .collect();
    Ok(format!("::std::borrow::Cow::Borrowed(&[{}])", names?.join(", ")))
}

fn text(value: &str) -> String {
    format!("::std::borrow::Cow::Borrowed({value:?})")
}

/// `ASYNC_CREATE` as prost names the variant: camel case, without the name of the enum in front.
fn variant(of: &str, name: &str) -> String {
    let camel: String = name
        .split('_')
        .map(|word| {
            let mut chars = word.chars();
            chars
                .next()
                .map_or(String::new(), |c| c.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase())
        })
        .collect();
    match camel.strip_prefix(of) {
        Some(rest) if rest.starts_with(char::is_uppercase) => rest.to_owned(),
        _ => camel,
    }
}

/// `deployVirtualMachine` as a constant.
fn constant(command: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in command.chars() {
        if c.is_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

/// A field name as a Rust identifier.
fn ident(name: &str) -> String {
    match name {
        "type" | "ref" | "match" | "move" | "use" | "in" | "for" | "as" | "where" | "loop" | "mod" | "static" => {
            format!("r#{name}")
        }
        _ => name.to_owned(),
    }
}
