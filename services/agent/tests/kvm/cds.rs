//! CD drives.

use crate::world::{SECTOR, World, start, stop};
use contract_agent::{ChangeCd, DeleteDisk, EnsureIso, ImageStore, PowerState, TemplateSource, VmCd, VmSpec, command};
use libvirt::XmlFlags;
use uuid::Uuid;

const BLOCK: usize = 2048;

/// A CD from which a program boots (El Torito, without emulation).
fn bootable(program: &[u8]) -> Vec<u8> {
    let mut cd = vec![0; 64 * BLOCK];
    let mut put = |block: usize, offset: usize, bytes: &[u8]| {
        cd[block * BLOCK + offset..][..bytes.len()].copy_from_slice(bytes);
    };
    put(16, 0, b"\x01CD001\x01");
    put(17, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(17, 0x47, &19u32.to_le_bytes());
    put(18, 0, b"\xffCD001\x01");
    // The catalogue: a header whose words add up to nothing, and the program in four sectors.
    put(19, 0, &[1]);
    put(19, 0x1c, &[0xaa, 0x55, 0x55, 0xaa]);
    put(19, 0x20, &[0x88]);
    put(19, 0x26, &4u16.to_le_bytes());
    put(19, 0x28, &20u32.to_le_bytes());
    put(20, 0, program);
    cd
}

/// The order to have an ISO on the pool.
fn ensure(world: &World, iso: &str, folder: &std::path::Path, path: &str) -> command::Body {
    command::Body::EnsureIso(EnsureIso {
        pool_uuid: world.pool.clone(),
        iso: Some(TemplateSource {
            template_uuid: iso.into(),
            store_path: path.into(),
            format: "ISO".into(),
            store: Some(ImageStore {
                uuid: "6b1f4a0e-0000-4000-8000-000000000078".into(),
                url: format!("file://{}", folder.display()),
                ..ImageStore::default()
            }),
            ..TemplateSource::default()
        }),
    })
}

/// Puts an ISO with these bytes on the pool.
pub async fn burned(world: &World, bytes: &[u8]) -> VmCd {
    let (folder, iso) = (testkit::temp_dir(), Uuid::new_v4().to_string());
    std::fs::write(folder.path().join("a.iso"), bytes).unwrap();
    for _ in 0..2 {
        world.execute(1, ensure(world, &iso, folder.path(), "a.iso")).await.unwrap();
    }
    VmCd { iso_uuid: iso, pool_uuid: world.pool.clone() }
}

pub fn change(spec: &VmSpec, cd: Option<&VmCd>) -> ChangeCd {
    ChangeCd { vm_uuid: spec.uuid.clone(), generation: spec.generation, cd: cd.cloned(), lenient: false }
}

fn delete(cd: &VmCd) -> command::Body {
    command::Body::DeleteDisk(DeleteDisk {
        volume_uuid: cd.iso_uuid.clone(),
        pool_uuid: cd.pool_uuid.clone(),
        path: format!("template-{}", cd.iso_uuid),
        ended_vm: None,
    })
}

/// What the drive of a guest holds, as libvirt and QEMU tell.
async fn drive(world: &World, vm: &str) -> (String, String) {
    let (domain, _) = world.domain(1, vm).await.unwrap();
    let libvirt = world.libvirt(1).await;
    let xml = libvirt.xml(&domain, XmlFlags::none()).await.unwrap();
    let at = xml.find("device='cdrom'").unwrap();
    let end = at + xml[at..].find("</disk>").unwrap();
    let seen = libvirt.monitor_command(&domain, r#"{"execute":"query-block"}"#).await.unwrap();
    (xml[at..end].to_owned(), seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_boots_from_its_cd_which_is_changed_while_it_runs() {
    let test = "a_guest_boots_from_its_cd_which_is_changed_while_it_runs";
    let Some(mut world) = World::start(test, 1).await else { return };
    let mut program = SECTOR.to_vec();
    assert_eq!(std::mem::replace(&mut program[4], b'C'), b'@');
    let image = bootable(&program);
    let first = burned(&world, &image).await;
    let file = |cd: &VmCd| world.pool_dir().join(format!("template-{}", cd.iso_uuid));
    // What lies on the pool is what lay in the store.
    let raw = world.pool_dir().join("raw");
    let converted =
        std::process::Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(file(&first)).arg(&raw).status();
    assert!(converted.is_ok_and(|status| status.success()));
    assert!(std::fs::read(&raw).unwrap() == image, "byte for byte");
    std::fs::remove_file(&raw).unwrap();

    let spec = VmSpec { cd: Some(first.clone()), ..world.spec(SECTOR).await };
    let missing = VmCd { iso_uuid: Uuid::new_v4().to_string(), ..first.clone() };
    let without = VmSpec { cd: Some(missing.clone()), ..spec.clone() };
    assert!(world.execute(1, start(&without, false)).await.is_err(), "the pool doesn't have it");
    assert!(world.execute(1, command::Body::ChangeCd(change(&spec, None))).await.is_err(), "it doesn't run yet");
    world.started(1, &spec, false).await;
    testkit::wait_until(|| async { world.console(1, &spec.instance_name).contains('C') }, 60 * crate::common::SECOND)
        .await;
    assert!(!world.console(1, &spec.instance_name).contains('@'), "it booted from the CD, not from its disk");
    let (xml, seen) = drive(&world, &spec.uuid).await;
    assert!(xml.contains(&first.iso_uuid) && xml.contains("<readonly/>"), "{xml}");
    assert!(seen.contains(&first.iso_uuid), "{seen}");
    // What lies on the pool isn't looked for in the store again, though a guest reads it.
    world.execute(1, ensure(&world, &first.iso_uuid, std::path::Path::new("/nowhere"), "a.iso")).await.unwrap();

    let second = burned(&world, b"no file system").await;
    for _ in 0..2 {
        world.execute(1, command::Body::ChangeCd(change(&spec, Some(&second)))).await.unwrap();
        let (xml, seen) = drive(&world, &spec.uuid).await;
        assert!(xml.contains(&second.iso_uuid) && !xml.contains(&first.iso_uuid), "{xml}");
        assert!(seen.contains(&second.iso_uuid) && !seen.contains(&first.iso_uuid), "{seen}");
    }
    let refused = world.execute(1, command::Body::ChangeCd(change(&spec, Some(&missing)))).await.unwrap_err();
    assert!(refused.full_text().contains("no ISO"), "{refused}");
    let other = ChangeCd { generation: 9, ..change(&spec, None) };
    assert!(world.execute(1, command::Body::ChangeCd(other.clone())).await.is_err(), "another run of it");
    world.execute(1, command::Body::ChangeCd(ChangeCd { lenient: true, ..other })).await.unwrap();
    assert!(drive(&world, &spec.uuid).await.0.contains(&second.iso_uuid), "an order for another run does nothing");

    // What lies in a drive is kept, also by an agent that finds the guest.
    assert_eq!(world.execute(1, delete(&second)).await.unwrap_err().code, 536);
    world.execute(1, delete(&first)).await.unwrap();
    assert!(!file(&first).exists());
    world.kill_agent(0).await;
    world.start_agent(0).await;
    world.started(1, &spec, true).await;
    assert_eq!(world.execute(1, delete(&second)).await.unwrap_err().code, 536);
    world.execute(1, command::Body::ChangeCd(change(&spec, Some(&second)))).await.unwrap();

    for _ in 0..2 {
        world.execute(1, command::Body::ChangeCd(change(&spec, None))).await.unwrap();
        let (xml, seen) = drive(&world, &spec.uuid).await;
        assert!(!xml.contains("file='") && !xml.contains("cache="), "{xml}");
        assert!(!seen.contains(&second.iso_uuid), "{seen}");
    }
    world.execute(1, command::Body::ChangeCd(change(&spec, Some(&second)))).await.unwrap();
    // What an undo wants back and is gone is passed over.
    let gone = ChangeCd { lenient: true, ..change(&spec, Some(&first)) };
    world.execute(1, command::Body::ChangeCd(gone)).await.unwrap();
    assert!(!drive(&world, &spec.uuid).await.0.contains("file='"));
    world.execute(1, delete(&second)).await.unwrap();
    world.vm(1, stop(&spec, true)).await;

    // With an empty drive it boots from its disk.
    let again = VmSpec { cd: None, generation: 2, ..spec };
    assert_eq!(world.running(1, &again).await.power(), PowerState::On);
    world.vm(1, stop(&again, true)).await;
    world.end().await;
}
