//! How the process learns that a part of the worker is gone.

use crate::telemetry::Finding;
use std::sync::Arc;
use tokio::sync::watch;

/// A failure that ends the worker's work. Clones share it.
#[derive(Clone, Debug)]
pub struct Failure(watch::Sender<Option<Arc<str>>>);

impl Default for Failure {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Failure {
    /// Reports a failure. The first report stays.
    pub(super) fn report(&self, reason: &str) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| reason.into());
            is_first
        });
    }

    /// Returns when the worker has failed, with the reason. Waits for ever while all is well.
    pub async fn wait(&self) -> Arc<str> {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender is in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// For `/readyz`: a process whose worker is gone is about to end.
    #[must_use]
    pub fn check(&self) -> Finding {
        match &*self.0.borrow() {
            None => Finding::ok(),
            Some(reason) => Finding::failed(reason.to_string()),
        }
    }
}
