//! Walks an encoded message by its plan and writes its fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::api::{ErrorDetail, Format, JobResult};
use contract::{ApiError, Form, RoleType};
use prost::Message as _;

use super::writer::Writer;
use crate::catalogue::{Catalogue, FieldPlan, Kind, MessageId};
use crate::params::dates;
use crate::wire::{Fields, Malformed, Raw, unzigzag, varint};

/// Messages within messages beyond this are refused: no answer of ours is deeper than five.
const DEPTH: usize = 32;

/// Writes messages for callers of one role type.
pub struct Walker<'a> {
    catalogue: &'a Catalogue,
    role: RoleType,
    depth: usize,
}

/// A field that was met: its index in the plan, and its value.
type Met<'b> = (usize, Raw<'b>);

impl<'a> Walker<'a> {
    /// A walker over the messages of `catalogue`.
    pub fn new(catalogue: &'a Catalogue, role: RoleType) -> Walker<'a> {
        Walker { catalogue, role, depth: 0 }
    }

    /// The contract.
    pub fn catalogue(&self) -> &'a Catalogue {
        self.catalogue
    }

    /// Writes the fields of a message as members.
    pub fn message<W: Writer>(&mut self, out: &mut W, id: MessageId, bytes: &[u8]) -> Result<(), ApiError> {
        if self.depth == DEPTH {
            return Err(Malformed.into());
        }
        self.depth += 1;
        let plan = self.catalogue.messages().get(id);
        let mut met: Vec<Met<'_>> = Vec::with_capacity(plan.fields.len());
        let (mut expected, mut sorted) = (0, true);
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            // A field that this build doesn't know is from a newer service.
            let Some(index) = plan.find(number, expected) else { continue };
            sorted &= met.last().is_none_or(|(last, _)| *last <= index);
            expected = if plan.fields.get(index).is_some_and(|f| f.repeated) { index } else { index + 1 };
            met.push((index, value));
        }
        if !sorted {
            met.sort_by_key(|(index, _)| *index);
        }
        let mut rest = met.as_slice();
        for (index, field) in plan.fields.iter().enumerate() {
            let (here, after) = rest.split_at(rest.iter().take_while(|(i, _)| *i == index).count());
            rest = after;
            if field.is_for(self.role) && !(W::XML && field.json_only) {
                self.field(out, field, here)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field<W: Writer>(&mut self, out: &mut W, field: &FieldPlan, met: &[Met<'_>]) -> Result<(), ApiError> {
        let name = &field.name;
        if let Kind::Map(entry) = &field.kind {
            return self.map(out, field, *entry, met);
        }
        if field.repeated {
            return self.list(out, field, met);
        }
        let Some((_, raw)) = met.last() else {
            if field.implicit {
                zero(out, field);
            }
            return Ok(());
        };
        match (&field.kind, raw) {
            (Kind::Message(id), Raw::Bytes(bytes)) => {
                out.begin(name);
                self.message(out, *id, bytes)?;
                out.end(name);
                Ok(())
            }
            (Kind::JobResult, Raw::Bytes(bytes)) => self.job_result(out, name, &JobResult::decode(*bytes)?),
            _ => Ok(scalar(field, *raw, &mut |value| value.member(out, name))?),
        }
    }

    fn list<W: Writer>(&mut self, out: &mut W, field: &FieldPlan, met: &[Met<'_>]) -> Result<(), ApiError> {
        if met.is_empty() && field.omit_empty {
            return Ok(());
        }
        let name = &field.name;
        out.begin_list(name);
        for (_, raw) in met {
            match (&field.kind, raw) {
                (Kind::Message(id), Raw::Bytes(bytes)) => {
                    out.begin_item(name);
                    self.message(out, *id, bytes)?;
                    out.end_item(name);
                }
                (_, Raw::Bytes(bytes)) if field.packable() => {
                    packed(field, bytes, &mut |raw| scalar(field, raw, &mut |value| value.item(out, name)))?;
                }
                _ => scalar(field, *raw, &mut |value| value.item(out, name))?,
            }
        }
        out.end_list(name);
        Ok(())
    }

    fn map<W: Writer>(
        &mut self,
        out: &mut W,
        field: &FieldPlan,
        entry: MessageId,
        met: &[Met<'_>],
    ) -> Result<(), ApiError> {
        if met.is_empty() && (field.omit_empty || W::XML) {
            return Ok(());
        }
        let plan = self.catalogue.messages().get(entry);
        let mut owned: Vec<(String, String)> = Vec::with_capacity(met.len());
        for (_, raw) in met {
            let Raw::Bytes(bytes) = raw else { return Err(Malformed.into()) };
            let (mut key, mut value) = (String::new(), String::new());
            for part in Fields::of(bytes) {
                let (number, raw) = part?;
                let Some(of) = plan.find(number, 0).and_then(|index| plan.fields.get(index)) else { continue };
                let side = if number == 1 { &mut key } else { &mut value };
                scalar(of, raw, &mut |v| v.append(side))?;
            }
            owned.push((key, value));
        }
        // The order of a map's entries on the wire is that of a hash table.
        owned.sort_unstable();
        let pairs: Vec<(&str, &str)> = owned.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        out.map(&field.name, &pairs);
        Ok(())
    }

    /// Writes how a job ended, in the form that its command declares.
    fn job_result<W: Writer>(&mut self, out: &mut W, name: &str, result: &JobResult) -> Result<(), ApiError> {
        if let Some(error) = &result.error {
            out.begin(name);
            self.job_error(out, error);
            out.end(name);
            return Ok(());
        }
        let Some(entry) = self.catalogue.command(&result.command) else {
            return Err(ApiError::internal(format!("the job's command {:?} is unknown", result.command)));
        };
        if entry.info.form == Form::None {
            return Ok(());
        }
        out.begin(name);
        super::body(self, out, entry, &result.output)?;
        out.end(name);
        Ok(())
    }

    fn job_error<W: Writer>(&self, out: &mut W, detail: &ErrorDetail) {
        let error = ApiError::from(detail.clone());
        out.bare("errorcode", error.code);
        out.text("errortext", error.text_for(self.role == RoleType::Admin));
    }
}

/// A scalar as the wire writes it.
enum Scalar<'v> {
    Text(&'v str),
    Bool(bool),
    Int(i64),
    Uint(u64),
    Real(f64),
    /// A number that is written as it is spelt.
    Spelt(&'v str),
}

impl Scalar<'_> {
    fn member<W: Writer>(&self, out: &mut W, name: &str) {
        match self {
            Scalar::Text(text) => out.text(name, text),
            Scalar::Bool(value) => out.bare(name, value),
            Scalar::Int(value) => out.bare(name, value),
            Scalar::Uint(value) => out.bare(name, value),
            // Debug keeps the `.0` of whole numbers, as Java does.
            Scalar::Real(value) => out.bare(name, format_args!("{value:?}")),
            Scalar::Spelt(text) => out.bare(name, text),
        }
    }

    fn item<W: Writer>(&self, out: &mut W, name: &str) {
        match self {
            Scalar::Text(text) => out.item_text(name, text),
            Scalar::Bool(value) => out.item_bare(name, value),
            Scalar::Int(value) => out.item_bare(name, value),
            Scalar::Uint(value) => out.item_bare(name, value),
            Scalar::Real(value) => out.item_bare(name, format_args!("{value:?}")),
            Scalar::Spelt(text) => out.item_bare(name, text),
        }
    }

    fn append(&self, out: &mut String) {
        use std::fmt::Write as _;
        // Writing to a String can't fail.
        let _ = match self {
            Scalar::Text(text) | Scalar::Spelt(text) => out.write_str(text),
            Scalar::Bool(value) => write!(out, "{value}"),
            Scalar::Int(value) => write!(out, "{value}"),
            Scalar::Uint(value) => write!(out, "{value}"),
            Scalar::Real(value) => write!(out, "{value:?}"),
        };
    }
}

/// Gives a value to `write` as its field declares it. Numbers that JSON can't hold are left out.
fn scalar(field: &FieldPlan, raw: Raw<'_>, write: &mut dyn FnMut(Scalar<'_>)) -> Result<(), Malformed> {
    let number = match (&field.kind, raw) {
        (Kind::Bool, Raw::Varint(value)) => Scalar::Bool(value != 0),
        (Kind::Int, Raw::Varint(value)) => Scalar::Int(value as i64),
        (Kind::Uint, Raw::Varint(value)) => Scalar::Uint(value),
        (Kind::Sint, Raw::Varint(value)) => Scalar::Int(unzigzag(value)),
        (Kind::Fixed, Raw::Fixed64(value)) => Scalar::Uint(value),
        (Kind::Fixed, Raw::Fixed32(value)) => Scalar::Uint(value.into()),
        (Kind::Sfixed64, Raw::Fixed64(value)) => Scalar::Int(value as i64),
        (Kind::Sfixed32, Raw::Fixed32(value)) => Scalar::Int((value as i32).into()),
        (Kind::Double, Raw::Fixed64(bits)) => Scalar::Real(f64::from_bits(bits)),
        // Through its shortest text, so that 0.1 doesn't become 0.10000000149011612.
        (Kind::Float, Raw::Fixed32(bits)) => Scalar::Real(f32::from_bits(bits).to_string().parse().unwrap_or(f64::NAN)),
        (Kind::Text, Raw::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
            match field.format {
                Format::StringAsNumber if is_number(text) => Scalar::Spelt(text),
                _ => Scalar::Text(text),
            }
        }
        (Kind::Bytes, Raw::Bytes(bytes)) => {
            write(Scalar::Text(&STANDARD.encode(bytes)));
            return Ok(());
        }
        (Kind::Enum(names), Raw::Varint(value)) => match names.name(value as i32) {
            Some(name) => Scalar::Text(name),
            None => Scalar::Int(value as i64),
        },
        _ => return Err(Malformed),
    };
    match (field.format, number) {
        (_, Scalar::Real(value)) if !value.is_finite() => {}
        (Format::Timestamp, Scalar::Int(micros)) => {
            let mut text = String::with_capacity(24);
            dates::write(&mut text, micros);
            write(Scalar::Text(&text));
        }
        (Format::NumberAsString, number @ (Scalar::Int(_) | Scalar::Uint(_) | Scalar::Real(_) | Scalar::Bool(_))) => {
            let mut text = String::new();
            number.append(&mut text);
            write(Scalar::Text(&text));
        }
        (_, number) => write(number),
    }
    Ok(())
}

/// Writes the zero that an absent field without presence means.
fn zero<W: Writer>(out: &mut W, field: &FieldPlan) {
    let raw = match field.kind {
        Kind::Text | Kind::Bytes => Raw::Bytes(&[]),
        Kind::Float | Kind::Sfixed32 => Raw::Fixed32(0),
        Kind::Double | Kind::Sfixed64 | Kind::Fixed => Raw::Fixed64(0),
        _ => Raw::Varint(0),
    };
    // The zero is of the field's own type, so it can't be malformed.
    let _ = scalar(field, raw, &mut |value| value.member(out, &field.name));
}

/// Visits the items of a packed list.
fn packed(
    field: &FieldPlan,
    mut bytes: &[u8],
    visit: &mut dyn FnMut(Raw<'_>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let raw = match field.kind {
            Kind::Double | Kind::Sfixed64 => fixed64(&mut bytes)?,
            Kind::Float | Kind::Sfixed32 => fixed32(&mut bytes)?,
            // The width of `fixed` isn't kept; no message of ours has a list of them.
            Kind::Fixed => return Err(Malformed),
            _ => Raw::Varint(varint(&mut bytes)?),
        };
        visit(raw)?;
    }
    Ok(())
}

fn fixed64(bytes: &mut &[u8]) -> Result<Raw<'static>, Malformed> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(Raw::Fixed64(u64::from_le_bytes(*head)))
}

fn fixed32(bytes: &mut &[u8]) -> Result<Raw<'static>, Malformed> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(Raw::Fixed32(u32::from_le_bytes(*head)))
}

/// Whether a text is a number that JSON takes bare.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_bare() {
        for good in ["0", "-1", "12.50", "9223372036854775808", "0.5"] {
            assert!(is_number(good), "{good}");
        }
        for bad in ["", "-", "01", "1.", ".5", "1e5", "Unlimited", "NaN", "1,5"] {
            assert!(!is_number(bad), "{bad}");
        }
    }
}
