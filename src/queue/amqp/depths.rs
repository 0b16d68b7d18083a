//! How many events are ready in the queues. The broker is asked from time to time, so that a scrape
//! reads memory only.

use super::{
    connection::{Fault, Link, LinkError},
    topology::{self, Topology},
};
use lapin::types::ShortString;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

pub(super) struct Depths {
    ready: AtomicU64,
    /// A consumer is counting, because its connection is never blocked.
    pub has_consumer: AtomicBool,
    pub period: Duration,
}

impl Depths {
    pub fn new(period: Duration) -> Self {
        Self {
            ready: AtomicU64::new(0),
            has_consumer: AtomicBool::new(false),
            period,
        }
    }

    /// Events that no consumer holds, by the last count.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Counts until the connection fails, while no consumer does.
    pub async fn keep_for_publisher(&self, link: &Link, topology: &Topology) -> LinkError {
        loop {
            let counted = self.count_while(link, &topology.queues, || !self.has_consumer.load(Ordering::Relaxed));
            match counted.await {
                Ok(()) => {}
                Err(error) if error.fault == Fault::Missing => {
                    if let Err(error) = topology.declare(link).await {
                        return error;
                    }
                }
                // The connection stays when one queue does not answer.
                Err(error) if error.fault == Fault::Passing && link.is_connected() => {}
                Err(error) => return error,
            }
            tokio::time::sleep(self.period).await;
        }
    }

    async fn count_while(
        &self,
        link: &Link,
        queues: &[ShortString],
        may_count: impl Fn() -> bool,
    ) -> Result<(), LinkError> {
        let channel = link.channel().await?;
        loop {
            // A blocked connection answers nothing; then the last count stays.
            if may_count() && !link.is_blocked() {
                let mut ready = 0;
                for queue in queues {
                    ready += topology::count(&channel, queue).await?;
                }
                if may_count() {
                    self.ready.store(ready, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(self.period).await;
        }
    }

    /// For the consumer, which counts each queue by itself.
    pub fn set(&self, ready: u64) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}
