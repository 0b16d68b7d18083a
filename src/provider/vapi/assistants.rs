//! Assistants at Vapi as whole JSON objects, for those that are kept in step.
//!
//! Vapi has no idempotency key: an assistant that was made is found again by its marker
//! ([`MARKER`]), which stands in its metadata.

use super::{VapiClient, is_id};
use crate::{
    domain::Timestamp,
    provider::{CallError, VapiCredential},
};
use reqwest::Method;
use serde_json::{Map, Value};
use std::time::Duration;

pub type Fields = Map<String, Value>;

/// The key of the metadata that a marker stands under.
pub const MARKER: &str = "hookswitch";
/// An assistant may have 30 kB and more, and an answer has a limit.
const PAGE_SIZE: usize = 10;
const PAGES_MAX: usize = 20;

impl VapiClient {
    /// All fields of an assistant. `Ok(None)`: Vapi was asked, and this key has no such assistant.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn read_assistant(
        &self,
        credential: &VapiCredential,
        id: &str,
        deadline: Duration,
    ) -> Result<Option<Fields>, CallError> {
        if !is_id(id) {
            return Ok(None);
        }
        match self
            .get::<Fields>(credential, &format!("/assistant/{id}"), deadline)
            .await
        {
            Ok(fields) => Ok(Some(fields)),
            Err(CallError::Refused(refused)) if refused.http_status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The assistant that was made with this marker, at `since` or later.
    ///
    /// # Errors
    /// See [`CallError`]; also where there are more assistants than a search reads.
    pub async fn find_marked_assistant(
        &self,
        credential: &VapiCredential,
        marker: &str,
        since: Timestamp,
        deadline: Duration,
    ) -> Result<Option<Fields>, CallError> {
        let until = tokio::time::Instant::now() + deadline;
        let since = jiff::Timestamp::from_microsecond(since.as_micros()).unwrap_or_default();
        let first = format!("/assistant?limit={PAGE_SIZE}&createdAtGe={since}");
        let mut path = first.clone();
        for _ in 0..PAGES_MAX {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let page: Vec<Fields> = self.get(credential, &path, left).await?;
            let oldest = oldest(&page);
            let is_last = page.len() < PAGE_SIZE;
            let is_marked = |fields: &Fields| {
                fields
                    .get("metadata")
                    .is_some_and(|metadata| metadata[MARKER] == marker)
            };
            if let Some(found) = page.into_iter().find(is_marked) {
                return Ok(Some(found));
            }
            match oldest {
                Some(oldest) if !is_last => path = format!("{first}&createdAtLt={oldest}"),
                _ => return Ok(None),
            }
        }
        let reason = format!("more than {} assistants were made meanwhile", PAGES_MAX * PAGE_SIZE);
        Err(self.0.no_answer(&reason))
    }

    /// # Errors
    /// See [`CallError`]. After [`CallError::NoAnswer`] the assistant may have been made.
    pub async fn create_assistant(
        &self,
        credential: &VapiCredential,
        fields: &Fields,
        deadline: Duration,
    ) -> Result<Fields, CallError> {
        let request = self.request(Method::POST, credential, "/assistant").json(fields);
        self.0.call(request, deadline).await
    }

    /// Changes the fields that are given, each as a whole.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn update_assistant(
        &self,
        credential: &VapiCredential,
        id: &str,
        fields: &Fields,
        deadline: Duration,
    ) -> Result<Fields, CallError> {
        let path = format!("/assistant/{id}");
        let request = self.request(Method::PATCH, credential, &path).json(fields);
        self.0.call(request, deadline).await
    }

    /// Deletes an assistant, or finds it gone.
    ///
    /// # Errors
    /// See [`CallError`]; Vapi refuses with 409 while something still uses the assistant.
    pub async fn delete_assistant(
        &self,
        credential: &VapiCredential,
        id: &str,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let request = self.request(Method::DELETE, credential, &format!("/assistant/{id}"));
        match self.0.bytes(request, deadline).await {
            Err(CallError::Refused(refused)) if refused.http_status == 404 => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// The time of the oldest assistant of a page, as Vapi writes it. It goes into a query.
fn oldest(page: &[Fields]) -> Option<String> {
    let is_time = |text: &&str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':' | b'.'))
    };
    page.iter()
        .filter_map(|fields| fields.get("createdAt")?.as_str())
        .min()
        .filter(is_time)
        .map(str::to_owned)
}
