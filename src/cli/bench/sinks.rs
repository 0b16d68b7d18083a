//! The two baselines of ingest: a sink that drops, and an append-only file with a group fsync.
//! Everything before them is the same server.

use crate::{
    domain::VerifiedEvent,
    queue::{ConsumeError, Deliveries, EventQueue, PublishError, QueueState},
};
use async_trait::async_trait;
use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Confirms at once, so that only accept, read, verify and answer remain.
pub(super) struct Drop;

#[async_trait]
impl EventQueue for Drop {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        std::hint::black_box(event);
        Ok(())
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Err(ConsumeError::AlreadyConsumed)
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {}
}

/// The simplest durable sink: bodies are appended to one file, with one write and one fdatasync for
/// all that wait. No ids, no checksums, no reading.
pub(super) struct AppendOnly {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    filling: Mutex<Filling>,
    wake: Condvar,
}

struct Filling {
    bytes: Vec<u8>,
    /// Turns true when the group that is filling is on disk.
    group: watch::Sender<bool>,
    stop: bool,
}

impl AppendOnly {
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        let mut file = File::create(path)?;
        let shared = Arc::new(Shared {
            filling: Mutex::new(Filling {
                bytes: Vec::new(),
                group: watch::channel(false).0,
                stop: false,
            }),
            wake: Condvar::new(),
        });
        let ours = shared.clone();
        let thread = std::thread::Builder::new()
            .name("append-only".to_owned())
            .spawn(move || {
                let mut writing = Vec::new();
                loop {
                    let group = {
                        let mut filling = ours.filling.lock().unwrap_or_else(PoisonError::into_inner);
                        while filling.bytes.is_empty() {
                            if filling.stop {
                                return;
                            }
                            filling = ours.wake.wait(filling).unwrap_or_else(PoisonError::into_inner);
                        }
                        std::mem::swap(&mut writing, &mut filling.bytes);
                        std::mem::replace(&mut filling.group, watch::channel(false).0)
                    };
                    if file.write_all(&writing).and_then(|()| file.sync_data()).is_ok() {
                        group.send_replace(true);
                    }
                    writing.clear();
                }
            })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }
}

#[async_trait]
impl EventQueue for AppendOnly {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let mut group = {
            let mut filling = self.shared.filling.lock().unwrap_or_else(PoisonError::into_inner);
            filling.bytes.extend_from_slice(&event.envelope().body);
            filling.group.subscribe()
        };
        self.shared.wake.notify_one();
        group
            .wait_for(|durable| *durable)
            .await
            .map(|_| ())
            .map_err(|_| PublishError::Failed {
                reason: "a write failed".into(),
            })
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        Err(ConsumeError::AlreadyConsumed)
    }

    fn state(&self) -> QueueState {
        QueueState::default()
    }

    async fn close(&self) {
        self.shared.filling.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}
