//! Answers: from a service's bytes straight to JSON or XML, by descriptor. No message is built on the way.

mod error;
#[cfg(test)]
mod golden;
mod json;
mod redact;
#[cfg(test)]
mod tests;
mod walk;
mod writer;
mod writers;
mod xml;

use contract::api::{JobRef, Success};
use contract::{ApiError, Form, RoleType};
use prost::Message as _;

use crate::catalogue::{Catalogue, Entry, MessageId};
use crate::wire::{Fields, Raw};
use walk::Walker;
use writer::Writer;

pub use error::error;
pub use redact::redact;
pub use writers::Writers;

/// The language of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// `response=json`
    Json,
    /// Anything else.
    #[default]
    Xml,
}

impl Language {
    /// What the `response` parameter asks for.
    pub fn of(response: Option<&str>) -> Language {
        match response {
            Some(name) if name.eq_ignore_ascii_case("json") => Language::Json,
            _ => Language::Xml,
        }
    }
}

/// How answers are written for one caller.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// The language.
    pub language: Language,
    /// What the caller may see.
    pub role: RoleType,
    /// Whether texts are percent-encoded (setting `encode.api.response`).
    pub encode: bool,
}

/// Runs the same code over a writer of either language, inside the wrapper.
macro_rules! in_wrapper {
    ($style:expr, $wrapper:expr, $size:expr, |$out:ident| $body:expr) => {{
        // Names and punctuation about double what a message of texts takes.
        let capacity = $size * 2 + 256;
        match $style.language {
            $crate::render::Language::Json => {
                let mut $out = $crate::render::json::Json::begin($wrapper, capacity, $style.encode);
                let done: Result<(), contract::ApiError> = $body;
                done.map(|()| $out.finish())
            }
            $crate::render::Language::Xml => {
                let mut $out = $crate::render::xml::Xml::begin($wrapper, capacity, $style.encode);
                let done: Result<(), contract::ApiError> = $body;
                done.map(|()| $out.finish())
            }
        }
    }};
}
use in_wrapper;

/// The answer of a command: `bytes` is what its RPC answered.
///
/// # Errors
/// When the bytes aren't the declared message.
pub fn answer(catalogue: &Catalogue, entry: &Entry, bytes: &[u8], style: Style) -> Result<String, ApiError> {
    let wrapper = &entry.info.response;
    in_wrapper!(style, wrapper, bytes.len(), |out| {
        if entry.is_async() {
            job_ref(&mut out, JobRef::decode(bytes)?);
            Ok(())
        } else {
            body(&mut Walker::new(catalogue, style.role), &mut out, entry, bytes)
        }
    })
}

/// The answer of `/client/plan`.
///
/// # Errors
/// When the bytes aren't the declared message.
pub fn plan(
    catalogue: &Catalogue,
    entry: &Entry,
    message: MessageId,
    bytes: &[u8],
    style: Style,
) -> Result<String, ApiError> {
    in_wrapper!(style, &entry.info.response, bytes.len(), |out| {
        out.begin("plan");
        Walker::new(catalogue, style.role).message(&mut out, message, bytes)?;
        out.end("plan");
        Ok(())
    })
}

fn job_ref<W: Writer>(out: &mut W, job: JobRef) {
    if let Some(id) = &job.id {
        out.text("id", id);
    }
    out.text("jobid", &job.job_id);
}

/// What a command, or its job, ended with, in the form that it declares.
fn body<W: Writer>(walker: &mut Walker<'_>, out: &mut W, entry: &Entry, bytes: &[u8]) -> Result<(), ApiError> {
    match entry.info.form {
        Form::Object => {
            out.begin(&entry.info.item);
            walker.message(out, entry.result, bytes)?;
            out.end(&entry.info.item);
        }
        Form::Flat => walker.message(out, entry.result, bytes)?,
        Form::Success => success(out, &Success::decode(bytes)?),
        Form::List => list(walker, out, entry, bytes)?,
        Form::None => {}
    }
    Ok(())
}

fn success<W: Writer>(out: &mut W, success: &Success) {
    out.bare("success", success.success);
    if W::XML
        && let Some(text) = &success.display_text
    {
        out.text("displaytext", text);
    }
}

fn list<W: Writer>(walker: &mut Walker<'_>, out: &mut W, entry: &Entry, bytes: &[u8]) -> Result<(), ApiError> {
    let plan = walker.catalogue().messages().get(entry.result);
    let items = plan.list.and_then(|(count, index)| Some((count, plan.fields.get(index)?)));
    let Some((count_number, first)) = items else {
        return Err(ApiError::internal(format!("{} is no list", entry.info.result)));
    };
    // Of several lists, the one that has items.
    let mut items = first;
    let (mut count, mut found) = (None, 0u64);
    for field in Fields::of(bytes) {
        match field? {
            (number, Raw::Varint(value)) if Some(number) == count_number => count = Some(value),
            (number, _) if number == items.number => found += 1,
            (number, _) if found == 0 => {
                if let Some(other) = plan.fields.iter().find(|f| f.number == number && f.is_items()) {
                    (items, found) = (other, 1);
                }
            }
            _ => {}
        }
    }
    let crate::catalogue::Kind::Message(item) = &items.kind else {
        return Err(ApiError::internal(format!("{} is no list of messages", entry.info.result)));
    };
    match count.unwrap_or(found) {
        0 if found == 0 => return Ok(()),
        0 => out.bare("count", found),
        count => out.bare("count", count),
    }
    if found == 0 {
        return Ok(());
    }
    let name = if items.number == first.number { entry.info.item.as_ref() } else { items.name.as_ref() };
    out.begin_list(name);
    for field in Fields::of(bytes) {
        if let (number, Raw::Bytes(bytes)) = field?
            && number == items.number
        {
            out.begin_item(name);
            walker.message(out, *item, bytes)?;
            out.end_item(name);
        }
    }
    out.end_list(name);
    Ok(())
}
