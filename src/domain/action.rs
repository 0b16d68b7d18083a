//! Actions at providers, the states of the ledger, and the outcomes of an attempt.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

macro_rules! closed_text_enum {
    ($(#[$doc:meta])* $name:ident: $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            /// # Errors
            /// Names what was expected, never repeats the text.
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    format!(concat!("unknown ", $what, ": expected one of \
                        {}"), Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))
                })
            }
        }
    };
}
pub(crate) use closed_text_enum;

/// A word of a set that grows, as a row has it: one that this release knows, or the text of a newer
/// release.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Word<T> {
    Own(T),
    Newer(Box<str>),
}

impl<T: FromStr + Copy> Word<T> {
    #[must_use]
    pub fn read(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Newer(text.into()), Self::Own)
    }

    /// `None` where only a newer release knows it.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Own(known) => Some(*known),
            Self::Newer(_) => None,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(known) => known.fmt(f),
            Self::Newer(text) => f.write_str(text),
        }
    }
}

closed_text_enum!(
    /// The provider whose API an action calls.
    Provider: "provider" {
        Vapi = "vapi", Twilio = "twilio", GoogleCalendar = "google_calendar", Resend = "resend", ElevenLabs = "elevenlabs", Http = "http",
    }
);

impl Provider {
    /// The five with an integration of their own, in the order in which the status lists them.
    pub const INTEGRATIONS: [Self; 5] = [
        Self::Vapi,
        Self::Twilio,
        Self::GoogleCalendar,
        Self::Resend,
        Self::ElevenLabs,
    ];
}

closed_text_enum!(
    /// The kinds of action.
    ActionKind: "action" {
        TwilioSendSms = "twilio.send_sms",
        HttpPost = "http.post",
        ResendSendEmail = "resend.send_email",
        GoogleCalendarCreateEvent = "google_calendar.create_event",
    }
);

impl ActionKind {
    #[must_use]
    pub const fn provider(self) -> Provider {
        match self {
            Self::TwilioSendSms => Provider::Twilio,
            Self::HttpPost => Provider::Http,
            Self::ResendSendEmail => Provider::Resend,
            Self::GoogleCalendarCreateEvent => Provider::GoogleCalendar,
        }
    }

    /// How long after its event an action may still start, where the rule does not say (invariant
    /// 5).
    #[must_use]
    pub const fn expires_after_default(self) -> Duration {
        match self {
            // Resend forgets an idempotency key after a day: nothing is begun so late that a retry
            // could be a second e-mail.
            Self::TwilioSendSms | Self::GoogleCalendarCreateEvent | Self::ResendSendEmail => Duration::from_hours(24),
            Self::HttpPost => Duration::from_hours(96),
        }
    }
}

closed_text_enum!(
    /// The ledger's states. Transitions stand in `attempt` and name both sides.
    ActionState: "action state" {
        Pending = "pending",
        /// Claimed with a fence, durably, before the first byte goes out.
        Running = "running",
        Succeeded = "succeeded",
        /// A transient failure, or the quiet hours of the organisation; due at `due_at`.
        Waiting = "waiting",
        /// Sent without an answer, or the lease ended: looked up before any second send.
        Unknown = "unknown",
        /// The credential fails or is missing; due when a newer one stands.
        Parked = "parked",
        /// Stopped by the recipient's opt-out.
        Suppressed = "suppressed",
        /// Stopped by a person.
        Cancelled = "cancelled",
        /// Will not be tried again by itself; a person can.
        Dead = "dead",
    }
);

closed_text_enum!(
    /// Why an action is where it is: a stable word for API, ledger and metrics; the provider's own
    /// words stand beside it.
    Cause: "cause" {
        Accepted = "accepted",
        LookedUp = "looked_up",
        CalledBack = "called_back",
        ResolvedByHand = "resolved_by_hand",
        /// The provider says wait: 429, or its own rate code.
        RateLimited = "rate_limited",
        ProviderUnavailable = "provider_unavailable",
        ConnectFailed = "connect_failed",
        /// The bytes went out and no usable answer came back.
        NoAnswer = "no_answer",
        LeaseEnded = "lease_ended",
        NotConnected = "not_connected",
        CredentialRefused = "credential_refused",
        Undecryptable = "undecryptable",
        /// Refused for a reason that the organisation's configuration has to mend (a sender that is
        /// not theirs, a region).
        Misconfigured = "misconfigured",
        InvalidRequest = "invalid_request",
        InvalidRecipient = "invalid_recipient",
        OptedOut = "opted_out",
        AddressNotAllowed = "address_not_allowed",
        EndpointGone = "endpoint_gone",
        RedirectNotFollowed = "redirect_not_followed",
        TemplateFailed = "template_failed",
        TemplateLimit = "template_limit",
        /// The event's body cannot be read, so that its secrets cannot be masked: none of it is
        /// sent on (invariant 19).
        UnreadableBody = "unreadable_body",
        /// An operator has paused its rule; it goes on when the rule is resumed.
        Paused = "paused",
        /// It was planned in the organisation's quiet hours, and is due at their end.
        QuietHours = "quiet_hours",
        Expired = "expired",
        AttemptsUsedUp = "attempts_used_up",
        Ambiguous = "ambiguous",
        LookUpForbidden = "look_up_forbidden",
        /// It may have gone out by an account that is not connected any more (invariant 2).
        AccountReplaced = "account_replaced",
        Interrupted = "interrupted",
        HopLimit = "hop_limit",
        /// The organisation's actions of that day were used up when it was planned (invariant 5).
        DayBudget = "day_budget",
        Other = "other",
    }
);

closed_text_enum!(
    /// How an attempt or a look-up ended, as its row and the metrics name it.
    AttemptOutcome: "outcome" {
        Succeeded = "succeeded",
        Retry = "retry",
        Unknown = "unknown",
        Parked = "parked",
        Suppressed = "suppressed",
        Dead = "dead",
        Interrupted = "interrupted",
        /// Enough look-ups found nothing.
        ProvedAbsent = "proved_absent",
        /// One look-up found nothing.
        Absent = "absent",
        /// A look-up found several things that could be it.
        Ambiguous = "ambiguous",
        /// A look-up could not be made.
        Failed = "failed",
    }
);

closed_text_enum!(
    /// The delivery of a message after the provider had accepted it, by the provider's callbacks.
    DeliveryStatus: "delivery status" {
        /// On its way: queued, accepted, sending, sent.
        Sent = "sent",
        Delivered = "delivered",
        /// The recipient has opened it.
        Read = "read",
        /// The carrier took it and did not deliver it.
        Undelivered = "undelivered",
        /// It never left the provider.
        Failed = "failed",
    }
);

impl DeliveryStatus {
    /// Callbacks arrive out of order: a status replaces one of a lower rank only.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Sent => 0,
            Self::Undelivered | Self::Failed => 1,
            // A handset that has it says so after a carrier that gave up.
            Self::Delivered => 2,
            Self::Read => 3,
        }
    }
}

/// A provider's word about the delivery of what an action sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    pub status: DeliveryStatus,
    /// The provider's own code, such as `30007`.
    pub code: Option<String>,
    /// The meaning of the code, for people.
    pub detail: Option<String>,
}

/// The outcome of one attempt or look-up. The provider's own file decides it; the worker only
/// obeys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done in effect. `provider_ref` is the provider's id for it.
    Succeeded {
        cause: Cause,
        provider_ref: Option<Box<str>>,
    },
    /// Certainly not done; may be tried again, not before `not_before` where the provider said so.
    Retry {
        cause: Cause,
        not_before: Option<Timestamp>,
    },
    /// It may have been done. Must be looked up before any second send.
    Unknown { cause: Cause },
    /// Certainly not done; waits until the credential changes.
    Park { cause: Cause },
    /// Certainly not done, and the recipient does not want it.
    Suppressed { cause: Cause },
    /// Certainly not done, and trying again cannot help.
    Dead { cause: Cause },
    /// Cut off before the first byte went out: uses up no attempt.
    Interrupted,
    /// A look-up that proved that nothing was done.
    ProvedAbsent,
}

impl Outcome {
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Succeeded { cause, .. }
            | Self::Retry { cause, .. }
            | Self::Unknown { cause }
            | Self::Park { cause }
            | Self::Suppressed { cause }
            | Self::Dead { cause } => *cause,
            Self::Interrupted => Cause::Interrupted,
            Self::ProvedAbsent => Cause::LookedUp,
        }
    }

    /// The word for it in the ledger and in metrics.
    #[must_use]
    pub const fn attempt_outcome(&self) -> AttemptOutcome {
        match self {
            Self::Succeeded { .. } => AttemptOutcome::Succeeded,
            Self::Retry { .. } => AttemptOutcome::Retry,
            Self::Unknown { .. } => AttemptOutcome::Unknown,
            Self::Park { .. } => AttemptOutcome::Parked,
            Self::Suppressed { .. } => AttemptOutcome::Suppressed,
            Self::Dead { .. } => AttemptOutcome::Dead,
            Self::Interrupted => AttemptOutcome::Interrupted,
            Self::ProvedAbsent => AttemptOutcome::ProvedAbsent,
        }
    }

    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.attempt_outcome().as_str()
    }
}
