//! File descriptors: sockets never take the last ones, so that files can still be opened and
//! written.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's limit of open files to what the system allows it, and returns it.
/// Idempotent.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Only a sandbox refuses this. The limit in force then bounds the connections.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Most connections that one listener may hold under the file limit, with a reserve for the queue,
/// the database, outgoing connections and the other listeners.
pub(super) fn connections_max() -> usize {
    usize::try_from(connections_under(raise_file_limit())).unwrap_or(usize::MAX)
}

fn connections_under(files: u64) -> u64 {
    files.saturating_sub((files / 4).clamp(48, 512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stays_under_any_file_limit() {
        for (files, connections) in [
            (0, 0),
            (48, 0),
            (128, 80),
            (1024, 768),
            (4096, 3584),
            (1 << 20, (1 << 20) - 512),
        ] {
            assert_eq!(connections_under(files), connections, "{files} files");
        }
    }
}
