//! Times of day in a time zone: when an organisation is open, and when it wants quiet.

use super::Timestamp;
use jiff::{
    civil,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::{fmt, str::FromStr};

/// Pairs of a weekday at most.
pub const PAIRS_PER_DAY_MAX: usize = 6;
const MINUTES_PER_DAY: u16 = 24 * 60;

/// A field that is wrong, and what was expected. It never repeats the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongField {
    /// `opening_hours.monday[0].until`
    pub field: String,
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> WrongField {
    WrongField {
        field: field.into(),
        problem: problem.into(),
    }
}

/// A time zone of the IANA database, which stands in this binary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of a name, links included, spelt as it is in the database.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        (zone.iana_name() == Some(name)).then_some(Self(zone))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The date and time on a clock there; `None` far outside of our calendar.
    fn local(&self, at: Timestamp) -> Option<civil::DateTime> {
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
        Some(self.0.to_datetime(at))
    }

    /// The first moment after `after` at which clocks there reach `wanted`. Where they jump over
    /// it, that is the jump.
    fn first_at(&self, wanted: civil::DateTime, after: Timestamp) -> Option<Timestamp> {
        let at = match self.0.to_ambiguous_timestamp(wanted).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wanted).ok()?,
            AmbiguousOffset::Gap { after, .. } => {
                let before_it = after.to_timestamp(wanted).ok()?;
                self.0.following(before_it).next()?.timestamp()
            }
            AmbiguousOffset::Fold { before, after: later } => {
                let first = before.to_timestamp(wanted).ok()?;
                if first.as_microsecond() > after.as_micros() {
                    first
                } else {
                    later.to_timestamp(wanted).ok()?
                }
            }
        };
        Some(Timestamp::from_micros(at.as_microsecond()))
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A time on a clock, to the minute. 24:00 is the end of a day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    fn of(at: civil::DateTime) -> Self {
        let (hour, minute) = (at.hour().unsigned_abs(), at.minute().unsigned_abs());
        Self(u16::from(hour) * 60 + u16::from(minute))
    }

    fn on(self, date: civil::Date) -> Option<civil::DateTime> {
        let (hour, minute) = (i8::try_from(self.0 / 60).ok()?, i8::try_from(self.0 % 60).ok()?);
        civil::Time::new(hour, minute, 0, 0)
            .ok()
            .map(|time| date.to_datetime(time))
    }
}

impl FromStr for TimeOfDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (hour, minute) = text.split_once(':').ok_or(())?;
        let two_digits = |part: &str| {
            let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse::<u16>().ok()).flatten().ok_or(())
        };
        let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
        let minutes = hour * 60 + minute;
        if minute < 60 && minutes <= MINUTES_PER_DAY {
            Ok(Self(minutes))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// From a time of day until another one, which is not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Hours {
    pub from: TimeOfDay,
    pub until: TimeOfDay,
}

impl Hours {
    /// Reads `{"from": "09:00", "until": "17:00"}`.
    fn read(field: &str, value: &Value, faults: &mut Vec<WrongField>) -> Option<Self> {
        let Value::Object(members) = value else {
            faults.push(wrong(field, "expected an object with from and until"));
            return None;
        };
        for name in members
            .keys()
            .filter(|name| !["from", "until"].contains(&name.as_str()))
        {
            faults.push(wrong(format!("{field}.{name}"), "is not a known field here"));
        }
        let mut time = |name: &str, example: &str| match members.get(name) {
            None => {
                faults.push(wrong(format!("{field}.{name}"), "is required"));
                None
            }
            Some(value) => {
                let time = value.as_str().and_then(|text| text.parse().ok());
                if time.is_none() {
                    let expected = format!("expected a time of day such as {example}");
                    faults.push(wrong(format!("{field}.{name}"), expected));
                }
                time
            }
        };
        let (from, until) = (time("from", "09:00"), time("until", "17:00"));
        Some(Self {
            from: from?,
            until: until?,
        })
    }
}

/// When an organisation is open: a few pairs each weekday, in their order. A day without any is
/// closed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct OpeningHours {
    monday: Vec<Hours>,
    tuesday: Vec<Hours>,
    wednesday: Vec<Hours>,
    thursday: Vec<Hours>,
    friday: Vec<Hours>,
    saturday: Vec<Hours>,
    sunday: Vec<Hours>,
}

impl OpeningHours {
    pub const WEEKDAYS: [&'static str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];

    /// Reads an object of weekdays. A weekday that is absent is closed.
    ///
    /// # Errors
    /// All that is wrong, with paths that begin with `field`.
    pub fn read(field: &str, value: &Value) -> Result<Self, Vec<WrongField>> {
        let Value::Object(days) = value else {
            return Err(vec![wrong(field, "expected an object of weekdays, such as monday")]);
        };
        let mut faults = Vec::new();
        let mut read = Self::default();
        for (name, pairs) in days {
            let path = format!("{field}.{name}");
            match Self::WEEKDAYS.iter().position(|day| day == name) {
                None => faults.push(wrong(path, "is not a known field here")),
                Some(day) => *read.days_mut()[day] = read_day(&path, pairs, &mut faults),
            }
        }
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    const fn days(&self) -> [&Vec<Hours>; 7] {
        [
            &self.monday,
            &self.tuesday,
            &self.wednesday,
            &self.thursday,
            &self.friday,
            &self.saturday,
            &self.sunday,
        ]
    }

    const fn days_mut(&mut self) -> [&mut Vec<Hours>; 7] {
        [
            &mut self.monday,
            &mut self.tuesday,
            &mut self.wednesday,
            &mut self.thursday,
            &mut self.friday,
            &mut self.saturday,
            &mut self.sunday,
        ]
    }

    /// Whether it is open then, by the clocks of the zone.
    #[must_use]
    pub fn is_open(&self, at: Timestamp, zone: &Zone) -> bool {
        let Some(local) = zone.local(at) else { return false };
        let time = TimeOfDay::of(local);
        let day = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
        let pairs = self.days()[day];
        pairs.iter().any(|pair| pair.from <= time && time < pair.until)
    }
}

fn read_day(field: &str, value: &Value, faults: &mut Vec<WrongField>) -> Vec<Hours> {
    let Some(pairs) = value.as_array().filter(|pairs| pairs.len() <= PAIRS_PER_DAY_MAX) else {
        let expected = format!("expected a list of at most {PAIRS_PER_DAY_MAX} pairs of from and until");
        faults.push(wrong(field, expected));
        return Vec::new();
    };
    let mut read: Vec<Hours> = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let path = format!("{field}[{at}]");
        let Some(pair) = Hours::read(&path, pair, faults) else {
            continue;
        };
        if pair.until <= pair.from {
            let problem = "has to be later than from; a day ends at 24:00, and the next day goes on at 00:00";
            faults.push(wrong(format!("{path}.until"), problem));
        } else if read
            .iter()
            .any(|other| pair.from < other.until && other.from < pair.until)
        {
            faults.push(wrong(path, "overlaps with another pair of the day"));
        } else {
            read.push(pair);
        }
    }
    read.sort_unstable_by_key(|pair| pair.from);
    read
}

/// When an organisation's people are left in peace, each day. It may go on past midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct QuietHours(Hours);

impl QuietHours {
    /// Reads `{"from": "21:00", "until": "08:00"}`.
    ///
    /// # Errors
    /// All that is wrong, with paths that begin with `field`.
    pub fn read(field: &str, value: &Value) -> Result<Self, Vec<WrongField>> {
        let mut faults = Vec::new();
        let hours = Hours::read(field, value, &mut faults);
        if let Some(hours) = hours {
            for (name, time) in [("from", hours.from), ("until", hours.until)] {
                if time.0 == MINUTES_PER_DAY {
                    faults.push(wrong(format!("{field}.{name}"), "write midnight as 00:00"));
                }
            }
            if hours.from == hours.until {
                faults.push(wrong(format!("{field}.until"), "has to differ from from"));
            }
        }
        match hours {
            Some(hours) if faults.is_empty() => Ok(Self(hours)),
            _ => Err(faults),
        }
    }

    fn contains(self, time: TimeOfDay) -> bool {
        let Hours { from, until } = self.0;
        if from < until {
            from <= time && time < until
        } else {
            from <= time || time < until
        }
    }

    /// The end of the quiet hours that `at` lies in, by the clocks of the zone. `None` outside of
    /// them.
    #[must_use]
    pub fn end(self, at: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let mut end = at;
        // A zone that leaves out a whole day jumps from quiet hours into quiet hours.
        for _ in 0..3 {
            let local = zone.local(end)?;
            let time = TimeOfDay::of(local);
            if !self.contains(time) {
                break;
            }
            let until = self.0.until;
            let date = if time < until {
                local.date()
            } else {
                local.date().tomorrow().ok()?
            };
            end = zone.first_at(until.on(date)?, end)?;
        }
        (end > at).then_some(end)
    }
}

#[cfg(test)]
mod tests;
