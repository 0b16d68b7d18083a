//! The words of the house as types: ids, events, routes, rules, actions, credentials, time.
//!
//! Everyone may enter; nothing here does I/O. **Invariant:** two ids of one shape never share a
//! type, and no type that holds a secret can be printed or serialised.

mod action;
mod clock;
mod event;
mod hops;
mod hours;
mod id;
mod network;
mod organisation;
mod private;
mod problem;
mod rule;
mod secret;
mod settings;

pub use action::{ActionKind, ActionState, AttemptOutcome, Cause, Delivery, DeliveryStatus, Outcome, Provider, Word};
pub use clock::{CLOCK_OFFSET_CLAIM_MAX, CLOCK_OFFSET_INGRESS_MAX, Clock, ManualClock, Period, SystemClock, Timestamp};
pub use event::{DedupeKey, Envelope, EventType, HeldCause, IngressHeader, Source, Subject, VerifiedEvent};
pub use hops::{HOPS_HEADER, read_hops, sign_hops};
pub use hours::{Hours, OpeningHours, PAIRS_PER_DAY_MAX, QuietHours, TimeOfDay, WrongField, Zone};
pub use id::{
    ActionId, AttemptId, CredentialId, EndpointId, EventId, INSTALLATION, InvalidId, OrgId, RuleId, SecretId,
};
pub use network::{InvalidNetwork, Network};
pub use organisation::{
    AssistantRole, Endpoint, IntegrationState, ManagedAssistantState, Organisation, Proof, RouteKey, RouteKind,
    RouteState, SmsAtVapi,
};
pub use private::{create_private_directory, keep_directory_private, keep_private, private_file};
pub use problem::ProblemCode;
pub use rule::{RULES_PER_TYPE_MAX, Rule, RuleSpec, TypePattern};
pub use secret::{Fingerprint, KeyId, SealedBytes, SecretBytes};
pub use settings::OrgSettings;
