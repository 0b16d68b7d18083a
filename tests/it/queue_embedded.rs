//! The embedded queue: the contract, and what is its own — the disk that fails, the files that are damaged, the process that is killed.

use crate::conformance::queue::{Backend, Limits, run};
use async_trait::async_trait;
use hookswitch::{
    domain::SystemClock,
    queue::{EventQueue, LogQueue, LogSettings},
};
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("hookswitch-queue-{}", hookswitch::domain::EventId::generate()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// The files as they stand now, in a directory of their own: what a crash would leave.
    fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            // The keeper may take a file away in between.
            match fs::copy(entry.path(), copy.0.join(entry.file_name())) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => drop(other.unwrap()),
            }
        }
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings() -> LogSettings {
    LogSettings { segment_bytes: 256 << 10, disk_free_bytes_min: Some(0), ..LogSettings::default() }
}

struct Embedded {
    place: Scratch,
    open: Mutex<Option<Arc<LogQueue>>>,
}

impl Embedded {
    fn at(place: Scratch) -> Self {
        Self { place, open: Mutex::new(None) }
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn open(&self, limits: Limits) -> Arc<dyn EventQueue> {
        let settings = LogSettings { bytes_max: limits.bytes_max, event_bytes_max: limits.event_bytes_max, ..settings() };
        let queue = Arc::new(LogQueue::open(&self.place.0, settings, Arc::new(SystemClock)).await.unwrap());
        *self.open.lock().unwrap() = Some(queue.clone());
        queue
    }

    async fn crashed_now(&self) -> Box<dyn Backend> {
        Box::new(Self::at(self.place.copy()))
    }

    async fn put_undecodable(&self) {
        let queue = self.open.lock().unwrap().clone().unwrap();
        queue.publish_bytes(b"no envelope").await.unwrap();
    }
}

#[tokio::test]
async fn the_embedded_queue_keeps_the_contract() {
    run(|| Embedded::at(Scratch::new())).await;
}
