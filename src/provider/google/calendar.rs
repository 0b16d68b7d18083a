//! Google Calendar v3: events by an id of ours, and a look that verifies. Errors by `reason`, never
//! by the status alone: a 403 can be a rate limit.

use super::*;
use crate::{
    domain::{Cause, Outcome, Timestamp},
    provider::GoogleCredential,
};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

/// An event as far as we compare it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CalendarEvent {
    pub id: String,
    /// `confirmed`, `tentative`, `cancelled` (deleted).
    pub status: Option<String>,
    extended_properties: Option<ExtendedProperties>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ExtendedProperties {
    private: Option<std::collections::HashMap<String, String>>,
}

/// The private property that says which action made an event.
pub const MARKER: &str = "hookswitchAction";

impl CalendarEvent {
    /// Whether an action of ours made it.
    #[must_use]
    pub fn is_of(&self, action: &str) -> bool {
        let private = self
            .extended_properties
            .as_ref()
            .and_then(|properties| properties.private.as_ref());
        private
            .and_then(|private| private.get(MARKER))
            .is_some_and(|marker| marker == action)
    }
}

/// `{"error":{"code","message","errors":[{"domain","reason","message"}]}}`: the code is the first `reason`.
pub(super) fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    struct Problem {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: Option<String>,
        errors: Option<Vec<Reason>>,
    }
    #[derive(Deserialize)]
    struct Reason {
        reason: Option<Box<str>>,
    }
    serde_json::from_slice(body).map_or((None, String::new()), |Problem { error }| {
        (
            error
                .errors
                .and_then(|errors| errors.into_iter().next())
                .and_then(|error| error.reason),
            error.message.unwrap_or_default(),
        )
    })
}

impl GoogleClient {
    /// Inserts an event under an id of ours.
    ///
    /// # Errors
    /// See [`CallError`]; [`outcome`] says what follows.
    pub async fn insert_event(
        &self,
        credential: &GoogleCredential,
        calendar: &str,
        send_updates: &str,
        event: &Value,
        deadline: Duration,
    ) -> Result<CalendarEvent, CallError> {
        let path = format!(
            "/calendar/v3/calendars/{}/events?sendUpdates={}",
            encoded(calendar),
            encoded(send_updates)
        );
        self.calendar
            .call(self.authorised(Method::POST, credential, &path).json(event), deadline)
            .await
    }

    /// The event with an id of ours; `None` where Google has none. A deleted one is there, with the
    /// status `cancelled`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn find_event(
        &self,
        credential: &GoogleCredential,
        calendar: &str,
        id: &str,
        deadline: Duration,
    ) -> Result<Option<CalendarEvent>, CallError> {
        let path = format!("/calendar/v3/calendars/{}/events/{}", encoded(calendar), encoded(id));
        match self
            .calendar
            .call(self.authorised(Method::GET, credential, &path), deadline)
            .await
        {
            Ok(event) => Ok(Some(event)),
            Err(CallError::Refused(ProviderRefusal {
                http_status: 404 | 410, ..
            })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an access token works, by the cheapest call that its scopes allow: a minute of
    /// `freeBusy`, or one event's ids.
    ///
    /// # Errors
    /// It was refused, or could not be found out; see [`CallError`].
    pub async fn probe(
        &self,
        credential: &GoogleCredential,
        now: Timestamp,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let at = |at: Timestamp| {
            jiff::Timestamp::from_second(at.as_seconds())
                .map(|at| at.to_string())
                .unwrap_or_default()
        };
        let request = if Granted::read(&credential.scope).free_busy {
            let body =
                json!({"timeMin": at(now), "timeMax": at(now + Duration::from_mins(1)), "items": [{"id": "primary"}]});
            self.authorised(Method::POST, credential, "/calendar/v3/freeBusy")
                .json(&body)
        } else {
            self.authorised(
                Method::GET,
                credential,
                "/calendar/v3/calendars/primary/events?maxResults=1",
            )
        };
        self.calendar
            .call::<serde::de::IgnoredAny>(request, deadline)
            .await
            .map(drop)
    }

    fn authorised(&self, method: Method, credential: &GoogleCredential, path: &str) -> reqwest::RequestBuilder {
        self.calendar.request(
            method,
            path,
            AUTHORIZATION,
            "Bearer ",
            credential.access_token.expose_secret(),
        )
    }
}

/// The outcome of an insert that was not accepted (docs:workspace/calendar/api/guides/errors). A
/// 409 is the caller's: the event is there already.
///
/// | status, reason | what follows |
/// |---|---|
/// | 401 `authError` | parked as refused; `attempt` refreshes the token and tries once more before it believes it |
/// | 403 or 429 `rateLimitExceeded`, `userRateLimitExceeded` | again after a backoff |
/// | 403 `quotaExceeded`, `dailyLimitExceeded` | again, not before an hour has passed |
/// | 403 `insufficientPermissions`, `forbidden`, others | parked: a box that was not ticked, a calendar that is not theirs |
/// | 404 `notFound` | parked: no such calendar |
/// | 408, 5xx | unknown: looked up by our id |
/// | 400 and others | dead |
#[must_use]
pub fn outcome(error: &CallError, now: Timestamp) -> Outcome {
    let refused = match error.refusal() {
        Ok(refused) => refused,
        Err(outcome) => return outcome,
    };
    match (refused.http_status, refused.code.as_deref()) {
        (401, _) => Outcome::Park {
            cause: Cause::CredentialRefused,
        },
        (429, _) | (403, Some("rateLimitExceeded" | "userRateLimitExceeded")) => Outcome::Retry {
            cause: Cause::RateLimited,
            not_before: refused.retry_after,
        },
        (403, Some("quotaExceeded" | "dailyLimitExceeded")) => {
            let not_before = refused.retry_after.unwrap_or(now).max(now + Duration::from_hours(1));
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: Some(not_before),
            }
        }
        (403 | 404, _) => Outcome::Park {
            cause: Cause::Misconfigured,
        },
        (408 | 500.., _) => Outcome::Unknown {
            cause: Cause::ProviderUnavailable,
        },
        _ => Outcome::Dead {
            cause: Cause::InvalidRequest,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_403_is_read_by_its_reason() {
        let now = Timestamp::from_seconds(1_700_000_000);
        for (status, reason, label, cause) in [
            (401, "authError", "parked", Cause::CredentialRefused),
            (403, "rateLimitExceeded", "retry", Cause::RateLimited),
            (403, "userRateLimitExceeded", "retry", Cause::RateLimited),
            (429, "rateLimitExceeded", "retry", Cause::RateLimited),
            (403, "quotaExceeded", "retry", Cause::RateLimited),
            (403, "insufficientPermissions", "parked", Cause::Misconfigured),
            (403, "forbiddenForNonOrganizer", "parked", Cause::Misconfigured),
            (404, "notFound", "parked", Cause::Misconfigured),
            (400, "invalid", "dead", Cause::InvalidRequest),
            (500, "backendError", "unknown", Cause::ProviderUnavailable),
            (503, "", "unknown", Cause::ProviderUnavailable),
        ] {
            let body = json!({"error": {"code": status, "message": "m", "errors": [{"domain": "global", "reason": reason, "message": "m"}]}});
            let (code, message) = problem(body.to_string().as_bytes());
            assert_eq!((code.as_deref(), message.as_str()), (Some(reason), "m"));
            let outcome = outcome(
                &CallError::Refused(ProviderRefusal {
                    http_status: status,
                    code,
                    message: "".into(),
                    retry_after: None,
                }),
                now,
            );
            assert_eq!((outcome.label(), outcome.cause()), (label, cause), "{status} {reason}");
        }
    }
}
