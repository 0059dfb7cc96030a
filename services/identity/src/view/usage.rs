//! Limit, total and what is left of each kind of resource, as accounts and domains show them.

use crate::resource::{GIB, Resource};

/// Shown in place of a number where there is no limit.
const UNLIMITED: &str = "Unlimited";

/// One kind of resource of one owner, in counted units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The kind.
    pub resource: Resource,
    /// What the owner may have.
    pub max: Option<i64>,
    /// What it has.
    pub used: i64,
}

impl Usage {
    /// The limit.
    pub fn limit(&self) -> Option<String> {
        Some(self.max.map_or_else(|| UNLIMITED.to_owned(), |_| self.resource.to_api(self.max).to_string()))
    }

    /// The total, in the unit of the limit.
    pub fn total(&self) -> Option<i64> {
        Some(self.used / self.resource.unit())
    }

    /// What is left; below 0 when the limit has been lowered since.
    pub fn available(&self) -> Option<String> {
        let left = |_| (self.resource.to_api(self.max) - self.used / self.resource.unit()).to_string();
        Some(self.max.map_or_else(|| UNLIMITED.to_owned(), left))
    }

    /// The total in GiB with a fraction.
    #[allow(clippy::cast_precision_loss)] // for people
    pub fn total_gib(&self) -> Option<f32> {
        Some(self.used as f32 / GIB as f32)
    }

    /// What is left in GiB with a fraction, always with a point.
    #[allow(clippy::cast_precision_loss)] // for people
    pub fn available_gib(&self) -> Option<String> {
        let left = |_| format!("{:?}", self.resource.to_api(self.max) as f32 - self.used as f32 / GIB as f32);
        Some(self.max.map_or_else(|| UNLIMITED.to_owned(), left))
    }
}

/// Fills the fields of a message that has them: `*_limit`, `*_total`, `*_available`.
macro_rules! fill {
    ($message:expr, $usage:expr) => {{
        let usage = $usage;
        let m = &mut $message;
        let u = usage($crate::resource::Resource::Instance);
        (m.vm_limit, m.vm_total, m.vm_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::PublicIp);
        (m.ip_limit, m.ip_total, m.ip_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Volume);
        (m.volume_limit, m.volume_total, m.volume_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Snapshot);
        (m.snapshot_limit, m.snapshot_total, m.snapshot_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Template);
        (m.template_limit, m.template_total, m.template_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Project);
        (m.project_limit, m.project_total, m.project_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Network);
        (m.network_limit, m.network_total, m.network_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Vpc);
        (m.vpc_limit, m.vpc_total, m.vpc_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Cpu);
        (m.cpu_limit, m.cpu_total, m.cpu_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::Memory);
        (m.memory_limit, m.memory_total, m.memory_available) = (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::PrimaryStorage);
        (m.primary_storage_limit, m.primary_storage_total, m.primary_storage_available) =
            (u.limit(), u.total(), u.available());
        let u = usage($crate::resource::Resource::SecondaryStorage);
        (m.secondary_storage_limit, m.secondary_storage_total, m.secondary_storage_available) =
            (u.limit(), u.total_gib(), u.available_gib());
    }};
}
pub(super) use fill;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_in_the_units_of_the_api() {
        let u = Usage { resource: Resource::PrimaryStorage, max: Some(200 * GIB), used: 3 * GIB + GIB / 2 };
        assert_eq!((u.limit().unwrap().as_str(), u.total(), u.available().unwrap().as_str()), ("200", Some(3), "197"));
        let u = Usage { resource: Resource::SecondaryStorage, max: Some(400 * GIB), used: 0 };
        assert_eq!((u.total_gib(), u.available_gib().unwrap().as_str()), (Some(0.0), "400.0"));
        let u = Usage { resource: Resource::Cpu, max: None, used: 7 };
        assert_eq!(
            (u.limit().unwrap().as_str(), u.total(), u.available().unwrap().as_str()),
            ("Unlimited", Some(7), "Unlimited")
        );
    }
}
