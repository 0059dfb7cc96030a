//! Flags of calls: libvirt's `virDomain…Flags`, named without the prefix.

flags! {
    /// Which domains to list; groups are joined by AND, members of a group by OR. None: all.
    pub struct ListFlags {
        ACTIVE = 1, INACTIVE = 2, PERSISTENT = 4, TRANSIENT = 8, RUNNING = 16, PAUSED = 32, SHUTOFF = 64, OTHER = 128,
        MANAGED_SAVE = 256, NO_MANAGED_SAVE = 512, AUTOSTART = 1024, NO_AUTOSTART = 2048,
    }

    /// How to start a domain.
    pub struct CreateFlags { PAUSED = 1, AUTODESTROY = 2, BYPASS_CACHE = 4, FORCE_BOOT = 8, VALIDATE = 16, RESET_NVRAM = 32, }

    /// How to define a domain.
    pub struct DefineFlags { VALIDATE = 1, }

    /// Which parts of a domain's definition go too.
    pub struct UndefineFlags {
        MANAGED_SAVE = 1, SNAPSHOTS_METADATA = 2, NVRAM = 4, KEEP_NVRAM = 8, CHECKPOINTS_METADATA = 16, TPM = 32, KEEP_TPM = 64,
    }

    /// How to end a domain at once.
    pub struct DestroyFlags {
        /// SIGTERM and a wait, and an error instead of SIGKILL.
        GRACEFUL = 1,
        REMOVE_LOGS = 2,
    }

    /// By what means a guest is asked to shut down. None: the hypervisor chooses.
    pub struct ShutdownFlags { ACPI_POWER_BUTTON = 1, GUEST_AGENT = 2, INITCTL = 4, SIGNAL = 8, PARAVIRT = 16, }

    /// By what means a guest is asked to reboot. None: the hypervisor chooses.
    pub struct RebootFlags { ACPI_POWER_BUTTON = 1, GUEST_AGENT = 2, INITCTL = 4, SIGNAL = 8, PARAVIRT = 16, }

    /// What a domain's XML contains.
    pub struct XmlFlags {
        /// Passwords too.
        SECURE = 1,
        /// The definition for the next start.
        INACTIVE = 2,
        UPDATE_CPU = 4, MIGRATABLE = 8,
    }

    /// What a change of a device, of memory, of metadata or of a limit affects. None: the running domain if it runs, else its definition.
    pub struct AffectFlags {
        LIVE = 1,
        CONFIG = 2,
        /// For devices: even if the guest may be surprised.
        FORCE = 4,
    }

    /// What a change of memory affects.
    pub struct MemoryFlags { LIVE = 1, CONFIG = 2, MAXIMUM = 4, }

    /// What a change of the number of virtual CPUs affects.
    pub struct VcpuFlags { LIVE = 1, CONFIG = 2, MAXIMUM = 4, GUEST = 8, HOTPLUGGABLE = 16, }

    /// Unit of a block device's new size. None: KiB.
    pub struct BlockResizeFlags { BYTES = 1, CAPACITY = 2, }

    /// How to end a block job.
    pub struct BlockJobAbortFlags { ASYNC = 1, PIVOT = 2, }

    /// How to copy a disk.
    pub struct BlockCopyFlags { SHALLOW = 1, REUSE_EXT = 2, TRANSIENT_JOB = 4, SYNCHRONOUS_WRITES = 8, }

    /// How to commit a layer into the one below.
    pub struct BlockCommitFlags { SHALLOW = 1, DELETE = 2, ACTIVE = 4, RELATIVE = 8, BANDWIDTH_BYTES = 16, }

    /// How to take a snapshot.
    pub struct SnapshotFlags {
        REDEFINE = 1, CURRENT = 2,
        /// libvirt forgets the snapshot: only the files stay.
        NO_METADATA = 4,
        HALT = 8,
        /// Disks without memory.
        DISK_ONLY = 16,
        REUSE_EXT = 32,
        /// File systems frozen by the guest agent meanwhile.
        QUIESCE = 64,
        /// All disks or none.
        ATOMIC = 128,
        LIVE = 256, VALIDATE = 512,
    }

    /// Groups of bulk statistics. None: all that the hypervisor has.
    pub struct StatsGroups {
        STATE = 1, CPU_TOTAL = 2, BALLOON = 4, VCPU = 8, INTERFACE = 16, BLOCK = 32, PERF = 64, IOTHREAD = 128, MEMORY = 256,
        DIRTY_RATE = 512, VM = 1024,
    }

    /// Of which domains bulk statistics are wanted, and how.
    pub struct StatsFlags {
        ACTIVE = 1, INACTIVE = 2, PERSISTENT = 4, TRANSIENT = 8, RUNNING = 16, PAUSED = 32, SHUTOFF = 64, OTHER = 128,
        /// A domain that is busy with a job is told without what would have to wait.
        NO_WAIT = 0x2000_0000,
        BACKING = 0x4000_0000,
        /// An error instead of leaving out groups that the hypervisor doesn't have.
        ENFORCE = 0x8000_0000,
    }

    /// How to migrate.
    pub struct MigrateFlags {
        LIVE = 1,
        /// The source's daemon connects to the destination's.
        PEER_TO_PEER = 2,
        TUNNELLED = 4, PERSIST_DESTINATION = 8, UNDEFINE_SOURCE = 16, PAUSED = 32, NON_SHARED_DISK = 64, NON_SHARED_INCREMENTAL = 128,
        CHANGE_PROTECTION = 256, UNSAFE = 512, OFFLINE = 1024, COMPRESSED = 2048, ABORT_ON_ERROR = 4096, AUTO_CONVERGE = 8192,
        RDMA_PIN_ALL = 16_384, POSTCOPY = 32_768, TLS = 65_536, PARALLEL = 131_072, SYNCHRONOUS_WRITES = 262_144,
        POSTCOPY_RESUME = 524_288, ZEROCOPY = 1_048_576,
    }

    /// Which job's statistics are wanted.
    pub struct JobStatsFlags {
        /// Of the one that ended last, which then is forgotten.
        COMPLETED = 1,
        KEEP_COMPLETED = 2,
    }

    /// How a console is opened.
    pub struct ConsoleFlags {
        /// Whoever has it open is thrown out.
        FORCE = 1,
        /// An error if that can't be done safely.
        SAFE = 2,
    }
}
