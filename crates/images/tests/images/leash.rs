//! What the tool may not do: tools that misbehave, in its place.

use crate::{GIB, MIB, names, raw_disk};
use images::{Error, Format, Limits, Origin, QemuImg, ToolError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// A `qemu-img` that is this shell script.
fn fake(folder: &Path, script: &str) -> QemuImg {
    let program = folder.join("fake");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let limits = Limits { address_space: 256 << 20, cpu: Duration::from_secs(1), deadline: Duration::from_secs(60) };
    QemuImg { program, quick: limits, copy: limits, max_virtual_bytes: GIB }
}

async fn info(qemu_img: &QemuImg, disk: &Path) -> ToolError {
    match qemu_img.info(disk, Format::Raw, Origin::Pool).await {
        Err(Error::Tool(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn limits_end_the_tool() {
    let dir = testkit::temp_dir();
    let disk = raw_disk(dir.path(), "disk.raw", 4096);
    let burns = info(&fake(dir.path(), "while :; do :; done"), &disk).await;
    // The kernel may kill outright, as both limits are the same.
    assert!(matches!(burns, ToolError::Signal { signal: 24 | 9, .. }), "{burns}");
    let floods = info(
        &fake(dir.path(), "while echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; do :; done"),
        &disk,
    )
    .await;
    assert!(matches!(floods, ToolError::Flood { .. }), "{floods}");
    let mut slow = fake(dir.path(), "exec sleep 600");
    slow.quick.deadline = Duration::from_millis(200);
    let slow = info(&slow, &disk).await;
    assert!(matches!(slow, ToolError::Deadline { .. }), "{slow}");
    let writes = info(&fake(dir.path(), &format!("echo x > {}/forbidden", dir.path().display())), &disk).await;
    assert!(matches!(writes, ToolError::Failed { .. } | ToolError::Signal { signal: 25, .. }), "{writes}");
    let eats = info(&fake(dir.path(), "x=yyyyyyyyyyyyyyyy; while :; do x=$x$x$x$x; done"), &disk).await;
    assert!(matches!(eats, ToolError::Failed { .. } | ToolError::Signal { .. }), "{eats}");
    let fails = info(&fake(dir.path(), "echo sorry >&2; exit 3"), &disk).await;
    assert_eq!(fails, ToolError::Failed { program: "qemu-img info".into(), code: 3, said: "sorry".into() });
    let rubbish = info(&fake(dir.path(), "echo '{'"), &disk).await;
    assert!(matches!(rubbish, ToolError::Nonsense { .. }), "{rubbish}");
    let lies = r#"echo '{"virtual-size": 8192, "actual-size": 1, "format": "raw"}'"#;
    let lies = info(&fake(dir.path(), lies), &disk).await;
    assert!(matches!(lies, ToolError::Nonsense { .. }), "{lies}");
    let none = QemuImg { program: "no-such-program".into(), ..QemuImg::new(GIB) };
    assert_eq!(info(&none, &disk).await, ToolError::Missing("no-such-program".into()));
}

#[tokio::test]
async fn its_environment_is_empty_and_its_format_told() {
    let dir = testkit::temp_dir();
    let disk = raw_disk(dir.path(), "disk.raw", 4096);
    let said = info(&fake(dir.path(), "env | cut -d= -f1 | sort | tr '\\n' ' ' >&2; echo $* >&2; exit 1"), &disk).await;
    let ToolError::Failed { said, .. } = said else { panic!("{said}") };
    assert_eq!(said, format!("LC_ALL MALLOC_ARENA_MAX PATH PWD info --output=json -f raw {}", disk.display()));
}

/// A dropped future: the tool is dead, and the folder clean.
#[tokio::test]
async fn a_dropped_operation_leaves_nothing() {
    let dir = testkit::temp_dir();
    let pool = testkit::temp_dir();
    let pid_file = dir.path().join("pid");
    // The file of its process id appears whole.
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", pid_file.display());
    let qemu_img = fake(dir.path(), &script);
    let target = pool.path().join("disk.qcow2");
    let work = tokio::spawn(async move { qemu_img.create(&target, Format::Qcow2, MIB).await });
    let pid = testkit::eventually(async || std::fs::read_to_string(&pid_file).ok()).await;
    assert_eq!(names(pool.path()).len(), 2, "the file in the making and its lock");
    assert!(images::sweep(pool.path()).unwrap().is_empty(), "work in progress stays");
    work.abort();
    assert!(work.await.unwrap_err().is_cancelled());
    assert_eq!(names(pool.path()), [""; 0]);
    let proc = format!("/proc/{}/comm", pid.trim());
    testkit::wait_until(async || std::fs::read_to_string(&proc).is_err(), Duration::from_secs(30)).await;
}
