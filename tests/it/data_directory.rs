//! Only the user of the process can read files under the data directory.

use crate::support::dev::{BINARY, Dev, Directory, port_base};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

/// Every file and directory from here on, with its mode.
fn modes(place: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut open = vec![place.to_owned()];
    while let Some(path) = open.pop() {
        let stands = fs::symlink_metadata(&path).expect("a file of this process");
        found.insert(path.display().to_string(), stands.permissions().mode() & 0o777);
        if stands.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of this process");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

fn assert_private(place: &Path) {
    let modes = modes(place);
    for part in [
        "dev.json",
        "dev.key",
        "store.db",
        "store.db-wal",
        "store.db-shm",
        "store.db.lock",
        ".seg",
        "marks",
    ] {
        assert!(modes.keys().any(|path| path.ends_with(part)), "no {part} in {modes:?}");
    }
    let others: Vec<_> = modes.iter().filter(|(_, mode)| **mode & 0o077 != 0).collect();
    assert!(others.is_empty(), "others can read {others:?}");
}

/// Which shell starts it and what an earlier release left make no difference.
#[tokio::test]
async fn nobody_else_can_read_what_lies_under_the_data_directory() {
    let directory = Directory::new();
    let place = directory.path().join("data").join("of hookswitch");
    let with_open_umask = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 000; exec \"$0\" \"$@\"", BINARY]);
        shell
    };
    let mut dev = Dev::start_by(with_open_umask(), &place, port_base(), &["--demo"], &[]).await;
    dev.wait_for_sms(1).await;
    assert_private(&place);
    dev.process.kill();

    // As an earlier release left it under the usual umask. A key that others could read is refused.
    for (path, mode) in modes(&place) {
        if !path.ends_with("dev.key") {
            fs::set_permissions(
                &path,
                Permissions::from_mode(mode | if mode & 0o100 == 0 { 0o044 } else { 0o055 }),
            )
            .expect("ours");
        }
    }
    let mut dev = Dev::start_by(with_open_umask(), &place, port_base(), &[], &[]).await;
    assert_private(&place);
    dev.process.kill();
}
