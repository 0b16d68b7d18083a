//! `google_calendar.create_event`: one event on a calendar that the person who connected owns.
//!
//! Parameters: `summary`, `start` and `end` (RFC 3339 with an offset, or without one beside
//! `time_zone`), and optionally `calendar_id` (default `primary`), `time_zone`, `description`,
//! `location`, `attendees` (an address, or a list), `send_updates` (`all`, `externalOnly`, `none`;
//! default `all` where there are attendees).
//!
//! An event of whole days has dates: `start_date` and `end_date`, or dates in `start` and `end`. As
//! at Google the end is exclusive: one day ends on the next one. The table of errors stands at
//! [`calendar::outcome`].
//!
//! **Invariant:** the event's id is made from the action's id, so a second insert is a 409 and
//! never a second event. An unknown outcome is looked up by that id before another insert, because
//! Google does not promise to see every collision.

use super::*;
use crate::{
    domain::Zone,
    provider::{GoogleCredential, ProviderRefusal, google::calendar, is_mailbox},
};
use serde_json::json;

pub struct GoogleCalendarCreateEvent;

const SUMMARY_CHARACTERS_MAX: usize = 1024;
/// Google's own limit is 8,192 characters.
const DESCRIPTION_CHARACTERS_MAX: usize = 8192;
const ATTENDEES_MAX: usize = 50;
const SEND_UPDATES: [&str; 3] = ["all", "externalOnly", "none"];

/// A moment with its offset, a time of day on a date where a time zone stands beside it, or a whole
/// day.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum When {
    Instant(jiff::Timestamp),
    Local(jiff::civil::DateTime),
    Day(jiff::civil::Date),
}

impl When {
    /// Whether this is the end of an event that begins at `start`. An instant and a local time
    /// cannot be compared here: Google compares them.
    fn can_end(self, start: Self) -> bool {
        std::mem::discriminant(&self) != std::mem::discriminant(&start) || start < self
    }
}

/// A date as RFC 3339 writes it: jiff reads more forms than Google does.
fn day(text: &str) -> Option<When> {
    let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    text.parse().ok().filter(|_| is_plain).map(When::Day)
}

/// The text of `start` or `end`, by either name.
fn time_text<'a>(request: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    text_of(request, name).or_else(|| text_of(request, &format!("{name}_date")))
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
            delay: Duration::from_secs(30),
            times: 2,
            is_by_own_id: true,
        }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(self.kind(), parameters)?;
        for name in ["start", "end"] {
            if !parameters.contains_key(name) && !parameters.contains_key(&format!("{name}_date")) {
                return Err(invalid(name, "missing"));
            }
        }
        if let Some(Value::String(zone)) = parameters.get("time_zone")
            && !zone.trim().is_empty()
            && !has_template(&parameters["time_zone"])
            && Zone::find(zone.trim()).is_none()
        {
            return Err(invalid(
                "time_zone",
                "expected a name of the IANA database such as Europe/Berlin",
            ));
        }
        match parameters.get("attendees") {
            None | Some(Value::String(_)) => Ok(()),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(invalid("attendees", "expected a text, or a list of texts")),
        }
    }

    fn stand_in(&self, name: &str) -> Value {
        // The widest span of time, so that a literal start or end beside it is in order.
        let text = match name {
            "start" => "1970-01-01T00:00:00Z",
            "end" => "9999-12-30T00:00:00Z",
            "start_date" => "1970-01-01",
            "end_date" => "9999-12-30",
            "time_zone" => "UTC",
            "send_updates" => "all",
            "attendees" => "mail@example.com",
            _ => "text",
        };
        text.into()
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        let attendees = read_attendees(rendered.remove("attendees"))?;
        // An optional parameter that renders to nothing is one that was not given.
        rendered.retain(|_, value| value.as_str().is_none_or(|text| !text.trim().is_empty()));
        check_texts(&rendered)?;
        check_times(&rendered)?;
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
        let calendar_id = calendar_of(request);
        let send_updates = text_of(request, "send_updates").unwrap_or(if request.contains_key("attendees") {
            "all"
        } else {
            "none"
        });
        let body = body_of(request, &event_id(attempt.action), &attempt.action.to_string());
        match providers
            .google
            .insert_event(credential, calendar_id, send_updates, &body, attempt.deadline)
            .await
        {
            Ok(event) => {
                let detail = Detail {
                    http_status: Some(200),
                    ..Detail::default()
                };
                (done(event.id), detail)
            }
            Err(CallError::Refused(refused)) if refused.http_status == 409 => {
                id_is_taken(providers, credential, attempt, until, refused).await
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
        let calendar_id = calendar_of(&attempt.request.0);
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

fn text_of<'a>(request: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    request.get(name).and_then(Value::as_str)
}

fn calendar_of(request: &Map<String, Value>) -> &str {
    text_of(request, "calendar_id").unwrap_or("primary")
}

/// The addresses of a parameter: one text, or a list of texts. Blank ones are left out.
fn read_attendees(rendered: Option<Value>) -> Result<Vec<String>, ParameterError> {
    let texts = match rendered {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items
            .into_iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    let attendees: Vec<String> = texts
        .into_iter()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect();
    if attendees.len() > ATTENDEES_MAX || !attendees.iter().all(|text| is_mailbox(text) && !text.contains('<')) {
        return Err(ParameterError {
            field: "parameters.attendees".to_owned(),
            problem: format!("expected up to {ATTENDEES_MAX} addresses such as mail@example.com"),
            cause: Cause::InvalidRecipient,
        });
    }
    Ok(attendees)
}

fn check_texts(rendered: &Map<String, Value>) -> Result<(), ParameterError> {
    let text = |name: &str| text_of(rendered, name);
    if text("summary").is_none() {
        return Err(invalid("summary", "is empty"));
    }
    for (name, characters_max) in [
        ("summary", SUMMARY_CHARACTERS_MAX),
        ("location", SUMMARY_CHARACTERS_MAX),
        ("description", DESCRIPTION_CHARACTERS_MAX),
    ] {
        if text(name).is_some_and(|text| text.chars().count() > characters_max) {
            return Err(invalid(name, &format!("has over {characters_max} characters")));
        }
    }
    let is_calendar = |id: &str| id.len() <= 256 && !id.chars().any(|c| c.is_whitespace() || c.is_control());
    if text("calendar_id").is_some_and(|id| !is_calendar(id)) {
        let expected = "expected primary, or a calendar's id as Google writes it";
        return Err(invalid("calendar_id", expected));
    }
    if text("send_updates").is_some_and(|value| !SEND_UPDATES.contains(&value)) {
        return Err(invalid("send_updates", "expected all, externalOnly or none"));
    }
    Ok(())
}

fn check_times(rendered: &Map<String, Value>) -> Result<(), ParameterError> {
    let text = |name: &str| text_of(rendered, name);
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
        let date_name = format!("{name}_date");
        match (text(name), text(&date_name)) {
            (Some(_), Some(_)) => Err(invalid(&date_name, &format!("stands beside {name}: give one of them"))),
            (None, Some(date)) => day(date).ok_or_else(|| invalid(&date_name, "expected a date such as 2026-03-01")),
            (time, None) => time
                .and_then(|text| day(text).or_else(|| when(text, has_zone)))
                .ok_or_else(|| {
                    let expected = "expected a time such as 2026-03-01T14:00:00+01:00, 2026-03-01T14:00:00 beside a \
                        time_zone, or a date such as 2026-03-01";
                    invalid(name, expected)
                }),
        }
    };
    let (start, end) = (time("start")?, time("end")?);
    if matches!(start, When::Day(_)) != matches!(end, When::Day(_)) {
        return Err(invalid(
            "end",
            "is a date where start is a time, or the other way round",
        ));
    }
    if !end.can_end(start) {
        let problem = if matches!(end, When::Day(_)) {
            "is not after start: the end of whole days is exclusive, so that one day ends on the next one"
        } else {
            "is not after start"
        };
        return Err(invalid("end", problem));
    }
    Ok(())
}

/// An event with our id is there already: an earlier try of ours made it, or we cannot say who did.
async fn id_is_taken(
    providers: &Providers,
    credential: &GoogleCredential,
    attempt: &Attempt<'_>,
    until: tokio::time::Instant,
    refused: ProviderRefusal,
) -> (Outcome, Detail) {
    let detail = |text: Box<str>| Detail {
        http_status: Some(409),
        provider_code: refused.code.clone(),
        text,
    };
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    let (calendar_id, id) = (calendar_of(&attempt.request.0), event_id(attempt.action));
    match providers.google.find_event(credential, calendar_id, &id, left).await {
        Ok(Some(event)) if event.is_of(&attempt.action.to_string()) => {
            let text = if event.status.as_deref() == Some("cancelled") {
                "an earlier try made it, and it was deleted since"
            } else {
                "an earlier try made it"
            };
            (done(event.id), detail(text.into()))
        }
        _ => {
            let cause = Cause::Ambiguous;
            (Outcome::Unknown { cause }, detail(refused.message.clone()))
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
    let text = |name: &str| text_of(request, name);
    let time = |name: &str| {
        let text_of_time = time_text(request, name);
        if text_of_time.and_then(day).is_some() {
            return json!({"date": text_of_time});
        }
        let mut time = json!({"dateTime": text_of_time});
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
    fn whole_days_are_dates_and_end_on_the_next_day() {
        for parameters in [
            json!({"summary": "Day off", "start": "2026-11-02", "end": "2026-11-03"}),
            json!({"summary": "Day off", "start_date": "2026-11-02", "end_date": "2026-11-03"}),
            json!({"summary": "Day off", "start": " ", "start_date": "2026-11-02", "end": "2026-11-03",
                "time_zone": "Europe/Berlin"}),
        ] {
            let body = body_of(&freeze(parameters).expect("a request").0, "id", "action");
            assert_eq!(body["start"], json!({"date": "2026-11-02"}));
            assert_eq!(body["end"], json!({"date": "2026-11-03"}));
        }
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
            (good(json!({"start": "2026-03-01"})), "parameters.end"),
            (good(json!({"start_date": "2026-03-01"})), "parameters.start_date"),
            (
                good(json!({"start": "2026-03-1", "end": "2026-03-02"})),
                "parameters.start",
            ),
            (
                good(json!({"start": "20260301", "end": "20260302"})),
                "parameters.start",
            ),
            (
                good(json!({"start": "2026-02-30", "end": "2026-03-02"})),
                "parameters.start",
            ),
            (
                good(json!({"start": "2026-03-01", "end": "2026-03-01"})),
                "parameters.end",
            ),
            (
                json!({"summary": "x", "start_date": "2026-03-01", "end_date": "2026-03-01T10:00:00Z"}),
                "parameters.end_date",
            ),
            (json!({"summary": "x", "start_date": "2026-03-01"}), "parameters.end"),
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
