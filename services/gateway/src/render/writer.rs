//! What both languages have in common.

use std::fmt::Display;

/// Writes the members of objects. Names are those of the contract: letters and digits.
pub trait Writer {
    /// Whether this is XML, where some things are written differently.
    const XML: bool;

    /// Begins a member that is an object.
    fn begin(&mut self, name: &str);
    /// Ends it.
    fn end(&mut self, name: &str);
    /// A text.
    fn text(&mut self, name: &str, value: &str);
    /// A number or a boolean.
    fn bare(&mut self, name: &str, value: impl Display);
    /// Begins a member that is a list.
    fn begin_list(&mut self, name: &str);
    /// Ends it.
    fn end_list(&mut self, name: &str);
    /// Begins an item that is an object.
    fn begin_item(&mut self, name: &str);
    /// Ends it.
    fn end_item(&mut self, name: &str);
    /// An item that is a text.
    fn item_text(&mut self, name: &str, value: &str);
    /// An item that is a number or a boolean.
    fn item_bare(&mut self, name: &str, value: impl Display);
    /// A map of texts.
    fn map(&mut self, name: &str, entries: &[(&str, &str)]);
}

/// Appends a text percent-encoded, as `encode.api.response` asks for: Java's form encoding with `%20` for spaces.
pub fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*') {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0').to_ascii_uppercase();
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
    }
}
