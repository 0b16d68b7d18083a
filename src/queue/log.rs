//! The log (stub).
use super::*;
use std::path::Path;
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Bytes of events that are not acked, at most.
    pub bytes_max: u64,
    pub segment_bytes: u64,
    pub event_bytes_max: usize,
    /// Intake stops below this much free disk (rule 13).
    pub disk_free_bytes_min: u64,
}
impl Default for LogSettings {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, segment_bytes: 64 << 20, event_bytes_max: 2 << 20, disk_free_bytes_min: 512 << 20 }
    }
}
pub struct LogQueue;
impl LogQueue {
    pub async fn open(_d: &Path, _s: LogSettings, _c: Arc<dyn crate::domain::Clock>) -> Result<Self, ConnectError> {
        unimplemented!()
    }
}
#[async_trait]
impl EventQueue for LogQueue {
    async fn publish(&self, _event: &VerifiedEvent) -> Result<(), PublishError> {
        unimplemented!()
    }
    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        unimplemented!()
    }
    fn state(&self) -> QueueState {
        unimplemented!()
    }
    async fn close(&self) {
        unimplemented!()
    }
}
