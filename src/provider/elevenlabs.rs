//! ElevenLabs' API: whether a key works, and its permissions. Read in elevenlabs-python 2.78.0 and
//! on elevenlabs.io/docs.
//!
//! **Invariant:** no answer of `/v1/user` is kept: it carries `xi_api_key`, so bodies are zeroed
//! and only named fields are read. And a 401 may be a wrong key, a missing permission or an empty
//! account: `detail.status` says which.

use super::{
    Account, CallError, ElevenLabsCredential, ProviderRefusal, Verified,
    api::Api,
    http::HttpClient,
    table::{Form, Probe},
};
use crate::domain::Provider;
use reqwest::{Method, header::HeaderName};
use serde::Deserialize;
use std::time::Duration;

const API_KEY: HeaderName = HeaderName::from_static("xi-api-key");

#[derive(Clone, Debug)]
pub struct ElevenLabsClient(Api);

/// `{"detail":{"status","message"}}`, or for a request that is not valid
/// `{"detail":[{"loc","msg","type"}]}`.
fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    struct Problem {
        detail: Detail,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Detail {
        One {
            status: Option<Box<str>>,
            message: Option<String>,
        },
        Many(Vec<Line>),
        Text(String),
    }
    #[derive(Deserialize)]
    struct Line {
        msg: Option<String>,
    }
    match serde_json::from_slice(body) {
        Ok(Problem {
            detail: Detail::One { status, message },
        }) => (status, message.unwrap_or_default()),
        Ok(Problem {
            detail: Detail::Many(lines),
        }) => (
            None,
            lines
                .into_iter()
                .filter_map(|line| line.msg)
                .collect::<Vec<_>>()
                .join("; "),
        ),
        Ok(Problem {
            detail: Detail::Text(text),
        }) => (None, text),
        Err(_) => (None, String::new()),
    }
}

/// The answer to one probe of a key.
enum ProbeAnswer {
    Allowed(Option<Account>),
    Lacks(String),
}

impl ElevenLabsClient {
    #[must_use]
    pub const fn new(base_url: String, http: HttpClient) -> Self {
        Self(Api::new(base_url, http, problem))
    }

    /// Whether a key works, by each request of the table. A missing permission takes a feature
    /// away. Only a key that ElevenLabs does not know is refused.
    ///
    /// # Errors
    /// It could not be found out: no connection, no answer, 429 or 5xx.
    pub async fn verify(&self, credential: &ElevenLabsCredential, deadline: Duration) -> Result<Verified, CallError> {
        let until = tokio::time::Instant::now() + deadline;
        let (mut account, mut missing) = (None, Vec::new());
        for probe in Form::of(Provider::ElevenLabs).expect("it is in the table").probes {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match self.probe(credential, probe, left).await {
                Ok(ProbeAnswer::Allowed(found)) => account = account.or(found),
                Ok(ProbeAnswer::Lacks(what)) => missing.push(what),
                Err(CallError::Refused(refused)) if matches!(refused.http_status, 401 | 403) => {
                    return Ok(Verified::Refused(refused));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(if missing.is_empty() {
            Verified::Accepted { account }
        } else {
            Verified::Limited {
                account,
                missing: missing.join("; "),
            }
        })
    }

    async fn probe(
        &self,
        credential: &ElevenLabsCredential,
        probe: &Probe,
        deadline: Duration,
    ) -> Result<ProbeAnswer, CallError> {
        #[derive(Deserialize)]
        struct User {
            user_id: Option<String>,
            first_name: Option<String>,
        }
        let request = self
            .0
            .request(Method::GET, probe.path, API_KEY, "", credential.api_key.expose_secret());
        match self.0.call::<User>(request, deadline).await {
            Ok(user) => Ok(ProbeAnswer::Allowed(user.user_id.map(|id| Account {
                id,
                name: user.first_name,
            }))),
            Err(CallError::Refused(ProviderRefusal { code: Some(code), .. })) if &*code == "missing_permissions" => {
                Ok(ProbeAnswer::Lacks(probe.feature.to_owned()))
            }
            Err(CallError::Refused(ProviderRefusal { code: Some(code), .. })) if &*code == "quota_exceeded" => Ok(
                ProbeAnswer::Lacks("anything that costs credits: the account's are used up".to_owned()),
            ),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_of_an_error_are_read() {
        for (body, code, words) in [
            (
                r#"{"detail":{"status":"quota_exceeded","message":"None left."}}"#,
                Some("quota_exceeded"),
                "None left.",
            ),
            (
                r#"{"detail":[{"loc":["query","x"],"msg":"too long","type":"y"},{"msg":"too short"}]}"#,
                None,
                "too long; too short",
            ),
            (r#"{"detail":"Not Found"}"#, None, "Not Found"),
            ("<html>", None, ""),
        ] {
            assert_eq!(
                problem(body.as_bytes()),
                (code.map(Into::into), words.to_owned()),
                "{body}"
            );
        }
    }
}
