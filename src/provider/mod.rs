//! Whose APIs are called: one file a provider, one HTTP client for all (timeouts, limits, SSRF guard).
//!
//! `action` (to act) and `admin` (to verify) enter. **Invariant:** nobody else opens an outgoing connection.

pub mod http;
pub mod twilio;
pub mod vapi;

use crate::domain::{SecretBytes, Timestamp};
use serde::Deserialize;

/// A decrypted credential. Exists inside the vault's closure and in the attempt that runs in it; zeroed on drop.
#[derive(Debug)]
pub enum Credential {
    Twilio(TwilioCredential),
    Vapi(VapiCredential),
    Http(HttpCredential),
}

/// Stored as the JSON `{"account_sid","auth_token"?,"api_key_sid"?,"api_key_secret"?,"phone_number"?}`.
#[derive(Debug)]
pub struct TwilioCredential {
    pub account_sid: String,
    pub auth: TwilioAuth,
    /// The number that SMS go out from where a rule names none.
    pub phone_number: Option<String>,
}

#[derive(Debug)]
pub enum TwilioAuth {
    /// Verifies webhooks as well.
    AuthToken(SecretBytes),
    /// `SK…` and its secret. Cannot verify webhooks.
    ApiKey { sid: String, secret: SecretBytes },
}

/// Stored as the JSON `{"api_key"}`.
#[derive(Debug)]
pub struct VapiCredential {
    pub api_key: SecretBytes,
}

/// A destination of `http.post`. Stored as the JSON `{"name","url","secrets":["whsec_…", …]}`, newest first: all sign while one is rotated.
#[derive(Debug)]
pub struct HttpCredential {
    pub name: String,
    pub url: String,
    pub secrets: Vec<SecretBytes>,
}

/// What a provider said to a call, in our words. The caller (an action, or admin's verify) decides what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub http_status: u16,
    /// The provider's own code, such as `20003`.
    pub code: Option<Box<str>>,
    /// The provider's words, cut to 500 characters; never the request.
    pub message: Box<str>,
    pub retry_after: Option<Timestamp>,
}

/// Why a call gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: certainly not done.
    #[error("could not connect to {host}: {reason}")]
    NotSent { host: String, reason: String },
    /// Bytes may have gone out and no whole answer came back: unknown.
    #[error("{host} gave no usable answer: {reason}")]
    NoAnswer { host: String, reason: String },
    /// The address is private, loopback, link-local or otherwise not allowed: nothing was sent.
    #[error("the address of {host} is not allowed as a destination")]
    AddressNotAllowed { host: String },
    /// A 3xx: never followed.
    #[error("{host} answered {status} with a redirect, which is not followed")]
    Redirect { host: String, status: u16 },
    /// A whole answer that is not 2xx.
    #[error("refused with {}: {}", .0.http_status, .0.message)]
    Refused(Refused),
}

/// What verifying a credential came to: three results, not two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    Good {
        account: Option<Account>,
    },
    /// Works; something that a named feature needs is missing.
    Limited {
        account: Option<Account>,
        missing: String,
    },
    Refused(Refused),
}

/// The account that a credential opens, for people to recognise and for reconnects to compare.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    pub id: String,
    pub name: Option<String>,
}

/// The clients, with the base URL of each provider (a setting; `dev` points them at the sandbox).
#[derive(Clone, Debug)]
pub struct Providers {
    pub twilio: twilio::TwilioClient,
    pub vapi: vapi::VapiClient,
    pub http: http::HttpClient,
}
