//! Twilio's REST API, 2010-04-01: messages, account, numbers.
//!
//! **Invariant:** no answer of Twilio's is kept: the account's carries `auth_token` in the clear,
//! so bodies are zeroed and only named fields are read.

mod errors;

pub use errors::{CODES, Class, class_of, outcome};

use super::{
    Account, CallError, ProviderRefusal, TwilioAuth, TwilioCredential, Verified, api::Api, http::HttpClient, is_e164,
};
use crate::domain::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use std::{fmt::Write as _, time::Duration};

/// Messages a page: Twilio's default. 50 with the longest bodies stay below the limit of an answer;
/// 1,000 would not.
const PAGE_SIZE: &str = "50";
/// Pages that a look-up reads at most.
const PAGES_MAX: usize = 20;

#[derive(Clone, Debug)]
pub struct TwilioClient(Api);

/// A message to send. Borrowed: it lives for one call.
#[derive(Clone, Copy)]
pub struct NewMessage<'a> {
    pub to: &'a str,
    pub from: Option<&'a str>,
    pub messaging_service_sid: Option<&'a str>,
    pub body: &'a str,
    pub status_callback: Option<&'a str>,
}

/// Twilio's answer to a message that it accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SentMessage {
    pub sid: Box<str>,
    /// `queued`, or `accepted` with a messaging service.
    pub status: Option<Box<str>>,
}

/// A message of the account's list, as far as a look-up compares it.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedMessage {
    pub sid: Box<str>,
    pub to: Option<Box<str>>,
    pub from: Option<Box<str>>,
    pub body: Option<Box<str>>,
    pub is_outbound: bool,
    /// `None` where Twilio gives no readable time: then the message may be of any time.
    pub created_at: Option<Timestamp>,
}

impl std::fmt::Debug for ListedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListedMessage")
            .field("sid", &self.sid)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// The messages of a list.
#[derive(Debug)]
pub struct Listed {
    pub messages: Vec<ListedMessage>,
    /// `false` where there were more pages than are read: an absent message may stand on them.
    pub is_complete: bool,
}

/// The fields of an account that are read. Its `auth_token` is not one of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TwilioAccount {
    pub sid: String,
    pub friendly_name: Option<String>,
    /// `active`, `suspended`, `closed`.
    pub status: Option<String>,
    /// `Trial`, `Full`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A number of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwilioNumber {
    pub sid: String,
}

fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    struct Problem {
        code: Option<u64>,
        message: Option<String>,
    }
    serde_json::from_slice(body).map_or((None, String::new()), |Problem { code, message }| {
        (code.map(|code| code.to_string().into()), message.unwrap_or_default())
    })
}

impl TwilioClient {
    #[must_use]
    pub const fn new(base_url: String, http: HttpClient) -> Self {
        Self(Api::new(base_url, http, problem))
    }

    /// Posts one message. Not idempotent: Twilio knows no key, so `NoAnswer` has to be looked up
    /// before any second send.
    ///
    /// # Errors
    /// See [`CallError`]; [`outcome`] says what follows.
    pub async fn send_message(
        &self,
        credential: &TwilioCredential,
        message: NewMessage<'_>,
        deadline: Duration,
    ) -> Result<SentMessage, CallError> {
        let mut form = vec![("To", message.to), ("Body", message.body)];
        form.extend(message.from.map(|from| ("From", from)));
        form.extend(message.messaging_service_sid.map(|sid| ("MessagingServiceSid", sid)));
        form.extend(message.status_callback.map(|url| ("StatusCallback", url)));
        let request = self
            .request(
                Method::POST,
                credential,
                &format!("{}/Messages.json", account_path(credential)),
            )
            .form(&form);
        self.0.call(request, deadline).await
    }

    /// Messages of the account to `to` (and from `from`), newest first, until a whole page is older
    /// than `since`.
    ///
    /// Twilio's `DateSent` filter is not used. It goes by day, and a queued message has no
    /// `date_sent` yet. A filtered list would call a message absent that is about to go out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn list_messages(
        &self,
        credential: &TwilioCredential,
        to: &str,
        from: Option<&str>,
        since: Timestamp,
        deadline: Duration,
    ) -> Result<Listed, CallError> {
        let until = tokio::time::Instant::now() + deadline;
        let path = format!("{}/Messages.json", account_path(credential));
        let mut query = vec![("To", to), ("PageSize", PAGE_SIZE)];
        query.extend(from.map(|from| ("From", from)));
        let mut next = with_query(&path, &query);
        let mut messages = Vec::new();
        for _ in 0..PAGES_MAX {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let page: MessagePage = self.0.call(self.request(Method::GET, credential, &next), left).await?;
            let read = messages.len();
            messages.extend(page.messages.into_iter().map(ListedMessage::from));
            let is_older = |message: &ListedMessage| message.created_at.is_some_and(|at| at < since);
            // The address of the next page is a text of Twilio: it may only lead to the same list.
            match page
                .next_page_uri
                .filter(|uri| uri.strip_prefix(&path).is_some_and(|rest| rest.starts_with('?')))
            {
                Some(uri) if !messages[read..].iter().all(is_older) => next = uri,
                _ => {
                    return Ok(Listed {
                        messages,
                        is_complete: true,
                    });
                }
            }
        }
        Ok(Listed {
            messages,
            is_complete: false,
        })
    }

    /// The account that a credential belongs to.
    ///
    /// # Errors
    /// See [`CallError`]. Standard API keys may not read it.
    pub async fn fetch_account(
        &self,
        credential: &TwilioCredential,
        deadline: Duration,
    ) -> Result<TwilioAccount, CallError> {
        self.0
            .call(
                self.request(Method::GET, credential, &format!("{}.json", account_path(credential))),
                deadline,
            )
            .await
    }

    /// Whether a credential works. API keys that may not read the account are tried on the list of
    /// messages, which sends nothing.
    ///
    /// # Errors
    /// It could not be found out: no connection, no answer, 429 or 5xx.
    pub async fn verify(&self, credential: &TwilioCredential, deadline: Duration) -> Result<Verified, CallError> {
        let until = tokio::time::Instant::now() + deadline;
        let id = || {
            Some(Account {
                id: credential.account_sid.clone(),
                name: None,
            })
        };
        let refused = match self.fetch_account(credential, deadline).await {
            Ok(account) => {
                if let Some(status @ ("suspended" | "closed")) = account.status.as_deref() {
                    let message = format!("the account is {status}").into();
                    return Ok(Verified::Refused(ProviderRefusal {
                        http_status: 200,
                        code: None,
                        message,
                        retry_after: None,
                    }));
                }
                let account = Some(Account {
                    id: account.sid,
                    name: account.friendly_name,
                });
                return Ok(match credential.auth {
                    TwilioAuth::AuthToken(_) => Verified::Accepted { account },
                    TwilioAuth::ApiKey { .. } => Verified::Limited {
                        account,
                        missing: WEBHOOKS_MISSING.to_owned(),
                    },
                });
            }
            Err(CallError::Refused(refused)) if is_of_credential(&refused) => refused,
            Err(error) => return Err(error),
        };
        if matches!(credential.auth, TwilioAuth::AuthToken(_)) {
            return Ok(Verified::Refused(refused));
        }
        let path = with_query(
            &format!("{}/Messages.json", account_path(credential)),
            &[("PageSize", "1")],
        );
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        match self
            .0
            .call::<serde::de::IgnoredAny>(self.request(Method::GET, credential, &path), left)
            .await
        {
            Ok(_) => Ok(Verified::Limited {
                account: id(),
                missing: WEBHOOKS_MISSING.to_owned(),
            }),
            // A restricted key that may send and not list is a good key.
            Err(CallError::Refused(refused)) if refused.code.as_deref() == Some("70004") => Ok(Verified::Limited {
                account: id(),
                missing: format!("{WEBHOOKS_MISSING}; looking up messages needs the permission to read them"),
            }),
            Err(CallError::Refused(refused)) if is_of_credential(&refused) => Ok(Verified::Refused(refused)),
            Err(error) => Err(error),
        }
    }

    /// Whether the account holds a number, written in E.164.
    ///
    /// # Errors
    /// See [`CallError`]; `Ok(None)` means that Twilio was asked and it does not.
    pub async fn find_number(
        &self,
        credential: &TwilioCredential,
        number: &str,
        deadline: Duration,
    ) -> Result<Option<TwilioNumber>, CallError> {
        #[derive(Deserialize)]
        struct Page {
            incoming_phone_numbers: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            sid: Option<String>,
            account_sid: Option<String>,
            phone_number: Option<String>,
        }
        if !is_e164(number) {
            return Ok(None);
        }
        let path = with_query(
            &format!("{}/IncomingPhoneNumbers.json", account_path(credential)),
            &[("PhoneNumber", number), ("PageSize", PAGE_SIZE)],
        );
        let page: Page = self
            .0
            .call(self.request(Method::GET, credential, &path), deadline)
            .await?;
        // Twilio's filter matches parts of numbers, so the whole number and its owner are compared
        // here.
        let row = page.incoming_phone_numbers.into_iter().find(|row| {
            row.phone_number.as_deref() == Some(number)
                && row
                    .account_sid
                    .as_ref()
                    .is_none_or(|owner| *owner == credential.account_sid)
        });
        Ok(row.and_then(|row| row.sid).map(|sid| TwilioNumber { sid }))
    }

    fn request(&self, method: Method, credential: &TwilioCredential, path_and_query: &str) -> RequestBuilder {
        let (user, secret) = match &credential.auth {
            TwilioAuth::AuthToken(token) => (&credential.account_sid, token),
            TwilioAuth::ApiKey { sid, secret } => (sid, secret),
        };
        let password = std::str::from_utf8(secret.expose_secret()).unwrap_or_default();
        self.0.plain(method, path_and_query).basic_auth(user, Some(password))
    }
}

#[derive(Deserialize)]
struct MessagePage {
    messages: Vec<MessageRow>,
    next_page_uri: Option<String>,
}

#[derive(Deserialize)]
struct MessageRow {
    sid: Box<str>,
    to: Option<Box<str>>,
    from: Option<Box<str>>,
    body: Option<Box<str>>,
    direction: Option<Box<str>>,
    date_created: Option<Box<str>>,
}

impl From<MessageRow> for ListedMessage {
    fn from(row: MessageRow) -> Self {
        Self {
            sid: row.sid,
            to: row.to,
            from: row.from,
            body: row.body,
            is_outbound: row
                .direction
                .as_deref()
                .is_none_or(|direction| direction.starts_with("outbound")),
            created_at: row.date_created.as_deref().and_then(parse_date),
        }
    }
}

const WEBHOOKS_MISSING: &str = "verifying Twilio's webhooks needs the account's auth token, an API key cannot";

/// Whether a refusal speaks of the credential, not of the moment.
fn is_of_credential(refused: &ProviderRefusal) -> bool {
    matches!(refused.http_status, 401 | 403 | 404)
}

fn account_path(credential: &TwilioCredential) -> String {
    format!("/2010-04-01/Accounts/{}", credential.account_sid)
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = format!("{path}?");
    for (index, (name, value)) in query.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").expect("a String takes every text");
            }
        }
    }
    out
}

fn parse_date(text: &str) -> Option<Timestamp> {
    Some(Timestamp::from_seconds(
        rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?.as_second(),
    ))
}
