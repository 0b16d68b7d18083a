//! Resend's API: e-mails, and whether a key works. Read in its OpenAPI document 1.5.0 and on
//! resend.com/docs/api-reference/errors.
//!
//! **Invariant:** the error's `name` decides, never the status alone. A valid key that may only
//! send gets 401, and a wrong key gets 403.

use super::{CallError, ProviderRefusal, ResendCredential, Verified, api::Api, http::HttpClient, table::Form};
use crate::domain::{Cause, Outcome, Provider, Timestamp};
use reqwest::{
    Method,
    header::{AUTHORIZATION, HeaderName},
};
use serde::Deserialize;
use std::time::Duration;

/// How long Resend knows an idempotency key (docs:dashboard/emails/idempotency-keys).
pub const KEY_WINDOW: Duration = Duration::from_hours(24);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[derive(Clone, Debug)]
pub struct ResendClient(Api);

/// Resend's answer to an e-mail that it accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SentEmail {
    pub id: Box<str>,
}

fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    struct Problem {
        name: Option<Box<str>>,
        message: Option<String>,
    }
    serde_json::from_slice(body).map_or((None, String::new()), |Problem { name, message }| {
        (name, message.unwrap_or_default())
    })
}

impl ResendClient {
    #[must_use]
    pub const fn new(base_url: String, http: HttpClient) -> Self {
        Self(Api::new(base_url, http, problem))
    }

    /// Posts one e-mail. The same key and bytes again give the first answer again, for
    /// [`KEY_WINDOW`].
    ///
    /// # Errors
    /// See [`CallError`]; [`outcome`] says what follows.
    pub async fn send_email(
        &self,
        credential: &ResendCredential,
        body: Vec<u8>,
        key: &str,
        deadline: Duration,
    ) -> Result<SentEmail, CallError> {
        let request = self
            .request(Method::POST, credential, "/emails")
            .header(IDEMPOTENCY_KEY, key);
        self.0
            .call(
                request
                    .header(reqwest::header::CONTENT_TYPE, "application/json")
                    .body(body),
                deadline,
            )
            .await
    }

    /// Whether a key works, by `GET /domains`: a key that may only send gets 401
    /// `restricted_api_key`, which proves that it is one.
    ///
    /// # Errors
    /// It could not be found out: no connection, no answer, 429 or 5xx.
    pub async fn verify(&self, credential: &ResendCredential, deadline: Duration) -> Result<Verified, CallError> {
        let probe = &Form::of(Provider::Resend).expect("it is in the table").probes[0];
        match self
            .0
            .call::<serde::de::IgnoredAny>(self.request(Method::GET, credential, probe.path), deadline)
            .await
        {
            Ok(_) => Ok(Verified::Accepted { account: None }),
            Err(CallError::Refused(refused)) => match refused.code.as_deref() {
                Some("restricted_api_key") => Ok(Verified::Limited {
                    account: None,
                    missing: format!("the key may only send; it lacks {}", probe.feature),
                }),
                Some("missing_api_key" | "invalid_api_key") => Ok(Verified::Refused(refused)),
                _ if matches!(refused.http_status, 401 | 403) => Ok(Verified::Refused(refused)),
                _ => Err(CallError::Refused(refused)),
            },
            Err(error) => Err(error),
        }
    }

    /// Whether the account has verified a domain. Only a key with full access can ask.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn is_verified_domain(
        &self,
        credential: &ResendCredential,
        domain: &str,
        deadline: Duration,
    ) -> Result<bool, CallError> {
        #[derive(serde::Deserialize)]
        struct Domains {
            data: Vec<Domain>,
        }
        #[derive(serde::Deserialize)]
        struct Domain {
            name: String,
            status: String,
        }
        let domains: Domains = self
            .0
            .call(self.request(Method::GET, credential, "/domains?limit=100"), deadline)
            .await?;
        Ok(domains
            .data
            .iter()
            .any(|known| known.status == "verified" && known.name.eq_ignore_ascii_case(domain)))
    }

    fn request(&self, method: Method, credential: &ResendCredential, path: &str) -> reqwest::RequestBuilder {
        self.0.request(
            method,
            path,
            AUTHORIZATION,
            "Bearer ",
            credential.api_key.expose_secret(),
        )
    }
}

/// The outcome of posting an e-mail that Resend did not accept.
///
/// | name (status) | what follows |
/// |---|---|
/// | `rate_limit_exceeded` (429) | again, not before `retry-after` |
/// | `daily_quota_exceeded`, `monthly_quota_exceeded` (429) | again, not before an hour has passed: the quota is the day's or the month's |
/// | `concurrent_idempotent_requests` (409) | the same key is being worked on: again shortly |
/// | `invalid_idempotent_request` (409) | the key was used with other bytes: something went out under it, and a person says what |
/// | `missing_api_key` (401), `invalid_api_key` (403), `restricted_api_key` (401) | parked until the credential changes |
/// | `validation_error` (403): the domain is not verified; `invalid_from_address` (422) | parked: configuration |
/// | `security_error` (451), `not_found`, `method_not_allowed`, other 4xx | dead |
/// | `application_error`, `internal_server_error` (500), other 5xx, 408 | unknown: the same key again |
#[must_use]
pub fn outcome(error: &CallError, now: Timestamp) -> Outcome {
    let refused = match error.refusal() {
        Ok(refused) => refused,
        Err(outcome) => return outcome,
    };
    let ProviderRefusal {
        http_status,
        code,
        retry_after,
        ..
    } = refused;
    match (http_status, code.as_deref()) {
        (429, Some("daily_quota_exceeded" | "monthly_quota_exceeded")) => {
            let not_before = retry_after.unwrap_or(now).max(now + Duration::from_hours(1));
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: Some(not_before),
            }
        }
        (429, _) => Outcome::Retry {
            cause: Cause::RateLimited,
            not_before: *retry_after,
        },
        (409, Some("invalid_idempotent_request")) => Outcome::Unknown {
            cause: Cause::Ambiguous,
        },
        (408 | 500.., _) | (409, Some("concurrent_idempotent_requests")) => Outcome::Unknown {
            cause: Cause::ProviderUnavailable,
        },
        (401, _) | (403, Some("invalid_api_key")) => Outcome::Park {
            cause: Cause::CredentialRefused,
        },
        (403, _) | (422, Some("invalid_from_address")) => Outcome::Park {
            cause: Cause::Misconfigured,
        },
        _ => Outcome::Dead {
            cause: Cause::InvalidRequest,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_outcome_that_the_table_says() {
        let now = Timestamp::from_seconds(1_700_000_000);
        for (status, name, label, cause) in [
            (429, "rate_limit_exceeded", "retry", Cause::RateLimited),
            (429, "daily_quota_exceeded", "retry", Cause::RateLimited),
            (
                409,
                "concurrent_idempotent_requests",
                "unknown",
                Cause::ProviderUnavailable,
            ),
            (409, "invalid_idempotent_request", "unknown", Cause::Ambiguous),
            (401, "missing_api_key", "parked", Cause::CredentialRefused),
            (401, "restricted_api_key", "parked", Cause::CredentialRefused),
            (403, "invalid_api_key", "parked", Cause::CredentialRefused),
            (403, "validation_error", "parked", Cause::Misconfigured),
            (422, "invalid_from_address", "parked", Cause::Misconfigured),
            (422, "validation_error", "dead", Cause::InvalidRequest),
            (400, "invalid_idempotency_key", "dead", Cause::InvalidRequest),
            (451, "security_error", "dead", Cause::InvalidRequest),
            (404, "not_found", "dead", Cause::InvalidRequest),
            (500, "application_error", "unknown", Cause::ProviderUnavailable),
            (503, "", "unknown", Cause::ProviderUnavailable),
        ] {
            let error = CallError::Refused(ProviderRefusal {
                http_status: status,
                code: Some(name.into()),
                message: "".into(),
                retry_after: None,
            });
            let outcome = outcome(&error, now);
            assert_eq!((outcome.label(), outcome.cause()), (label, cause), "{status} {name}");
        }
        let quota = CallError::Refused(ProviderRefusal {
            http_status: 429,
            code: Some("daily_quota_exceeded".into()),
            message: "".into(),
            retry_after: Some(now),
        });
        assert_eq!(
            outcome(&quota, now),
            Outcome::Retry {
                cause: Cause::RateLimited,
                not_before: Some(now + Duration::from_hours(1))
            }
        );
    }
}
