//! The settings of an organisation that its own people choose.

use super::{OpeningHours, QuietHours, Timestamp, Zone};

/// `None` everywhere: the organisation has chosen nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OrgSettings {
    /// `None`: UTC.
    pub time_zone: Option<Zone>,
    pub opening_hours: Option<OpeningHours>,
    /// Text messages that are planned in them wait for their end.
    pub quiet_hours: Option<QuietHours>,
    /// Days that ended events are kept, where that is less than the installation's.
    pub retention_days: Option<u32>,
}

static UTC: Zone = Zone::UTC;

impl OrgSettings {
    #[must_use]
    pub fn zone(&self) -> &Zone {
        self.time_zone.as_ref().unwrap_or(&UTC)
    }

    /// Whether the organisation is open then; `None` where it has no opening hours.
    #[must_use]
    pub fn is_open(&self, at: Timestamp) -> Option<bool> {
        let hours = self.opening_hours.as_ref()?;
        Some(hours.is_open(at, self.zone()))
    }

    /// The end of the quiet hours that `at` lies in.
    #[must_use]
    pub fn quiet_until(&self, at: Timestamp) -> Option<Timestamp> {
        self.quiet_hours?.end(at, self.zone())
    }
}
