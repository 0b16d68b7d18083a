//! The ids and kind of a Twilio webhook.
//!
//! # Kinds and dedupe keys (invariant 8)
//! | kind | what makes it that | key |
//! |---|---|---|
//! | `message-received` | a message's SID with status `received`, or without a status | `MessageSid`, `received` |
//! | `message-status` | a message's SID with another status | `MessageSid`, `MessageStatus` |
//! | `recording-status` | `RecordingStatus` | `RecordingSid`, `RecordingStatus` |
//! | `call-status` | `CallSid` with `CallbackSource` or `SequenceNumber` | `CallSid`, `SequenceNumber`, `CallStatus` |
//! | `voice-request` | `CallSid` otherwise | `CallSid`, `CallStatus`, path and query, all signed pairs: one call asks several URLs, and one URL twice |
//! | `event-streams` | a JSON body of CloudEvents | the ids of its events |
//! | `other` | anything else | all that is signed |
//!
//! All that is signed (URL and sorted pairs) where a part is absent **or not in its form**. A
//! signature covers the names and values without separators, so a captured request can be sent
//! again with its boundaries moved (`FromC=ity` for `From=City`). A SID, status or number that
//! swallowed its neighbour no longer has its form. The signed text stays the same however it is
//! cut. `I-Twilio-Idempotency-Token` is outside the signature and has no part in any of this.
//!
//! # Whose number
//! Ours is `To` of what comes in (messages, calls whose `Direction` is `inbound`) and `From` of
//! what goes out.

use super::{
    super::{
        AnswerKind, NotTheFormat, Reading, Request, key,
        key::KeyParts,
        scan::{self, REPEATED, Scanned, Slot, once},
    },
    Form, SignedUrl, is_form,
};
use crate::domain::{DedupeKey, EventType, RouteKey, RouteKind, Source, Timestamp};

const SOURCE: Source = Source::Twilio;

pub(in crate::source) fn read(request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    let reading = if request.method != "POST" {
        let query = request.url.split_once('?').map_or("", |(_, query)| query);
        read_form(request, query.as_bytes())
    } else if is_form(request.headers) {
        read_form(request, request.body)
    } else {
        read_json(request)
    };
    reading.map_err(|reason| NotTheFormat {
        source_name: SOURCE,
        reason,
    })
}

/// The parameters that are read, in the order of [`NAMES`].
#[derive(Clone, Copy)]
#[repr(usize)]
enum Name {
    AccountSid,
    MessageSid,
    SmsSid,
    MessageStatus,
    SmsStatus,
    CallSid,
    CallStatus,
    Direction,
    From,
    To,
    CallbackSource,
    SequenceNumber,
    Timestamp,
    RecordingSid,
    RecordingStatus,
}

const NAMES: [&[u8]; 15] = [
    b"AccountSid",
    b"MessageSid",
    b"SmsSid",
    b"MessageStatus",
    b"SmsStatus",
    b"CallSid",
    b"CallStatus",
    b"Direction",
    b"From",
    b"To",
    b"CallbackSource",
    b"SequenceNumber",
    b"Timestamp",
    b"RecordingSid",
    b"RecordingStatus",
];

/// Longest value of a parameter that is read.
const VALUE_BYTES_MAX: usize = 256;

struct Params<'f>([Option<&'f str>; NAMES.len()]);

impl<'f> Params<'f> {
    fn of(form: &'f Form<'_>) -> Scanned<Self> {
        let mut values = [None; NAMES.len()];
        for (name, value) in form.pairs() {
            let Some(at) = NAMES.iter().position(|&wanted| wanted == name) else {
                continue;
            };
            let value = std::str::from_utf8(value).map_err(|_| "a parameter that is read is not UTF-8")?;
            if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                return Err("a parameter that is read is too long or contains a control character");
            }
            if values[at].replace(value).is_some() {
                return Err(REPEATED);
            }
        }
        Ok(Self(values))
    }

    /// `None` where absent or empty.
    fn get(&self, name: Name) -> Option<&'f str> {
        self.0[name as usize].filter(|value| !value.is_empty())
    }

    fn sid(&self, name: Name) -> Option<&'f str> {
        self.get(name).filter(|value| is_sid(value))
    }

    fn status(&self, name: Name) -> Option<&'f str> {
        self.get(name).filter(|value| STATUSES.contains(value))
    }
}

/// Two capital letters and 32 hexadecimal digits.
fn is_sid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 34 && bytes[..2].iter().all(u8::is_ascii_uppercase) && bytes[2..].iter().all(u8::is_ascii_hexdigit)
}

/// Every status of messages, calls and recordings.
const STATUSES: [&str; 23] = [
    "absent",
    "accepted",
    "busy",
    "canceled",
    "completed",
    "delivered",
    "failed",
    "in-progress",
    "initiated",
    "no-answer",
    "partially_delivered",
    "processing",
    "queued",
    "read",
    "received",
    "receiving",
    "ringing",
    "scheduled",
    "sending",
    "sent",
    "stopped",
    "paused",
    "undelivered",
];

fn read_form(request: &Request<'_>, encoded: &[u8]) -> Scanned<Reading> {
    let form = Form::parse(encoded).ok_or("the form has more than 1000 parameters")?;
    if form.is_empty() {
        return Err("the form is empty");
    }
    let params = Params::of(&form)?;
    let url = SignedUrl::parse(request.url);
    let all = || all_signed(&url, &form);
    let FormKind {
        kind,
        our_number,
        subject,
        key,
    } = params.kind(all);
    let dedupe_key = key.map_or_else(all, KeyParts::done);
    Ok(Reading {
        event_type: EventType::new(SOURCE, kind),
        routes: routes(params.get(Name::AccountSid).into_iter(), our_number),
        subject: key::subject(subject.as_deref(), dedupe_key),
        dedupe_key,
        time: params.get(Name::Timestamp).and_then(rfc2822),
        answer: AnswerKind::Twiml,
    })
}

/// The facts that follow from the kind of a form.
struct FormKind<'f> {
    kind: &'static str,
    our_number: Option<&'f str>,
    subject: Option<String>,
    /// `None`: a part is absent, and everything that is signed is the key.
    key: Option<KeyParts>,
}

impl<'f> Params<'f> {
    /// The first kind whose parameters are there. `all` hashes everything that is signed.
    fn kind(&self, all: impl Fn() -> DedupeKey) -> FormKind<'f> {
        if self.get(Name::RecordingStatus).is_some() {
            self.recording()
        } else if let Some(message) = self.get(Name::MessageSid).or(self.get(Name::SmsSid)) {
            self.message(message)
        } else if let Some(call) = self.get(Name::CallSid) {
            self.call(call, all)
        } else {
            // Twilio lets customers choose the parameters (Studio's "Make HTTP Request"), and an
            // endpoint's secret verifies them all the same.
            FormKind {
                kind: "other",
                our_number: None,
                subject: None,
                key: None,
            }
        }
    }

    fn recording(&self) -> FormKind<'f> {
        FormKind {
            kind: "recording-status",
            our_number: None,
            subject: self
                .get(Name::CallSid)
                .or(self.get(Name::RecordingSid))
                .map(str::to_owned),
            key: KeyParts::new(SOURCE, "recording-status")
                .with_some(self.sid(Name::RecordingSid))
                .and_then(|key| key.with_some(self.status(Name::RecordingStatus))),
        }
    }

    fn message(&self, message: &str) -> FormKind<'f> {
        let status = self.get(Name::MessageStatus).or(self.get(Name::SmsStatus));
        let (kind, ours, theirs, status) = if matches!(status, None | Some("received" | "receiving")) {
            ("message-received", Name::To, Name::From, Some("received"))
        } else {
            let status = self.status(Name::MessageStatus).or(self.status(Name::SmsStatus));
            ("message-status", Name::From, Name::To, status)
        };
        let (ours, theirs) = (self.get(ours), self.get(theirs));
        FormKind {
            kind,
            our_number: ours,
            // Both directions of one conversation keep their order.
            subject: ours
                .zip(theirs)
                .map(|(ours, theirs)| format!("{ours}:{theirs}"))
                .or_else(|| Some(message.to_owned())),
            key: KeyParts::new(SOURCE, "message")
                .with_some(self.sid(Name::MessageSid).or(self.sid(Name::SmsSid)))
                .and_then(|key| key.with_some(status)),
        }
    }

    fn call(&self, call: &str, all: impl Fn() -> DedupeKey) -> FormKind<'f> {
        let is_outbound = self
            .get(Name::Direction)
            .is_some_and(|direction| direction.starts_with("outbound"));
        let status = self.status(Name::CallStatus);
        let is_callback = self.get(Name::CallbackSource).is_some() || self.get(Name::SequenceNumber).is_some();
        let (kind, key) = if is_callback {
            let sequence = self
                .get(Name::SequenceNumber)
                .filter(|number| number.len() <= 6 && number.bytes().all(|digit| digit.is_ascii_digit()));
            let key = KeyParts::new(SOURCE, "call-status")
                .with_some(self.sid(Name::CallSid))
                .and_then(|key| key.with_some(sequence))
                .and_then(|key| key.with_some(status));
            ("call-status", key)
        } else {
            let key = KeyParts::new(SOURCE, "voice-request")
                .with_some(self.sid(Name::CallSid))
                .and_then(|key| key.with_some(status))
                .map(|key| key.with(all().0));
            ("voice-request", key)
        };
        FormKind {
            kind,
            our_number: self.get(if is_outbound { Name::From } else { Name::To }),
            subject: Some(call.to_owned()),
            key,
        }
    }
}

/// The URL's path and query, and the pairs as one text, so that moved boundaries change nothing.
fn all_signed(url: &SignedUrl<'_>, form: &Form<'_>) -> DedupeKey {
    KeyParts::new(SOURCE, "all that is signed")
        .with(url.path_and_query())
        .with(form.signed_parts().concat())
        .done()
}

fn routes<'t>(accounts: impl Iterator<Item = &'t str>, our_number: Option<&str>) -> Vec<RouteKey> {
    let mut keys: Vec<RouteKey> = Vec::with_capacity(2);
    let mut push = |kind, value: &str| {
        let key = RouteKey::new(kind, value);
        if value.len() <= RouteKey::BYTES_MAX && keys.len() < ROUTES_MAX && !keys.contains(&key) {
            keys.push(key);
        }
    };
    for account in accounts {
        if let Some(number) = our_number {
            // WhatsApp's numbers are the account's numbers, behind a prefix.
            push(
                RouteKind::TwilioNumber,
                &format!("{account}/{}", number.strip_prefix("whatsapp:").unwrap_or(number)),
            );
        }
        push(RouteKind::TwilioAccount, account);
    }
    keys
}

const ROUTES_MAX: usize = 8;

/// Event Streams: an array of CloudEvents, or one. Other JSON is kept as `other`.
fn read_json(request: &Request<'_>) -> Scanned<Reading> {
    let mut events: Vec<CloudEvent<'_>> = Vec::new();
    scan::document(request.body, |scan| {
        if scan.is_array() {
            scan.array(|scan| {
                events.push(CloudEvent::read(scan)?);
                if events.len() > EVENTS_MAX {
                    Err("the body holds more than 1000 events")
                } else {
                    Ok(())
                }
            })
        } else if scan.is_object() {
            events.push(CloudEvent::read(scan)?);
            Ok(())
        } else {
            Err("the body is neither a JSON object nor an array")
        }
    })?;
    let first = events.first().ok_or("the body holds no event")?;
    let slots = events.iter().flat_map(|event| {
        [&event.id, &event.message, &event.call]
            .into_iter()
            .chain(&event.accounts)
    });
    if slots
        .filter_map(Slot::get)
        .any(|id| id.len() > VALUE_BYTES_MAX || id.chars().any(char::is_control))
    {
        return Err("an id is too long or contains a control character");
    }
    let is_stream = events.iter().all(|event| event.spec.get().is_some());
    let key = if is_stream {
        events
            .iter()
            .try_fold(KeyParts::new(SOURCE, "event-streams"), |key, event| {
                key.with_some(event.id.get())
            })
    } else {
        None
    };
    let dedupe_key = key.map_or_else(|| key::of_body(SOURCE, request.body), KeyParts::done);
    Ok(Reading {
        event_type: EventType::new(SOURCE, if is_stream { "event-streams" } else { "other" }),
        routes: routes(
            events
                .iter()
                .flat_map(|event| event.accounts.iter().filter_map(Slot::get)),
            None,
        ),
        subject: key::subject(first.message.get().or(first.call.get()).or(first.id.get()), dedupe_key),
        dedupe_key,
        time: first.time.get().and_then(rfc3339),
        answer: AnswerKind::Empty,
    })
}

const EVENTS_MAX: usize = 1000;

/// Spellings of the account's SID; a JSON webhook that is no CloudEvent names its account itself.
const ACCOUNT: [&str; 3] = ["accountSid", "AccountSid", "account_sid"];

#[derive(Default)]
struct CloudEvent<'a> {
    spec: Slot<'a>,
    id: Slot<'a>,
    time: Slot<'a>,
    /// By the spellings of [`ACCOUNT`], in the event itself and then in its data.
    accounts: [Slot<'a>; 2 * ACCOUNT.len()],
    message: Slot<'a>,
    call: Slot<'a>,
    data: bool,
}

impl<'a> CloudEvent<'a> {
    fn read(scan: &mut scan::Scan<'a>) -> Scanned<Self> {
        let mut event = Self::default();
        let account = |name: &str| ACCOUNT.iter().position(|&spelling| spelling == name);
        scan.object(|scan, name| match name {
            "specversion" => event.spec.fill(scan),
            "id" => event.id.fill(scan),
            "time" => event.time.fill(scan),
            "data" => {
                once(&mut event.data)?;
                scan.object(|scan, name| match name {
                    "messageSid" => event.message.fill(scan),
                    "callSid" => event.call.fill(scan),
                    _ => match account(name) {
                        Some(at) => event.accounts[ACCOUNT.len() + at].fill(scan),
                        None => scan.skip(),
                    },
                })
            }
            _ => match account(name) {
                Some(at) => event.accounts[at].fill(scan),
                None => scan.skip(),
            },
        })?;
        Ok(event)
    }
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(|time| Timestamp::from_micros(time.as_microsecond()))
}

fn rfc2822(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text)
        .ok()
        .map(|time| Timestamp::from_micros(time.timestamp().as_microsecond()))
}
