//! Ids. All are UUIDs that Hookswitch makes itself; a provider's own ids are text and live in
//! [`super::RouteKey`].

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text is not an id of this kind. Carries the kind, never the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind} id: expected a hyphenated UUID such as 0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e")]
pub struct InvalidId {
    pub kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, ordered by the time that it was made (UUIDv7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id in 16 bytes, as the store and the log keep it.
            ///
            /// # Errors
            /// The slice is not 16 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| InvalidId { kind: $kind })
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Hyphenated form only: `urn:uuid:`, braces and the bare form are spellings that no
            /// one has to accept.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 36 {
                    return Err(InvalidId { kind: $kind });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId { kind: $kind })
            }
        }
    };
}

id!(
    /// The tenant. Comes from the secret that verified, or from a token; never from a payload.
    OrgId, "organisation"
);

/// Stands in the place of an organisation where something belongs to the whole installation.
pub const INSTALLATION: OrgId = OrgId::from_uuid(Uuid::nil());

id!(
    /// One verified webhook.
    EventId, "event"
);
id!(
    /// An organisation's own webhook URL. A route, never an authentication.
    EndpointId, "endpoint"
);
id!(
    /// One signing secret of an endpoint or of an organisation.
    SecretId, "secret"
);
id!(
    /// An organisation's secret configuration for one provider.
    CredentialId, "credential"
);
id!(
    /// An organisation's configuration: on these events, if this holds, do this action.
    RuleId, "rule"
);
id!(
    /// One thing to do at a provider; a row in the ledger.
    ActionId, "action"
);
id!(
    /// One try at an action.
    AttemptId, "attempt"
);
