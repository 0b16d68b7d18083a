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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A Wednesday, 20:30 in UTC, and Thursday morning in Auckland.
    const AT: Timestamp = Timestamp::from_seconds(1_785_961_800);

    #[test]
    fn hours_count_by_the_zone_of_the_organisation() {
        let week = json!({ "thursday": [{ "from": "08:00", "until": "17:00" }] });
        let of = |time_zone| OrgSettings {
            time_zone,
            opening_hours: OpeningHours::read("opening_hours", &week).ok(),
            ..OrgSettings::default()
        };
        assert_eq!(of(Zone::find("Pacific/Auckland")).is_open(AT), Some(true));
        assert_eq!(of(None).is_open(AT), Some(false), "UTC");
    }
}
