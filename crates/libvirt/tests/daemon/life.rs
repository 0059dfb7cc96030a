//! A domain from definition to its end, and what the host tells of itself.

use crate::{event, guest, host, lifecycle};
use libvirt::domain::{DomainState, Metadata, RunningReason, ShutOffReason};
use libvirt::events::{LifecycleChange, StartedDetail, StoppedDetail, SuspendedDetail};
use libvirt::host::GuestKind;
use libvirt::{
    AffectFlags, CreateFlags, DefineFlags, DestroyFlags, ErrorCode, Event, EventKind, ListFlags, MemoryFlags,
    RebootFlags, ShutdownFlags, UndefineFlags, VcpuFlags, XmlFlags,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_tells_what_it_is() {
    let Some((host, connection)) = host("the_host_tells_what_it_is").await else { return };
    assert_eq!(connection.hostname().await.unwrap(), host.name());
    assert!(connection.library_version().await.unwrap().major >= 6);
    assert!(connection.hypervisor_version().await.unwrap().major >= 4);
    assert!(connection.uri().await.unwrap().starts_with("qemu:"));
    let capabilities = connection.capabilities().await.unwrap();
    assert!(capabilities.contains(host.uuid()), "{capabilities}");
    let node = connection.node_info().await.unwrap();
    assert_eq!(node.model, "x86_64");
    assert!(node.cpus >= 1 && node.memory > 1 << 18, "{node:?}");
    assert!(connection.free_memory().await.unwrap() > 1 << 20);
    let kind = GuestKind { arch: Some("x86_64".into()), virt_type: Some("qemu".into()), ..GuestKind::default() };
    assert!(connection.domain_capabilities(&kind).await.unwrap().contains("<domain>qemu</domain>"));
    let kvm = GuestKind { virt_type: Some("kvm".into()), ..GuestKind::default() };
    assert!(connection.domain_capabilities(&kvm).await.is_err(), "/dev/kvm is hidden in test hosts");
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_lives_and_tells_of_it() {
    let Some((_host, connection)) = host("a_domain_lives_and_tells_of_it").await else { return };
    let mut events = connection.events(&[EventKind::LIFECYCLE, EventKind::REBOOT], None).await.unwrap();
    let xml = guest("i-2-3-VM", "");
    let domain = connection.define(&xml, DefineFlags::VALIDATE).await.unwrap();
    lifecycle(&mut events, LifecycleChange::DEFINED).await;
    assert_eq!((domain.name.as_str(), domain.id), ("i-2-3-VM", -1));
    assert_eq!(connection.domain_by_uuid(domain.uuid).await.unwrap(), domain);
    assert_eq!(connection.domain_by_name("i-2-3-VM").await.unwrap(), domain);
    assert_eq!(connection.domains(ListFlags::none()).await.unwrap(), std::slice::from_ref(&domain));
    assert_eq!(connection.domains(ListFlags::ACTIVE).await.unwrap(), []);
    assert_eq!(connection.state(&domain).await.unwrap().shut_off(), Some(ShutOffReason::UNKNOWN));
    let error = connection.destroy(&domain, DestroyFlags::none()).await.unwrap_err();
    assert!(error.is_wrong_state(), "{error}");

    let domain = connection.start(&domain, CreateFlags::PAUSED).await.unwrap();
    assert!(domain.id > 0);
    assert_eq!(StartedDetail(lifecycle(&mut events, LifecycleChange::STARTED).await), StartedDetail::BOOTED);
    connection.resume(&domain).await.unwrap();
    lifecycle(&mut events, LifecycleChange::RESUMED).await;
    assert_eq!(connection.state(&domain).await.unwrap().running(), Some(RunningReason::UNPAUSED));
    assert!(connection.start(&domain, CreateFlags::none()).await.unwrap_err().is_wrong_state());
    let info = connection.info(&domain).await.unwrap();
    assert_eq!((info.state, info.max_memory, info.vcpus), (DomainState::RUNNING, 32 << 10, 1));
    assert!(connection.xml(&domain, XmlFlags::none()).await.unwrap().contains("<alias name="), "the running one");
    assert!(!connection.xml(&domain, XmlFlags::INACTIVE).await.unwrap().contains("<alias name="));

    connection.suspend(&domain).await.unwrap();
    assert_eq!(SuspendedDetail(lifecycle(&mut events, LifecycleChange::SUSPENDED).await), SuspendedDetail::PAUSED);
    assert!(connection.state(&domain).await.unwrap().paused().is_some());
    connection.resume(&domain).await.unwrap();
    connection.reset(&domain).await.unwrap();
    let rebooted = event(&mut events, |e| if let Event::Reboot { domain } = e { Some(domain) } else { None }).await;
    assert_eq!(rebooted.uuid, domain.uuid);
    // SeaBIOS doesn't listen to the power button: asking is all that can be tested without a system.
    connection.reboot(&domain, RebootFlags::ACPI_POWER_BUTTON).await.unwrap();
    connection.shutdown(&domain, ShutdownFlags::ACPI_POWER_BUTTON).await.unwrap();

    connection.destroy(&domain, DestroyFlags::none()).await.unwrap();
    assert_eq!(StoppedDetail(lifecycle(&mut events, LifecycleChange::STOPPED).await), StoppedDetail::DESTROYED);
    assert_eq!(connection.state(&domain).await.unwrap().shut_off(), Some(ShutOffReason::DESTROYED));
    connection.undefine(&domain, UndefineFlags::none()).await.unwrap();
    lifecycle(&mut events, LifecycleChange::UNDEFINED).await;
    let error = connection.state(&domain).await.unwrap_err();
    assert!(error.is_no_domain(), "{error}");
    assert!(connection.domain_by_name("i-2-3-VM").await.unwrap_err().is_no_domain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_changed_and_bad_ones_refused() {
    let Some((_host, connection)) = host("definitions_are_changed_and_bad_ones_refused").await else { return };
    let domain = connection.define(&guest("d", ""), DefineFlags::none()).await.unwrap();
    connection.set_vcpus(&domain, 2, VcpuFlags::CONFIG).await.unwrap();
    connection.set_memory(&domain, 24 << 10, MemoryFlags::CONFIG).await.unwrap();
    connection.set_autostart(&domain, true).await.unwrap();
    assert_eq!(connection.domains(ListFlags::AUTOSTART).await.unwrap().len(), 1);
    let info = connection.info(&domain).await.unwrap();
    assert_eq!((info.vcpus, info.memory), (2, 24 << 10));

    let ours = Metadata::Element { uri: "urn:arcus", prefix: "arcus" };
    let missing = connection.metadata(&domain, ours, AffectFlags::CONFIG).await.unwrap_err();
    assert!(missing.is_no_metadata(), "{missing}");
    connection.set_metadata(&domain, ours, Some("<vm epoch='7'/>"), AffectFlags::CONFIG).await.unwrap();
    let found = connection.metadata(&domain, ours, AffectFlags::CONFIG).await.unwrap();
    assert!(found.contains("epoch='7'") || found.contains("epoch=\"7\""), "{found}");
    connection.set_metadata(&domain, ours, None, AffectFlags::CONFIG).await.unwrap();
    assert!(connection.metadata(&domain, ours, AffectFlags::CONFIG).await.unwrap_err().is_no_metadata());
    connection.set_metadata(&domain, Metadata::Title, Some("Tütle"), AffectFlags::CONFIG).await.unwrap();
    assert_eq!(connection.metadata(&domain, Metadata::Title, AffectFlags::CONFIG).await.unwrap(), "Tütle");

    let no_xml = connection.define("<domain", DefineFlags::none()).await.unwrap_err();
    assert_eq!(no_xml.code(), Some(ErrorCode::XML_DETAIL), "{no_xml}");
    let twice = connection.define(&guest("d", ""), DefineFlags::none()).await.unwrap_err();
    assert_eq!(twice.code(), Some(ErrorCode::OPERATION_FAILED), "another UUID with the same name: {twice}");
    let nul = connection.domain_by_name("a\0b").await.unwrap_err();
    assert!(matches!(nul, libvirt::Error::BadArgument(_)), "{nul}");

    let transient = connection.create_transient(&guest("t", ""), CreateFlags::none()).await.unwrap();
    assert_eq!(connection.domains(ListFlags::TRANSIENT).await.unwrap(), std::slice::from_ref(&transient));
    connection.destroy(&transient, DestroyFlags::GRACEFUL).await.unwrap();
    assert!(connection.state(&transient).await.unwrap_err().is_no_domain());
}
