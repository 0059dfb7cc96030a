//! Reads the options of `arcus.api.v1` from descriptors.

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, Kind, ReflectMessage as _, Value};

/// The value of an extension on some options, when it is set.
pub fn extension(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension: ExtensionDescriptor = pool.get_extension_by_name(name)?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

/// A message-valued extension.
pub fn message(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    match extension(pool, options, name)? {
        Value::Message(message) => Some(message),
        _ => None,
    }
}

/// Scalar access to an options message, with proto3 defaults for what isn't set.
pub trait Read {
    /// A string field.
    fn text(&self, field: &str) -> String;
    /// A bool field.
    fn flag(&self, field: &str) -> bool;
    /// An integer or enum field.
    fn number(&self, field: &str) -> i64;
    /// The items of a repeated field of strings.
    fn texts(&self, field: &str) -> Vec<String>;
    /// The items of a repeated field of enum values.
    fn numbers(&self, field: &str) -> Vec<i32>;
    /// The value name of an enum field.
    fn enum_name(&self, field: &str) -> String;
}

impl Read for DynamicMessage {
    fn text(&self, field: &str) -> String {
        self.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }

    fn flag(&self, field: &str) -> bool {
        self.get_field_by_name(field).and_then(|v| v.as_bool()).unwrap_or_default()
    }

    fn number(&self, field: &str) -> i64 {
        match self.get_field_by_name(field).as_deref() {
            Some(Value::EnumNumber(n) | Value::I32(n)) => i64::from(*n),
            Some(Value::U32(n)) => i64::from(*n),
            Some(Value::I64(n)) => *n,
            _ => 0,
        }
    }

    fn texts(&self, field: &str) -> Vec<String> {
        let value = self.get_field_by_name(field);
        let items = value.as_deref().and_then(Value::as_list).unwrap_or_default();
        items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    }

    fn numbers(&self, field: &str) -> Vec<i32> {
        let value = self.get_field_by_name(field);
        let items = value.as_deref().and_then(Value::as_list).unwrap_or_default();
        items.iter().filter_map(Value::as_enum_number).collect()
    }

    fn enum_name(&self, field: &str) -> String {
        let number = i32::try_from(self.number(field)).unwrap_or_default();
        match self.descriptor().get_field_by_name(field).map(|f| f.kind()) {
            Some(Kind::Enum(of)) => of.get_value(number).map(|v| v.name().to_owned()).unwrap_or_default(),
            _ => String::new(),
        }
    }
}
