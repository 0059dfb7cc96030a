//! Secrets survive restarts, open only where they were sealed, and never leave the key file readable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt as _;
use vault::Vault;

#[test]
fn a_secret_survives_a_restart() {
    let dir = testkit::temp_dir();
    let path = dir.path().join("master.key");
    let sealed = Vault::open(&path).unwrap().seal("users.secret_key:2", b"hush");
    assert!(!sealed.contains("hush"));
    assert_eq!(Vault::open(&path).unwrap().open_sealed("users.secret_key:2", &sealed).unwrap(), b"hush");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays behind");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let dir = testkit::temp_dir();
    let path = dir.path().join("master.key");
    Vault::open(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Vault::open(&path).err().expect("refused");
    assert!(error.full_text().contains("chmod 600"), "{error}");
}

#[test]
fn a_damaged_key_file_is_not_overwritten() {
    let dir = testkit::temp_dir();
    let path = dir.path().join("master.key");
    for text in ["", "no key\n", "id c2hvcnQ=\n"] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Vault::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn replicas_that_race_share_one_key() {
    let dir = testkit::temp_dir();
    let path = dir.path().join("master.key");
    let vaults: Vec<Vault> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..8).map(|_| s.spawn(|| Vault::open(&path).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let sealed = vaults[0].seal("a", b"b");
    assert!(vaults.iter().all(|v| v.open_sealed("a", &sealed).unwrap() == b"b"));
}

#[test]
fn an_older_key_still_opens_and_the_newest_seals() {
    let dir = testkit::temp_dir();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let sealed = Vault::open(&old).unwrap().seal("a", b"b");
    Vault::open(&new).unwrap();
    let both = std::fs::read_to_string(&old).unwrap() + &std::fs::read_to_string(&new).unwrap();
    std::fs::write(&old, both).unwrap();
    let rotated = Vault::open(&old).unwrap();
    assert_eq!(rotated.open_sealed("a", &sealed).unwrap(), b"b");
    assert!(rotated.is_outdated(&sealed));
    let again = rotated.seal("a", b"b");
    assert!(!rotated.is_outdated(&again));
    assert_eq!(Vault::open(&new).unwrap().open_sealed("a", &again).unwrap(), b"b");
}

proptest! {
    #[test]
    fn what_is_sealed_opens_only_in_its_place(plain in any::<Vec<u8>>(), context in ".{0,40}", other in ".{0,40}") {
        let vault = Vault::ephemeral();
        let sealed = vault.seal(&context, &plain);
        prop_assert_eq!(vault.open_sealed(&context, &sealed).unwrap(), plain);
        prop_assert!(context == other || vault.open_sealed(&other, &sealed).is_err());
        prop_assert!(Vault::ephemeral().open_sealed(&context, &sealed).is_err());
    }

    #[test]
    fn an_altered_text_never_opens(flip in any::<prop::sample::Index>()) {
        let vault = Vault::ephemeral();
        let sealed = vault.seal("a", b"secret");
        let at = flip.index(sealed.len());
        let mut bytes = sealed.into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        prop_assert!(vault.open_sealed("a", &altered).is_err());
    }
}
