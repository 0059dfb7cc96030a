//! How requests are encoded: one plan a request message, beside the parameter table of the contract.

use std::borrow::Cow;
use std::collections::HashMap;

use contract::{ApiError, ParamInfo, descriptor};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// How a request message is encoded. `params` stands beside `CommandInfo::params`, index by index.
#[derive(Debug)]
pub struct RequestPlan {
    /// The parameters in the order of the table.
    pub params: Vec<ParamPlan>,
    by_name: HashMap<String, usize>,
}

/// How one parameter is encoded.
#[derive(Debug)]
pub struct ParamPlan {
    /// Number of the field.
    pub number: u32,
    /// Proto type of the field, or of an item.
    pub scalar: Scalar,
    /// Sub-keys of a map that has a message of its own.
    pub entries: Option<Box<Entries>>,
}

/// The sub-keys of a map parameter.
#[derive(Debug)]
pub struct Entries {
    /// What the contract says about them.
    pub params: Cow<'static, [ParamInfo]>,
    /// How they are encoded.
    pub plan: RequestPlan,
}

/// Proto types that parameters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `bool`.
    Bool,
    /// `int32`, `int64`, `uint32`, `uint64`, and enums.
    Varint,
    /// `sint32`, `sint64`.
    Zigzag,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// A message, or a map's entry.
    Message,
}

impl RequestPlan {
    /// The plan of a message whose parameter table is `params`.
    ///
    /// # Errors
    /// When a field is of a type that no parameter has.
    pub fn of(message: &MessageDescriptor, params: &[ParamInfo]) -> Result<RequestPlan, ApiError> {
        let plans: Vec<ParamPlan> =
            message.fields().zip(params).map(|(field, info)| param_plan(&field, info)).collect::<Result<_, _>>()?;
        if plans.len() != params.len() {
            return Err(ApiError::internal(format!(
                "{}: the parameter table is of another message",
                message.full_name()
            )));
        }
        let by_name = params.iter().enumerate().map(|(index, p)| (p.name.to_string(), index)).collect();
        Ok(RequestPlan { params: plans, by_name })
    }

    /// The index of the parameter with exactly this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

fn param_plan(field: &FieldDescriptor, info: &ParamInfo) -> Result<ParamPlan, ApiError> {
    let scalar = match field.kind() {
        Kind::Bool => Scalar::Bool,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => Scalar::Varint,
        Kind::Sint32 | Kind::Sint64 => Scalar::Zigzag,
        Kind::Float => Scalar::Float,
        Kind::Double => Scalar::Double,
        Kind::String | Kind::Bytes => Scalar::Text,
        Kind::Message(_) => Scalar::Message,
        other => return Err(unsupported(field, &format!("{other:?}"))),
    };
    let mut entries = None;
    if let Kind::Message(message) = field.kind() {
        if field.is_map() {
            let plain = |n| message.get_field(n).is_some_and(|f| f.kind() == Kind::String);
            if !plain(1) || !plain(2) {
                return Err(unsupported(field, "a map of anything but texts"));
            }
        } else if field.is_list() {
            let params = if info.nested.is_empty() { descriptor::params(&message) } else { info.nested.clone() };
            let plan = RequestPlan::of(&message, &params)?;
            entries = Some(Box::new(Entries { params, plan }));
        } else {
            return Err(unsupported(field, "a single message"));
        }
    }
    Ok(ParamPlan { number: field.number(), scalar, entries })
}

fn unsupported(field: &FieldDescriptor, what: &str) -> ApiError {
    ApiError::internal(format!("{}: {what} can't be a parameter", field.full_name()))
}
