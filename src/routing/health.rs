//! The route table's checks for `/readyz`, and its gauges.

use super::{RouteTable, lock, read};
use crate::{
    domain::{CLOCK_OFFSET_CLAIM_MAX, CLOCK_OFFSET_INGRESS_MAX, KeyId},
    telemetry::{Finding, catalogue},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

impl RouteTable {
    /// Whether the snapshot was known to be current within `age_max`.
    #[must_use]
    pub fn check_age(&self, age_max: Duration) -> Finding {
        if self.age() <= age_max {
            Finding::ok()
        } else {
            Finding::degraded(format!(
                "the route snapshot is older than {} seconds",
                age_max.as_secs_f64()
            ))
        }
    }

    /// Whether our clock and the database's agree. Beyond a minute, "too old" might be our own
    /// mistake (invariant 16).
    #[must_use]
    pub fn check_clock(&self) -> Finding {
        let offset = self.clock_offset();
        if offset > CLOCK_OFFSET_INGRESS_MAX {
            Finding::failed("our clock and the database's differ by more than a minute")
        } else if offset > CLOCK_OFFSET_CLAIM_MAX {
            Finding::degraded("our clock and the database's differ by more than 5 seconds")
        } else {
            Finding::ok()
        }
    }

    /// Organisations in the snapshot.
    #[must_use]
    pub fn organisations_len(&self) -> usize {
        read(&self.orgs).entries.len()
    }

    pub fn gather_gauges(&self) {
        catalogue::ROUTES.set(self.routes_len() as f64, &[]);
        catalogue::ROUTE_SNAPSHOT_AGE_SECONDS.set(self.age().as_secs_f64(), &[]);
        catalogue::CLOCK_OFFSET_SECONDS.set(self.clock_offset_micros() as f64 / 1e6, &[]);
    }
}

/// How many wrapped data keys the key ring opens, and which keys it lacks for the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyCoverage {
    pub openable: u64,
    /// Data keys by the key-encryption key that the ring lacks.
    pub missing: BTreeMap<KeyId, u64>,
}

impl KeyCoverage {
    /// Data keys that the ring does not open.
    #[must_use]
    pub fn unopenable(&self) -> u64 {
        self.missing.values().sum()
    }

    /// The missing keys with their counts: `c595e5f4b242d220 (12 data keys)`.
    #[must_use]
    pub fn missing_keys(&self) -> String {
        let mut text = String::new();
        for (key, count) in &self.missing {
            let separator = if text.is_empty() { "" } else { ", " };
            let plural = if *count == 1 { "" } else { "s" };
            let _ = write!(text, "{separator}{} ({count} data key{plural})", key.0);
        }
        text
    }
}

/// Compares the key ring with the data keys of the snapshot.
pub struct KeyCheck {
    routes: Arc<RouteTable>,
    ring: Vec<KeyId>,
    /// The coverage of one version of the snapshot: counting visits every organisation.
    last: Mutex<Option<(i64, KeyCoverage)>>,
}

impl KeyCheck {
    #[must_use]
    pub const fn new(routes: Arc<RouteTable>, ring: Vec<KeyId>) -> Self {
        Self {
            routes,
            ring,
            last: Mutex::new(None),
        }
    }

    /// Memory only.
    #[must_use]
    pub fn coverage(&self) -> KeyCoverage {
        let version = lock(&self.routes.current).version;
        let mut last = lock(&self.last);
        if let Some((at, coverage)) = &*last
            && *at == version
        {
            return coverage.clone();
        }
        let mut coverage = KeyCoverage::default();
        let orgs = read(&self.routes.orgs);
        for row in orgs.entries.iter().flat_map(|entry| &entry.data_keys) {
            if self.ring.contains(&row.kek) {
                coverage.openable += 1;
            } else {
                *coverage.missing.entry(row.kek.clone()).or_default() += 1;
            }
        }
        drop(orgs);
        *last = Some((version, coverage.clone()));
        coverage
    }

    /// Whether the ring opens the signing secrets: without any, no webhook can be verified.
    #[must_use]
    pub fn check(&self) -> Finding {
        let coverage = self.coverage();
        if coverage.missing.is_empty() {
            Finding::ok()
        } else if coverage.openable == 0 {
            Finding::failed(format!(
                "the key ring opens no data key; it lacks {}",
                coverage.missing_keys()
            ))
        } else {
            Finding::degraded(format!("the key ring lacks {}", coverage.missing_keys()))
        }
    }

    pub fn gather_gauges(&self) {
        catalogue::DATA_KEYS_UNOPENABLE.set(self.coverage().unopenable() as f64, &[]);
    }
}
