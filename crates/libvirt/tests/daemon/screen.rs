//! Streams: a screenshot and a serial console.

use crate::{host, running};
use libvirt::ConsoleFlags;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_screen_is_photographed() {
    let Some((_host, connection)) = host("the_screen_is_photographed").await else { return };
    let domain = running(&connection, "d", "").await;
    for _ in 0..3 {
        let shot = connection.screenshot(&domain, 0).await.unwrap();
        match shot.mime.as_str() {
            "image/png" => assert!(shot.image.starts_with(b"\x89PNG\r\n")),
            other => assert!(other == "image/x-portable-pixmap" && shot.image.starts_with(b"P6"), "{other}"),
        }
        assert!(shot.image.len() > 100);
    }
    let error = connection.screenshot(&domain, 9).await.unwrap_err();
    assert!(error.code().is_some(), "{error}");
    assert!(connection.is_lost().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_speaks_and_is_taken_over() {
    let Some((host, connection)) = host("the_console_speaks_and_is_taken_over").await else { return };
    // Tells SeaBIOS to use the first serial port too.
    let port = host.scratch().join("port");
    std::fs::write(&port, 0x3f8_u16.to_le_bytes()).unwrap();
    let more = format!(
        "<qemu:commandline><qemu:arg value='-fw_cfg'/><qemu:arg value='name=etc/sercon-port,file={}'/></qemu:commandline>",
        port.display()
    );
    let xml = crate::guest("d", "<serial type='pty'/>").replace("</domain>", &format!("{more}</domain>"));
    let domain = connection.create_transient(&xml, libvirt::CreateFlags::PAUSED).await.unwrap();
    let mut console = connection.console(&domain, None, ConsoleFlags::none()).await.unwrap();
    connection.resume(&domain).await.unwrap();
    let hear = async {
        let mut heard = String::new();
        while !heard.contains("SeaBIOS") {
            let bytes = console.read().await.unwrap().expect("the console ended");
            heard.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), hear).await.expect("SeaBIOS says who it is");
    console.write(b"\x1b").await.unwrap();
    let busy = connection.console(&domain, None, ConsoleFlags::none()).await.unwrap_err();
    assert!(busy.code().is_some(), "{busy}");
    let second = connection.console(&domain, None, ConsoleFlags::FORCE).await.unwrap();
    // Whoever had it hears that it is over.
    let over = async { while let Ok(Some(_)) = console.read().await {} };
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("the first console ends");
    drop(second);
    assert_eq!(connection.hostname().await.unwrap(), host.name());
}
