//! What a VM may become (VM-232 and others).

use crate::store::vm_order::{self as facts, OfferingFacts};
use crate::store::vm_shapes::{self as shapes, Bond, Shape};
use crate::store::vms::VmRow;
use crate::vm::order::{is_size, size, within_domain};
use crate::vm::{VmWorld, view};
use config::{Scope, keys};
use contract::ApiError;
use model::state::VmState;
use std::collections::{BTreeMap, HashMap};

/// Hypervisors whose running guests can be scaled.
const WHILE_RUNNING: [&str; 3] = ["Simulator", "XenServer", "VMware"];

/// Everything that must be known to judge a change, read beforehand.
pub struct Facts {
    offering: OfferingFacts,
    bond: Bond,
    /// Of the ROOT disk's pool.
    pool_tags: Option<Vec<String>>,
    /// Whether the zone lets running VMs be scaled.
    dynamic: bool,
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// 431 when the offering is gone.
    pub async fn read(world: &VmWorld, vm: &VmRow, offering: i64) -> Result<Facts, ApiError> {
        let db = &world.node.db;
        let (found, bond, pool_tags) = tokio::try_join!(
            facts::offering(db, offering),
            shapes::bond(db, vm.id),
            shapes::root_pool_tags(db, vm.id)
        )?;
        Ok(Facts {
            offering: found.ok_or_else(|| ApiError::param("Unable to find service offering by id"))?,
            bond: bond.ok_or_else(|| ApiError::internal("a virtual machine has no service offering"))?,
            pool_tags,
            dynamic: world.node.settings.get_in(keys::ENABLE_DYNAMIC_SCALE_VM, Scope::Zone(vm.zone_id)),
        })
    }

    /// What the VM becomes.
    ///
    /// # Errors
    /// 431 for what the VM, its offering or the new one don't allow; 531 where the zone lets no running VM be scaled; 530 for
    /// a running VM whose guest can't be.
    pub fn judge(
        &self,
        vm: &VmRow,
        now: &Shape,
        offering: i64,
        details: &HashMap<String, String>,
    ) -> Result<Shape, ApiError> {
        let what = view::label(vm);
        if !matches!(vm.state, VmState::Stopped | VmState::Running) {
            return Err(ApiError::param(format!(
                "Unable to upgrade virtual machine {what} in state {}; make sure the virtual machine is stopped/running",
                vm.state
            )));
        }
        let running = vm.state == VmState::Running;
        if running && !WHILE_RUNNING.contains(&vm.hypervisor.as_str()) {
            return Err(ApiError::param(format!(
                "Scaling the VM dynamically is not supported for VMs running on Hypervisor {}",
                vm.hypervisor
            )));
        }
        let (cpu, cpu_mhz, memory_mb) = size(&self.offering, details)?;
        if !self.offering.customized && now.offering == offering {
            return Err(ApiError::param(format!(
                "Not upgrading vm {what} since it already has the requested service offering ({})",
                self.offering.name
            )));
        }
        self.fits(vm)?;
        if running {
            self.while_running(vm, now, (cpu, cpu_mhz, memory_mb))?;
        }
        let mut kept: BTreeMap<String, String> =
            now.details.iter().filter(|(key, _)| !is_size(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if self.offering.customized {
            for (key, value) in [("cpuNumber", cpu), ("cpuSpeed", cpu_mhz), ("memory", memory_mb)] {
                kept.insert(key.to_owned(), value.to_string());
            }
        }
        Ok(Shape { offering, cpu, cpu_mhz, memory_mb, details: kept, ha_enabled: self.offering.ha })
    }

    /// Whether the offering is one for this VM and its disks.
    fn fits(&self, vm: &VmRow) -> Result<(), ApiError> {
        let (new, what) = (&self.offering, view::label(vm));
        within_domain(new.domain_path.as_deref(), &vm.owner, "service offering")?;
        if self.bond.local_storage != new.local_storage {
            return Err(ApiError::param(format!(
                "Unable to upgrade virtual machine {what}, cannot switch between local storage and shared storage service \
                 offerings.  Current offering useLocalStorage={}, target offering useLocalStorage={}",
                self.bond.local_storage, new.local_storage
            )));
        }
        if new.system {
            return Err(ApiError::param(
                "isSystem property is different for current service offering and new service offering",
            ));
        }
        let has = |tags: &[String], tag: &String| tags.iter().any(|known| known == tag);
        if !self.bond.storage_tags.iter().all(|tag| has(&new.storage_tags, tag)) {
            return Err(ApiError::param(format!(
                "Unable to upgrade virtual machine; the current service offering  should have tags as subset of the new service \
                 offering tags. Current service offering tags: {:?}; new service offering tags: {:?}",
                self.bond.storage_tags, new.storage_tags
            )));
        }
        // Tags that come in: the ROOT disk stays where it is, so its pool must have them already (REL-131).
        let mut added = new.storage_tags.iter().filter(|tag| !has(&self.bond.storage_tags, tag));
        let here = self.pool_tags.as_deref().unwrap_or_default();
        if let Some(tag) = added.find(|tag| !has(here, tag)) {
            return Err(ApiError::param(format!(
                "Unable to upgrade virtual machine {what}: the new service offering wants storage with the tag {tag}, and the \
                 ROOT disk doesn't lie on such a pool"
            )));
        }
        Ok(())
    }

    /// A running VM only grows, where all agree that it can (VM-242, INST-214).
    fn while_running(&self, vm: &VmRow, now: &Shape, (cpu, mhz, memory): (i64, i64, i64)) -> Result<(), ApiError> {
        let (old_cpu, old_mhz, old_memory) = (now.cpu, now.cpu_mhz, now.memory_mb);
        let less = mhz < old_mhz || memory < old_memory || cpu < old_cpu;
        if less || (cpu, mhz, memory) == (old_cpu, old_mhz, old_memory) {
            return Err(ApiError::param(format!(
                "Only scaling up the vm is supported, new service offering(speed={mhz},cpu={cpu},memory={memory}) should have at \
                 least one value(cpu/ram) greater than old value and no resource value less than \
                 older(speed={old_mhz},cpu={old_cpu},memory={old_memory})"
            )));
        }
        if !self.dynamic {
            return Err(ApiError::permission(
                "Dynamically scaling virtual machines is disabled for this zone, please contact your admin",
            ));
        }
        if !self.bond.dynamic {
            return Err(ApiError::failed(format!(
                "Unable to Scale the vm: {} as vm does not have tools to support dynamic scaling",
                vm.uuid
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Owner;

    fn vm(state: VmState, hypervisor: &str) -> VmRow {
        VmRow {
            id: 1,
            uuid: "u".into(),
            name: "n".into(),
            display_name: "n".into(),
            instance_name: "i-2-1-VM".into(),
            state,
            owner: Owner { account_id: 2, domain_id: 1, domain_path: "/1/".into() },
            user_id: 2,
            zone_id: 1,
            host_id: None,
            last_host_id: None,
            template_id: 1,
            iso_id: None,
            os_type_id: None,
            hypervisor: hypervisor.into(),
            service_offering_id: 1,
            cpu: 1,
            cpu_mhz: 500,
            memory_mb: 512,
            user_data: None,
            public_key: None,
            details: BTreeMap::from([("memory".into(), "512".into()), ("keyboard".into(), "de".into())]),
            generation: 1,
            limits_key: "vm:u".into(),
            changed: 0,
            removed: false,
        }
    }

    fn facts(cpu: Option<i64>, dynamic: bool) -> Facts {
        Facts {
            offering: OfferingFacts {
                name: "o".into(),
                cpu,
                cpu_mhz: Some(500),
                memory_mb: Some(1024),
                customized: cpu.is_none(),
                ha: false,
                system: false,
                domain_path: None,
                host_tags: Vec::new(),
                storage_tags: Vec::new(),
                local_storage: false,
            },
            bond: Bond { local_storage: false, storage_tags: Vec::new(), dynamic: true },
            pool_tags: None,
            dynamic,
        }
    }

    fn judged(facts: &Facts, vm: &VmRow, details: &[(&str, &str)]) -> Result<Shape, ApiError> {
        let now = Shape {
            offering: vm.service_offering_id,
            cpu: vm.cpu,
            cpu_mhz: vm.cpu_mhz,
            memory_mb: vm.memory_mb,
            details: vm.details.clone(),
            ha_enabled: false,
        };
        let details = details.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        facts.judge(vm, &now, 2, &details)
    }

    #[test]
    fn running_guests_grow_where_the_hypervisor_can() {
        for hypervisor in ["KVM", "LXC"] {
            let refused = judged(&facts(Some(2), true), &vm(VmState::Running, hypervisor), &[]).unwrap_err();
            assert_eq!(refused.code, 431);
            assert!(refused.full_text().contains("not supported for VMs running on Hypervisor"), "{refused}");
            assert!(judged(&facts(Some(2), true), &vm(VmState::Stopped, hypervisor), &[]).is_ok());
        }
        let running = vm(VmState::Running, "Simulator");
        assert_eq!(judged(&facts(Some(2), true), &running, &[]).unwrap().cpu, 2);
        assert_eq!(judged(&facts(Some(2), false), &running, &[]).unwrap_err().code, 531);
        let unable = Facts { bond: Bond { dynamic: false, ..facts(Some(2), true).bond }, ..facts(Some(2), true) };
        assert_eq!(judged(&unable, &running, &[]).unwrap_err().code, 530);
        assert_eq!(judged(&facts(Some(2), true), &vm(VmState::Starting, "Simulator"), &[]).unwrap_err().code, 431);
    }

    #[test]
    fn sizes_of_custom_offerings_are_details() {
        let stopped = vm(VmState::Stopped, "Simulator");
        let fixed = judged(&facts(Some(2), true), &stopped, &[]).unwrap();
        assert_eq!(
            fixed.details,
            BTreeMap::from([("keyboard".into(), "de".into())]),
            "they aren't the user's any more"
        );
        assert_eq!(judged(&facts(None, true), &stopped, &[]).unwrap_err().code, 431);
        let custom = judged(&facts(None, true), &stopped, &[("cpuNumber", "3")]).unwrap();
        assert_eq!((custom.cpu, custom.details.get("cpuNumber").map(String::as_str)), (3, Some("3")));
    }

    // covers: REL-131
    #[test]
    fn added_storage_tags_must_be_those_of_the_disk() {
        let stopped = vm(VmState::Stopped, "Simulator");
        let tagged = |pool: Option<&[&str]>| {
            let mut facts = facts(Some(2), true);
            facts.offering.storage_tags = vec!["fast".into()];
            facts.pool_tags = pool.map(|tags| tags.iter().map(|t| (*t).to_owned()).collect());
            facts
        };
        assert!(judged(&tagged(Some(&["slow", "fast"])), &stopped, &[]).is_ok());
        let refused = judged(&tagged(Some(&["slow"])), &stopped, &[]).unwrap_err();
        assert!(refused.code == 431 && refused.full_text().contains("the tag fast"), "{refused}");
        assert_eq!(judged(&tagged(None), &stopped, &[]).unwrap_err().code, 431);
    }
}
