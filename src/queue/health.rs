//! The queue's check for `/readyz`, and its gauges.

use super::{QueueHealth, QueueState, SpoolState};
use crate::{
    domain::Timestamp,
    telemetry::{Finding, catalogue},
};

const SILENT: &str = "a queue of the broker does not answer: its events wait, those of the others go on";

impl QueueState {
    /// Whether the queue takes events.
    #[must_use]
    pub fn check(&self) -> Finding {
        match self.health {
            QueueHealth::Ready if self.silent_parts > 0 => Finding::degraded(SILENT),
            QueueHealth::Ready => Finding::ok(),
            QueueHealth::Refusing => {
                Finding::failed("the queue or its disk is full: senders get 503 until there is room")
            }
            QueueHealth::Away => {
                Finding::failed("the broker is away or blocks publishing: senders get 503 until it is back")
            }
            QueueHealth::Damaged => Finding::degraded(
                "a segment of the log cannot be read: events are kept, and none of them is worked on; the log says \
                 which",
            ),
            QueueHealth::Failed => Finding::failed("the log failed; the process has to be started again"),
        }
    }

    /// [`QueueState::check`] of a broker behind a spool: while the broker takes no events the spool
    /// does, so senders go on getting 200. The spool's own check says when it cannot.
    #[must_use]
    pub fn check_behind_spool(&self) -> Finding {
        match self.health {
            QueueHealth::Refusing | QueueHealth::Away => {
                Finding::degraded("the broker takes no events for now: the spool does")
            }
            QueueHealth::Ready | QueueHealth::Damaged | QueueHealth::Failed => self.check(),
        }
    }

    /// Whether a worker gets events, for a process that takes none.
    #[must_use]
    pub fn check_consumer(&self) -> Finding {
        if self.health == QueueHealth::Failed {
            self.check()
        } else if self.is_consumer_away {
            Finding::failed("no event can be taken from the broker: it is away, or it does not answer")
        } else if self.silent_parts > 0 {
            Finding::degraded(SILENT)
        } else {
            Finding::ok()
        }
    }

    pub fn gather_gauges(&self, now: Timestamp) {
        catalogue::QUEUE_EVENTS.set(self.events as f64, &[]);
        catalogue::QUEUE_BYTES.set(self.bytes as f64, &[]);
        let oldest = self.oldest_received_at.map_or(0.0, |at| now.since(at).as_secs_f64());
        catalogue::QUEUE_SILENT_PARTS.set(self.silent_parts as f64, &[]);
        catalogue::QUEUE_OLDEST_SECONDS.set(oldest, &[]);
        gather_disk(self.disk_free_bytes, self.disk_free_bytes_min);
    }
}

impl SpoolState {
    /// Whether the receiver can make events durable, and where.
    #[must_use]
    pub fn check(&self) -> Finding {
        match self.health {
            QueueHealth::Failed => Finding::failed("the spool's log failed; the process has to be started again"),
            QueueHealth::Refusing if self.is_spooling => {
                Finding::failed("the broker is away, and the spool or its disk is full: senders get 503")
            }
            QueueHealth::Damaged => Finding::degraded(
                "a segment of the spool cannot be read: events are kept, and none of them is drained; the log says \
                 which",
            ),
            QueueHealth::Refusing => Finding::degraded("the spool or its disk is full: it cannot take over"),
            // A log is never away.
            QueueHealth::Ready | QueueHealth::Away if self.is_spooling => {
                Finding::degraded("the broker did not take an event: events go through the spool until it is drained")
            }
            QueueHealth::Ready | QueueHealth::Away => Finding::ok(),
        }
    }

    pub fn gather_gauges(&self, now: Timestamp) {
        catalogue::SPOOL_ACTIVE.set(f64::from(u8::from(self.is_spooling)), &[]);
        catalogue::SPOOL_HELD_EVENTS.set(self.events as f64, &[]);
        let oldest = self.oldest_received_at.map_or(0.0, |at| now.since(at).as_secs_f64());
        catalogue::SPOOL_OLDEST_SECONDS.set(oldest, &[]);
        catalogue::SPOOL_FILL_RATIO.set(self.bytes as f64 / self.bytes_max.max(1) as f64, &[]);
        gather_disk(self.disk_free_bytes, self.disk_free_bytes_min);
    }
}

/// A process has one log: the embedded queue or the spool.
fn gather_disk(free: Option<u64>, free_min: Option<u64>) {
    if let Some(free) = free {
        catalogue::DISK_FREE_BYTES.set(free as f64, &[]);
    }
    if let Some(free_min) = free_min {
        catalogue::DISK_FREE_BYTES_MIN.set(free_min as f64, &[]);
    }
}
