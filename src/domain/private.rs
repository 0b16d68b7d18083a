//! Files that only the user of the process may read: 0600, in directories of 0700, whatever the
//! umask is.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Options that create a file for its owner only.
#[must_use]
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Creates a directory and its parents, where they are missing, for their owner only.
///
/// # Errors
/// One of them cannot be created.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Takes the rights of others away from a file that is there already. An earlier release, or a
/// person, may have given them.
///
/// # Errors
/// The file is another user's, or its file system has no rights.
pub fn keep_private(path: &Path) -> io::Result<()> {
    let stands = match fs::symlink_metadata(path) {
        Ok(stands) => stands,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A person placed the target of a link.
    if stands.is_symlink() || stands.permissions().mode() & OTHERS == 0 {
        return Ok(());
    }
    let mode = if stands.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// [`keep_private`] for a directory of ours and everything in it. A file of another user, as the
/// root of a volume may be, does not stop the rest.
///
/// # Errors
/// As [`keep_private`], the first of them.
pub fn keep_directory_private(directory: &Path) -> io::Result<()> {
    let mut outcome = keep_private(directory);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let kept = if path.is_dir() && !path.is_symlink() {
            keep_directory_private(&path)
        } else {
            keep_private(&path)
        };
        outcome = outcome.and(kept);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_link_is_left_to_the_person_who_placed_it() {
        let place = std::env::temp_dir().join(format!("hookswitch-private-{}", uuid::Uuid::now_v7()));
        create_private_directory(&place).expect("made");
        let (target, link) = (place.join("target"), place.join("link"));
        fs::write(&target, "").expect("made");
        fs::set_permissions(&target, Permissions::from_mode(0o644)).expect("set");
        std::os::unix::fs::symlink(&target, &link).expect("made");
        keep_private(&link).expect("nothing to do");
        assert_eq!(mode(&target), 0o644);
        fs::remove_dir_all(&place).expect("removed");
    }

    #[test]
    fn what_is_made_and_what_was_there_is_its_owners_only() {
        let place = std::env::temp_dir().join(format!("hookswitch-private-{}", uuid::Uuid::now_v7()));
        let inner = place.join("a").join("b");
        create_private_directory(&inner).expect("made");
        let made = inner.join("made");
        private_file()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&made)
            .expect("made");
        assert_eq!((mode(&place), mode(&inner), mode(&made)), (0o700, 0o700, 0o600));
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).expect("set");
        fs::set_permissions(&made, Permissions::from_mode(0o644)).expect("set");
        keep_directory_private(&place).expect("mended");
        assert_eq!((mode(&inner), mode(&made)), (0o700, 0o600));
        keep_private(&place.join("absent")).expect("nothing to do");
        fs::remove_dir_all(&place).expect("removed");
    }
}
