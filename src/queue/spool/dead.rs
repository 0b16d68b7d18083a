//! Entries that the broker will never take: a file each, with the envelope's bytes, in `dead/` of
//! the spool's directory. A person looks at them; nothing deletes them.

use crate::{
    domain::{create_private_directory, private_file},
    queue::DeliveryTag,
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The files of a spool's dead entries, oldest first.
///
/// # Errors
/// The directory cannot be read. A missing one is no error: nothing was ever set aside.
pub fn dead_entries(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(spool.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

const DIRECTORY: &str = "dead";

pub(super) struct DeadEntries {
    directory: PathBuf,
}

impl DeadEntries {
    pub fn new(spool: &Path) -> Self {
        Self {
            directory: spool.join(DIRECTORY),
        }
    }

    /// Returns when the entry stands on the disk. Storing it again replaces the file.
    pub async fn store(&self, tag: DeliveryTag, payload: Bytes) -> io::Result<PathBuf> {
        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || write(&directory, tag, &payload))
            .await
            .map_err(io::Error::other)?
    }
}

fn write(directory: &Path, tag: DeliveryTag, payload: &[u8]) -> io::Result<PathBuf> {
    create_private_directory(directory)?;
    let path = directory.join(format!("{:020}.event", tag.0));
    let mut file = private_file().write(true).create(true).truncate(true).open(&path)?;
    file.write_all(payload)?;
    file.sync_all()?;
    for directory in [Some(directory), directory.parent()].into_iter().flatten() {
        File::open(directory)?.sync_all()?;
    }
    Ok(path)
}
