//! Macros for libvirt's enumerations: open ones, since a newer libvirt knows more values than we do.

/// A number with names: `codes! { /// doc pub struct Colour(i32) { RED = 1, } }`.
macro_rules! codes {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$item_doc:meta])* $item:ident = $value:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i32);

        #[allow(missing_docs)] // names as in libvirt's headers
        impl $name {
            $($(#[$item_doc])* pub const $item: $name = $name($value);)*
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($item)),)*
                    other => write!(f, "{}({other})", stringify!($name)),
                }
            }
        }

        impl $crate::wire::Encode for $name {
            fn encode(&self, to: &mut $crate::wire::Encoder) {
                self.0.encode(to);
            }
        }

        impl $crate::wire::Decode for $name {
            fn decode(from: &mut $crate::wire::Decoder<'_>) -> Result<Self, $crate::wire::WireError> {
                i32::decode(from).map($name)
            }
        }
    )*};
}

/// A set of bits: `flags! { /// doc pub struct Colours { RED = 1, } }`. Joined with `|`; the default is none.
macro_rules! flags {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$item_doc:meta])* $item:ident = $value:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub u32);

        #[allow(missing_docs)] // names as in libvirt's headers
        impl $name {
            $($(#[$item_doc])* pub const $item: $name = $name($value);)*

            /// No bit at all.
            pub const fn none() -> $name {
                $name(0)
            }

            /// Whether all bits of `other` are in it.
            pub const fn contains(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = $name;
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl $crate::wire::Encode for $name {
            fn encode(&self, to: &mut $crate::wire::Encoder) {
                to.u32(self.0);
            }
        }
    )*};
}
