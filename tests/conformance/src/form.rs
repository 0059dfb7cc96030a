//! Compares an answer with a recorded one by form: keys, kinds of values, wrappers; not by content.
//!
//! The recordings come from a later release: what 4.11's classes don't have is ignored in them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::reference::{Command, Reference, Response};

/// A difference of form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `Class.field`, or where in the answer.
    pub place: String,
    /// `missing`, `unknown`, `type`, `wrapper`, `error`.
    pub what: &'static str,
    /// In words.
    pub detail: String,
}

/// Compares answers of one command.
pub struct Form<'a> {
    reference: &'a Reference,
    found: BTreeSet<Difference>,
}

impl<'a> Form<'a> {
    /// Nothing compared yet.
    pub fn new(reference: &'a Reference) -> Form<'a> {
        Form { reference, found: BTreeSet::new() }
    }

    /// What differed.
    pub fn found(self) -> BTreeSet<Difference> {
        self.found
    }

    fn add(&mut self, place: impl Into<String>, what: &'static str, detail: impl Into<String>) {
        self.found.insert(Difference { place: place.into(), what, detail: detail.into() });
    }

    /// A whole answer.
    pub fn answer(&mut self, command: &Command, recorded: &Value, live: &Value) {
        let (Some((wrapper, recorded)), Some((live_wrapper, live))) = (only(recorded), only(live)) else {
            return self.add("answer", "wrapper", format!("{live:.300}"));
        };
        if wrapper != live_wrapper {
            self.add("answer", "wrapper", format!("{live_wrapper}, recorded {wrapper}"));
        }
        if recorded.get("errorcode").is_some() || live.get("errorcode").is_some() {
            return self.error(recorded, live);
        }
        if let Some(recorded) = recorded.get("jobid").filter(|_| command.kind != "sync") {
            self.kinds("job", recorded, live.get("jobid").unwrap_or(&Value::Null));
            let (is, was) = (live.get("id").is_some(), command.kind == "async_create");
            if is != was {
                self.add("job.id", if was { "missing" } else { "unknown" }, "of the new entity");
            }
            return;
        }
        self.inner(command, recorded, live);
    }

    /// What stands in the wrapper, or in a job's result.
    pub fn inner(&mut self, command: &Command, recorded: &Value, live: &Value) {
        let class = command.response_class.as_str();
        match command.form.as_str() {
            "list" => self.list(class, command.item_key.as_deref().unwrap_or_default(), recorded, live),
            "object" => {
                let key = command.item_key.as_deref().unwrap_or_default();
                match (recorded.get(key), live.get(key)) {
                    (Some(recorded), Some(live)) => self.object(class, &[recorded], &[live]),
                    (Some(_), None) => self.add(key, "missing", format!("{live:.300}")),
                    (None, _) => {}
                }
            }
            "success" => match live.get("success") {
                Some(Value::Bool(true)) => {}
                other => self.add("success", "type", format!("{other:?}")),
            },
            "flat" => self.object(class, &[recorded], &[live]),
            _ => {}
        }
    }

    fn list(&mut self, class: &str, key: &str, recorded: &Value, live: &Value) {
        if let Some(count) = recorded.get("count") {
            self.kinds("count", count, live.get("count").unwrap_or(&Value::Null));
        }
        let items =
            |of: &'_ Value| -> Vec<Value> { of.get(key).and_then(Value::as_array).cloned().unwrap_or_default() };
        let (recorded_items, live_items) = (items(recorded), items(live));
        if recorded_items.is_empty() {
            if recorded.get(key).is_none() && live.get(key).is_some() && live_items.is_empty() {
                self.add(key, "unknown", "an empty list is left out");
            }
            return;
        }
        if live_items.is_empty() {
            return self.add(key, "missing", format!("an empty list: {live:.200}"));
        }
        self.object(class, &recorded_items.iter().collect::<Vec<_>>(), &live_items.iter().collect::<Vec<_>>());
    }

    /// Objects of one class, seen as one: a key counts when any of them has it.
    fn object(&mut self, class: &str, recorded: &[&Value], live: &[&Value]) {
        let Some(known) = self.reference.responses.get(class) else {
            return self.add(class, "unknown", "no such class");
        };
        let (recorded, live) = (keys(recorded), keys(live));
        for (key, values) in &live {
            if field_of(known, key).is_none() {
                self.add(
                    format!("{class}.{key}"),
                    "unknown",
                    format!("{:.100}", values.first().map(ToString::to_string).unwrap_or_default()),
                );
            }
        }
        for (key, was) in recorded {
            let Some(field) = field_of(known, key) else { continue };
            let place = format!("{class}.{key}");
            let (Some(is), Some(first)) = (live.get(key), was.first()) else {
                self.add(
                    place,
                    "missing",
                    format!("recorded {:.100}", was.first().map(ToString::to_string).unwrap_or_default()),
                );
                continue;
            };
            let Some(other) = is.first() else { continue };
            self.kinds(&place, first, other);
            let Some(of) = field.of.as_deref().filter(|of| self.reference.responses.contains_key(*of)) else {
                continue;
            };
            let (was, is) = (flat(&was), flat(is));
            if !was.is_empty() && !is.is_empty() {
                self.object(of, &was, &is);
            }
        }
    }

    /// An error: code, number of the cause, and that there is a text. Texts are for the caller to compare.
    fn error(&mut self, recorded: &Value, live: &Value) {
        for key in ["errorcode", "cserrorcode"] {
            if recorded.get(key) != live.get(key) {
                let shown = |of: &Value| of.get(key).map_or_else(|| "none".to_owned(), ToString::to_string);
                let text = live.get("errortext").and_then(Value::as_str).unwrap_or_default();
                self.add(key, "error", format!("{}, recorded {}: {text}", shown(live), shown(recorded)));
            }
        }
        for key in ["uuidList", "errortext"] {
            if let Some(was) = recorded.get(key) {
                self.kinds(key, was, live.get(key).unwrap_or(&Value::Null));
            }
        }
    }

    fn kinds(&mut self, place: &str, recorded: &Value, live: &Value) {
        let (was, is) = (kind(recorded), kind(live));
        if was != is {
            self.add(
                place,
                if live.is_null() { "missing" } else { "type" },
                format!("{is}, recorded {was}: {live:.60}"),
            );
        }
    }
}

/// The only entry of an object.
fn only(body: &Value) -> Option<(&String, &Value)> {
    body.as_object().filter(|o| o.len() == 1)?.iter().next()
}

fn field_of<'r>(class: &'r Response, name: &str) -> Option<&'r crate::reference::Field> {
    class.fields.iter().find(|f| f.name == name)
}

fn keys<'v>(objects: &[&'v Value]) -> BTreeMap<&'v str, Vec<&'v Value>> {
    let mut out: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (key, value) in objects.iter().filter_map(|o| o.as_object()).flatten() {
        out.entry(key).or_default().push(value);
    }
    out
}

/// The objects within values that are objects or lists of them.
fn flat<'v>(values: &[&'v Value]) -> Vec<&'v Value> {
    let items = values.iter().flat_map(|v| match v {
        Value::Array(items) => items.iter().collect(),
        other => vec![*other],
    });
    items.filter(|v| v.is_object()).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Names of the elements of an XML text, each with those around it: `listusersresponse/user/id`.
pub fn elements(xml: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut within: Vec<&str> = Vec::new();
    for tag in xml.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap_or_default();
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            within.pop();
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if name == "apikey" && within.last() == Some(&"apikey") {
            // Recordings say `<apikey>` in place of the key.
            continue;
        }
        within.push(name);
        out.insert(within.join("/"));
        if tag.ends_with('/') {
            within.pop();
        }
    }
    out
}

/// A text in which ids and numbers are replaced, so that texts about different entities can be compared.
pub fn normal(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_id = core.len() == 36 && core.matches('-').count() == 4;
        let is_number = !core.is_empty() && core.bytes().all(|b| b.is_ascii_digit());
        if is_id || is_number { word.replace(core, "#") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_found() {
        let reference = Reference::load().unwrap();
        let command = &reference.commands["listZones"];
        let recorded = json!({"listzonesresponse": {"count": 1, "zone": [{"id": "a", "name": "z", "gputotal": 0, "localstorageenabled": false}]}});
        let compare = |live: &Value| {
            let mut form = Form::new(&reference);
            form.answer(command, &recorded, live);
            form.found().into_iter().map(|d| format!("{} {}", d.place, d.what)).collect::<Vec<_>>()
        };
        assert!(compare(&json!({"listzonesresponse": {"count": 9, "zone": [{"id": "b", "name": "y", "localstorageenabled": true}]}})).is_empty());
        let live =
            json!({"listzonesresponse": {"count": "1", "zone": [{"id": 5, "nosuch": 1, "localstorageenabled": true}]}});
        assert_eq!(
            compare(&live),
            ["ZoneResponse.id type", "ZoneResponse.name missing", "ZoneResponse.nosuch unknown", "count type"]
        );
        let error = json!({"listzonesresponse": {"errorcode": 431, "errortext": "x"}});
        assert_eq!(compare(&error), ["errorcode error"]);
    }

    #[test]
    fn elements_of_xml() {
        let names = elements("<?xml version=\"1.0\"?><a v=\"1\"><b><c>1</c></b><b/><d>x &lt; y</d></a>");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/d"]);
        assert_eq!(normal("vm 17 (0a0b0c0d-dead-4bad-8bad-0123456789ab)"), "vm # (#)");
    }
}
