//! The agent is one file that any machine with glibc runs.

use std::process::Command;

/// Of glibc itself, and of what its package can't do without.
const GLIBC: [&str; 10] = [
    "libc.so",
    "libm.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "libresolv.so",
    "ld-linux",
    "linux-vdso",
    "linux-gate",
    // The compiler's own, for unwinding: glibc loads it, and its packages depend on it (libc6 on libgcc-s1).
    "libgcc_s.so",
];

#[test]
fn the_binary_needs_glibc_and_nothing_else() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_arcus")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries: Vec<&str> = told.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let file = |library: &str| library.rsplit('/').next().unwrap_or_default().to_owned();
    let other: Vec<&&str> =
        libraries.iter().filter(|library| !GLIBC.iter().any(|known| file(library).starts_with(known))).collect();
    assert!(!libraries.is_empty() && other.is_empty(), "{other:?} of\n{told}");
}
