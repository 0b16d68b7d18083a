//! The parts of an event that expressions and templates may see.

use super::{UnreadableBody, body::form, masked_body};
use crate::domain::{EndpointId, Envelope, EventId, EventType, IngressHeader, OrgSettings, Source, Timestamp};
use minijinja::{
    Value as Template,
    value::{Enumerator, Object},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A name that expressions and templates see.
#[derive(Clone, Copy, Debug)]
pub struct Visible {
    pub name: &'static str,
    /// The source whose events have it; `None`: all.
    pub source: Option<Source>,
    /// Its members, where they are always the same.
    pub members: &'static [&'static str],
    pub help: &'static str,
}

const fn visible(name: &'static str, source: Option<Source>, help: &'static str) -> Visible {
    Visible {
        name,
        source,
        members: &[],
        help,
    }
}

/// [`NAMES`], for people.
pub const VISIBLE: &[Visible] = &[
    Visible {
        members: &[
            "id",
            "type",
            "kind",
            "source",
            "subject",
            "time",
            "received_at",
            "endpoint",
        ],
        ..visible(
            "event",
            None,
            "The event itself; subject is its call, message or conversation",
        )
    },
    visible("message", Some(Source::Vapi), "The message of the body"),
    visible("params", Some(Source::Twilio), "The fields of the form, by their names"),
    visible(
        "body",
        None,
        "The whole body: JSON as it was sent, or the fields of a form",
    ),
    visible("headers", None, "The headers that were kept, by names in small letters"),
    visible(
        "query",
        None,
        "The parameters of the URL, by name; one whose name ends as a secret's does is masked",
    ),
    Visible {
        members: &["time_zone", "is_open"],
        ..visible(
            ORGANISATION,
            None,
            "Its settings; is_open is for the event's time, and null without opening hours",
        )
    },
];

pub(super) const ORGANISATION: &str = "organisation";

/// The names at the top. `message` is there for Vapi's events, `params` for Twilio's.
pub(super) const NAMES: [&str; 7] = ["event", "message", "params", "body", "headers", "query", ORGANISATION];

/// An event, stored or made up, as far as rules can see it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub id: EventId,
    pub source: Source,
    pub event_type: &'a EventType,
    pub subject: &'a str,
    pub time: Timestamp,
    pub received_at: Timestamp,
    pub endpoint: Option<EndpointId>,
    pub content_type: &'a str,
    pub query: &'a str,
    pub headers: &'a [IngressHeader],
    pub body: &'a [u8],
    /// `None`: its organisation has chosen nothing.
    pub settings: Option<&'a Arc<OrgSettings>>,
}

impl<'a> From<&'a Envelope> for Sample<'a> {
    fn from(envelope: &'a Envelope) -> Self {
        Self {
            id: envelope.id,
            source: envelope.source,
            event_type: &envelope.event_type,
            subject: &envelope.subject.0,
            time: envelope.time,
            received_at: envelope.received_at,
            endpoint: envelope.endpoint,
            content_type: &envelope.content_type,
            query: &envelope.query,
            headers: &envelope.headers,
            body: &envelope.body,
            settings: None,
        }
    }
}

/// The organisation of an event. What a rule asks for is found when it asks.
#[derive(Debug)]
struct Organisation {
    settings: Option<Arc<OrgSettings>>,
    /// The event's time.
    at: Timestamp,
}

impl Object for Organisation {
    fn get_value(self: &Arc<Self>, member: &Template) -> Option<Template> {
        let settings = self.settings.as_deref();
        match member.as_str()? {
            "time_zone" => Some(Template::from(
                settings.map_or("UTC", |settings| settings.zone().name()),
            )),
            "is_open" => {
                let is_open = settings.and_then(|settings| settings.is_open(self.at));
                Some(is_open.map_or_else(|| Template::from(()), Template::from))
            }
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["time_zone", "is_open"])
    }
}

/// The context, made once an event and shared by all of its rules. Known places of secrets are
/// masked (invariant 19). A body that cannot be masked is absent.
#[derive(Clone, Debug)]
pub struct Context {
    names: Template,
    unreadable: Option<UnreadableBody>,
}

impl Context {
    #[must_use]
    pub fn new(sample: &Sample<'_>) -> Self {
        let body = masked_body(sample.source, sample.content_type, sample.body);
        let unreadable = body.as_ref().err().copied();
        let is_object = body.as_ref().is_ok_and(Value::is_object);
        let body = body.map_or(Template::UNDEFINED, convert);
        let mut names = Vec::with_capacity(NAMES.len());
        names.push((
            "event",
            convert(json!({
                "id": sample.id,
                "type": sample.event_type.as_str(),
                "kind": sample.event_type.kind(),
                "source": sample.source.as_str(),
                "subject": sample.subject,
                "time": rfc3339(sample.time),
                "received_at": rfc3339(sample.received_at),
                "endpoint": sample.endpoint,
            })),
        ));
        match sample.source {
            Source::Vapi => {
                if let Some(message) = body.get_attr("message").ok().filter(|message| !message.is_undefined()) {
                    names.push(("message", message));
                }
            }
            Source::Twilio if is_object => names.push(("params", body.clone())),
            _ => {}
        }
        if !body.is_undefined() {
            names.push(("body", body));
        }
        let mut headers = Map::new();
        for (name, value) in sample.headers {
            headers
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| Value::String(value.as_ref().to_owned()));
        }
        names.push(("headers", convert(Value::Object(headers))));
        names.push(("query", convert(Value::Object(form(sample.query.as_bytes())))));
        let organisation = Organisation {
            settings: sample.settings.cloned(),
            at: sample.time,
        };
        names.push((ORGANISATION, Template::from_object(organisation)));
        Self {
            names: Template::from_pairs(names),
            unreadable,
        }
    }

    /// Why `message`, `params` and `body` are absent.
    pub(super) const fn unreadable(&self) -> Option<UnreadableBody> {
        self.unreadable
    }

    /// The event as Standard Webhooks has it: `type`, `timestamp`, and the (masked) body as `data`
    /// where a rule words none of its own.
    ///
    /// # Errors
    /// The body is wanted and cannot be masked.
    pub(super) fn payload(&self, with_data: bool) -> Result<Value, UnreadableBody> {
        if let Some(error) = self.unreadable.filter(|_| with_data) {
            return Err(error);
        }
        let get = |value: &Template, name: &str| value.get_attr(name).ok().filter(|value| !value.is_undefined());
        let event = get(&self.names, "event").unwrap_or_default();
        let mut payload = Map::new();
        let mut put = |name: &str, value: Option<Template>| {
            if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
                payload.insert(name.to_owned(), value);
            }
        };
        put("type", get(&event, "type"));
        put("timestamp", get(&event, "time"));
        put("data", with_data.then(|| get(&self.names, "body")).flatten());
        Ok(Value::Object(payload))
    }

    pub(super) const fn value(&self) -> &Template {
        &self.names
    }
}

/// Into the engine's own values, without going through text again. Numbers stay numbers.
fn convert(value: Value) -> Template {
    match value {
        Value::Null => Template::from(()),
        Value::Bool(value) => Template::from(value),
        Value::Number(number) => number
            .as_i64()
            .map(Template::from)
            .or_else(|| number.as_u64().map(Template::from))
            .unwrap_or_else(|| Template::from(number.as_f64().unwrap_or(f64::NAN))),
        Value::String(text) => Template::from(text),
        Value::Array(values) => Template::from(values.into_iter().map(convert).collect::<Vec<_>>()),
        Value::Object(values) => Template::from_pairs(values.into_iter().map(|(name, value)| (name, convert(value)))),
    }
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.as_micros()).map_or_else(|_| String::new(), |at| at.to_string())
}
