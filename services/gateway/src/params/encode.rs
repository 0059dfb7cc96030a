//! Encodes the values of a request as its message.

use super::values::{Arg, Arguments};
use crate::catalogue::{ParamPlan, RequestPlan, Scalar};
use crate::wire;

/// Appends the encoded message.
pub fn message(out: &mut Vec<u8>, plan: &RequestPlan, arguments: &Arguments<'_>) {
    for (param, arg) in plan.params.iter().zip(arguments.args()) {
        field(out, param, arg);
    }
}

fn field(out: &mut Vec<u8>, param: &ParamPlan, arg: &Arg<'_>) {
    let number = param.number;
    match arg {
        Arg::Absent => {}
        Arg::Text(text) => wire::put_bytes_field(out, number, text.as_bytes()),
        Arg::Flag(flag) => wire::put_varint_field(out, number, u64::from(*flag)),
        Arg::Integer(value) => wire::put_varint_field(out, number, varint(param.scalar, *value)),
        Arg::Real(value) if param.scalar == Scalar::Float => {
            wire::put_fixed32_field(out, number, (*value as f32).to_bits());
        }
        Arg::Real(value) => wire::put_fixed64_field(out, number, value.to_bits()),
        Arg::Items(items) => items.iter().for_each(|item| wire::put_bytes_field(out, number, item.as_bytes())),
        Arg::Numbers(items) if items.is_empty() => {}
        Arg::Numbers(items) => {
            let mut packed = Vec::with_capacity(items.len() * 2);
            items.iter().for_each(|item| wire::put_varint(&mut packed, varint(param.scalar, *item)));
            wire::put_bytes_field(out, number, &packed);
        }
        Arg::Map(pairs) => {
            for (key, value) in pairs {
                let mut entry = Vec::with_capacity(key.len() + value.len() + 6);
                wire::put_bytes_field(&mut entry, 1, key.as_bytes());
                wire::put_bytes_field(&mut entry, 2, value.as_bytes());
                wire::put_bytes_field(out, number, &entry);
            }
        }
        Arg::Entries(entries) => {
            let Some(of) = &param.entries else { return };
            for entry in entries {
                let mut encoded = Vec::new();
                message(&mut encoded, &of.plan, entry);
                wire::put_bytes_field(out, number, &encoded);
            }
        }
    }
}

fn varint(scalar: Scalar, value: i64) -> u64 {
    match scalar {
        Scalar::Zigzag => ((value << 1) ^ (value >> 63)) as u64,
        _ => value as u64,
    }
}
