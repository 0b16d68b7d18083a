//! The route table's checks for `/readyz`, and its gauges.

use super::RouteTable;
use crate::telemetry::{Finding, catalogue};
use std::time::Duration;

impl RouteTable {
    /// Whether the snapshot is known to be current.
    #[must_use]
    pub fn check_age(&self) -> Finding {
        if self.age() < Duration::from_secs(10) {
            Finding::ok()
        } else {
            Finding::degraded("the route snapshot is older than 10 seconds")
        }
    }

    /// Whether our clock and the database's agree. Beyond a minute, "too old" might be our own
    /// mistake (invariant 16).
    #[must_use]
    pub fn check_clock(&self) -> Finding {
        let offset = Duration::from_micros(self.clock_offset_micros().unsigned_abs());
        if offset > Duration::from_mins(1) {
            Finding::failed("our clock and the database's differ by more than a minute")
        } else if offset > Duration::from_secs(5) {
            Finding::degraded("our clock and the database's differ by more than 5 seconds")
        } else {
            Finding::ok()
        }
    }

    pub fn gather_gauges(&self) {
        catalogue::ROUTES.set(self.routes_len() as f64, &[]);
        catalogue::ROUTE_SNAPSHOT_AGE_SECONDS.set(self.age().as_secs_f64(), &[]);
        catalogue::CLOCK_OFFSET_SECONDS.set(self.clock_offset_micros() as f64 / 1e6, &[]);
    }
}
