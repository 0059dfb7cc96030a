//! XML, as 4.11 writes it: an element a field, lists repeat their element, numbers in lists and empty lists vanish.

use std::fmt::{Display, Write as _};

use super::writer::{Writer, percent_encode};

/// The version that clients are told.
pub const VERSION: &str = "4.11.1.0";

/// An XML answer under way.
pub struct Xml {
    out: String,
    wrapper: String,
    encode: bool,
}

impl Xml {
    /// Begins the wrapper element.
    pub fn begin(wrapper: &str, capacity: usize, encode: bool) -> Xml {
        let mut out = String::with_capacity(capacity);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?><");
        out.push_str(wrapper);
        out.push_str(" cloud-stack-version=\"");
        out.push_str(VERSION);
        out.push_str("\">");
        Xml { out, wrapper: wrapper.to_owned(), encode }
    }

    /// Ends the wrapper.
    pub fn finish(mut self) -> String {
        let wrapper = std::mem::take(&mut self.wrapper);
        self.close(&wrapper);
        self.out
    }

    fn open(&mut self, name: &str) {
        self.out.push('<');
        self.out.push_str(name);
        self.out.push('>');
    }

    fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    fn content(&mut self, value: &str) {
        if self.encode {
            percent_encode(&mut self.out, value);
        } else {
            escape(&mut self.out, value);
        }
    }
}

/// Appends a text with XML's escapes; characters that XML can't hold are replaced.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // A bare carriage return would be read as a line feed.
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

impl Writer for Xml {
    const XML: bool = true;

    fn begin(&mut self, name: &str) {
        self.open(name);
    }

    fn end(&mut self, name: &str) {
        self.close(name);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.open(name);
        self.content(value);
        self.close(name);
    }

    fn bare(&mut self, name: &str, value: impl Display) {
        self.open(name);
        // Writing to a String can't fail.
        let _ = write!(self.out, "{value}");
        self.close(name);
    }

    fn begin_list(&mut self, _name: &str) {}

    fn end_list(&mut self, _name: &str) {}

    fn begin_item(&mut self, name: &str) {
        self.open(name);
    }

    fn end_item(&mut self, name: &str) {
        self.close(name);
    }

    fn item_text(&mut self, name: &str, value: &str) {
        self.text(name, value);
    }

    fn item_bare(&mut self, _name: &str, _value: impl Display) {}

    fn map(&mut self, name: &str, entries: &[(&str, &str)]) {
        // 4.11 prints Java's form of the map; element names can't hold any key.
        let pairs: Vec<String> = entries.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.text(name, &format!("{{{}}}", pairs.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quick_xml::events::Event;

    /// The text inside the wrapper's only element.
    fn text_of(xml: &str) -> String {
        let mut reader = quick_xml::Reader::from_str(xml);
        let mut text = String::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Text(part) => text.push_str(&part),
                Event::GeneralRef(part) => match part.resolve_char_ref().unwrap() {
                    Some(c) => text.push(c),
                    None => text.push_str(quick_xml::escape::resolve_predefined_entity(&part).unwrap()),
                },
                Event::Eof => return text,
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "[\\t\\r\\n -~\\PC]{0,40}") {
            let mut xml = Xml::begin("w", 0, false);
            xml.text("a", &text);
            prop_assert_eq!(text_of(&xml.finish()), text);
        }

        #[test]
        fn control_characters_leave_it_well_formed(text in "[\\x00-\\x1f\\u{fffe}]{0,10}") {
            let mut xml = Xml::begin("w", 0, false);
            xml.text("a", &text);
            prop_assert_eq!(text_of(&xml.finish()).chars().count(), text.chars().count());
        }
    }
}
