//! What expressions and templates may see of an event.

use super::mask;
use crate::domain::{EndpointId, Envelope, EventId, EventType, IngressHeader, Source, Timestamp};
use minijinja::Value as Template;
use serde_json::{Map, Value, json};

/// The names at the top. `message` is there for Vapi's events, `params` for Twilio's.
pub(super) const NAMES: [&str; 6] = ["event", "message", "params", "body", "headers", "query"];

/// Names and values in a form or a query, at most.
const PAIRS_MAX: usize = 1_000;

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
        }
    }
}

/// The context, made once an event and shared by all of its rules. Known places of secrets are
/// masked (invariant 19).
#[derive(Clone, Debug)]
pub struct Context(Template);

impl Context {
    #[must_use]
    pub fn new(sample: &Sample<'_>) -> Self {
        let mut body = parse_body(sample.content_type, sample.body);
        mask(sample.source, &mut body);
        let is_object = body.is_object();
        let body = convert(body);
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
        names.push(("body", body));
        let mut headers = Map::new();
        for (name, value) in sample.headers {
            headers
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| Value::String(value.as_ref().to_owned()));
        }
        names.push(("headers", convert(Value::Object(headers))));
        names.push(("query", convert(Value::Object(form(sample.query.as_bytes())))));
        Self(Template::from_pairs(names))
    }

    /// The event as Standard Webhooks has it: `type`, `timestamp`, and the (masked) body as `data`
    /// where a rule words none of its own.
    pub(super) fn payload(&self, with_data: bool) -> Value {
        let get = |value: &Template, name: &str| value.get_attr(name).ok().filter(|value| !value.is_undefined());
        let event = get(&self.0, "event").unwrap_or_default();
        let mut payload = Map::new();
        let mut put = |name: &str, value: Option<Template>| {
            if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
                payload.insert(name.to_owned(), value);
            }
        };
        put("type", get(&event, "type"));
        put("timestamp", get(&event, "time"));
        put("data", with_data.then(|| get(&self.0, "body")).flatten());
        Value::Object(payload)
    }

    pub(super) const fn value(&self) -> &Template {
        &self.0
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

/// JSON as it is, a form as an object, anything else as text.
fn parse_body(content_type: &str, body: &[u8]) -> Value {
    let is_form = content_type
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("application/x-www-form-urlencoded");
    if is_form {
        return Value::Object(form(body));
    }
    let parsed = serde_json::from_slice(body).or_else(|error| match std::str::from_utf8(body) {
        Ok(text) if text.contains("\\u") => serde_json::from_str(&whole_surrogates(text)),
        _ => Err(error),
    });
    parsed.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// JSON text with each half of a surrogate pair replaced by U+FFFD: senders cut texts within an
/// emoji, and the rest of the event is as good as ever.
fn whole_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        text.get(at..at + 6)
            .filter(|escape| escape.starts_with("\\u"))
            .and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok())
    };
    let mut mended = String::with_capacity(text.len());
    let mut rest = 0;
    while let Some(found) = text[rest..].find('\\') {
        let at = rest + found;
        mended.push_str(&text[rest..at]);
        // An escape is two bytes, `\uXXXX` six, and a pair of them twelve.
        let (taken, escape) = match unit(at) {
            Some(0xd800..=0xdbff) if unit(at + 6).is_some_and(|low| matches!(low, 0xdc00..=0xdfff)) => (12, None),
            Some(0xd800..=0xdfff) => (6, Some("\\ufffd")),
            Some(_) => (6, None),
            None => (2, None),
        };
        let end = (at + taken).min(text.len());
        mended.push_str(escape.unwrap_or_else(|| text.get(at..end).unwrap_or("\\")));
        rest = if text.is_char_boundary(end) { end } else { at + 1 };
    }
    mended.push_str(&text[rest..]);
    mended
}

/// Names and values, decoded. The first value of a name counts.
pub(super) fn form(bytes: &[u8]) -> Map<String, Value> {
    let mut pairs = Map::new();
    for pair in bytes
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(PAIRS_MAX)
    {
        let split = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = split.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        pairs
            .entry(decode(name))
            .or_insert_with(|| Value::String(decode(value)));
    }
    pairs
}

fn decode(bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            {
                Some(value) if after[0] != b'+' => {
                    decoded.push(value);
                    rest = &after[2..];
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cut_within_an_emoji_leaves_the_rest_readable() {
        let body = parse_body(
            "application/json",
            br#"{"message":{"transcript":"bye \ud83d","other":"\ud83d\ude0a \\ud83d \udc00\u00e9","customer":{"number":"+15550100"}}}"#,
        );
        assert_eq!(body["message"]["transcript"], "bye \u{fffd}");
        assert_eq!(body["message"]["other"], "\u{1f60a} \\ud83d \u{fffd}\u{e9}");
        assert_eq!(body["message"]["customer"]["number"], "+15550100");
        assert_eq!(parse_body("application/json", b"{\"a\":\"\\"), "{\"a\":\"\\");
    }
}
