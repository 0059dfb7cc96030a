//! Against real libvirtds with QEMU, each on a host of its own (see `testkit::Libvirtd`). The guests have no disk: SeaBIOS runs and stays.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod devices;
mod life;
mod line;
mod migration;
mod screen;

use libvirt::{Connection, DefineFlags, DomainRef, Event, EventStream, Options};
use std::time::Duration;
use testkit::Libvirtd;

/// A host and a connection, or `None` after saying that the test is skipped, and why.
async fn host(test: &str) -> Option<(Libvirtd, Connection)> {
    if !Libvirtd::available(test) {
        return None;
    }
    let host = Libvirtd::start().await;
    let connection = connect(&host).await;
    Some((host, connection))
}

async fn connect(host: &Libvirtd) -> Connection {
    Connection::open(host.socket(), Options::default()).await.expect("a connection")
}

/// XML of a guest with 32 MiB and these devices besides a VGA screen.
fn guest(name: &str, devices: &str) -> String {
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
           <name>{name}</name><uuid>{}</uuid><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
           <os><type arch='x86_64' machine='pc'>hvm</type></os>
           <on_reboot>restart</on_reboot>
           <devices>
             <emulator>/usr/bin/qemu-system-x86_64</emulator>
             <controller type='usb' model='piix3-uhci'/>
             <video><model type='vga'/></video>
             <memballoon model='virtio'/>
             {devices}
           </devices>
         </domain>",
        uuid::Uuid::new_v4()
    )
}

/// Defines and starts a guest.
async fn running(connection: &Connection, name: &str, devices: &str) -> DomainRef {
    let domain = connection.define(&guest(name, devices), DefineFlags::VALIDATE).await.expect("defined");
    connection.start(&domain, libvirt::CreateFlags::none()).await.expect("started")
}

/// The next event that `wanted` gives something for.
async fn event<T>(events: &mut EventStream, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let seen = async {
        loop {
            let event = events.next().await.expect("an event, but the connection is lost");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the event didn't come")
}

/// Waits for a lifecycle event and gives its detail.
async fn lifecycle(events: &mut EventStream, wanted: libvirt::events::LifecycleChange) -> i32 {
    event(events, |event| match event {
        Event::Lifecycle { change, detail, .. } if change == wanted => Some(detail),
        _ => None,
    })
    .await
}
