//! Digests of what is compiled.

use std::fmt::Write as _;

/// 16 hex digits over all parts. They tell one text from another; nobody who could write one gains by a collision.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut text = String::with_capacity(16);
    for byte in context.finish().as_ref().iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
