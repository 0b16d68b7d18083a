//! The database's clock, as this process knows it. All instances end leases by this one clock.

use crate::domain::{Clock, Timestamp};
use std::{fmt, sync::Arc, time::Duration};

/// The database's clock less this process's, in microseconds, as it was last measured.
pub type ClockOffset = Arc<dyn Fn() -> i64 + Send + Sync>;

#[derive(Clone)]
pub(super) struct DatabaseClock {
    own: Arc<dyn Clock>,
    offset_micros: ClockOffset,
}

impl DatabaseClock {
    pub fn new(own: Arc<dyn Clock>, offset_micros: ClockOffset) -> Self {
        Self { own, offset_micros }
    }

    /// How far this process's clock is from the database's.
    pub fn offset(&self) -> Duration {
        Duration::from_micros((self.offset_micros)().unsigned_abs())
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let own = self.own.now().as_micros();
        Timestamp::from_micros(own.saturating_add((self.offset_micros)()))
    }
}

impl fmt::Debug for DatabaseClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseClock")
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ManualClock;

    #[test]
    fn it_is_the_own_clock_and_the_offset() {
        let own = Arc::new(ManualClock::at(Timestamp::from_seconds(100)));
        for (offset, now) in [(0, 100), (7_000_000, 107), (-7_000_000, 93)] {
            let clock = DatabaseClock::new(own.clone(), Arc::new(move || offset));
            assert_eq!(clock.now(), Timestamp::from_seconds(now));
            assert_eq!(clock.offset().as_micros(), u128::from(offset.unsigned_abs()));
        }
    }
}
