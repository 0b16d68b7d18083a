//! The senders of webhooks: how their bytes are verified, and what stands in them.
//!
//! The receiver and `hookswitch verify` enter. Pure: no I/O, no clock of its own. **Invariant:**
//! ids read before verification choose which secret to try and nothing else.

mod hmac;
mod key;
mod kinds;
pub mod samples;
mod scan;
pub mod sign;
mod twilio;
mod vapi;

pub use self::hmac::{HmacAlgorithm, HmacKey, Signature};
pub use kinds::kinds;
pub use twilio::{TwilioPlan, decode_form};
pub use vapi::{BearerPlan, BearerPlanText, Encoding, HmacPlan, HmacPlanText, PlanFault, VapiPlan};

use crate::domain::{DedupeKey, EventType, RouteKey, SecretBytes, Source, Subject, Timestamp};
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// One request as the sender made it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Upper case, as on the wire.
    pub method: &'a str,
    /// The full URL as the sender saw it: public scheme and host, path and query untouched, no
    /// fragment.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The ids and facts of a request, read without a tree and before it is verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    pub event_type: EventType,
    /// External ids, most telling first. All are looked up; at most 8.
    pub routes: Vec<RouteKey>,
    pub subject: Subject,
    pub dedupe_key: DedupeKey,
    /// When the sender says that it happened, where it says so.
    pub time: Option<Timestamp>,
    /// The sender reads the answer's body.
    pub answer: AnswerKind,
}

/// The body that the sender expects in a 200.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerKind {
    /// Vapi's messages that wait for nothing: `{}` as JSON.
    VapiAck,
    /// Vapi's questions (facts/vapi.md §4); `reply` makes the body.
    VapiQuestion(VapiQuestion),
    /// `<Response/>` as `text/xml`.
    Twiml,
    /// 200 and no body that anyone reads.
    Empty,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VapiQuestion {
    AssistantRequest,
    ToolCalls,
    TransferDestinationRequest,
    HandoffDestinationRequest,
    KnowledgeBaseRequest,
    VoiceRequest,
    CallEndpointingRequest,
    CampaignPredial,
    /// The legacy `function-call`.
    FunctionCall,
}

/// Not the source's format: 400, nothing is stored. Says what is wrong, never repeats the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {source_name} webhook: {reason}")]
pub struct NotTheFormat {
    pub source_name: Source,
    pub reason: &'static str,
}

/// Why a secret does not verify a request. Senders get one answer for all causes; the cause is for
/// people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the header that carries the signature is missing")]
    SignatureMissing,
    #[error("the header that carries the signature occurs more than once")]
    SignatureRepeated,
    #[error("the signature is not in the form that this scheme uses")]
    SignatureMalformed,
    #[error("the signature does not match")]
    SignatureMismatch,
    #[error("the header that carries the timestamp is missing")]
    TimestampMissing,
    #[error("the timestamp is not a plain number of seconds or milliseconds")]
    TimestampMalformed,
    #[error("the timestamp is older than the replay window")]
    TooOld,
    #[error("the timestamp lies further in the future than the replay window")]
    TooFarAhead,
    #[error("the signature names an algorithm that is not supported")]
    AlgorithmUnknown,
    #[error("the signature names another signing key")]
    OtherKey,
    #[error("the header that carries the signed message id is missing")]
    MessageIdMissing,
    #[error("the header that carries the signed message id occurs more than once")]
    MessageIdRepeated,
    #[error("the URL carries no bodySHA256 that the body hashes to")]
    BodyHashMismatch,
    #[error("the secret is empty or shorter than 16 bytes")]
    SecretTooShort,
    #[error("the secret is not in the form that its plan says")]
    SecretMalformed,
}

/// How one secret signs. Stored as JSON beside the sealed secret (`endpoint_secrets.plan`). The
/// plan was checked when it was read, so it makes a key.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Plan {
    Vapi(VapiPlan),
    Twilio(TwilioPlan),
}

impl<'de> Deserialize<'de> for Plan {
    /// By its `type`, so that what is wrong with a plan is said of the plan that was meant.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let plan = serde_json::Value::deserialize(deserializer)?;
        match plan.get("type").and_then(serde_json::Value::as_str) {
            Some("hmac" | "bearer") => serde_json::from_value(plan).map(Self::Vapi).map_err(D::Error::custom),
            Some("auth_token" | "shared_key") => {
                serde_json::from_value(plan).map(Self::Twilio).map_err(D::Error::custom)
            }
            _ => Err(D::Error::custom(
                "type: expected hmac or bearer (vapi), auth_token or shared_key (twilio)",
            )),
        }
    }
}

impl Plan {
    /// The source whose webhooks are signed this way.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::Vapi(_) => Source::Vapi,
            Self::Twilio(_) => Source::Twilio,
        }
    }

    /// Whether the signature covers the body: a platform secret must (invariant 19).
    #[must_use]
    pub const fn signs_body(&self) -> bool {
        !matches!(self, Self::Vapi(VapiPlan::Bearer(_)))
    }

    /// Whether the signature covers the time: without, dedupe keys have to outlive every
    /// replay (invariant 14).
    #[must_use]
    pub fn signs_time(&self) -> bool {
        matches!(self, Self::Vapi(VapiPlan::Hmac(plan)) if plan.signs_time())
    }
}

/// A secret made ready to verify: HMAC states or a token, zeroed on drop, never printed. Made from
/// the plaintext inside the vault's closure.
pub struct SigningKey(KeyInner);

enum KeyInner {
    Vapi(vapi::VapiKey),
    Twilio(twilio::TwilioKey),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// The fewest bytes of a secret that is saved or that verifies a webhook. Counted on the key: after
/// base64 where the plan says base64.
pub const SECRET_BYTES_MIN: usize = 16;
/// The most bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 1024;

impl SigningKey {
    /// The key that ingress uses and that a secret is checked with when it is saved: an empty or
    /// short secret never becomes one.
    ///
    /// # Errors
    /// The secret is too short, or not in the form that the plan says.
    pub fn new(plan: &Plan, secret: &SecretBytes) -> Result<Self, Refusal> {
        Self::with_floor(plan, secret, SECRET_BYTES_MIN)
    }

    /// A key of a secret of any length but none: for `hookswitch verify`, which explains, and for
    /// providers' published examples (Twilio's is signed with `12345`). Nothing that takes webhooks
    /// uses it.
    ///
    /// # Errors
    /// The secret is empty, or not in the form that the plan says.
    pub fn for_diagnosis(plan: &Plan, secret: &SecretBytes) -> Result<Self, Refusal> {
        Self::with_floor(plan, secret, 1)
    }

    fn with_floor(plan: &Plan, secret: &SecretBytes, bytes_min: usize) -> Result<Self, Refusal> {
        Ok(Self(match plan {
            Plan::Vapi(plan) => KeyInner::Vapi(vapi::VapiKey::new(plan, secret, bytes_min)?),
            Plan::Twilio(plan) => KeyInner::Twilio(twilio::TwilioKey::new(plan, secret, bytes_min)?),
        }))
    }

    /// Whether this secret verifies the request, in constant time over the signature. The replay
    /// window belongs to the plan; a timestamp is judged only after the signature matched, so
    /// `TooOld` is said of authentic requests only.
    ///
    /// # Errors
    /// Why it does not.
    pub fn verify(&self, request: &Request<'_>, now: Timestamp) -> Result<(), Refusal> {
        match &self.0 {
            KeyInner::Vapi(key) => key.verify(request, now),
            KeyInner::Twilio(key) => key.verify(request),
        }
    }

    /// The secret itself, where requests carry it in a header and sign nothing with it. Read after
    /// [`Self::verify`] has said yes.
    #[must_use]
    pub fn secret_carried<'r>(&self, request: &Request<'r>) -> Option<&'r [u8]> {
        match &self.0 {
            KeyInner::Vapi(key) => key.token_carried(request),
            KeyInner::Twilio(_) => None,
        }
    }
}

/// The plan that is meant where a secret is given without one.
#[must_use]
pub fn plan_default(source: Source) -> Option<Plan> {
    match source {
        Source::Vapi => Some(Plan::Vapi(VapiPlan::default())),
        Source::Twilio => Some(Plan::Twilio(TwilioPlan::AuthToken)),
        _ => None,
    }
}

/// Reads what a request says about itself: a borrowed partial parse, no tree.
///
/// # Errors
/// Not the source's format, or a source that is not served.
pub fn read(source: Source, request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    match source {
        Source::Vapi => vapi::read(request),
        Source::Twilio => twilio::read(request),
        _ => Err(NotTheFormat {
            source_name: source,
            reason: "this source is not served",
        }),
    }
}

/// Largest replay window that a plan may ask for.
pub const REPLAY_WINDOW_MAX: Duration = Duration::from_hours(24);

/// The value of a header that may occur once. `Ok(None)`: it does not occur.
fn only_header<'h>(headers: &'h HeaderMap, name: &HeaderName, repeated: Refusal) -> Result<Option<&'h [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        Err(repeated)
    } else {
        Ok(first.map(http::HeaderValue::as_bytes))
    }
}
