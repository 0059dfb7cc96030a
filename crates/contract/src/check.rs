//! The static checks of a request. The gateway makes them over dynamic messages, services over generated ones: both
//! through the tables, so that there is one rule and one text.

use crate::api::{Ref, RoleType};
use crate::error::ApiError;
use crate::request::{ParamInfo, RefParam, Value, Values, WireType};

/// Checks a request's values against its parameter table. The first fault decides, in the order of the table.
pub fn check(command: &str, params: &[ParamInfo], values: &dyn Values, role: RoleType) -> Result<(), ApiError> {
    for (index, param) in params.iter().enumerate() {
        if !param.is_for(role) {
            continue;
        }
        let value = values.value(index);
        one(command, param, &value)?;
        if !param.nested.is_empty() {
            let mut result = Ok(());
            values.each(index, &mut |entry| {
                if result.is_ok() {
                    result = check(command, &param.nested, entry, role);
                }
            });
            result?;
        }
    }
    Ok(())
}

/// Parameters by which callers choose the UUID of what is made.
const CHOSEN_IDS: &[&str] = &["customid", "customjobid"];

fn one(command: &str, param: &ParamInfo, value: &Value<'_>) -> Result<(), ApiError> {
    if !is_given(param, value) {
        return if param.required { Err(ApiError::missing_param(command, &param.path)) } else { Ok(()) };
    }
    if param.refused && !matches!(value, Value::Flag(false)) {
        return Err(ApiError::refused_param(command, &param.path));
    }
    if let Value::Text(text) = value
        && param.kind == WireType::String
        && text.encode_utf16().count() > param.length as usize
    {
        return Err(ApiError::long_param(command, &param.path, param.length));
    }
    if let Value::Text(text) = value
        && CHOSEN_IDS.contains(&param.name.as_ref())
        && !text.is_empty()
        && !is_uuid(text)
    {
        return Err(ApiError::bad_value(command, &param.path, text));
    }
    if param.not_empty && matches!(value, Value::Text("")) {
        return Err(ApiError::empty_param(&param.path));
    }
    let number = match value {
        Value::Integer(n) => Some(*n),
        Value::Real(n) if *n < 1.0 => Some(0),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    if param.positive && number.is_some_and(|n: i64| n < 1) {
        return Err(ApiError::invalid_param(&param.path));
    }
    Ok(())
}

/// Whether a text is a UUID as it is kept: in lower case, with hyphens.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Whether a value counts as given. An empty id is none: 4.11 never looks it up.
fn is_given(param: &ParamInfo, value: &Value<'_>) -> bool {
    match value {
        Value::Absent | Value::Count(0) => false,
        Value::Items(items) => !items.is_empty(),
        Value::Text("") => param.kind != WireType::Uuid && !param.refused,
        _ => true,
    }
}

/// The entities that a request names, in the order of the table; empty ids are left out.
pub fn refs<'a>(params: &'static [ParamInfo], values: &'a dyn Values) -> Vec<RefParam<'a>> {
    let mut out = Vec::new();
    collect(params, values, &mut out);
    out
}

fn collect<'a>(params: &'static [ParamInfo], values: &'a dyn Values, out: &mut Vec<RefParam<'a>>) {
    for (index, param) in params.iter().enumerate() {
        if param.reference != Ref::None {
            let mut ids = match values.value(index) {
                Value::Text(id) => vec![id],
                Value::Items(ids) => ids,
                _ => Vec::new(),
            };
            ids.retain(|id| !id.is_empty());
            if !ids.is_empty() {
                out.push(RefParam {
                    param: &param.path,
                    kind: param.reference,
                    access: param.access,
                    values: ids,
                    since: !param.since.is_empty(),
                });
            }
        }
        if !param.nested.is_empty() {
            let nested: &'static [ParamInfo] = &param.nested;
            values.each(index, &mut |entry| collect(nested, entry, out));
        }
    }
}
