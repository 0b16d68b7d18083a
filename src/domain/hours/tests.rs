//! Tables of times in zones whose clocks jump.

use super::*;
use serde_json::json;

fn at(text: &str) -> Timestamp {
    let at: jiff::Timestamp = text.parse().expect("a time");
    Timestamp::from_micros(at.as_microsecond())
}

fn zone(name: &str) -> Zone {
    Zone::find(name).expect("a zone")
}

fn quiet(from: &str, until: &str) -> QuietHours {
    QuietHours::read("quiet_hours", &json!({ "from": from, "until": until })).expect("quiet hours")
}

#[test]
fn a_zone_is_spelt_as_in_the_database() {
    for name in [
        "UTC",
        "Europe/Berlin",
        "America/Argentina/Buenos_Aires",
        "Asia/Calcutta",
    ] {
        assert_eq!(
            Zone::find(name).map(|zone| zone.name().to_owned()).as_deref(),
            Some(name)
        );
    }
    for name in [
        "",
        "europe/berlin",
        "Europe/Nowhere",
        "CEST",
        "+02:00",
        "Europe/Berlin ",
    ] {
        assert_eq!(Zone::find(name), None, "{name}");
    }
}

#[test]
fn a_time_of_day_has_four_digits_and_a_colon() {
    for text in ["00:00", "09:30", "23:59", "24:00"] {
        assert_eq!(
            text.parse::<TimeOfDay>().map(|time| time.to_string()).as_deref(),
            Ok(text)
        );
    }
    for text in [
        "", ":", "9:30", "09:3", "24:01", "12:60", "99:99", "+9:30", "09:30 ", "09:30:00", "０9:30",
    ] {
        assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
    }
}

#[test]
fn all_that_is_wrong_with_opening_hours_is_said_at_once() {
    let faults = |value| {
        let faults = OpeningHours::read("opening_hours", &value).expect_err("wrong");
        faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    let given = json!({
        "monday": [{ "from": "9:00", "until": "17:00" }, { "from": "17:00", "until": "08:00" }],
        "tuesday": [{ "from": "09:00", "until": "12:00" }, { "from": "11:59", "until": "13:00" }],
        "wednesday": "open",
        "thursday": [{ "from": "09:00", "till": "12:00" }],
        "friday": [{ "from": "09:00", "until": "09:00" }, 7],
        "saturday": [{}, {}, {}, {}, {}, {}, {}],
        "holiday": [],
    });
    let expected = [
        "opening_hours.friday[0].until",
        "opening_hours.friday[1]",
        "opening_hours.holiday",
        "opening_hours.monday[0].from",
        "opening_hours.monday[1].until",
        "opening_hours.saturday",
        "opening_hours.thursday[0].till",
        "opening_hours.thursday[0].until",
        "opening_hours.tuesday[1]",
        "opening_hours.wednesday",
    ];
    let mut named = faults(given);
    named.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(faults(json!([])), ["opening_hours"]);
}

#[test]
fn opening_hours_are_kept_in_their_order_and_come_back_as_they_are() {
    let given = json!({
        "monday": [{ "from": "13:00", "until": "24:00" }, { "from": "00:00", "until": "13:00" }],
    });
    let hours = OpeningHours::read("opening_hours", &given).expect("hours");
    let stored = serde_json::to_value(&hours).expect("JSON");
    assert_eq!(stored["monday"][0], json!({ "from": "00:00", "until": "13:00" }));
    assert_eq!(stored["sunday"], json!([]));
    assert_eq!(OpeningHours::read("opening_hours", &stored), Ok(hours));
}

#[test]
fn a_shop_is_open_by_the_clock_on_its_wall() {
    let given = json!({
        "saturday": [{ "from": "22:00", "until": "24:00" }],
        "sunday": [{ "from": "00:00", "until": "02:30" }, { "from": "09:00", "until": "12:00" }],
    });
    let hours = OpeningHours::read("opening_hours", &given).expect("hours");
    let berlin = zone("Europe/Berlin");
    for (text, is_open) in [
        // In winter an hour ahead of UTC, in summer two.
        ("2026-03-28T20:59:59Z", false),
        ("2026-03-28T21:00:00Z", true),
        ("2026-03-28T22:59:59Z", true),
        // Past midnight by the pair of the next day, and closed by the jump from 02:00 to 03:00.
        ("2026-03-28T23:00:00Z", true),
        ("2026-03-29T00:59:59Z", true),
        ("2026-03-29T01:00:00Z", false),
        ("2026-03-29T06:59:59Z", false),
        ("2026-03-29T07:00:00Z", true),
        ("2026-03-29T10:00:00Z", false),
        // 02:15 comes twice when summer ends.
        ("2026-10-25T00:15:00Z", true),
        ("2026-10-25T00:45:00Z", false),
        ("2026-10-25T01:15:00Z", true),
        ("2026-10-25T01:45:00Z", false),
    ] {
        assert_eq!(hours.is_open(at(text), &berlin), is_open, "{text}");
    }
    assert!(!OpeningHours::default().is_open(at("2026-03-28T21:00:00Z"), &berlin));
}

#[test]
fn quiet_hours_that_cannot_be_are_refused() {
    let faults = |value| {
        let faults = QuietHours::read("quiet_hours", &value).expect_err("wrong");
        faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    assert_eq!(
        faults(json!({ "from": "21:00", "until": "21:00" })),
        ["quiet_hours.until"]
    );
    assert_eq!(
        faults(json!({ "from": "21:00", "until": "24:00" })),
        ["quiet_hours.until"]
    );
    assert_eq!(
        faults(json!({ "from": 21, "to": "08:00" })),
        ["quiet_hours.to", "quiet_hours.from", "quiet_hours.until"]
    );
    assert_eq!(faults(json!("21:00-08:00")), ["quiet_hours"]);
}

#[test]
fn quiet_hours_end_by_the_clock_on_the_wall() {
    let table = [
        // (zone, from, until, now, end)
        ("UTC", "21:00", "08:00", "2026-06-01T20:59:59Z", None),
        (
            "UTC",
            "21:00",
            "08:00",
            "2026-06-01T21:00:00Z",
            Some("2026-06-02T08:00:00Z"),
        ),
        (
            "UTC",
            "21:00",
            "08:00",
            "2026-06-02T07:59:59Z",
            Some("2026-06-02T08:00:00Z"),
        ),
        ("UTC", "21:00", "08:00", "2026-06-02T08:00:00Z", None),
        (
            "UTC",
            "12:30",
            "14:00",
            "2026-06-02T13:00:00.5Z",
            Some("2026-06-02T14:00:00Z"),
        ),
        (
            "UTC",
            "22:00",
            "00:00",
            "2026-12-31T23:30:00Z",
            Some("2027-01-01T00:00:00Z"),
        ),
        // The night that is an hour shorter, and the one that is an hour longer.
        (
            "Europe/Berlin",
            "21:00",
            "08:00",
            "2026-03-28T22:00:00Z",
            Some("2026-03-29T06:00:00Z"),
        ),
        (
            "Europe/Berlin",
            "21:00",
            "08:00",
            "2026-10-24T22:00:00Z",
            Some("2026-10-25T07:00:00Z"),
        ),
        // The end lies in the hour that is left out: clocks pass it at the jump.
        (
            "Europe/Berlin",
            "21:00",
            "02:30",
            "2026-03-28T22:00:00Z",
            Some("2026-03-29T01:00:00Z"),
        ),
        (
            "America/New_York",
            "21:00",
            "02:30",
            "2026-03-08T06:59:59Z",
            Some("2026-03-08T07:00:00Z"),
        ),
        ("America/New_York", "21:00", "02:30", "2026-03-08T07:00:00Z", None),
        // The end comes twice: the first one ends the quiet, and so does the second.
        (
            "Europe/Berlin",
            "21:00",
            "02:30",
            "2026-10-24T23:00:00Z",
            Some("2026-10-25T00:30:00Z"),
        ),
        ("Europe/Berlin", "21:00", "02:30", "2026-10-25T00:45:00Z", None),
        (
            "Europe/Berlin",
            "21:00",
            "02:30",
            "2026-10-25T01:10:00Z",
            Some("2026-10-25T01:30:00Z"),
        ),
        ("Europe/Berlin", "21:00", "02:30", "2026-10-25T01:30:00Z", None),
        // Half an hour, and a day that a zone left out.
        (
            "Australia/Lord_Howe",
            "21:00",
            "02:15",
            "2026-10-03T12:00:00Z",
            Some("2026-10-03T15:30:00Z"),
        ),
        (
            "Pacific/Apia",
            "21:00",
            "07:00",
            "2011-12-30T08:00:00Z",
            Some("2011-12-30T17:00:00Z"),
        ),
    ];
    for (name, from, until, now, end) in table {
        let found = quiet(from, until).end(at(now), &zone(name));
        assert_eq!(found, end.map(at), "{name} {from}-{until} at {now}");
    }
}

/// Every five minutes of the days on which clocks jump.
#[test]
fn an_end_of_quiet_hours_is_later_and_not_quiet() {
    let zones = [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "America/St_Johns",
    ];
    let hours = [
        ("21:00", "08:00"),
        ("23:30", "02:30"),
        ("01:15", "02:45"),
        ("02:30", "02:00"),
        ("00:00", "03:00"),
    ];
    for name in zones {
        let zone = zone(name);
        for (from, until) in hours {
            let quiet = quiet(from, until);
            for day in [
                "2026-03-07",
                "2026-03-28",
                "2026-04-04",
                "2026-10-03",
                "2026-10-24",
                "2026-10-31",
            ] {
                let begin = at(&format!("{day}T00:00:00Z"));
                for step in 0..48 * 12 {
                    let now = Timestamp::from_seconds(begin.as_seconds() + step * 300);
                    let is_quiet = quiet.contains(TimeOfDay::of(zone.local(now).expect("a time")));
                    let end = quiet.end(now, &zone);
                    assert_eq!(end.is_some(), is_quiet, "{name} {from}-{until} {now:?}");
                    let Some(end) = end else { continue };
                    assert!(
                        end > now && end.since(now).as_secs() <= 49 * 3600,
                        "{name} {from}-{until} {now:?}"
                    );
                    assert_eq!(quiet.end(end, &zone), None, "{name} {from}-{until} {now:?}");
                }
            }
        }
    }
}
