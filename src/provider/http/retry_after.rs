//! `Retry-After` (RFC 9110, 10.2.3): seconds, or a date in one of HTTP's three forms.

use crate::domain::Timestamp;
use jiff::{civil, fmt::rfc2822, tz::TimeZone};
use std::time::Duration;

/// When to try again. `None` for a text of neither form, such as a negative number or a fraction.
/// The caller limits the wait.
pub(super) fn parse(value: &[u8], now: Timestamp) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds is still a number: as late as can be said.
        return Some(now + Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let seconds = if let Ok(moment) = rfc2822::DateTimeParser::new().parse_timestamp(text) {
        moment.as_second()
    } else {
        let old = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
        let moment = old.iter().find_map(|form| civil::DateTime::strptime(form, text).ok())?;
        TimeZone::UTC.to_timestamp(moment).ok()?.as_second()
    };
    Some(Timestamp::from_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_all_else_is_nothing() {
        let now = Timestamp::from_seconds(784_111_770); // 1994-11-06T08:49:30Z
        for (text, expected) in [
            ("0", Some(784_111_770)),
            ("7", Some(784_111_777)),
            (" 7 ", Some(784_111_777)),
            ("1000000000", Some(1_784_111_770)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(784_111_200)),
            ("-1", None),
            ("1.5", None),
            ("+5", None),
            ("", None),
            ("soon", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(
                parse(text.as_bytes(), now).map(Timestamp::as_seconds),
                expected,
                "{text:?}"
            );
        }
        assert_eq!(
            parse(b"99999999999999999999999999", now),
            Some(Timestamp::from_micros(i64::MAX))
        );
        assert_eq!(parse(b"\xff\xfe", now), None);
    }
}
