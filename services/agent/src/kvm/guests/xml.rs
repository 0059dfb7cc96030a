//! XML as a tree: written for libvirt, and read from it. Escaping is quick-xml's.

use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer};

/// Deepest nesting that is read.
const DEEPEST: usize = 64;

/// An element with attributes and either children or a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

impl Element {
    /// An empty one.
    pub fn new(name: impl Into<String>) -> Element {
        Element { name: name.into(), ..Element::default() }
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, attribute: impl Into<String>, value: impl ToString) -> Element {
        self.attributes.push((attribute.into(), value.to_string()));
        self
    }

    /// With a text.
    #[must_use]
    pub fn text(mut self, text: impl ToString) -> Element {
        self.text = text.to_string();
        self
    }

    /// With one more child.
    #[must_use]
    pub fn child(mut self, child: Element) -> Element {
        self.children.push(child);
        self
    }

    /// With more children.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children);
        self
    }

    /// With a child that has nothing but a text.
    #[must_use]
    pub fn leaf(self, name: &str, text: impl ToString) -> Element {
        self.child(Element::new(name).text(text))
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All children of that name.
    pub fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of that name.
    pub fn get(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// Sets an attribute.
    pub fn set(&mut self, attribute: &str, value: impl ToString) {
        self.attributes.retain(|(known, _)| known != attribute);
        self.attributes.push((attribute.to_owned(), value.to_string()));
    }

    /// Puts a child in the place of the one with its name, or behind all.
    pub fn put(&mut self, child: Element) {
        match self.get_mut(&child.name) {
            Some(former) => *former = child,
            None => self.children.push(child),
        }
    }

    /// What a path of children's names leads to.
    pub fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.get(name))
    }

    /// As XML.
    ///
    /// # Errors
    /// A character that XML can't hold.
    pub fn write(&self) -> Result<String, String> {
        let mut writer = Writer::new(Vec::new());
        self.write_to(&mut writer)?;
        String::from_utf8(writer.into_inner()).map_err(|e| e.to_string())
    }

    fn write_to(&self, writer: &mut Writer<Vec<u8>>) -> Result<(), String> {
        let texts = self.attributes.iter().map(|(_, value)| value).chain([&self.text]);
        for text in texts {
            if let Some(bad) = text.chars().find(|c| !fits(*c)) {
                return Err(format!("{:?} of {} can't be written in XML", bad, self.name));
            }
        }
        let mut start = BytesStart::new(self.name.as_str());
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_str(), value.as_str()));
        }
        let mut put = |event: Event<'_>| writer.write_event(event).map_err(|e| e.to_string());
        if self.text.is_empty() && self.children.is_empty() {
            return put(Event::Empty(start));
        }
        put(Event::Start(start))?;
        if !self.text.is_empty() {
            put(Event::Text(BytesText::new(&self.text)))?;
        }
        for child in &self.children {
            child.write_to(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str()))).map_err(|e| e.to_string())
    }

    /// Reads one element with all that is in it.
    ///
    /// # Errors
    /// It isn't XML.
    pub fn read(xml: &str) -> Result<Element, String> {
        let mut reader = Reader::from_str(xml);
        let mut open = vec![Element::default()];
        loop {
            let told = |e: quick_xml::Error| e.to_string();
            let event = reader.read_event().map_err(told)?;
            let begun = matches!(event, Event::Start(_));
            match event {
                Event::Start(start) | Event::Empty(start) => {
                    let mut element = Element::new(start.name().as_ref());
                    for attribute in start.attributes() {
                        let attribute = attribute.map_err(|e| e.to_string())?;
                        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(told)?;
                        element = element.with(attribute.key.as_ref(), value);
                    }
                    if open.len() >= DEEPEST {
                        return Err("it is nested too deeply".into());
                    }
                    open.push(element);
                    if !begun {
                        close(&mut open);
                    }
                }
                Event::End(_) => close(&mut open),
                Event::Text(part) => add(&mut open, &part),
                Event::CData(part) => add(&mut open, &part),
                Event::GeneralRef(part) => match part.resolve_char_ref().map_err(told)? {
                    Some(c) => add(&mut open, c.encode_utf8(&mut [0; 4])),
                    None => {
                        let known = quick_xml::escape::resolve_predefined_entity(&part);
                        add(&mut open, known.ok_or_else(|| format!("&{}; is unknown", &*part))?);
                    }
                },
                Event::Eof => break,
                _ => {}
            }
        }
        let [root] = open.as_mut_slice() else { return Err("it isn't closed".into()) };
        match root.children.len() {
            1 => Ok(root.children.remove(0)),
            n => Err(format!("it has {n} elements")),
        }
    }
}

/// The reader has checked that ends match.
fn close(open: &mut Vec<Element>) {
    if let Some(mut done) = open.pop() {
        if !done.children.is_empty() {
            done.text.clear(); // only what separates the children
        }
        if let Some(parent) = open.last_mut() {
            parent.children.push(done);
        }
    }
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// Whether XML 1.0 can hold it.
pub(super) fn fits(c: char) -> bool {
    !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_written_is_read(value in "[ -~\\PC]{0,40}", text in "[ -~\\PC]{0,40}") {
            let leaf = Element::new("l").with("k", &value).text(&text);
            let all = Element::new("a").with("x", 1).child(leaf.clone()).child(Element::new("e"));
            let read = Element::read(&all.write().unwrap()).unwrap();
            prop_assert_eq!(read.get("l"), Some(&leaf));
            prop_assert_eq!(read, all);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a-c&;\"'= !?\\-\\[\\]]{0,60}") {
            let _ = Element::read(&text);
        }
    }

    #[test]
    fn what_xml_cannot_hold_is_refused() {
        assert!(Element::new("a").text("b\0c").write().is_err());
        assert!(Element::new("a").with("b", "\u{1b}").write().is_err());
        assert_eq!(Element::new("a").with("b", "'<&\">").write().unwrap(), "<a b=\"&apos;&lt;&amp;&quot;&gt;\"/>");
    }
}
