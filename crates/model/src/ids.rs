//! Internal numbers, one type a kind, so that a zone is never taken for a pod.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);
        impl From<$name> for store::Value {
            fn from(id: $name) -> Self { store::Value::Int(id.0) }
        }
        impl From<i64> for $name {
            fn from(id: i64) -> Self { $name(id) }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }
        impl store::Column for $name {
            fn read(row: &store::Row, column: &str) -> store::Result<Self> { row.get(column).map($name) }
            fn read_at(row: &store::Row, index: usize) -> store::Result<Self> { row.at(index).map($name) }
        })*
    };
}

ids! {
    /// A domain of the tree of tenants.
    DomainId,
    /// An account: what owns things.
    AccountId,
    /// A user of an account.
    UserId,
    /// A role: what its users may call.
    RoleId,
    /// A zone.
    ZoneId,
    /// A pod of a zone.
    PodId,
    /// A cluster of a pod.
    ClusterId,
    /// A host of a cluster.
    HostId,
    /// A compute offering.
    ServiceOfferingId,
    /// A disk offering.
    DiskOfferingId,
    /// A network offering.
    NetworkOfferingId,
    /// A virtual machine.
    VmId,
    /// A physical network of a zone.
    PhysicalNetworkId,
    /// A guest network.
    NetworkId,
    /// A network interface of a VM.
    NicId,
    /// A range of public or shared-network addresses.
    VlanRangeId,
    /// A public address.
    IpAddressId,
    /// A router.
    RouterId,
    /// A primary storage pool.
    PoolId,
    /// A secondary storage.
    ImageStoreId,
    /// A template or ISO.
    TemplateId,
    /// A volume.
    VolumeId,
    /// A guest OS type.
    OsTypeId,
    /// A job.
    JobId,
}
