//! How single values look in answers.

use crate::domain::Timestamp;
use serde::{Serialize, Serializer};

/// A moment as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Time {
    /// # Errors
    /// In words for the caller: it is no moment.
    pub fn parse(text: &str) -> Result<Timestamp, &'static str> {
        text.parse::<jiff::Timestamp>()
            .map(|at| Timestamp::from_micros(at.as_microsecond()))
            .map_err(|_| "expected a moment as RFC 3339 has it, such as 2026-11-05T14:00:00Z")
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0.as_micros()) {
            // Always six digits, so that times sort as texts too.
            Ok(time) => write!(f, "{time:.6}"),
            // Beyond the year 9999: no row of ours holds it.
            Err(_) => f.write_str("9999-12-30T22:00:00.000000Z"),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The last four characters of a secret. `None` for a short secret, which they would give away.
#[must_use]
pub fn last_four(secret: &str) -> Option<String> {
    const LONG: usize = 16;
    let count = secret.chars().count();
    (count >= LONG).then(|| secret.chars().skip(count - 4).collect())
}
