//! Refuses a volatile directory for a spool. A directory that vanishes with its container or at a
//! restart would lose accepted events (invariant 12).

use crate::queue::ConnectError;
use std::path::Path;

/// File systems that lose their files, by the number that the system gives them.
const VOLATILE: &[(i64, &str)] = &[
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay: the writable layer of a container"),
];

pub(super) fn refuse_volatile(directory: &Path) -> Result<(), ConnectError> {
    let stat = rustix::fs::statfs(directory).map_err(|error| ConnectError::Io {
        doing: "read the file system of",
        path: directory.display().to_string(),
        source: error.into(),
    })?;
    // The field is signed: only its low 32 bits are the number.
    let number = stat.f_type & 0xffff_ffff;
    match VOLATILE.iter().find(|(known, _)| *known == number) {
        Some((_, file_system)) => Err(ConnectError::Volatile {
            directory: directory.display().to_string(),
            file_system,
        }),
        None => Ok(()),
    }
}
