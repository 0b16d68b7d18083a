//! Organisations, their endpoints, and the external ids that lead to them.

use super::{EndpointId, OrgId, Source, Timestamp, action::closed_text_enum};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A tenant as operators see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Organisation {
    pub id: OrgId,
    pub name: String,
    pub is_active: bool,
    pub created_at: Timestamp,
}

/// An organisation's own webhook URL for one source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub org: OrgId,
    pub source: Source,
    pub name: String,
    pub is_active: bool,
    /// Kinds that are verified, answered 200, counted, and not stored (invariant 22).
    pub ignored_types: Vec<String>,
    pub version: i64,
    pub created_at: Timestamp,
}

closed_text_enum!(
    /// What kind of external id a route starts from.
    RouteKind: "route kind" {
        VapiAssistant = "vapi_assistant",
        VapiPhoneNumber = "vapi_phone_number",
        /// An E.164 number as Vapi's payloads carry it.
        VapiNumber = "vapi_number",
        /// `{account SID}/{our number}`.
        TwilioNumber = "twilio_number",
        TwilioAccount = "twilio_account",
    }
);

closed_text_enum!(
    /// Whether a route counts (invariant 18).
    RouteState: "route state" {
        Pending = "pending",
        /// Proven: it routes.
        Live = "live",
        /// Another organisation proved it since, or it was deleted.
        Released = "released",
    }
);

/// An external id that leads to an organisation. Compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RouteKey {
    pub kind: RouteKind,
    pub value: Box<str>,
}

impl RouteKey {
    /// Longest external id that is looked up; longer ones are nobody's.
    pub const BYTES_MAX: usize = 128;

    #[must_use]
    pub fn new(kind: RouteKind, value: &str) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }
}
