//! The words of rules, as the database and the API use them.

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// The word that the database and the API use.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),* }
            }
            /// Reads the word.
            pub fn parse(word: &str) -> Option<$name> {
                match word { $(stringify!($variant) => Some($name::$variant),)* _ => None }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl From<$name> for store::Value {
            fn from(word: $name) -> Self { store::Value::Text(word.as_str().to_owned()) }
        }
        impl store::Column for $name {
            fn read(row: &store::Row, column: &str) -> store::Result<Self> {
                known(row.get(column)?, column, $name::parse)
            }
            fn read_at(row: &store::Row, index: usize) -> store::Result<Self> {
                known(row.at(index)?, &index.to_string(), $name::parse)
            }
        })*
    };
}

fn known<T>(word: String, column: &str, parse: fn(&str) -> Option<T>) -> store::Result<T> {
    parse(&word)
        .ok_or_else(|| store::Error::Column { column: column.to_owned(), reason: format!("unknown word {word}") })
}

words! {
    /// What a rule is for.
    Purpose {
        /** Lets traffic pass. */ Firewall,
        /** Ports of an address are a VM's. */ PortForwarding,
        /** Ports of an address that stands for a VM (createIpForwardingRule). */ StaticNat,
        /** Ports of an address are spread over VMs. */ LoadBalancing,
    }
    /// Which way the traffic goes.
    Traffic {
        /** To a public address. */ Ingress,
        /** From guests. */ Egress,
    }
    /// How far a rule is (states.json).
    RuleState {
        /** Accepted; its job hasn't begun. */ Staged,
        /** Wanted. */ Add,
        /** The router has it. */ Active,
        /** No longer wanted. */ Revoke,
    }
}

impl Purpose {
    /// The network service that gives such rules.
    pub const fn service(self) -> &'static str {
        match self {
            Purpose::Firewall => "Firewall",
            Purpose::PortForwarding => "PortForwarding",
            Purpose::StaticNat => "StaticNat",
            Purpose::LoadBalancing => "Lb",
        }
    }
}
