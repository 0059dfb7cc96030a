//! Devices, disks, statistics, agent and monitor.

use crate::{event, host, running};
use libvirt::devices::BlockInfo;
use libvirt::events::{BlockJobKind, BlockJobStatus};
use libvirt::guest::AgentPatience;
use libvirt::stats::MemoryStat;
use libvirt::{
    AffectFlags, BlockCommitFlags, BlockCopyFlags, BlockJobAbortFlags, BlockResizeFlags, Event, EventKind, Params,
    SnapshotFlags, StatsFlags, StatsGroups, XmlFlags,
};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// A raw image of 8 MiB as a disk.
fn disk(path: &Path, target: &str, bus: &str) -> String {
    std::fs::File::create(path).unwrap().set_len(8 * MIB).unwrap();
    let source = path.display();
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{source}'/>
         <target dev='{target}' bus='{bus}'/></disk>"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_come_and_go() {
    let Some((host, connection)) = host("devices_come_and_go").await else { return };
    let kinds = [EventKind::DEVICE_ADDED, EventKind::DEVICE_REMOVED];
    let nic = "<interface type='ethernet'><mac address='02:00:00:00:00:01'/><model type='virtio'/></interface>";
    let domain = running(&connection, "d", nic).await;
    let mut events = connection.events(&kinds, Some(&domain)).await.unwrap();
    let stick = disk(&host.scratch().join("stick"), "sda", "usb");
    connection.attach_device(&domain, &stick, AffectFlags::LIVE | AffectFlags::CONFIG).await.unwrap();
    let added =
        event(&mut events, |e| if let Event::DeviceAdded { device, .. } = e { Some(device) } else { None }).await;
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains(&added));
    connection.detach_device(&domain, &stick, AffectFlags::LIVE | AffectFlags::CONFIG).await.unwrap();
    let gone =
        event(&mut events, |e| if let Event::DeviceRemoved { device, .. } = e { Some(device) } else { None }).await;
    assert_eq!(gone, added);
    let error = connection.detach_device(&domain, &stick, AffectFlags::LIVE).await.unwrap_err();
    assert!(error.is_no_device(), "{error}");
    let error = connection.detach_alias(&domain, "no-such", AffectFlags::LIVE).await.unwrap_err();
    assert!(error.code().is_some(), "{error}");

    let down = nic.replace("</interface>", "<link state='down'/></interface>");
    connection.update_device(&domain, &down, AffectFlags::LIVE).await.unwrap();
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains("<link state='down'/>"));
    let stats = connection.interface_stats(&domain, "02:00:00:00:00:01").await.unwrap();
    assert!(stats.rx_errors == 0 && stats.tx_errors == 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_resized_copied_snapshotted_and_committed() {
    let Some((host, connection)) = host("disks_are_resized_copied_snapshotted_and_committed").await else { return };
    let image = host.scratch().join("image");
    let domain = running(&connection, "d", &disk(&image, "vda", "virtio")).await;
    let mut events = connection.events(&[EventKind::BLOCK_JOB], None).await.unwrap();
    connection.block_resize(&domain, "vda", 12 * MIB, BlockResizeFlags::BYTES).await.unwrap();
    let BlockInfo { capacity, physical, .. } = connection.block_info(&domain, "vda").await.unwrap();
    assert_eq!((capacity, physical), (12 * MIB, 12 * MIB));
    let limits = Params::new().with("total_iops_sec", 500_u64);
    connection.set_block_io_tune(&domain, "vda", &limits, AffectFlags::LIVE).await.unwrap();
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains("<total_iops_sec>500<"));

    assert_eq!(connection.block_job_info(&domain, "vda").await.unwrap(), None);
    let copy = host.scratch().join("copy");
    let to = format!("<disk type='file'><driver type='raw'/><source file='{}'/></disk>", copy.display());
    connection.block_copy(&domain, "vda", &to, &Params::new(), BlockCopyFlags::TRANSIENT_JOB).await.unwrap();
    let job = |wanted| {
        move |e| match e {
            Event::BlockJob { disk, kind, status, .. } if disk == "vda" && status == wanted => Some(kind),
            _ => None,
        }
    };
    assert_eq!(event(&mut events, job(BlockJobStatus::READY)).await, BlockJobKind::COPY);
    let info = connection.block_job_info(&domain, "vda").await.unwrap().unwrap();
    assert_eq!((info.kind, info.current), (BlockJobKind::COPY, info.end));
    connection.block_job_abort(&domain, "vda", BlockJobAbortFlags::PIVOT).await.unwrap();
    event(&mut events, job(BlockJobStatus::COMPLETED)).await;
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains(&copy.display().to_string()));
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), 12 * MIB);

    let xml = format!(
        "<domainsnapshot><disks><disk name='vda' snapshot='external'><source file='{}'/></disk></disks></domainsnapshot>",
        host.scratch().join("overlay").display()
    );
    let flags = SnapshotFlags::DISK_ONLY | SnapshotFlags::NO_METADATA | SnapshotFlags::ATOMIC;
    assert!(!connection.snapshot(&domain, &xml, flags).await.unwrap().is_empty());
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains("overlay"));
    connection.block_commit(&domain, "vda", None, None, 0, BlockCommitFlags::ACTIVE).await.unwrap();
    assert_eq!(event(&mut events, job(BlockJobStatus::READY)).await, BlockJobKind::ACTIVE_COMMIT);
    connection.block_job_abort(&domain, "vda", BlockJobAbortFlags::PIVOT).await.unwrap();
    event(&mut events, job(BlockJobStatus::COMPLETED)).await;
    assert!(!connection.xml(&domain, XmlFlags::none()).await.unwrap().contains("overlay"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_are_told_one_by_one_and_in_bulk() {
    let Some((host, connection)) = host("statistics_are_told_one_by_one_and_in_bulk").await else { return };
    let domain = running(&connection, "d", &disk(&host.scratch().join("image"), "vda", "virtio")).await;
    let second = running(&connection, "e", "").await;
    let memory = connection.memory_stats(&domain).await.unwrap();
    assert!(memory.iter().any(|(stat, kib)| *stat == MemoryStat::RSS && *kib > 0), "{memory:?}");
    // SeaBIOS reads the first sector.
    testkit::wait_until(
        || async { connection.block_stats(&domain, "vda").await.unwrap().read_requests > 0 },
        std::time::Duration::from_secs(60),
    )
    .await;
    let more = connection.block_stats_more(&domain, "vda").await.unwrap();
    assert!(more.number("rd_total_times").is_some(), "{more:?}");

    let all = connection.all_stats(StatsGroups::none(), StatsFlags::RUNNING | StatsFlags::NO_WAIT).await.unwrap();
    assert_eq!(all.len(), 2);
    let groups =
        StatsGroups::STATE | StatsGroups::BALLOON | StatsGroups::BLOCK | StatsGroups::CPU_TOTAL | StatsGroups::VCPU;
    let one = connection.stats_of(std::slice::from_ref(&domain), groups, StatsFlags::none()).await.unwrap();
    let stats = &one[0].stats;
    assert_eq!(one[0].domain.uuid, domain.uuid);
    assert_eq!((stats.number("state.state"), stats.number("balloon.maximum")), (Some(1), Some(32 << 10)));
    assert!(stats.number("cpu.time") > Some(0), "{stats:?}");
    let vda = stats.group("block", 0);
    assert_eq!((vda.text("name"), vda.number("capacity")), (Some("vda"), Some(8 * MIB)));
    assert_eq!(stats.get("net.count"), None, "a group that wasn't asked for");
    assert_ne!(second.uuid, domain.uuid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitor_answers_and_a_missing_agent_does_not() {
    let Some((_host, connection)) = host("the_monitor_answers_and_a_missing_agent_does_not").await else { return };
    let channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    let domain = running(&connection, "d", channel).await;
    let status = connection.monitor_command(&domain, r#"{"execute":"query-status"}"#).await.unwrap();
    assert!(status.contains("running"), "{status}");
    let ping = r#"{"execute":"guest-ping"}"#;
    let silent = connection.agent_command(&domain, ping, AgentPatience::Seconds(1)).await.unwrap_err();
    assert!(silent.is_agent_silent(), "{silent:?}");
    assert!(connection.freeze(&domain, &[]).await.unwrap_err().is_agent_silent());
    assert!(connection.set_user_password(&domain, "root", "x").await.unwrap_err().is_agent_silent());
    let none = running(&connection, "without", "").await;
    let unsupported = connection.agent_command(&none, ping, AgentPatience::Usual).await.unwrap_err();
    assert!(unsupported.is_unsupported(), "{unsupported:?}");
}
