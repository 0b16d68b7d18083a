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
    /// The kinds of external ids that routes start from.
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

impl RouteKind {
    /// Whether the provider gives each id to one account only. A plain number is not such an id: it
    /// moves between accounts, and an account can type any number as its own.
    #[must_use]
    pub const fn is_unique_at_provider(self) -> bool {
        match self {
            Self::VapiAssistant | Self::VapiPhoneNumber | Self::TwilioNumber | Self::TwilioAccount => true,
            Self::VapiNumber => false,
        }
    }
}

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

closed_text_enum!(
    /// The purpose of an organisation's own assistant. It has at most one of each.
    AssistantRole: "role" {
        Inbound = "inbound",
        Outbound = "outbound",
    }
);

closed_text_enum!(
    /// How a managed assistant at Vapi stands beside its wanted form.
    ManagedAssistantState: "state of a managed assistant" {
        /// Vapi was asked to make it and has not answered yet.
        Making = "making",
        InStep = "in_step",
        /// Some fields differ at Vapi.
        Drifted = "drifted",
        /// Vapi has no such assistant.
        Missing = "missing",
    }
);

closed_text_enum!(
    /// Whether an organisation's integration with a provider works.
    IntegrationState: "state of an integration" {
        NotConnected = "not_connected",
        /// The provider accepted the credential.
        Connected = "connected",
        /// Saved while the provider could not be asked. Found when it is shown, never stored.
        Unverified = "unverified",
        /// Works, but lacks a permission that a named feature needs.
        Limited = "limited",
        /// The provider could not be asked or could not answer; it is tried again.
        Failing = "failing",
        /// The provider refused the credential; only a person can mend that.
        NeedsReconnecting = "needs_reconnecting",
        /// The row does not open under any key. Found when it is opened, never stored.
        Undecryptable = "undecryptable",
    }
);

impl IntegrationState {
    /// Whether actions may still use the credential.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Connected | Self::Unverified | Self::Limited | Self::Failing)
    }

    /// Whether the last check or refresh failed.
    #[must_use]
    pub const fn is_failing(self) -> bool {
        matches!(self, Self::Failing | Self::NeedsReconnecting)
    }
}

closed_text_enum!(
    /// Why a claim is believed (invariant 18).
    Proof: "proof" {
        /// The organisation's own credential reads it at the provider.
        ReadAtProvider = "read_at_provider",
        MadeByUs = "made_by_us",
        ApprovedByOperator = "approved_by_operator",
    }
);

closed_text_enum!(
    /// Whether Vapi set the SMS webhook of a number at Twilio, as Vapi says it.
    SmsAtVapi: "state of a number's texts at Vapi" {
        /// It did, when a person brought the number to Vapi: texts to it reach Vapi.
        Enabled = "enabled",
        /// It left the webhook alone.
        Disabled = "disabled",
        /// The key reads no such number, or it is none of Twilio's.
        Absent = "absent",
    }
);

/// An external id that leads to an organisation. Compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RouteKey {
    pub kind: RouteKind,
    pub value: Box<str>,
}

impl RouteKey {
    /// Longest external id that is looked up. A longer one leads to no organisation.
    pub const BYTES_MAX: usize = 128;

    #[must_use]
    pub fn new(kind: RouteKind, value: &str) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }
}
