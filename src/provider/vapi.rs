//! Vapi's REST API: reading an assistant or a number as proof of a claim (invariant 18), checking
//! an API key, and keeping assistants.
//!
//! **Invariant:** a phone number's answer carries other providers' secrets (`twilioAuthToken`):
//! only named fields are read, and the body is zeroed.

pub mod assistants;

use super::{CallError, VapiCredential, Verified, api::Api, http::HttpClient};
use crate::domain::SmsAtVapi;
use reqwest::{Method, RequestBuilder, header::AUTHORIZATION};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

/// Numbers a page: Vapi's default. Its largest, 1,000, could be over the limit of an answer.
const PAGE_SIZE: usize = 100;
/// Pages that a search reads at most.
const PAGES_MAX: usize = 20;

#[derive(Clone, Debug)]
pub struct VapiClient(Api);

/// The fields of an assistant that are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VapiAssistant {
    pub id: String,
    pub name: Option<String>,
}

/// The fields of a phone number that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VapiNumber {
    pub id: String,
    pub sms: SmsAtVapi,
}

impl VapiClient {
    #[must_use]
    pub const fn new(base_url: String, http: HttpClient) -> Self {
        Self(Api::new(base_url, http, problem))
    }

    /// Whether a key works: `GET /assistant?limit=1`, free of effects. Vapi names no account in it.
    ///
    /// # Errors
    /// It could not be found out: no connection, no answer, 429 or 5xx.
    pub async fn verify(&self, credential: &VapiCredential, deadline: Duration) -> Result<Verified, CallError> {
        match self
            .get::<Vec<serde::de::IgnoredAny>>(credential, "/assistant?limit=1", deadline)
            .await
        {
            Ok(_) => Ok(Verified::Accepted { account: None }),
            Err(CallError::Refused(refused)) if matches!(refused.http_status, 401 | 403) => {
                Ok(Verified::Refused(refused))
            }
            Err(error) => Err(error),
        }
    }

    /// The assistant with an id, where this key can read it.
    ///
    /// # Errors
    /// See [`CallError`]; `Ok(None)` means that Vapi was asked and this key cannot read it.
    pub async fn get_assistant(
        &self,
        credential: &VapiCredential,
        id: &str,
        deadline: Duration,
    ) -> Result<Option<VapiAssistant>, CallError> {
        if !is_id(id) {
            return Ok(None);
        }
        match self
            .get::<VapiAssistant>(credential, &format!("/assistant/{id}"), deadline)
            .await
        {
            Ok(assistant) => Ok((assistant.id == id).then_some(assistant)),
            // 400: an id that is no UUID; 403 and 404: of another organisation, or of none.
            Err(CallError::Refused(refused)) if matches!(refused.http_status, 400 | 403 | 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The phone number that this key holds, by its digits in E.164.
    ///
    /// # Errors
    /// See [`CallError`]; `Ok(None)` means that Vapi was asked and it is not there.
    pub async fn find_phone_number(
        &self,
        credential: &VapiCredential,
        number: &str,
        deadline: Duration,
    ) -> Result<Option<VapiNumber>, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            id: String,
            number: Option<String>,
            created_at: Option<String>,
            provider: Option<String>,
            sms_enabled: Option<bool>,
        }
        let until = tokio::time::Instant::now() + deadline;
        let mut path = format!("/phone-number?limit={PAGE_SIZE}");
        for _ in 0..PAGES_MAX {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let rows: Vec<Row> = self.get(credential, &path, left).await?;
            // There is no cursor: the next page holds the numbers that were created before the
            // oldest number of this page. The time is Vapi's text and goes into a query.
            let is_time = |text: &&String| {
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':' | b'.'))
            };
            let oldest = rows
                .iter()
                .filter_map(|row| row.created_at.as_ref())
                .min()
                .filter(is_time)
                .cloned();
            let is_last = rows.len() < PAGE_SIZE;
            if let Some(row) = rows.into_iter().find(|row| row.number.as_deref() == Some(number)) {
                // Only numbers of Twilio have the field, and where it is omitted it is true
                // (Vapi's description, `TwilioPhoneNumber.smsEnabled`).
                let sms = match (row.provider.as_deref(), row.sms_enabled) {
                    (Some("twilio"), Some(false)) => SmsAtVapi::Disabled,
                    (Some("twilio"), _) => SmsAtVapi::Enabled,
                    _ => SmsAtVapi::Absent,
                };
                return Ok(Some(VapiNumber { id: row.id, sms }));
            }
            match oldest {
                Some(oldest) if !is_last => path = format!("/phone-number?limit={PAGE_SIZE}&createdAtLt={oldest}"),
                _ => return Ok(None),
            }
        }
        Err(self
            .0
            .no_answer(&format!("more than {} numbers", PAGES_MAX * PAGE_SIZE)))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        credential: &VapiCredential,
        path: &str,
        deadline: Duration,
    ) -> Result<T, CallError> {
        self.0.call(self.request(Method::GET, credential, path), deadline).await
    }

    fn request(&self, method: Method, credential: &VapiCredential, path: &str) -> RequestBuilder {
        let secret = credential.api_key.expose_secret();
        self.0.request(method, path, AUTHORIZATION, "Bearer ", secret)
    }
}

/// Ids go into a path as they stand: anything else than Vapi's own alphabet is no id.
fn is_id(id: &str) -> bool {
    let is_of_an_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&id.len()) && id.bytes().all(is_of_an_id)
}

/// Vapi's error body: `{"message": text or list of texts, "error", "statusCode"}`.
fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Message {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Problem {
        message: Message,
    }
    let message = match serde_json::from_slice(body) {
        Ok(Problem {
            message: Message::One(text),
        }) => text,
        Ok(Problem {
            message: Message::Many(texts),
        }) => texts.join("; "),
        Err(_) => String::new(),
    };
    (None, message)
}
