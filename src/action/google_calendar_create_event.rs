//! `google_calendar.create_event`: one event on a calendar that the person who connected owns.
//!
//! Parameters: `summary`, `start` and `end` (RFC 3339 with an offset, or without one beside
//! `time_zone`), and optionally `calendar_id` (default `primary`), `time_zone`, `description`,
//! `location`, `attendees` (an address, or a list), `send_updates` (`all`, `externalOnly`, `none`;
//! default `all` where there are attendees). The table of errors stands at [`calendar::outcome`].
//!
//! **Invariant:** the event's id is made from the action's, so a second insert is a 409 and never a
//! second event; and an unknown outcome is looked up by that id before anything is inserted again,
//! since Google does not promise to see every collision.

use super::*;
use crate::provider::{google::calendar, is_mailbox};
use serde_json::json;

pub struct GoogleCalendarCreateEvent;

const TEXTS: [&str; 8] = [
    "summary",
    "start",
    "end",
    "calendar_id",
    "time_zone",
    "description",
    "location",
    "send_updates",
];
const SUMMARY_CHARACTERS_MAX: usize = 1024;
/// Google's own limit is 8,192 characters.
const DESCRIPTION_CHARACTERS_MAX: usize = 8192;
const ATTENDEES_MAX: usize = 50;
const SEND_UPDATES: [&str; 3] = ["all", "externalOnly", "none"];

/// A moment with its offset, or a time of day on a date where a time zone stands beside it.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum When {
    Instant(jiff::Timestamp),
    Local(jiff::civil::DateTime),
}

fn when(text: &str, has_zone: bool) -> Option<When> {
    // Only RFC 3339: jiff reads more forms than Google does.
    let is_plain = text.len() >= 19 && text.is_ascii() && text.as_bytes()[10] == b'T' && !text.contains('[');
    if !is_plain {
        return None;
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Some(When::Instant(at)),
        Err(_) if has_zone && !text.ends_with(['Z', 'z']) && !text[19..].contains(['+', '-']) => {
            text.parse().ok().map(When::Local)
        }
        Err(_) => None,
    }
}

#[async_trait]
impl Action for GoogleCalendarCreateEvent {
    fn kind(&self) -> ActionKind {
        ActionKind::GoogleCalendarCreateEvent
    }

    fn on_unknown(&self) -> OnUnknown {
        // By its id: it is there or it is not. Twice, because what was just written may not be seen
        // at once.
        OnUnknown::LookUp {
            settle: Duration::from_secs(30),
            times: 2,
        }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(parameters, &TEXTS, &["attendees"], &["summary", "start", "end"])?;
        match parameters.get("attendees") {
            None | Some(Value::String(_)) => Ok(()),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(invalid("attendees", "expected a text, or a list of texts")),
        }
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        let attendees: Vec<String> = match rendered.remove("attendees") {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items
                .into_iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        let attendees: Vec<String> = attendees
            .into_iter()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
            .collect();
        if attendees.len() > ATTENDEES_MAX || !attendees.iter().all(|text| is_mailbox(text) && !text.contains('<')) {
            let problem = format!("expected up to {ATTENDEES_MAX} addresses such as mail@example.com");
            return Err(ParameterError {
                field: "parameters.attendees".to_owned(),
                problem,
                cause: Cause::InvalidRecipient,
            });
        }
        // An optional parameter that renders to nothing is one that was not given.
        rendered.retain(|_, value| value.as_str().is_none_or(|text| !text.trim().is_empty()));
        let text = |name: &str| rendered.get(name).and_then(Value::as_str);
        let limited = |name: &str, characters_max: usize| match text(name) {
            Some(text) if text.chars().count() > characters_max => {
                Err(invalid(name, &format!("has over {characters_max} characters")))
            }
            _ => Ok(()),
        };
        if text("summary").is_none() {
            return Err(invalid("summary", "is empty"));
        }
        limited("summary", SUMMARY_CHARACTERS_MAX)?;
        limited("location", SUMMARY_CHARACTERS_MAX)?;
        limited("description", DESCRIPTION_CHARACTERS_MAX)?;
        let is_zone = |zone: &str| {
            zone.len() <= 64
                && zone
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+'))
        };
        if text("time_zone").is_some_and(|zone| !is_zone(zone)) {
            return Err(invalid("time_zone", "expected a name such as Europe/Berlin"));
        }
        let has_zone = text("time_zone").is_some();
        let time = |name: &str| {
            let expected =
                "expected a time such as 2026-03-01T14:00:00+01:00, or 2026-03-01T14:00:00 beside a time_zone";
            text(name)
                .and_then(|text| when(text, has_zone))
                .ok_or_else(|| invalid(name, expected))
        };
        let (start, end) = (time("start")?, time("end")?);
        // Of two kinds nothing can be said here; Google compares them.
        if start
            .partial_cmp(&end)
            .is_some_and(|order| order != std::cmp::Ordering::Less)
            && std::mem::discriminant(&start) == std::mem::discriminant(&end)
        {
            return Err(invalid("end", "is not after start"));
        }
        if text("calendar_id")
            .is_some_and(|id| id.len() > 256 || id.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            return Err(invalid(
                "calendar_id",
                "expected primary, or a calendar's id as Google writes it",
            ));
        }
        if text("send_updates").is_some_and(|value| !SEND_UPDATES.contains(&value)) {
            return Err(invalid("send_updates", "expected all, externalOnly or none"));
        }
        if !attendees.is_empty() {
            rendered.insert("attendees".to_owned(), attendees.into());
        }
        Ok(FrozenRequest(rendered))
    }

    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail) {
        let Credential::Google(credential) = attempt.credential else {
            let (cause, detail) = wrong_credential();
            return (Outcome::Park { cause }, detail);
        };
        let until = tokio::time::Instant::now() + attempt.deadline;
        let request = &attempt.request.0;
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let calendar_id = text("calendar_id").unwrap_or("primary");
        let send_updates = text("send_updates").unwrap_or(if request.contains_key("attendees") {
            "all"
        } else {
            "none"
        });
        let id = event_id(attempt.action);
        let body = body_of(request, &id, &attempt.action.to_string());
        match providers
            .google
            .insert_event(credential, calendar_id, send_updates, &body, attempt.deadline)
            .await
        {
            Ok(event) => (
                done(event.id),
                Detail {
                    http_status: Some(200),
                    ..Detail::default()
                },
            ),
            Err(CallError::Refused(refused)) if refused.http_status == 409 => {
                // Someone was here with this id: an earlier try of ours, or nobody that we know.
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                match providers.google.find_event(credential, calendar_id, &id, left).await {
                    Ok(Some(event)) if event.is_of(&attempt.action.to_string()) => {
                        let words = if event.status.as_deref() == Some("cancelled") {
                            "an earlier try made it, and it was deleted since"
                        } else {
                            "an earlier try made it"
                        };
                        (
                            done(event.id),
                            Detail {
                                http_status: Some(409),
                                provider_code: refused.code,
                                text: words.into(),
                            },
                        )
                    }
                    _ => (
                        Outcome::Unknown {
                            cause: Cause::Ambiguous,
                        },
                        Detail {
                            http_status: Some(409),
                            provider_code: refused.code,
                            text: refused.message,
                        },
                    ),
                }
            }
            Err(error) => (calendar::outcome(&error, providers.http.now()), detail_of(&error)),
        }
    }

    async fn look_up(&self, providers: &Providers, attempt: &Attempt<'_>) -> (LookUp, Detail) {
        let Credential::Google(credential) = attempt.credential else {
            // Never `Park` from here: a parked action is sent when the credential changes, and this
            // one may have gone out.
            let (cause, detail) = wrong_credential();
            return (LookUp::Failed(Outcome::Unknown { cause }), detail);
        };
        let calendar_id = attempt
            .request
            .0
            .get("calendar_id")
            .and_then(Value::as_str)
            .unwrap_or("primary");
        match providers
            .google
            .find_event(credential, calendar_id, &event_id(attempt.action), attempt.deadline)
            .await
        {
            Ok(found) => {
                let matches: Vec<Box<str>> = found
                    .filter(|event| event.is_of(&attempt.action.to_string()))
                    .map(|event| event.id.into())
                    .into_iter()
                    .collect();
                let words = if matches.is_empty() {
                    "Google has no event of this id"
                } else {
                    "Google has the event"
                };
                (
                    LookUp::Matches(matches),
                    Detail {
                        http_status: Some(200),
                        provider_code: None,
                        text: words.into(),
                    },
                )
            }
            Err(error) => {
                let failed = match calendar::outcome(&error, providers.http.now()) {
                    retry @ Outcome::Retry { .. } => retry,
                    other => Outcome::Unknown { cause: other.cause() },
                };
                (LookUp::Failed(failed), detail_of(&error))
            }
        }
    }
}

/// The action's id without hyphens: hexadecimal digits are a part of base32hex, which Google asks
/// for.
fn event_id(action: ActionId) -> String {
    action.to_string().replace('-', "")
}

fn done(id: String) -> Outcome {
    Outcome::Succeeded {
        cause: Cause::Accepted,
        provider_ref: Some(id.into()),
    }
}

fn body_of(request: &Map<String, Value>, id: &str, action: &str) -> Value {
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let time = |name: &str| {
        let mut time = json!({"dateTime": text(name)});
        if let Some(zone) = text("time_zone") {
            time["timeZone"] = zone.into();
        }
        time
    };
    let mut body = json!({
        "id": id, "summary": text("summary"), "start": time("start"), "end": time("end"),
        "extendedProperties": {"private": {calendar::MARKER: action}},
    });
    for name in ["description", "location"] {
        if let Some(text) = text(name) {
            body[name] = text.into();
        }
    }
    if let Some(Value::Array(attendees)) = request.get("attendees") {
        body["attendees"] = attendees.iter().map(|email| json!({"email": email})).collect();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freeze(value: Value) -> Result<FrozenRequest, ParameterError> {
        let Value::Object(map) = value else { panic!("an object") };
        GoogleCalendarCreateEvent.freeze(map)
    }

    fn good(extra: Value) -> Value {
        let mut all =
            json!({"summary": "Cleaning", "start": "2026-03-01T14:00:00+01:00", "end": "2026-03-01T14:30:00+01:00"});
        let Value::Object(extra) = extra else {
            panic!("an object")
        };
        all.as_object_mut().expect("an object").extend(extra);
        all
    }

    #[test]
    fn what_is_frozen_becomes_one_body() {
        let frozen = freeze(good(
            json!({"attendees": ["a@b.example", ""], "location": "", "time_zone": "Europe/Berlin"}),
        ))
        .expect("a request");
        let time = |at: &str| json!({"dateTime": at, "timeZone": "Europe/Berlin"});
        assert_eq!(
            body_of(&frozen.0, "id", "action"),
            json!({
                "id": "id", "summary": "Cleaning", "start": time("2026-03-01T14:00:00+01:00"),
                "end": time("2026-03-01T14:30:00+01:00"),
                "extendedProperties": {"private": {"hookswitchAction": "action"}},
                "attendees": [{"email": "a@b.example"}],
            })
        );
        let id = event_id(ActionId::generate());
        assert!(
            id.len() == 32
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte)),
            "{id}"
        );
    }

    #[test]
    fn what_cannot_be_booked_is_found_at_planning() {
        for (value, field) in [
            (
                json!({"summary": "x", "start": "2026-03-01T14:00:00Z"}),
                "parameters.end",
            ),
            (good(json!({"summary": " "})), "parameters.summary"),
            (good(json!({"start": "tomorrow at two"})), "parameters.start"),
            (good(json!({"start": "2026-03-01"})), "parameters.start"),
            (good(json!({"start": "2026-03-01T14:00:00"})), "parameters.start"),
            (good(json!({"start": "2026-03-01 14:00:00+01:00"})), "parameters.start"),
            (
                good(json!({"start": "2026-03-01T14:00:00+01:00[Europe/Berlin]"})),
                "parameters.start",
            ),
            (good(json!({"end": "2026-03-01T14:00:00+01:00"})), "parameters.end"),
            (good(json!({"end": "2026-03-01T13:59:59+02:00"})), "parameters.end"),
            (good(json!({"time_zone": "Europe/Berlin; x"})), "parameters.time_zone"),
            (good(json!({"attendees": "nobody"})), "parameters.attendees"),
            (good(json!({"attendees": "Ann <a@b.example>"})), "parameters.attendees"),
            (good(json!({"attendees": [7]})), "parameters.attendees"),
            (good(json!({"calendar_id": "a b"})), "parameters.calendar_id"),
            (good(json!({"send_updates": "some"})), "parameters.send_updates"),
            (good(json!({"id": "mine"})), "parameters.id"),
        ] {
            assert_eq!(
                freeze(value.clone()).expect_err(&value.to_string()).field,
                field,
                "{value}"
            );
        }
        assert!(
            freeze(good(
                json!({"start": "2026-03-01T14:00:00", "end": "2026-03-01T15:00:00", "time_zone": "America/New_York"})
            ))
            .is_ok()
        );
    }
}
