//! The settings that code reads: one constant each. Add yours to the list; its name and type are checked by a test.

use crate::SettingValue;
use std::marker::PhantomData;

/// A setting as code reads it.
#[derive(Debug)]
pub struct Key<T> {
    /// Its name in the registry.
    pub name: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}

impl<T: SettingValue> Key<T> {
    const fn new(name: &'static str) -> Key<T> {
        Key { name, kind: PhantomData }
    }
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $constant:ident: $t:ty = $name:literal;)*) => {
        $($(#[doc = $doc])+ pub const $constant: Key<$t> = Key::new($name);)*
        /// All names above.
        pub(crate) const NAMES: &[&str] = &[$($name),*];

        /// What is written above about the setting; empty for settings that aren't there.
        pub(crate) fn description(name: &str) -> &'static str {
            match name {
                $($name => concat!($($doc),+).trim_ascii_start(),)*
                _ => "",
            }
        }

        #[cfg(test)]
        mod tests {
            use super::*;

            #[test]
            fn keys_fit_the_registry() {
                $({
                    let setting = crate::find($name).unwrap_or_else(|| panic!("{} is no setting", $name));
                    assert_eq!(setting.name, $name);
                    let value = setting.unset_value();
                    assert!(
                        value.is_none() || <$t as SettingValue>::read(value).is_some(),
                        "{} = {value:?} is not of the key's type", $name
                    );
                })*
            }
        }
    };
}

keys! {
    /// Seconds between clean-ups of removed accounts.
    ACCOUNT_CLEANUP_INTERVAL: i64 = "account.cleanup.interval";
    /// Seconds that an agent may be away before an alert is raised.
    ALERT_WAIT: i64 = "alert.wait";
    /// Whether users may see their destroyed VMs.
    ALLOW_USER_VIEW_DESTROYED_VM: bool = "allow.user.view.destroyed.vm";
    /// Whether users may expunge and recover their VMs.
    ALLOW_USER_EXPUNGE_RECOVER_VM: bool = "allow.user.expunge.recover.vm";
    /// Whether users may create projects.
    ALLOW_USER_CREATE_PROJECTS: bool = "allow.user.create.projects";
    /// Whether users may make their templates public.
    ALLOW_PUBLIC_USER_TEMPLATES: bool = "allow.public.user.templates";
    /// Seconds between two audits of the database and the hosts; 0: none.
    ARCUS_AUDIT_INTERVAL: i64 = "arcus.audit.interval";
    /// Source addresses from which an account's requests are taken.
    API_ALLOWED_SOURCE_CIDR_LIST: String = "api.allowed.source.cidr.list";
    /// Whether those source addresses are looked at.
    API_SOURCE_CIDR_CHECKS_ENABLED: bool = "api.source.cidr.checks.enabled";
    /// Whether requests are limited by number.
    API_THROTTLING_ENABLED: bool = "api.throttling.enabled";
    /// Requests that an account may make in an interval.
    API_THROTTLING_MAX: i64 = "api.throttling.max";
    /// Seconds of that interval.
    API_THROTTLING_INTERVAL: i64 = "api.throttling.interval";
    /// Days that an issued certificate is valid for, when nothing else is said.
    CA_CERT_VALIDITY_PERIOD: i64 = "ca.framework.cert.validity.period";
    /// Consoles that a replica of the gateway serves at a time.
    CONSOLEPROXY_SESSION_MAX: i64 = "consoleproxy.session.max";
    /// Milliseconds without a byte after which a console is closed; 0: never.
    CONSOLEPROXY_SESSION_TIMEOUT: i64 = "consoleproxy.session.timeout";
    /// CPU of a cluster is sold this many times.
    CPU_OVERPROVISIONING_FACTOR: f64 = "cpu.overprovisioning.factor";
    /// Memory of a cluster is sold this many times.
    MEM_OVERPROVISIONING_FACTOR: f64 = "mem.overprovisioning.factor";
    /// Bytes of a pool are sold this many times.
    STORAGE_OVERPROVISIONING_FACTOR: f64 = "storage.overprovisioning.factor";
    /// Share of allocated CPU above which a cluster takes no more VMs.
    CLUSTER_CPU_DISABLE_THRESHOLD: f64 = "cluster.cpu.allocated.capacity.disablethreshold";
    /// Share of allocated memory above which a cluster takes no more VMs.
    CLUSTER_MEMORY_DISABLE_THRESHOLD: f64 = "cluster.memory.allocated.capacity.disablethreshold";
    /// Whether clusters' disable thresholds are in force.
    CLUSTER_THRESHOLD_ENABLED: bool = "cluster.threshold.enabled";
    /// Seconds (in spite of its name) that a stopped VM still counts on the host where it ran.
    CAPACITY_SKIPCOUNTING_HOURS: i64 = "capacity.skipcounting.hours";
    /// What planners order clusters by: CPU or RAM.
    HOST_CAPACITY_TYPE_TO_ORDER_CLUSTERS: String = "host.capacityType.to.order.clusters";
    /// Hosts with one of these tags are given to VMs that don't ask for it only when there are no others.
    IMPLICIT_HOST_TAGS: String = "implicit.host.tags";
    /// How much the number of an account's VMs counts, 0 to 1, against what is allocated when its VMs are dispersed.
    VM_USER_DISPERSION_WEIGHT: f64 = "vm.user.dispersion.weight";
    /// Share of allocated CPU above which people are told.
    CLUSTER_CPU_NOTIFICATION_THRESHOLD: f64 = "cluster.cpu.allocated.capacity.notificationthreshold";
    /// Share of allocated memory above which people are told.
    CLUSTER_MEMORY_NOTIFICATION_THRESHOLD: f64 = "cluster.memory.allocated.capacity.notificationthreshold";
    /// Share of a pool's allocated bytes above which people are told.
    CLUSTER_STORAGE_ALLOCATED_NOTIFICATION_THRESHOLD: f64 = "cluster.storage.allocated.capacity.notificationthreshold";
    /// Share of a pool's used bytes above which people are told.
    CLUSTER_STORAGE_NOTIFICATION_THRESHOLD: f64 = "cluster.storage.capacity.notificationthreshold";
    /// Share of allocated bytes above which a pool takes no more volumes.
    POOL_ALLOCATED_DISABLE_THRESHOLD: f64 = "pool.storage.allocated.capacity.disablethreshold";
    /// Share of used bytes above which a pool takes no more volumes.
    POOL_USED_DISABLE_THRESHOLD: f64 = "pool.storage.capacity.disablethreshold";
    /// Smallest size of a custom disk, GiB.
    CUSTOM_DISKOFFERING_SIZE_MIN: i64 = "custom.diskoffering.size.min";
    /// Largest size of a custom disk, GiB.
    CUSTOM_DISKOFFERING_SIZE_MAX: i64 = "custom.diskoffering.size.max";
    /// Entries of a list's page when the request doesn't say, and the most that it may ask for.
    DEFAULT_PAGE_SIZE: i64 = "default.page.size";
    /// Whether roles decide who may call what.
    DYNAMIC_APICHECKER_ENABLED: bool = "dynamic.apichecker.enabled";
    /// Whether running VMs may be given more CPU and memory.
    ENABLE_DYNAMIC_SCALE_VM: bool = "enable.dynamic.scale.vm";
    /// Whether session cookies are for HTTPS only.
    ENABLE_SECURE_SESSION_COOKIE: bool = "enable.secure.session.cookie";
    /// Whether texts of answers are percent-encoded.
    ENCODE_API_RESPONSE: bool = "encode.api.response";
    /// Days after which events are purged; 0: never.
    EVENT_PURGE_DELAY: i64 = "event.purge.delay";
    /// Seconds between purges of events.
    EVENT_PURGE_INTERVAL: i64 = "event.purge.interval";
    /// Seconds that a destroyed VM can be recovered.
    EXPUNGE_DELAY: i64 = "expunge.delay";
    /// Seconds between looks for VMs to expunge.
    EXPUNGE_INTERVAL: i64 = "expunge.interval";
    /// VMs that are expunged at once.
    EXPUNGE_WORKERS: i64 = "expunge.workers";
    /// Domain of guests whose network has none of its own.
    GUEST_DOMAIN_SUFFIX: String = "guest.domain.suffix";
    /// Tries to log in before a user is disabled.
    INCORRECT_LOGIN_ATTEMPTS_ALLOWED: i64 = "incorrect.login.attempts.allowed";
    /// Last part of VMs' internal names.
    INSTANCE_NAME: String = "instance.name";
    /// Port that takes unauthenticated requests; unset: none.
    INTEGRATION_API_PORT: Option<i64> = "integration.api.port";
    /// Content type of JSON answers.
    JSON_CONTENT_TYPE: String = "json.content.type";
    /// Whether snapshots of KVM volumes are taken.
    KVM_SNAPSHOT_ENABLED: bool = "kvm.snapshot.enabled";
    /// Most public addresses of an account; -1: no limit.
    MAX_ACCOUNT_PUBLIC_IPS: i64 = "max.account.public.ips";
    /// Most snapshots of an account; -1: no limit.
    MAX_ACCOUNT_SNAPSHOTS: i64 = "max.account.snapshots";
    /// Most templates of an account; -1: no limit.
    MAX_ACCOUNT_TEMPLATES: i64 = "max.account.templates";
    /// Most VMs of an account; -1: no limit.
    MAX_ACCOUNT_USER_VMS: i64 = "max.account.user.vms";
    /// Most volumes of an account; -1: no limit.
    MAX_ACCOUNT_VOLUMES: i64 = "max.account.volumes";
    /// Most networks of an account; -1: no limit.
    MAX_ACCOUNT_NETWORKS: i64 = "max.account.networks";
    /// Most VPCs of an account; -1: no limit.
    MAX_ACCOUNT_VPCS: i64 = "max.account.vpcs";
    /// Most CPU cores of an account; -1: no limit.
    MAX_ACCOUNT_CPUS: i64 = "max.account.cpus";
    /// Most memory of an account, MiB; -1: no limit.
    MAX_ACCOUNT_MEMORY: i64 = "max.account.memory";
    /// Most primary storage of an account, GiB; -1: no limit.
    MAX_ACCOUNT_PRIMARY_STORAGE: i64 = "max.account.primary.storage";
    /// Most secondary storage of an account, GiB; -1: no limit.
    MAX_ACCOUNT_SECONDARY_STORAGE: i64 = "max.account.secondary.storage";
    /// Most public addresses of a domain; -1: no limit.
    MAX_DOMAIN_PUBLIC_IPS: i64 = "max.domain.public.ips";
    /// Most snapshots of a domain; -1: no limit.
    MAX_DOMAIN_SNAPSHOTS: i64 = "max.domain.snapshots";
    /// Largest template or ISO, in GiB.
    MAX_TEMPLATE_ISO_SIZE: i64 = "max.template.iso.size";
    /// Most templates of a domain; -1: no limit.
    MAX_DOMAIN_TEMPLATES: i64 = "max.domain.templates";
    /// Most VMs of a domain; -1: no limit.
    MAX_DOMAIN_USER_VMS: i64 = "max.domain.user.vms";
    /// Most volumes of a domain; -1: no limit.
    MAX_DOMAIN_VOLUMES: i64 = "max.domain.volumes";
    /// Most networks of a domain; -1: no limit.
    MAX_DOMAIN_NETWORKS: i64 = "max.domain.networks";
    /// Most VPCs of a domain; -1: no limit.
    MAX_DOMAIN_VPCS: i64 = "max.domain.vpcs";
    /// Most CPU cores of a domain; -1: no limit.
    MAX_DOMAIN_CPUS: i64 = "max.domain.cpus";
    /// Most memory of a domain, MiB; -1: no limit.
    MAX_DOMAIN_MEMORY: i64 = "max.domain.memory";
    /// Most primary storage of a domain, GiB; -1: no limit.
    MAX_DOMAIN_PRIMARY_STORAGE: i64 = "max.domain.primary.storage";
    /// Most secondary storage of a domain, GiB; -1: no limit.
    MAX_DOMAIN_SECONDARY_STORAGE: i64 = "max.domain.secondary.storage";
    /// Mbit/s of networks whose offering doesn't say.
    NETWORK_THROTTLING_RATE: i64 = "network.throttling.rate";
    /// Mbit/s of NICs whose offering doesn't say.
    VM_NETWORK_THROTTLING_RATE: i64 = "vm.network.throttling.rate";
    /// Seconds that a network without running VMs stays implemented.
    NETWORK_GC_WAIT: i64 = "network.gc.wait";
    /// Connections that a network's load balancing has at most, where its offering says nothing.
    LB_MAX_CONNECTIONS: i64 = "network.loadbalancer.haproxy.max.conn";
    /// Seconds between looks for such networks.
    NETWORK_GC_INTERVAL: i64 = "network.gc.interval";
    /// Prefix length of guest networks when nobody says.
    GUEST_VLAN_BITS: i64 = "guest.vlan.bits";
    /// Second byte of generated MAC addresses.
    MAC_IDENTIFIER: i64 = "mac.identifier";
    /// Whether an account with public ranges of its own gets further addresses from the common pool.
    USE_SYSTEM_PUBLIC_IPS: bool = "use.system.public.ips";
    /// Shortest prefix of guest networks that users may choose.
    NETWORK_GUEST_CIDR_LIMIT: i64 = "network.guest.cidr.limit";
    /// Whether networks of a domain may be used by its subdomains when nobody says.
    ALLOW_SUBDOMAIN_NETWORK_ACCESS: bool = "allow.subdomain.network.access";
    /// Seconds between an agent's pings.
    PING_INTERVAL: i64 = "ping.interval";
    /// Pings that may be missed before an agent counts as silent.
    PING_TIMEOUT: f64 = "ping.timeout";
    /// Seconds that the memory of a running virtual machine may take to reach another host.
    MIGRATE_WAIT: i64 = "migratewait";
    /// Seconds before a virtual machine that could not leave a host for its maintenance is tried again.
    MIGRATE_RETRY_INTERVAL: i64 = "migrate.retry.interval";
    /// Whether an invitation must be accepted before an account is in a project.
    PROJECT_INVITE_REQUIRED: bool = "project.invite.required";
    /// Seconds between clean-ups of storage.
    STORAGE_CLEANUP_INTERVAL: i64 = "storage.cleanup.interval";
    /// Seconds that a destroyed volume is kept.
    STORAGE_CLEANUP_DELAY: i64 = "storage.cleanup.delay";
    /// Whether destroyed volumes are cleaned up.
    STORAGE_CLEANUP_ENABLED: bool = "storage.cleanup.enabled";
    /// Milliseconds between looks at what pools use.
    STORAGE_STATS_INTERVAL: String = "storage.stats.interval";
    /// Largest volume, GiB.
    STORAGE_MAX_VOLUME_SIZE: i64 = "storage.max.volume.size";
    /// Networks of inside addresses that images may be downloaded from.
    SECSTORAGE_ALLOWED_INTERNAL_SITES: Option<String> = "secstorage.allowed.internal.sites";
    /// Hypervisor of system VMs, and of networks' routers.
    SYSTEM_VM_DEFAULT_HYPERVISOR: Option<String> = "system.vm.default.hypervisor";
    /// In which order the hosts of a cluster are tried.
    VM_ALLOCATION_ALGORITHM: String = "vm.allocation.algorithm";
    /// The planner of VMs whose offering names none.
    VM_DEPLOYMENT_PLANNER: String = "vm.deployment.planner";
    /// Whether a VM's internal name carries its display name.
    VM_INSTANCENAME_FLAG: bool = "vm.instancename.flag";
    /// Seconds between looks at operations that should have ended.
    VM_OP_WAIT_INTERVAL: i64 = "vm.op.wait.interval";
    /// Length of generated VM passwords.
    VM_PASSWORD_LENGTH: i64 = "vm.password.length";
    /// Seconds that a command to an agent may take.
    WAIT: i64 = "wait";
    /// Workers of jobs.
    WORKERS: i64 = "workers";
    /// Minutes until an ended job's row may be removed.
    JOB_EXPIRE_MINUTES: i64 = "job.expire.minutes";
    /// Whether the pods of a zone, and its guests, must be in different subnets.
    CHECK_POD_CIDRS: bool = "check.pod.cidrs";
    /// The hypervisors that this installation offers.
    HYPERVISOR_LIST: String = "hypervisor.list";
    /// Host tag of the hosts that are kept for VMs whose host failed; unset: any host takes them.
    HA_TAG: Option<String> = "ha.tag";
    /// VMs that are started again after failures at the same time.
    HA_WORKERS: i64 = "ha.workers";
    /// Whether HA-enabled VMs that ended by themselves are started again.
    HA_VM_RESTART_HOSTUP: bool = "ha.vm.restart.hostup";
    /// Absent hosts that are investigated at the same time.
    HA_MAX_CONCURRENT_ACTIVITY_CHECKS: i64 = "ha.max.concurrent.activity.check.operations";
    /// Seconds between investigations of an absent host.
    INVESTIGATE_RETRY_INTERVAL: i64 = "investigate.retry.interval";
    /// Seconds before a VM that could not be started after a failure is tried again.
    RESTART_RETRY_INTERVAL: i64 = "restart.retry.interval";
    /// Bits of the SSH keys that are generated.
    SSH_KEY_LENGTH: i64 = "ssh.key.length";
    /// Most hourly snapshots that a policy keeps; 0: none may be asked for.
    SNAPSHOT_MAX_HOURLY: i64 = "snapshot.max.hourly";
    /// Most daily snapshots that a policy keeps; 0: none may be asked for.
    SNAPSHOT_MAX_DAILY: i64 = "snapshot.max.daily";
    /// Most weekly snapshots that a policy keeps; 0: none may be asked for.
    SNAPSHOT_MAX_WEEKLY: i64 = "snapshot.max.weekly";
    /// Most monthly snapshots that a policy keeps; 0: none may be asked for.
    SNAPSHOT_MAX_MONTHLY: i64 = "snapshot.max.monthly";
    /// Whether copies of templates on primary storage that no disk uses are removed.
    STORAGE_TEMPLATE_CLEANUP_ENABLED: bool = "storage.template.cleanup.enabled";
    /// Whether only administrators may download templates, ISOs and volumes.
    DISABLE_EXTRACTION: bool = "disable.extraction";
    /// Seconds that a download's URL is good for.
    EXTRACT_URL_EXPIRATION_INTERVAL: i64 = "extract.url.expiration.interval";
    /// Where the API is reached from outside (4.11's spelling). Downloads are beside it.
    ENDPOINT_URL: String = "endpointe.url";
    /// UUID of the installation, made once.
    CLOUD_IDENTIFIER: Option<String> = "cloud.identifier";
    /// Minutes after which a job counts as stuck and is cancelled.
    JOB_CANCEL_THRESHOLD_MINUTES: i64 = "job.cancel.threshold.minutes";
}
