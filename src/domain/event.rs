//! Events and the envelope in which they travel (`CloudEvents` 1.0, binary mode: attributes beside
//! the provider's untouched bytes).

use super::{EndpointId, EventId, OrgId, SecretId, Timestamp, action::closed_text_enum};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, fmt, str::FromStr};

/// The senders of webhooks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Vapi,
    Twilio,
    #[serde(rename = "elevenlabs")]
    ElevenLabs,
    Resend,
    GoogleCalendar,
    Standard,
}

impl Source {
    pub const ALL: [Self; 6] = [
        Self::Vapi,
        Self::Twilio,
        Self::ElevenLabs,
        Self::Resend,
        Self::GoogleCalendar,
        Self::Standard,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vapi => "vapi",
            Self::Twilio => "twilio",
            Self::ElevenLabs => "elevenlabs",
            Self::Resend => "resend",
            Self::GoogleCalendar => "google_calendar",
            Self::Standard => "standard",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Source {
    type Err = UnknownSource;
    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        Self::ALL
            .into_iter()
            .find(|source| source.as_str() == text)
            .ok_or(UnknownSource)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown source: expected vapi, twilio, elevenlabs, resend, google_calendar or standard")]
pub struct UnknownSource;

/// `vapi.end-of-call-report`: the source, a dot, and the kind as the source names it. At most 128
/// bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventType(Box<str>);

impl EventType {
    pub const BYTES_MAX: usize = 128;

    /// Kinds are the sender's text: characters outside `[A-Za-z0-9._:-]` become `_`, and what is
    /// over the limit is cut.
    #[must_use]
    pub fn new(source: Source, kind: &str) -> Self {
        let mut text = String::with_capacity(source.as_str().len() + 1 + kind.len().min(Self::BYTES_MAX));
        text.push_str(source.as_str());
        text.push('.');
        for c in kind.chars().take(Self::BYTES_MAX - text.len()) {
            text.push(if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-') {
                c
            } else {
                '_'
            });
        }
        Self(text.into())
    }

    /// A type that was made by [`EventType::new`] and has been stored or sent since.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the source: `end-of-call-report`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, kind)| kind)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The call, message or conversation that an event is about, as the source writes it. Events of one
/// subject keep their order up to planning.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(pub Box<str>);

impl Subject {
    /// For logs. A conversation is named by the telephone numbers or addresses of its two sides,
    /// which no log may have: it is shown by a hash that stays the same.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        if self.0.bytes().any(|byte| matches!(byte, b'+' | b'@')) {
            let hash = Sha256::digest(self.0.as_bytes());
            Cow::Owned(format!("sha256:{}", hex::encode(&hash[..8])))
        } else {
            Cow::Borrowed(&self.0)
        }
    }
}

/// Knows a redelivery and tells two events of one call apart: 16 bytes of SHA-256 over the parts
/// that invariant 8 names. The store adds the owner (organisation, source, endpoint): a key alone
/// says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupeKey(pub [u8; 16]);

impl fmt::Debug for DedupeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DedupeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).expect("two digits a byte");
        f.write_str(std::str::from_utf8(&text).expect("hex is ASCII"))
    }
}

/// A request header that travels with the event because rules may read it. Never a signature, a
/// secret or `Authorization`.
pub type IngressHeader = (Box<str>, Box<str>);

/// One event with everything that travels beside the provider's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    pub id: EventId,
    pub source: Source,
    pub event_type: EventType,
    /// When the sender says that it happened; the time of receipt where it does not say.
    pub time: Timestamp,
    pub received_at: Timestamp,
    pub subject: Subject,
    /// The owner of the secret that verified. `None` only for what a platform secret verified
    /// (invariant 19).
    pub org: Option<OrgId>,
    /// The endpoint whose own secret verified; `None` for the organisation's secret.
    pub endpoint: Option<EndpointId>,
    /// The secret that verified. `None` in events of earlier releases.
    pub secret: Option<SecretId>,
    pub dedupe_key: DedupeKey,
    /// W3C trace context of the request. Later spans link to it.
    pub traceparent: Option<Box<str>>,
    pub content_type: Box<str>,
    pub path: Box<str>,
    pub query: Box<str>,
    pub headers: Vec<IngressHeader>,
    /// Posts of our own that led here, from the signed hop header (invariant 5).
    pub hops: u8,
    /// The provider's bytes, untouched but for a secret that its own request carried, which is
    /// masked.
    pub body: Bytes,
}

/// An envelope whose bytes verified. Only `receiver::verify` makes one from a request, and the
/// queue takes nothing else from the receiver. So an unverified event cannot reach the queue.
#[derive(Clone, Debug)]
pub struct VerifiedEvent(Envelope);

impl VerifiedEvent {
    /// For `receiver::verify`, after the signature matched; for tests and benches of the queue.
    #[must_use]
    pub const fn from_verified(envelope: Envelope) -> Self {
        Self(envelope)
    }

    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.0
    }

    #[must_use]
    pub fn into_envelope(self) -> Envelope {
        self.0
    }
}

closed_text_enum!(
    /// Why an event is kept in the store before it is planned.
    HeldCause: "cause" {
        /// Its organisation is not known.
        OrganisationUnknown = "organisation_unknown",
        /// Its organisation's data key does not open.
        DataKey = "data_key",
        /// Older events of its organisation are planned first.
        Order = "order",
        /// An operator put it back, or a person replays it.
        Replay = "replay",
    }
);
