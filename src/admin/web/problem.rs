//! The form of a refusal: RFC 9457 `application/problem+json` with a stable `code`.
//!
//! 4xx name the wrong fields; 5xx say what is away and what to do next.
//! **Invariant:** no text of a request, a row or an inner error ever stands in one; what is shown
//! is written here or was cut by `provider`.

use crate::{
    provider::{CallError, ProviderRefusal},
    store::StoreError,
    vault::VaultError,
};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::time::Duration;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal $text:literal $title:literal;)+) => {
        /// Every code that this API answers with. `schemas/problem.json` lists the same.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code { $($(#[doc = $doc])+ $variant),+ }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = 400 "invalid_json" "The body is not JSON";
    /// A field is missing, unknown, of the wrong type or outside its limits; `errors` names it.
    InvalidField = 400 "invalid_field" "A field is not valid";
    /// A query parameter is unknown, occurs twice or is not valid; `errors` names it.
    InvalidQuery = 400 "invalid_query" "A query parameter is not valid";
    /// The cursor was changed, or belongs to another list, filter or organisation.
    CursorInvalid = 400 "cursor_invalid" "The cursor is not valid for this list";
    /// `If-Match` is not a quoted entity tag.
    IfMatchInvalid = 400 "if_match_invalid" "If-Match is not an entity tag";
    /// `Idempotency-Key` is not a text of 1 to 255 visible characters.
    IdempotencyKeyInvalid = 400 "idempotency_key_invalid" "The Idempotency-Key is not valid";
    /// The consent was not begun here by this person, was used already, or took too long.
    ConsentInvalid = 400 "consent_invalid" "This consent is not valid here";
    /// No bearer token, or one that is not valid here.
    Unauthenticated = 401 "unauthenticated" "A valid bearer token is needed";
    /// The token's role may not do this.
    Forbidden = 403 "forbidden" "The role of this token may not do this";
    /// A write with the cookie of a session lacks its `X-CSRF-Token`, or comes from another page.
    CsrfInvalid = 403 "csrf_invalid" "The session's X-CSRF-Token is needed";
    /// Pages of this origin may not use this API.
    OriginNotAllowed = 403 "origin_not_allowed" "Pages of this origin may not use this API";
    /// There is no such thing, or it belongs to someone else.
    NotFound = 404 "not_found" "There is nothing here";
    /// The provider or source exists and cannot be used in this version.
    NotServed = 404 "not_served" "This provider or source cannot be used yet";
    /// The path exists and takes other methods; see `Allow`.
    MethodNotAllowed = 405 "method_not_allowed" "This path takes other methods";
    /// It exists already, or was changed by someone else at the same time.
    Conflict = 409 "conflict" "It exists already or was changed meanwhile";
    /// The credential opens another account than the one that was connected.
    AccountDiffers = 409 "account_differs" "This is another account than before";
    /// Another organisation holds it, and can still read it at the provider.
    HeldElsewhere = 409 "held_elsewhere" "Another organisation holds it";
    /// The action's state does not allow this.
    NotFromState = 409 "not_from_state" "The action's state does not allow this";
    /// Nothing of the dead event was kept that could be planned.
    NotReplayable = 409 "not_replayable" "This event cannot be put back";
    /// A limit of the organisation is reached.
    LimitReached = 409 "limit_reached" "A limit is reached";
    /// The organisation has no credential for the provider that this needs.
    NotConnected = 409 "not_connected" "The provider is not connected";
    /// The first request with this `Idempotency-Key` is not answered yet.
    IdempotencyKeyInUse = 409 "idempotency_key_in_use" "The request with this key is being worked on";
    /// `If-Match` does not name the current version.
    PreconditionFailed = 412 "precondition_failed" "It was changed since it was read";
    /// The body is over 256 KiB.
    PayloadTooLarge = 413 "payload_too_large" "The body is too large";
    /// The body is not `application/json`.
    UnsupportedMediaType = 415 "unsupported_media_type" "The body must be application/json";
    /// The provider refuses the credential; nothing was stored.
    RefusedByProvider = 422 "refused_by_provider" "The provider refuses this credential";
    /// The consent was not given, or the provider refuses what came of it; nothing was stored.
    ConsentRefused = 422 "consent_refused" "The consent came to nothing";
    /// The organisation's own credential cannot read it at the provider, whoever else holds it.
    NotReadable = 422 "not_readable" "Your credential cannot read it at the provider";
    /// The rule cannot be used; `errors` names the field.
    RuleInvalid = 422 "rule_invalid" "The rule cannot be used";
    /// The secret or its plan cannot verify anything.
    SecretInvalid = 422 "secret_invalid" "The signing secret cannot be used";
    /// The URL leads to an address that posts may not go to.
    AddressNotAllowed = 422 "address_not_allowed" "Posts may not go to this address";
    /// The `Idempotency-Key` came with another request.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "This Idempotency-Key was used for another request";
    /// A PUT needs `If-Match`.
    PreconditionRequired = 428 "precondition_required" "If-Match is needed";
    /// The organisation sent more requests in a minute than it may.
    TooManyRequests = 429 "too_many_requests" "Too many requests";
    /// Our fault; the request's id finds it in the log.
    Internal = 500 "internal" "Something went wrong here";
    /// A stored value does not open with the keys that this installation has.
    Undecryptable = 500 "undecryptable" "A stored value cannot be decrypted";
    /// The database cannot be reached; the same request may work later.
    DatabaseUnavailable = 503 "database_unavailable" "The database cannot be reached";
    /// The provider cannot be reached, so nothing is known about the credential.
    ProviderUnreachable = 503 "provider_unreachable" "The provider cannot be reached";
    /// The keys that tokens are verified with cannot be loaded.
    TokenKeysUnavailable = 503 "token_keys_unavailable" "The keys of tokens cannot be loaded";
    /// It took over 10 seconds. A write may still be finished.
    Timeout = 503 "timeout" "It took too long";
}

/// One field that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// `parameters.to`, `limit`
    pub field: String,
    pub problem: String,
}

/// A refusal. Travels as an extension of the response; [`super::respond`] writes the body, which
/// carries the request's id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub code: Code,
    pub detail: Option<String>,
    pub errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    /// Members that few refusals have.
    more: Option<Box<More>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct More {
    /// The provider's answer, apart from our words.
    provider: Option<ProviderWords>,
    /// The accounts that `account_differs` speaks of.
    accounts: Option<Accounts>,
}

/// The answer of a provider that refuses a credential.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct ProviderWords {
    pub name: &'static str,
    pub http_status: u16,
    pub code: Option<String>,
    pub message: String,
}

/// The account that was connected, and the account that the credential opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub struct Accounts {
    pub before: Option<String>,
    pub now: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a ProviderWords>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<&'a Accounts>,
}

impl Problem {
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after: None,
            more: None,
        }
    }

    /// What happened and what to do next, in our own words.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A refusal because of one field.
    #[must_use]
    pub fn field(code: Code, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::new(code).and_field(field, problem)
    }

    #[must_use]
    pub fn and_field(mut self, field: impl Into<String>, problem: impl Into<String>) -> Self {
        self.errors.push(FieldError {
            field: field.into(),
            problem: problem.into(),
        });
        self
    }

    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same answer for what is not there and for what belongs to someone else.
    #[must_use]
    pub const fn not_found() -> Self {
        Self::new(Code::NotFound)
    }

    /// It could not be found out at the provider: nothing is said about the credential.
    #[must_use]
    pub fn unreachable(error: &CallError) -> Self {
        tracing::warn!(error = %error, "A provider could not be asked for the admin API");
        Self::new(Code::ProviderUnreachable).retry_after(Duration::from_secs(10))
    }

    /// A provider refuses the credential, in its own words as the room `provider` cut them.
    #[must_use]
    pub fn refused_by(name: &'static str, refused: &ProviderRefusal) -> Self {
        let code = refused
            .code
            .as_deref()
            .map(|code| format!(", code {code}"))
            .unwrap_or_default();
        let message = refused.message.trim_end_matches(['.', ' ']);
        let mut problem = Self::new(Code::RefusedByProvider)
            .detail(format!("{name} answered {}{code}: {message}.", refused.http_status));
        problem.more.get_or_insert_default().provider = Some(ProviderWords {
            name,
            http_status: refused.http_status,
            code: refused.code.as_deref().map(str::to_owned),
            message: refused.message.to_string(),
        });
        problem
    }

    /// Adds a sentence to the detail.
    #[must_use]
    pub fn and_detail(mut self, sentence: &str) -> Self {
        let detail = self.detail.get_or_insert_default();
        if !detail.is_empty() {
            detail.push(' ');
        }
        detail.push_str(sentence);
        self
    }

    #[must_use]
    pub fn and_nothing_was_stored(self) -> Self {
        self.and_detail("Nothing was stored.")
    }

    #[must_use]
    pub fn accounts(mut self, before: Option<String>, now: Option<String>) -> Self {
        self.more.get_or_insert_default().accounts = Some(Accounts { before, now });
        self
    }

    /// The body. A detail is always written in this room's own words, so 5xx may carry one as
    /// well.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let status = self.code.status();
        let fallback;
        let detail = match (self.detail.as_deref(), self.errors.first()) {
            (Some(detail), _) => detail,
            (None, Some(first)) => {
                fallback = format!("{}: {}", first.field, first.problem);
                &fallback
            }
            (None, None) => self.code.title(),
        };
        let body = Body {
            r#type: "about:blank",
            title: self.code.title(),
            status,
            detail,
            code: self.code.as_str(),
            request_id,
            errors: &self.errors,
            provider: self.more.as_ref().and_then(|more| more.provider.as_ref()),
            accounts: self.more.as_ref().and_then(|more| more.accounts.as_ref()),
        };
        serde_json::to_vec(&body).expect("texts and numbers always serialise")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = StatusCode::from_u16(self.code.status())
            .expect("codes have valid statuses")
            .into_response();
        if self.code == Code::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let after = self
            .retry_after
            .or_else(|| (self.code.status() == 503).then_some(Duration::from_secs(2)));
        if let Some(after) = after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { doing } => {
                tracing::warn!(doing, "The database is not available to the admin API");
                Self::new(Code::DatabaseUnavailable)
            }
            StoreError::Conflict { what } => Self::new(Code::Conflict).detail(format!(
                "The {} exists already, or was changed by someone else.",
                what.trim_start_matches("the ")
            )),
            error @ (StoreError::Corrupt { .. } | StoreError::Data { .. }) => {
                tracing::error!(error = %error, "The store failed in the admin API");
                Self::new(Code::Internal)
            }
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store { source, .. } => source.into(),
            VaultError::NoRandomness => {
                tracing::error!("No randomness from the system");
                Self::new(Code::Internal)
            }
            error => {
                tracing::error!(error = %error, "A stored value does not open");
                Self::new(Code::Undecryptable)
            }
        }
    }
}
