//! Kinds of resources that are counted and limited.

use config::{Key, Settings, keys};

/// A kind of resource (enums.json, resource types).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Resource {
    /// Virtual machines.
    Instance = 0,
    /// Public addresses.
    PublicIp = 1,
    /// Volumes.
    Volume = 2,
    /// Snapshots.
    Snapshot = 3,
    /// Templates and ISOs.
    Template = 4,
    /// Projects.
    Project = 5,
    /// Networks.
    Network = 6,
    /// VPCs.
    Vpc = 7,
    /// CPU cores.
    Cpu = 8,
    /// Memory, MiB.
    Memory = 9,
    /// Primary storage, bytes.
    PrimaryStorage = 10,
    /// Secondary storage, bytes.
    SecondaryStorage = 11,
}

/// Bytes of the unit in which people give limits of storage.
pub const GIB: i64 = 1 << 30;

/// All kinds, by number.
pub const ALL: [Resource; 12] = [
    Resource::Instance,
    Resource::PublicIp,
    Resource::Volume,
    Resource::Snapshot,
    Resource::Template,
    Resource::Project,
    Resource::Network,
    Resource::Vpc,
    Resource::Cpu,
    Resource::Memory,
    Resource::PrimaryStorage,
    Resource::SecondaryStorage,
];

impl Resource {
    /// Its number.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The kind with this number.
    pub fn of(number: i32) -> Option<Resource> {
        ALL.into_iter().find(|r| r.number() == number)
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Resource> {
        ALL.into_iter().find(|r| r.name().eq_ignore_ascii_case(name))
    }

    /// What the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Instance => "user_vm",
            Resource::PublicIp => "public_ip",
            Resource::Volume => "volume",
            Resource::Snapshot => "snapshot",
            Resource::Template => "template",
            Resource::Project => "project",
            Resource::Network => "network",
            Resource::Vpc => "vpc",
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
            Resource::PrimaryStorage => "primary_storage",
            Resource::SecondaryStorage => "secondary_storage",
        }
    }

    /// How many counted units a unit of the API's limits is: limits of storage are in GiB, counts in bytes.
    pub fn unit(self) -> i64 {
        match self {
            Resource::PrimaryStorage | Resource::SecondaryStorage => GIB,
            _ => 1,
        }
    }

    /// A limit as the API gives it, in counted units; below 0: none.
    pub fn counted(self, max: i64) -> i64 {
        if max < 0 { -1 } else { max.saturating_mul(self.unit()) }
    }

    /// A limit in counted units as the API shows it: rounded up, -1 for none.
    pub fn to_api(self, max: Option<i64>) -> i64 {
        max.map_or(-1, |m| m.div_ceil_positive(self.unit()))
    }

    /// The limit of accounts that have none of their own.
    pub fn account_default(self, settings: &Settings) -> Option<i64> {
        let key = match self {
            Resource::Instance => keys::MAX_ACCOUNT_USER_VMS,
            Resource::PublicIp => keys::MAX_ACCOUNT_PUBLIC_IPS,
            Resource::Volume => keys::MAX_ACCOUNT_VOLUMES,
            Resource::Snapshot => keys::MAX_ACCOUNT_SNAPSHOTS,
            Resource::Template => keys::MAX_ACCOUNT_TEMPLATES,
            Resource::Project => return None, // 4.11 has no such setting
            Resource::Network => keys::MAX_ACCOUNT_NETWORKS,
            Resource::Vpc => keys::MAX_ACCOUNT_VPCS,
            Resource::Cpu => keys::MAX_ACCOUNT_CPUS,
            Resource::Memory => keys::MAX_ACCOUNT_MEMORY,
            Resource::PrimaryStorage => keys::MAX_ACCOUNT_PRIMARY_STORAGE,
            Resource::SecondaryStorage => keys::MAX_ACCOUNT_SECONDARY_STORAGE,
        };
        self.setting(settings, key)
    }

    /// The limit of domains that have none of their own or above.
    pub fn domain_default(self, settings: &Settings) -> Option<i64> {
        let key = match self {
            Resource::Instance => keys::MAX_DOMAIN_USER_VMS,
            Resource::PublicIp => keys::MAX_DOMAIN_PUBLIC_IPS,
            Resource::Volume => keys::MAX_DOMAIN_VOLUMES,
            Resource::Snapshot => keys::MAX_DOMAIN_SNAPSHOTS,
            Resource::Template => keys::MAX_DOMAIN_TEMPLATES,
            Resource::Project => return None,
            Resource::Network => keys::MAX_DOMAIN_NETWORKS,
            Resource::Vpc => keys::MAX_DOMAIN_VPCS,
            Resource::Cpu => keys::MAX_DOMAIN_CPUS,
            Resource::Memory => keys::MAX_DOMAIN_MEMORY,
            Resource::PrimaryStorage => keys::MAX_DOMAIN_PRIMARY_STORAGE,
            Resource::SecondaryStorage => keys::MAX_DOMAIN_SECONDARY_STORAGE,
        };
        self.setting(settings, key)
    }

    fn setting(self, settings: &Settings, key: Key<i64>) -> Option<i64> {
        finite(self.counted(settings.get(key)))
    }
}

/// A limit, or none where it is negative.
pub fn finite(max: i64) -> Option<i64> {
    (max >= 0).then_some(max)
}

trait DivCeil {
    fn div_ceil_positive(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_positive(self, by: i64) -> i64 {
        self / by + i64::from(self % by > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_api() {
        for (n, resource) in (0..).zip(ALL) {
            assert_eq!(resource.number(), n);
            assert_eq!(Resource::of(n), Some(resource));
            assert_eq!(Resource::named(resource.name()), Some(resource));
        }
        assert_eq!(Resource::of(12), None);
    }

    #[test]
    fn storage_is_limited_in_gib_and_counted_in_bytes() {
        assert_eq!(Resource::PrimaryStorage.counted(200), 200 * GIB);
        assert_eq!(Resource::PrimaryStorage.to_api(Some(200 * GIB - 1)), 200);
        assert_eq!(Resource::Memory.counted(40960), 40960);
        assert_eq!((Resource::Cpu.counted(-5), Resource::Cpu.to_api(None)), (-1, -1));
    }
}
