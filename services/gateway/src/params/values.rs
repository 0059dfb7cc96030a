//! Parameter values: from text to the type that the contract declares.

use contract::{ApiError, ParamInfo, RoleType, Value, Values, WireType};

use super::dates;
use super::names::{Given, MapEntries, Value as GivenValue};
use crate::catalogue::{ParamPlan, RequestPlan};

/// The value of one parameter.
#[derive(Debug, PartialEq)]
pub enum Arg<'a> {
    /// Not given, or blank where that means the same.
    Absent,
    /// A text or an id.
    Text(&'a str),
    /// A boolean.
    Flag(bool),
    /// A whole number, or a time in microseconds.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Items of a list of texts.
    Items(Vec<&'a str>),
    /// Items of a list of whole numbers.
    Numbers(Vec<i64>),
    /// A map of texts.
    Map(Vec<(&'a str, &'a str)>),
    /// A map whose entries are messages.
    Entries(Vec<Arguments<'a>>),
}

/// The values of a request message, or of an entry in one, in the order of its parameter table.
#[derive(Debug, Default, PartialEq)]
pub struct Arguments<'a> {
    args: Vec<Arg<'a>>,
}

impl<'a> Arguments<'a> {
    /// Reads all parameters. The first fault decides, in the order of the table: what stands before a value that can't be
    /// read is checked first.
    pub(super) fn read(
        command: &str,
        params: &[ParamInfo],
        plan: &RequestPlan,
        given: &Given<'a>,
        role: RoleType,
    ) -> Result<Arguments<'a>, ApiError> {
        let mut out = Arguments { args: Vec::with_capacity(params.len()) };
        for (param, encoding) in params.iter().zip(&plan.params) {
            let arg = match given.get(&param.name) {
                Some(value) if param.is_for(role) => one(command, param, encoding, value),
                _ => Ok(Arg::Absent),
            };
            match arg {
                Ok(arg) => out.args.push(arg),
                Err(error) => {
                    let before = params.get(..out.args.len()).unwrap_or_default();
                    contract::check(command, before, &out, role)?;
                    return Err(error);
                }
            }
        }
        Ok(out)
    }

    /// Reads the entry of a map: sub-keys are taken as they are written.
    fn entry(
        command: &str,
        params: &[ParamInfo],
        plan: &RequestPlan,
        pairs: &[(&'a str, &'a str)],
    ) -> Result<Arguments<'a>, ApiError> {
        let args = params.iter().zip(&plan.params).map(|(param, encoding)| {
            match pairs.iter().find(|(key, _)| *key == param.name) {
                Some((_, text)) => scalar(command, param, encoding, text),
                None => Ok(Arg::Absent),
            }
        });
        Ok(Arguments { args: args.collect::<Result<_, _>>()? })
    }

    /// The values.
    pub fn args(&self) -> &[Arg<'a>] {
        &self.args
    }
}

fn one<'a>(command: &str, param: &ParamInfo, plan: &ParamPlan, value: &GivenValue<'a>) -> Result<Arg<'a>, ApiError> {
    match (param.kind, value) {
        (WireType::Map, GivenValue::Map(entries)) => map(command, param, plan, entries),
        (WireType::Map, GivenValue::Plain("")) => Ok(Arg::Absent),
        (WireType::Map, GivenValue::Plain(_)) => {
            Err(ApiError::malformed(format!("Parameter {0} is a map: write {0}[0].key=value", param.name)))
        }
        (_, GivenValue::Map(_)) => {
            Err(ApiError::malformed(format!("Parameter {0} is no map: write {0}=value", param.name)))
        }
        (_, GivenValue::Plain(text)) => scalar(command, param, plan, text),
    }
}

fn map<'a>(command: &str, param: &ParamInfo, plan: &ParamPlan, entries: &MapEntries<'a>) -> Result<Arg<'a>, ApiError> {
    let most = if param.map_first_only { 1 } else { usize::MAX };
    let entries = entries.values().take(most);
    match &plan.entries {
        Some(of) => {
            let read = entries.map(|pairs| Arguments::entry(command, &of.params, &of.plan, pairs));
            Ok(Arg::Entries(read.collect::<Result<_, _>>()?))
        }
        None => {
            let mut pairs: Vec<(&str, &str)> = Vec::new();
            for (key, value) in entries.flatten() {
                pairs.retain(|(known, _)| known != key);
                pairs.push((key, value));
            }
            Ok(Arg::Map(pairs))
        }
    }
}

/// Reads a plain value by the parameter's type (api/README, "Request").
fn scalar<'a>(command: &str, param: &ParamInfo, plan: &ParamPlan, text: &'a str) -> Result<Arg<'a>, ApiError> {
    let shown = if param.sensitive { "***" } else { text };
    let bad = || ApiError::bad_value(command, &param.path, shown);
    let blank = text.trim().is_empty();
    Ok(match param.kind {
        WireType::String => Arg::Text(text),
        WireType::Uuid if text.is_empty() => Arg::Absent,
        WireType::Uuid => Arg::Text(text),
        WireType::Boolean => Arg::Flag(text.eq_ignore_ascii_case("true")),
        WireType::Integer | WireType::Float | WireType::Double if blank => Arg::Absent,
        WireType::Integer => Arg::Integer(text.parse::<i32>().map_err(|_| bad())?.into()),
        WireType::Long => Arg::Integer(text.parse().map_err(|_| bad())?),
        WireType::Short => Arg::Integer(text.parse::<i16>().map_err(|_| bad())?.into()),
        WireType::Float | WireType::Double => Arg::Real(real(text).ok_or_else(bad)?),
        WireType::Date => Arg::Integer(dates::day(text).ok_or_else(|| bad_date(command, shown))?),
        WireType::DateTime => Arg::Integer(dates::date_time(text, false).ok_or_else(|| bad_date(command, shown))?),
        WireType::DateTimeEnd => Arg::Integer(dates::date_time(text, true).ok_or_else(|| bad_date(command, shown))?),
        WireType::TzDate => {
            let seconds = dates::zoned(text).ok_or_else(|| bad_date(command, shown))?;
            Arg::Integer(seconds * 1_000_000)
        }
        WireType::List | WireType::UuidList => {
            let items = text.split(',').filter(|item| !item.is_empty());
            if plan.scalar == crate::catalogue::Scalar::Text {
                Arg::Items(items.collect())
            } else {
                Arg::Numbers(items.map(|item| item.parse().map_err(|_| bad())).collect::<Result<_, _>>()?)
            }
        }
        // The entry of a map can't hold maps.
        WireType::Map => return Err(bad()),
    })
}

/// A decimal number as Java's parser reads it: spaces around it and a type suffix are allowed. Infinite ones aren't.
fn real(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|value: &f64| plain && value.is_finite())
}

fn bad_date(command: &str, text: &str) -> ApiError {
    let command = command.to_lowercase();
    ApiError::request(format!(
        "Unable to parse date {text} for command {command}, please pass dates in the format mentioned in the api documentation"
    ))
}

impl Values for Arguments<'_> {
    fn value(&self, index: usize) -> Value<'_> {
        match self.args.get(index) {
            None | Some(Arg::Absent) => Value::Absent,
            Some(Arg::Text(text)) => Value::Text(text),
            Some(Arg::Flag(flag)) => Value::Flag(*flag),
            Some(Arg::Integer(number)) => Value::Integer(*number),
            Some(Arg::Real(number)) => Value::Real(*number),
            Some(Arg::Items(items)) => Value::Items(items.clone()),
            Some(Arg::Numbers(items)) => Value::Count(items.len()),
            Some(Arg::Map(pairs)) => Value::Count(pairs.len()),
            Some(Arg::Entries(entries)) => Value::Count(entries.len()),
        }
    }

    fn each<'a>(&'a self, index: usize, visit: &mut dyn FnMut(&'a dyn Values)) {
        if let Some(Arg::Entries(entries)) = self.args.get(index) {
            entries.iter().for_each(|entry| visit(entry));
        }
    }
}
