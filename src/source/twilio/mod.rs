//! Twilio: `X-Twilio-Signature` in all its forms, and its webhooks.
//!
//! Nothing in Twilio's schemes signs a time: a signed request can be replayed for ever, and the
//! dedupe key is the only guard (invariant 14).

mod form;
mod read;
mod signature;
mod url;

pub(super) use form::Form;
pub use form::decode_form;
pub(super) use read::read;
pub(super) use signature::{SETTINGS_HEADER, SIGNATURE_HEADER, TwilioKey};
pub(super) use url::SignedUrl;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TwilioPlan {
    /// The account's auth token: HMAC-SHA1 where no settings header says otherwise.
    AuthToken,
    /// A webhook shared key, with its id `webhooks_sharedkey_…`. Verifies only requests whose
    /// settings header names that key.
    SharedKey { key: String },
}

/// Whether a request's body is a form, by its content type. A request without one is read as a
/// form: that is what Twilio sends by default.
pub(super) fn is_form(headers: &http::HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else {
        return true;
    };
    let essence = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}
