//! States that more than one service reads. Stored as the words that the API shows.

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }
        impl $name {
            /// All values.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The word that the database and the API use.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),* }
            }
            /// Reads the word, whatever its case.
            pub fn parse(word: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|s| s.as_str().eq_ignore_ascii_case(word))
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl From<$name> for store::Value {
            fn from(s: $name) -> Self { store::Value::Text(s.as_str().to_owned()) }
        }
        impl store::Column for $name {
            fn read(row: &store::Row, column: &str) -> store::Result<Self> {
                word(row.get(column)?, column, $name::parse)
            }
            fn read_at(row: &store::Row, index: usize) -> store::Result<Self> {
                word(row.at(index)?, &index.to_string(), $name::parse)
            }
        })*
    };
}

fn word<T>(word: String, column: &str, parse: fn(&str) -> Option<T>) -> store::Result<T> {
    parse(&word)
        .ok_or_else(|| store::Error::Column { column: column.to_owned(), reason: format!("unknown state {word}") })
}

states! {
    /// Whether new things may be placed in a zone, pod or cluster, or a network provider or offering be used.
    AllocationState { /** May be used. */ Enabled, /** May not. */ Disabled }
    /// Accounts and users.
    AccountState {
        /** May log in and call. */ Enabled,
        /** May not. */ Disabled,
        /** May log in, not start things. */ Locked,
    }
    /// Networks (states.json).
    NetworkState {
        /** Just made. */ Allocated,
        /** Its design is done. */ Setup,
        /** Resources are being set up. */ Implementing,
        /** In use: router and VLAN exist. */ Implemented,
        /** Being torn down. */ Shutdown,
        /** Gone. */ Destroy,
    }
    /// Volumes (states.json).
    VolumeState {
        /** A row without bytes. */ Allocated,
        /** Bytes are being made. */ Creating,
        /** Usable. */ Ready,
        /** A data volume that its owner deleted. */ Destroy,
        /** Bytes are being deleted. */ Expunging,
        /** Gone. */ Expunged,
    }
    /// Virtual machines (states.json).
    VmState {
        /** Being started. */ Starting,
        /** Runs on a host. */ Running,
        /** Being stopped. */ Stopping,
        /** Off. */ Stopped,
        /** Destroyed; can be recovered until expunged. */ Destroyed,
        /** Being expunged. */ Expunging,
        /** Moving between hosts. */ Migrating,
        /** Failed to be created. */ Error,
        /** Nobody knows. */ Unknown,
        /** Being shut down by its guest. */ Shutdowned,
    }
    /// Hosts: connection with the control plane.
    HostStatus {
        /** Added, never connected. */ Creating,
        /** Handshake under way. */ Connecting,
        /** Connected. */ Up,
        /** Silent, or known down. */ Down,
        /** Went away in order. */ Disconnected,
        /** Failed. */ Alert,
        /** Deleted. */ Removed,
        /** Handshake failed. */ Error,
    }
    /// Hosts: what the administrator wants.
    ResourceState {
        /** Takes VMs. */ Enabled,
        /** Takes none. */ Disabled,
        /** Is being emptied. */ PrepareForMaintenance,
        /** Empty, in maintenance. */ Maintenance,
        /** Could not be emptied. */ ErrorInMaintenance,
    }
    /// Primary storage pools.
    PoolState {
        /** Usable. */ Up,
        /** Disabled by an administrator. */ Disabled,
        /** In maintenance. */ Maintenance,
        /** Maintenance under way. */ PrepareForMaintenance,
        /** Being removed. */ Removed,
    }
}
