//! Disks of running guests.

use crate::world::{DEAF, MIB, SECTOR, World, start, stop};
use contract_agent::image_state::Phase;
use contract_agent::{
    AttachDisk, DeleteDisk, DetachDisk, DiskState, ImageStore, Outcome, ResizeDisk, StoreDisk, VmDisk, command, outcome,
};
use libvirt::XmlFlags;

fn disk(outcome: Outcome) -> DiskState {
    match outcome.body {
        Some(outcome::Body::Disk(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn attach(vm: &str, disk: &VmDisk) -> command::Body {
    command::Body::AttachDisk(AttachDisk { vm_uuid: vm.into(), disk: Some(disk.clone()) })
}

fn detach(vm: &str, disk: &VmDisk) -> command::Body {
    command::Body::DetachDisk(DetachDisk { vm_uuid: vm.into(), volume_uuid: disk.volume_uuid.clone() })
}

fn resize(vm: Option<&str>, disk: &VmDisk, size: u64) -> command::Body {
    command::Body::ResizeDisk(ResizeDisk {
        volume_uuid: disk.volume_uuid.clone(),
        pool_uuid: disk.pool_uuid.clone(),
        path: disk.path.clone(),
        size,
        vm_uuid: vm.map(str::to_owned),
    })
}

fn delete(disk: &VmDisk) -> command::Body {
    command::Body::DeleteDisk(DeleteDisk {
        volume_uuid: disk.volume_uuid.clone(),
        pool_uuid: disk.pool_uuid.clone(),
        path: disk.path.clone(),
        ended_vm: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_come_grow_and_go_while_the_guest_runs() {
    let Some(world) = World::start("disks_come_grow_and_go_while_the_guest_runs", 1).await else { return };
    let spec = world.spec(SECTOR).await;
    let (data, more) = (world.volume(3).await, world.volume(3).await);
    assert!(world.execute(1, attach(&spec.uuid, &data)).await.is_err(), "it doesn't run yet");
    world.running(1, &spec).await;
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let xml = || async { world.libvirt(1).await.xml(&domain, XmlFlags::none()).await.unwrap() };

    for _ in 0..2 {
        let state = disk(world.execute(1, attach(&spec.uuid, &data)).await.unwrap());
        assert_eq!((state.volume_uuid.as_str(), state.size), (data.volume_uuid.as_str(), 4 * MIB));
    }
    // The place of its number is taken: the next free one.
    world.execute(1, attach(&spec.uuid, &more)).await.unwrap();
    let now = xml().await;
    assert!(now.contains("dev='vdd'") && now.contains("dev='vdb'"), "{now}");
    assert_eq!(now.matches(&data.path).count(), 1 + 1, "once as a file, once as an alias");

    let refused = world.execute(1, delete(&data)).await.unwrap_err();
    assert!(refused.full_text().contains(&spec.instance_name), "{refused}");
    for vm in [Some(spec.uuid.as_str()), None] {
        // Whether or not the order knows that it is attached.
        let grown = disk(world.execute(1, resize(vm, &data, 8 * MIB)).await.unwrap());
        assert_eq!(grown.size, 8 * MIB);
    }
    assert!(world.execute(1, resize(Some(&spec.uuid), &data, 2 * MIB)).await.is_err(), "never smaller while it runs");
    assert_eq!(std::fs::metadata(world.pool_dir().join(&data.path)).unwrap().len(), 8 * MIB);

    // The same run with the same specification: what was attached since stays.
    world.vm(1, start(&spec, true)).await;
    for _ in 0..2 {
        world.execute(1, detach(&spec.uuid, &data)).await.unwrap();
    }
    let now = xml().await;
    assert!(!now.contains(&data.volume_uuid) && now.contains(&more.volume_uuid), "{now}");
    world.execute(1, delete(&data)).await.unwrap();
    world.vm(1, stop(&spec, true)).await;
    world.execute(1, detach(&spec.uuid, &more)).await.unwrap();
    // At rest again.
    let grown = disk(world.execute(1, resize(Some(&spec.uuid), &more, 12 * MIB)).await.unwrap());
    assert_eq!(grown.size, 12 * MIB);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_keeps_a_disk_keeps_it() {
    let Some(world) = World::start("a_guest_that_keeps_a_disk_keeps_it", 1).await else { return };
    let spec = world.spec(DEAF).await;
    let data = world.volume(1).await;
    world.running(1, &spec).await;
    world.execute(1, attach(&spec.uuid, &data)).await.unwrap();
    let asked = tokio::time::timeout(crate::common::SECOND * 12, world.execute(1, detach(&spec.uuid, &data))).await;
    assert!(asked.is_err(), "it isn't answered before the guest had its time: {asked:?}");
    assert!(world.execute(1, delete(&data)).await.is_err(), "it is still the guest's");
    world.vm(1, stop(&spec, true)).await;
    world.execute(1, delete(&data)).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_copied_at_one_moment_while_the_guest_runs() {
    let Some(world) = World::start("a_disk_is_copied_at_one_moment_while_the_guest_runs", 1).await else { return };
    let spec = world.spec(SECTOR).await;
    world.running(1, &spec).await;
    let folder = testkit::temp_dir();
    let root = &spec.disks[0];
    let order = StoreDisk {
        volume_uuid: root.volume_uuid.clone(),
        pool_uuid: root.pool_uuid.clone(),
        path: root.path.clone(),
        vm_uuid: Some(spec.uuid.clone()),
        store: Some(ImageStore {
            uuid: "6b1f4a0e-0000-4000-8000-000000000077".into(),
            url: format!("file://{}", folder.path().display()),
            ..ImageStore::default()
        }),
        store_path: "snapshots/a.qcow2".into(),
        format: "qcow2".into(),
        report_after_millis: 2000,
        source: None,
    };
    let stored = || async {
        match world.execute(1, command::Body::StoreDisk(order.clone())).await.unwrap().body {
            Some(outcome::Body::Image(image)) => (image.phase() == Phase::Ready).then_some(image),
            other => panic!("{other:?}"),
        }
    };
    let image = testkit::eventually(stored).await;
    assert_eq!((image.virtual_size, image.format.as_str()), (4 * MIB, "qcow2"));
    // It stands alone, and begins with the guest's program.
    let (copy, raw) = (folder.path().join(&order.store_path), folder.path().join("raw"));
    let converted = std::process::Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(copy).arg(&raw).status();
    assert!(converted.is_ok_and(|status| status.success()));
    assert!(std::fs::read(raw).unwrap().starts_with(SECTOR));
    // The guest goes on with its own disk, and nothing of the copying stays.
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let libvirt = world.libvirt(1).await;
    assert_eq!(libvirt.block_job_info(&domain, "vda").await.unwrap(), None);
    assert!(libvirt.xml(&domain, XmlFlags::none()).await.unwrap().contains(&root.path));
    world.vm(1, stop(&spec, false)).await;
    world.end().await;
}
