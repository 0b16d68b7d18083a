//! The form of a refusal: RFC 9457 `application/problem+json` with a stable `code`.
//!
//! 4xx name the wrong fields; 5xx say what is away and what to do next. **Invariant:** a refusal
//! never holds a text of a request, a row or an inner error. Its texts are written here, or
//! `provider` has cut them.

pub use crate::domain::ProblemCode as Code;

use super::etag;
use crate::{
    provider::{CallError, ProviderRefusal},
    store::StoreError,
    vault::VaultError,
};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::time::Duration;

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

    /// The problem and the remedy, in our own words.
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
            (None, None) => advice(self.code),
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

/// The detail of a refusal that has none of its own. Where the caller is not at fault, it says what
/// to do next.
const fn advice(code: Code) -> &'static str {
    match code {
        Code::Internal => {
            "Something went wrong here. Nothing that you sent is at fault: tell whoever runs this installation the \
            request_id, which finds the cause in the log."
        }
        Code::Undecryptable => {
            "A stored value cannot be decrypted with the keys of this installation. Whoever runs it has to add the \
            missing key; the status of the integration says which. Nothing is lost."
        }
        Code::DatabaseUnavailable => {
            "The database cannot be reached. Try again after the time in Retry-After; nothing was changed."
        }
        Code::ProviderUnreachable => "The provider cannot be reached. Try again after the time in Retry-After.",
        Code::TokenKeysUnavailable => {
            "The keys that tokens are verified with cannot be loaded from HOOKSWITCH_JWT_JWKS_URL. Try again after the \
            time in Retry-After."
        }
        Code::Timeout => {
            "It took too long. A write may still be finished: read it again before you repeat the request."
        }
        code => code.title(),
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
            StoreError::Stale { .. } => etag::stale(),
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
