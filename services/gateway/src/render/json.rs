//! JSON, as 4.11 writes it: bare numbers, non-ASCII text as it is.

use std::fmt::{Display, Write as _};

use super::writer::{Writer, percent_encode};

/// A JSON answer under way.
pub struct Json {
    out: String,
    encode: bool,
}

impl Json {
    /// Begins `{"wrapper":{`.
    pub fn begin(wrapper: &str, capacity: usize, encode: bool) -> Json {
        let mut json = Json { out: String::with_capacity(capacity), encode };
        json.out.push_str("{\"");
        json.out.push_str(wrapper);
        json.out.push_str("\":{");
        json
    }

    /// Ends the wrapper.
    pub fn finish(mut self) -> String {
        self.out.push_str("}}");
        self.out
    }

    /// Separates from what stands before, unless nothing does.
    fn comma(&mut self) {
        // Text never ends the output here: it is always followed by a quote.
        if !self.out.ends_with(['{', '[']) {
            self.out.push(',');
        }
    }

    fn key(&mut self, name: &str) {
        self.comma();
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }

    fn string(&mut self, value: &str) {
        self.out.push('"');
        if self.encode {
            percent_encode(&mut self.out, value);
        } else {
            escape(&mut self.out, value);
        }
        self.out.push('"');
    }
}

/// Appends a text with JSON's escapes.
fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        // What is looked for is ASCII, so this cuts between characters.
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

impl Writer for Json {
    const XML: bool = false;

    fn begin(&mut self, name: &str) {
        self.key(name);
        self.out.push('{');
    }

    fn end(&mut self, _name: &str) {
        self.out.push('}');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.string(value);
    }

    fn bare(&mut self, name: &str, value: impl Display) {
        self.key(name);
        let _ = write!(self.out, "{value}");
    }

    fn begin_list(&mut self, name: &str) {
        self.key(name);
        self.out.push('[');
    }

    fn end_list(&mut self, _name: &str) {
        self.out.push(']');
    }

    fn begin_item(&mut self, _name: &str) {
        self.comma();
        self.out.push('{');
    }

    fn end_item(&mut self, _name: &str) {
        self.out.push('}');
    }

    fn item_text(&mut self, _name: &str, value: &str) {
        self.comma();
        self.string(value);
    }

    fn item_bare(&mut self, _name: &str, value: impl Display) {
        self.comma();
        let _ = write!(self.out, "{value}");
    }

    fn map(&mut self, name: &str, entries: &[(&str, &str)]) {
        self.begin(name);
        for (key, value) in entries {
            self.comma();
            self.out.push('"');
            escape(&mut self.out, key);
            self.out.push_str("\":");
            self.string(value);
        }
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_survives(text in "[\\x00-\\x7f\\PC]{0,40}", key in "[\\x00-\\x7f\\PC]{0,10}") {
            let mut json = Json::begin("w", 0, false);
            json.text("a", &text);
            json.begin_list("l");
            json.item_text("l", &text);
            json.item_bare("l", 1);
            json.end_list("l");
            json.map("m", &[(key.as_str(), text.as_str())]);
            json.bare("n", u64::MAX);
            let read: serde_json::Value = serde_json::from_str(&json.finish()).unwrap();
            let wanted = serde_json::json!({"w": {"a": text, "l": [text, 1], "m": {key: text}, "n": u64::MAX}});
            prop_assert_eq!(read, wanted);
        }
    }

    #[test]
    fn encoding_follows_the_setting() {
        let mut json = Json::begin("w", 0, true);
        json.text("a", "x y~ü*");
        assert_eq!(json.finish(), r#"{"w":{"a":"x%20y%7E%C3%BC*"}}"#);
    }
}
