//! Twilio's errors as data: the meaning of each code for an action. Read on
//! twilio.com/docs/api/errors and in Twilio's own skills repository; unconfirmed codes are marked.

use crate::{
    domain::{Cause, Outcome, Timestamp},
    provider::{CallError, ProviderRefusal},
};
use std::time::Duration;

/// The next step of an action after a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Certainly not done; again after a backoff, or when Twilio says.
    Retry(Cause),
    /// Certainly not done; not before this long, or when Twilio says, whichever is later.
    Later(Cause, Duration),
    /// It may have been done.
    Unknown(Cause),
    /// Certainly not done; until the credential or the account changes.
    Park(Cause),
    Suppress,
    /// Certainly not done, and never will be.
    Dead(Cause),
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Code and class, by code. 3xxxx arrive in status callbacks, the others in the answer to the POST.
pub const CODES: &[(u32, Class)] = &[
    // wrong, deleted, wrong-region credential; suspended account; key type not allowed
    (20003, Class::Park(Cause::CredentialRefused)),
    (20404, Class::Dead(Cause::InvalidRequest)), // no such resource, or of another account
    (20429, Class::Retry(Cause::RateLimited)),   // "a 429 is never processed"
    (20500, Class::Unknown(Cause::ProviderUnavailable)),
    (20503, Class::Unknown(Cause::ProviderUnavailable)),
    (21211, Class::Dead(Cause::InvalidRecipient)), // To is not a number
    (21212, Class::Park(Cause::Misconfigured)),    // From is not a number
    (21408, Class::Dead(Cause::Misconfigured)),    // region not permitted
    (21602, Class::Dead(Cause::InvalidRequest)),   // no body
    (21603, Class::Park(Cause::Misconfigured)),    // From missing
    (21604, Class::Dead(Cause::InvalidRecipient)), // To missing
    (21606, Class::Park(Cause::Misconfigured)),    // From is not ours, or not capable of SMS
    (21608, Class::Dead(Cause::Misconfigured)),    // trial account, unverified To
    (21610, Class::Suppress),                      // opted out
    // this From has 10 h of messages queued; status 429 or 400, not confirmed which
    (21611, Class::Later(Cause::RateLimited, HOUR)),
    (21612, Class::Dead(Cause::InvalidRecipient)), // not reachable via From
    (21614, Class::Dead(Cause::InvalidRecipient)), // not a mobile number
    (21617, Class::Dead(Cause::InvalidRequest)),   // over 1,600 characters
    (21659, Class::Park(Cause::Misconfigured)),    // From is not a Twilio number
    (21660, Class::Park(Cause::Misconfigured)),    // From belongs to another account
    (21701, Class::Park(Cause::Misconfigured)),    // 21701 to 21705: messaging service; statuses not confirmed
    (21702, Class::Park(Cause::Misconfigured)),
    (21703, Class::Park(Cause::Misconfigured)),
    (21704, Class::Park(Cause::Misconfigured)),
    (21705, Class::Park(Cause::Misconfigured)),
    (30001, Class::Retry(Cause::RateLimited)),               // queue overflow
    (30002, Class::Park(Cause::CredentialRefused)),          // account suspended
    (30003, Class::Later(Cause::ProviderUnavailable, HOUR)), // handset unreachable: one late retry is sensible
    (30004, Class::Dead(Cause::InvalidRecipient)),           // blocked
    (30005, Class::Dead(Cause::InvalidRecipient)),           // unknown number
    (30006, Class::Dead(Cause::InvalidRecipient)),           // landline
    (30007, Class::Dead(Cause::Other)),                      // filtered
    (30008, Class::Retry(Cause::Other)),                     // unknown
    (30022, Class::Later(Cause::RateLimited, HOUR)),         // 10DLC rate
    (30023, Class::Later(Cause::RateLimited, DAY)),          // 10DLC daily cap
    (30034, Class::Park(Cause::Misconfigured)),              // 10DLC not registered
    (30036, Class::Dead(Cause::Expired)),                    // validity period over
    (30450, Class::Dead(Cause::Other)),                      // SMS pumping
    (30610, Class::Dead(Cause::Other)),                      // quiet hours
    (30640, Class::Dead(Cause::Other)),                      // litigator
    (70004, Class::Park(Cause::CredentialRefused)),          // a restricted key that was not granted this
];

/// The class of a code, where it is known.
#[must_use]
pub fn class_of(code: u32) -> Option<Class> {
    CODES
        .binary_search_by_key(&code, |(known, _)| *known)
        .ok()
        .map(|index| CODES[index].1)
}

/// The class of a refusal. The status alone decides for 429 (never processed) and 5xx (never
/// certain). Otherwise the code decides, and then the status.
fn class_of_refusal(refused: &ProviderRefusal) -> Class {
    let by_code = refused
        .code
        .as_deref()
        .and_then(|code| code.parse().ok())
        .and_then(class_of);
    match refused.http_status {
        429 => match by_code {
            Some(later @ Class::Later(..)) => later,
            _ => Class::Retry(Cause::RateLimited),
        },
        408 | 500.. => Class::Unknown(Cause::ProviderUnavailable),
        status => by_code.unwrap_or(match status {
            401 | 403 => Class::Park(Cause::CredentialRefused),
            _ => Class::Dead(Cause::InvalidRequest),
        }),
    }
}

/// The outcome of posting a message that Twilio did not accept.
#[must_use]
pub fn outcome(error: &CallError, now: Timestamp) -> Outcome {
    match error.refusal() {
        Err(outcome) => outcome,
        Ok(refused) => match class_of_refusal(refused) {
            Class::Retry(cause) => Outcome::Retry {
                cause,
                not_before: refused.retry_after,
            },
            Class::Later(cause, wait) => Outcome::Retry {
                cause,
                not_before: Some(refused.retry_after.unwrap_or(now).max(now + wait)),
            },
            Class::Unknown(cause) => Outcome::Unknown { cause },
            Class::Park(cause) => Outcome::Park { cause },
            Class::Suppress => Outcome::Suppressed { cause: Cause::OptedOut },
            Class::Dead(cause) => Outcome::Dead { cause },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn refused(http_status: u16, code: Option<&str>) -> CallError {
        CallError::Refused(ProviderRefusal {
            http_status,
            code: code.map(Into::into),
            message: "".into(),
            retry_after: None,
        })
    }

    #[test]
    fn codes_are_in_order_and_there_once() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_refusal_has_the_class_that_the_table_says() {
        for (status, code, label, cause) in [
            (401, Some("20003"), "parked", Cause::CredentialRefused),
            (403, Some("20003"), "parked", Cause::CredentialRefused),
            (401, None, "parked", Cause::CredentialRefused),
            (403, Some("70004"), "parked", Cause::CredentialRefused),
            (404, Some("20404"), "dead", Cause::InvalidRequest),
            (429, Some("20429"), "retry", Cause::RateLimited),
            (429, None, "retry", Cause::RateLimited),
            // A 429 with a code that would be final elsewhere is a 429 all the same: never
            // processed.
            (429, Some("21211"), "retry", Cause::RateLimited),
            (500, Some("20500"), "unknown", Cause::ProviderUnavailable),
            (503, None, "unknown", Cause::ProviderUnavailable),
            // A 5xx says nothing certain, whatever code it carries.
            (500, Some("21211"), "unknown", Cause::ProviderUnavailable),
            (599, None, "unknown", Cause::ProviderUnavailable),
            (408, None, "unknown", Cause::ProviderUnavailable),
            (400, Some("21211"), "dead", Cause::InvalidRecipient),
            (400, Some("21606"), "parked", Cause::Misconfigured),
            (400, Some("21608"), "dead", Cause::Misconfigured),
            (400, Some("21610"), "suppressed", Cause::OptedOut),
            (400, Some("21611"), "retry", Cause::RateLimited),
            (400, Some("21617"), "dead", Cause::InvalidRequest),
            (404, Some("21703"), "parked", Cause::Misconfigured),
            (400, Some("99999"), "dead", Cause::InvalidRequest),
            (400, Some("not a number"), "dead", Cause::InvalidRequest),
            (400, None, "dead", Cause::InvalidRequest),
        ] {
            let outcome = outcome(&refused(status, code), NOW);
            assert_eq!((outcome.label(), outcome.cause()), (label, cause), "{status} {code:?}");
        }
    }

    #[test]
    fn a_full_queue_waits_an_hour_or_longer_where_twilio_says_so() {
        let until = |retry_after| {
            let error = CallError::Refused(ProviderRefusal {
                http_status: 429,
                code: Some("21611".into()),
                message: "".into(),
                retry_after,
            });
            outcome(&error, NOW)
        };
        let retry = |not_before| Outcome::Retry {
            cause: Cause::RateLimited,
            not_before: Some(not_before),
        };
        assert_eq!(until(None), retry(NOW + HOUR));
        assert_eq!(until(Some(NOW)), retry(NOW + HOUR));
        assert_eq!(until(Some(NOW + DAY)), retry(NOW + DAY));
    }

    #[test]
    fn only_a_failed_connect_is_certain() {
        let host = || "api.twilio.com".to_owned();
        for (error, label) in [
            (
                CallError::NotSent {
                    host: host(),
                    reason: String::new(),
                },
                "retry",
            ),
            (
                CallError::NoAnswer {
                    host: host(),
                    reason: String::new(),
                },
                "unknown",
            ),
            (
                CallError::Redirect {
                    host: host(),
                    status: 307,
                },
                "dead",
            ),
        ] {
            assert_eq!(outcome(&error, NOW).label(), label);
        }
    }
}
