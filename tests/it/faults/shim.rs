//! The disk and the clock that fail on request: `shim.c` between the process and the kernel, and
//! what power loss takes back.

use super::{load::Random, world::World};
use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The library, built once for this run by the compiler that built SQLite too.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let into = std::env::temp_dir().join(format!("hookswitch-shim-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/shim.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&into)
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .output();
        let built = built.expect("cc is needed to build this package, and here too");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        into
    })
}

/// The shim of one world.
pub struct Shim(PathBuf);

impl Shim {
    /// `keeps_undo`: for power loss. Its directory is no part of what the process may see.
    pub fn new(world: &World, keeps_undo: bool) -> Self {
        let directory = world.place.path().join("shim");
        fs::create_dir_all(&directory).expect("a writable directory");
        let shim = Self(directory);
        if keeps_undo {
            shim.forget_undo();
        }
        shim
    }

    /// The environment to start the process with.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAULTS_SHIM", self.0.display().to_string()),
        ]
    }

    /// These lines are in force from here on; none: all is well.
    pub fn ask(&self, lines: &str) {
        for entry in fs::read_dir(&self.0).expect("a directory").flatten() {
            if entry.file_name().to_string_lossy().starts_with("done.") {
                fs::remove_file(entry.path()).expect("a file of ours");
            }
        }
        let beside = self.0.join("ctl.new");
        fs::write(&beside, lines)
            .and_then(|()| fs::rename(&beside, self.0.join("ctl")))
            .expect("a writable directory");
    }

    fn forget_undo(&self) {
        File::create(self.0.join("undo")).expect("a writable directory");
    }

    /// The power goes: of what was written and not synced, all of it or any part of it by chance is
    /// as it was. Returns how many writes were taken back.
    pub fn lose_power(&self, random: &mut Random) -> usize {
        const ENTRY: usize = 8 + 3 * 8 + 256;
        struct Undo {
            kind: u8,
            offset: u64,
            size: u64,
            bytes: Vec<u8>,
        }
        let log = fs::read(self.0.join("undo")).expect("the shim kept it");
        let mut files: HashMap<PathBuf, Vec<Undo>> = HashMap::new();
        let mut at = 0;
        while at + ENTRY <= log.len() {
            let number = |index: usize| {
                u64::from_ne_bytes(
                    log[at + 8 + index * 8..at + 16 + index * 8]
                        .try_into()
                        .expect("eight bytes"),
                )
            };
            let (offset, length, size) = (number(0), usize::try_from(number(1)).expect("fits"), number(2));
            let path = &log[at + 32..at + ENTRY];
            let path = PathBuf::from(
                String::from_utf8_lossy(&path[..path.iter().position(|byte| *byte == 0).unwrap_or(path.len())])
                    .into_owned(),
            );
            let kind = log[at];
            at += ENTRY;
            if at + length > log.len() {
                break; // the kill came into it: its write never happened
            }
            let undo = files.entry(path).or_default();
            if kind == b'S' {
                undo.clear();
            } else {
                undo.push(Undo {
                    kind,
                    offset,
                    size,
                    bytes: log[at..at + length].to_vec(),
                });
            }
            at += length;
        }
        let loses_all = random.chance(50);
        let mut lost = 0;
        for (path, undos) in files {
            let Ok(file) = File::options().read(true).write(true).open(&path) else {
                continue;
            };
            for undo in undos.iter().rev() {
                if !loses_all && random.chance(50) {
                    continue;
                }
                lost += 1;
                let length = file.metadata().expect("metadata").len();
                file.write_all_at(&undo.bytes, undo.offset)
                    .expect("a write of the harness");
                if loses_all {
                    file.set_len(undo.size).expect("a length that it had");
                } else if undo.kind == b'W' && length > undo.size {
                    // The file grew and the bytes did not get there: zeros, as file systems leave
                    // them.
                    let from = undo.size.max(undo.offset);
                    let zeros = vec![0; usize::try_from(length.saturating_sub(from)).expect("fits").min(1 << 20)];
                    file.write_all_at(&zeros, from).expect("a write of the harness");
                }
            }
        }
        self.forget_undo();
        lost
    }
}
