//! One JSON API: a base URL, the way to authenticate, and how its errors are read. Common parts of
//! the providers' files.

use super::{
    CallError, ProviderRefusal,
    http::{Answer, HttpClient},
    masked,
};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use std::time::Duration;
use zeroize::Zeroizing;

/// The provider's own code and words of an error body. The caller masks the words.
pub(super) type ReadProblem = fn(&[u8]) -> (Option<Box<str>>, String);

#[derive(Clone, Debug)]
pub(super) struct Api {
    base_url: String,
    http: HttpClient,
    problem: ReadProblem,
}

impl Api {
    pub(super) const fn new(base_url: String, http: HttpClient, problem: ReadProblem) -> Self {
        Self {
            base_url,
            http,
            problem,
        }
    }

    /// A request to a path below the base URL, with one secret header.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        header: http::HeaderName,
        prefix: &str,
        secret: &[u8],
    ) -> RequestBuilder {
        self.plain(method, path).header(header, secret_value(prefix, secret))
    }

    /// One without authentication.
    pub(super) fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.trusted().request(method, format!("{}{path}", self.base_url))
    }

    /// A whole 2xx as `T`.
    ///
    /// # Errors
    /// See [`CallError`]: a whole answer that is not 2xx is `Refused`, with the provider's code and
    /// words.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let body = self.bytes(request, deadline).await?;
        serde_json::from_slice(&body).map_err(|_| self.no_answer("the answer is not the provider's JSON"))
    }

    /// The same, whatever stands in it: an empty body is one.
    pub(super) async fn bytes(
        &self,
        request: RequestBuilder,
        deadline: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let Answer {
            status,
            retry_after,
            body,
        } = self.http.exchange(request, deadline).await?;
        match status {
            200..300 => body.map_err(|reason| self.no_answer(reason)),
            300..400 => Err(CallError::Redirect {
                host: self.base_url.clone(),
                status,
            }),
            400.. => {
                // The status counts even where the body could not be read.
                let (code, message) = body.map_or((None, String::new()), |body| (self.problem)(&body));
                Err(CallError::Refused(ProviderRefusal {
                    http_status: status,
                    code,
                    message: masked(&message),
                    retry_after,
                }))
            }
            _ => Err(self.no_answer("the answer has no final status")),
        }
    }

    pub(super) fn no_answer(&self, reason: &str) -> CallError {
        CallError::NoAnswer {
            host: self.base_url.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// A header value that is not printed. `Credential::check` let only visible characters pass; what
/// was not checked gets an empty one and the provider's 401.
fn secret_value(prefix: &str, secret: &[u8]) -> http::HeaderValue {
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.len()));
    text.extend_from_slice(prefix.as_bytes());
    text.extend_from_slice(secret);
    let mut value = http::HeaderValue::from_bytes(&text).unwrap_or_else(|_| http::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
