//! XDR (RFC 4506), as far as libvirt uses it: big-endian units of four bytes.
//!
//! Nothing here trusts the other side: lengths are checked against what is there and against libvirt's own limits before
//! anything is allocated, and every fault is a [`WireError`].

use thiserror::Error;

/// Longest string or opaque field, bytes (`REMOTE_STRING_MAX`, `REMOTE_MIGRATE_COOKIE_MAX`).
pub const STRING_MAX: usize = 4 << 20;
/// Longest list unless its elements say otherwise (`REMOTE_DOMAIN_LIST_MAX`).
pub const LIST_MAX: usize = 16_384;

/// Bytes that aren't what the protocol says, or a value that doesn't fit into it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("the message ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes too many in the message")]
    Trailing(usize),
    /// A string, opaque field or list is longer than libvirt allows.
    #[error("a length of {length}, where at most {max} is allowed")]
    TooLong {
        /// What was found.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// A tag, boolean or enumeration has no such value.
    #[error("{value} is no {what}")]
    BadValue {
        /// What was expected.
        what: &'static str,
        /// What was found.
        value: i64,
    },
    /// Text with a NUL: libvirt would cut it there.
    #[error("text with a NUL character")]
    Nul,
}

/// Writes values. The first fault is kept and told by [`Encoder::finish`].
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    fault: Option<WireError>,
}

impl Encoder {
    /// With nothing written.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// The bytes.
    ///
    /// # Errors
    /// What didn't fit.
    pub fn finish(self) -> Result<Vec<u8>, WireError> {
        self.fault.map_or(Ok(self.out), Err)
    }

    /// An unsigned number of 32 bits.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// An unsigned number of 64 bits ("unsigned hyper").
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes whose number the protocol fixes, padded to a multiple of four.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    /// Bytes of any number up to [`STRING_MAX`].
    pub fn opaque(&mut self, bytes: &[u8]) {
        if self.length(bytes.len(), STRING_MAX) {
            self.fixed(bytes);
        }
    }

    /// Text without NUL.
    pub fn string(&mut self, text: &str) {
        if text.contains('\0') {
            self.fail(WireError::Nul);
        }
        self.opaque(text.as_bytes());
    }

    /// Bytes as they are: the payload of a stream.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize, max: usize) -> bool {
        match u32::try_from(length) {
            Ok(n) if length <= max => self.u32(n),
            _ => self.fail(WireError::TooLong { length, max }),
        }
        self.fault.is_none()
    }

    fn fail(&mut self, fault: WireError) {
        self.fault.get_or_insert(fault);
    }
}

/// Reads values from a slice.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Over the whole slice.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.rest.len())) }
    }

    /// What is left, unread.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// An unsigned number of 32 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_be_bytes)
    }

    /// An unsigned number of 64 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_be_bytes)
    }

    /// Sixteen bytes: a UUID.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn uuid(&mut self) -> Result<uuid::Uuid, WireError> {
        self.take().map(uuid::Uuid::from_bytes)
    }

    /// A length of at most `max`.
    fn length(&mut self, max: usize) -> Result<usize, WireError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > max { Err(WireError::TooLong { length, max }) } else { Ok(length) }
    }

    /// Bytes of any number up to [`STRING_MAX`].
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn opaque(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.length(STRING_MAX)?;
        let bytes = self.rest.get(..length).ok_or(WireError::Truncated)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).ok_or(WireError::Truncated)?;
        Ok(bytes)
    }

    /// Text. Bytes that aren't UTF-8 become U+FFFD: libvirt promises no encoding.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn string(&mut self) -> Result<String, WireError> {
        self.opaque().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// A value that can be sent.
pub trait Encode {
    /// Writes it.
    fn encode(&self, to: &mut Encoder);
}

/// A value that can be received.
pub trait Decode: Sized {
    /// Longest list of these that is accepted.
    const LIST_MAX: usize = LIST_MAX;

    /// Reads it.
    ///
    /// # Errors
    /// When the bytes aren't such a value.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError>;
}

/// Reads a whole message.
///
/// # Errors
/// When the bytes aren't such a value, or more than that.
pub fn decode_all<T: Decode>(bytes: &[u8]) -> Result<T, WireError> {
    let mut from = Decoder::new(bytes);
    let value = T::decode(&mut from)?;
    from.end()?;
    Ok(value)
}

/// Bytes of any number (`opaque<>`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(pub Vec<u8>);

impl From<Vec<u8>> for Opaque {
    fn from(bytes: Vec<u8>) -> Opaque {
        Opaque(bytes)
    }
}

impl Encode for Opaque {
    fn encode(&self, to: &mut Encoder) {
        to.opaque(&self.0);
    }
}

impl Decode for Opaque {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.opaque().map(|bytes| Opaque(bytes.to_vec()))
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, to: &mut Encoder) {
        (**self).encode(to);
    }
}

impl Encode for str {
    fn encode(&self, to: &mut Encoder) {
        to.string(self);
    }
}

impl Encode for String {
    fn encode(&self, to: &mut Encoder) {
        to.string(self);
    }
}

impl Decode for String {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.string()
    }
}

macro_rules! numbers {
    ($($number:ty as $wire:ident),*) => {$(
        impl Encode for $number {
            fn encode(&self, to: &mut Encoder) {
                to.$wire(<$wire>::from_be_bytes(self.to_be_bytes()));
            }
        }
        impl Decode for $number {
            fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
                from.$wire().map(|n| <$number>::from_be_bytes(n.to_be_bytes()))
            }
        }
    )*};
}
numbers!(u32 as u32, i32 as u32, u64 as u64, i64 as u64, f64 as u64);

impl Encode for bool {
    fn encode(&self, to: &mut Encoder) {
        to.u32(u32::from(*self));
    }
}

impl Decode for bool {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        match from.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::BadValue { what: "boolean", value: other.into() }),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Encoder) {
        self.is_some().encode(to);
        if let Some(value) = self {
            value.encode(to);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        if bool::decode(from)? { T::decode(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, to: &mut Encoder) {
        if to.length(self.len(), usize::MAX) {
            self.iter().for_each(|value| value.encode(to));
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let length = from.length(T::LIST_MAX)?;
        // Grows as elements are really there: a short message can't ask for much memory.
        (0..length).map(|_| T::decode(from)).collect::<Result<Vec<T>, WireError>>()
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {$(
        impl<$($name: Encode),*> Encode for ($($name,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn encode(&self, to: &mut Encoder) {
                let ($($name,)*) = self;
                $($name.encode(to);)*
            }
        }
        impl<$($name: Decode),*> Decode for ($($name,)*) {
            #[allow(unused_variables, clippy::unused_unit)]
            fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
                Ok(($($name::decode(from)?,)*))
            }
        }
    )*};
}
tuples! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) }

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(value: impl Encode) -> Vec<u8> {
        let mut to = Encoder::new();
        value.encode(&mut to);
        to.finish().unwrap()
    }

    #[test]
    fn values_look_as_rfc_4506_says() {
        assert_eq!(bytes(-2_i32), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(bytes(1_u64 << 32), [0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes("abcde"), [0, 0, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        assert_eq!(bytes((Some("a"), None::<&str>)), [0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes([7_u32, 8].as_slice()), [0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 8]);
        assert_eq!(bytes(1.5_f64), [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_when_written() {
        let mut to = Encoder::new();
        ("a\0b", 1_u32).encode(&mut to);
        assert_eq!(to.finish(), Err(WireError::Nul));
        let mut to = Encoder::new();
        "x".repeat(STRING_MAX + 1).encode(&mut to);
        assert!(matches!(to.finish(), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn lying_lengths_are_refused_when_read() {
        assert_eq!(decode_all::<String>(&[0, 0, 0, 9, b'a', 0, 0, 0]), Err(WireError::Truncated));
        assert_eq!(decode_all::<String>(&[0, 0, 0, 1, b'a']), Err(WireError::Truncated), "padding is missing");
        assert!(matches!(decode_all::<String>(&[0xff; 8]), Err(WireError::TooLong { .. })));
        assert!(matches!(decode_all::<Vec<u32>>(&[0xff; 8]), Err(WireError::TooLong { .. })));
        assert_eq!(decode_all::<Vec<u32>>(&[0, 0, 0x3f, 0, 0, 0, 0, 0]), Err(WireError::Truncated));
        assert_eq!(decode_all::<u32>(&[0; 8]), Err(WireError::Trailing(4)));
        assert!(matches!(decode_all::<bool>(&[0, 0, 0, 2]), Err(WireError::BadValue { .. })));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            text in "[^\0]{0,40}", n in any::<i64>(), o in any::<Option<u32>>(), list in prop::collection::vec(any::<i32>(), 0..9)
        ) {
            let written = bytes((text.as_str(), n, o, list.as_slice()));
            prop_assert_eq!(written.len() % 4, 0);
            prop_assert_eq!(decode_all::<(String, i64, Option<u32>, Vec<i32>)>(&written).unwrap(), (text, n, o, list));
        }
    }
}
