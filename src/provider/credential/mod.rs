//! Credentials as they are stored and used. Reading never repeats the text in an error: serde's own
//! messages would.

mod shape;
mod stored;

pub use shape::{is_e164, is_mailbox, is_sid};

use crate::domain::{SecretBytes, Timestamp};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

/// A decrypted credential. Exists inside the vault's closure and in the attempt that runs in it;
/// zeroed on drop, and `Debug` shows no secret.
#[derive(Debug)]
pub enum Credential {
    Twilio(TwilioCredential),
    Vapi(VapiCredential),
    Google(GoogleCredential),
    Resend(ResendCredential),
    ElevenLabs(ElevenLabsCredential),
    Http(HttpCredential),
}

/// Stored as the JSON
/// `{"account_sid","auth_token"?,"api_key_sid"?,"api_key_secret"?,"phone_number"?}`.
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

/// Stored as the JSON `{"access_token","refresh_token","expires_at","scope"}`, the time in seconds
/// since the epoch, as text.
#[derive(Debug)]
pub struct GoogleCredential {
    pub access_token: SecretBytes,
    pub refresh_token: SecretBytes,
    pub expires_at: Timestamp,
    /// The granted scopes, as Google writes them.
    pub scope: String,
}

/// Stored as the JSON `{"api_key","from"?}`.
#[derive(Debug)]
pub struct ResendCredential {
    pub api_key: SecretBytes,
    /// The sender of e-mails where a rule names none.
    pub from: Option<String>,
}

/// Stored as the JSON `{"api_key"}`.
#[derive(Debug)]
pub struct ElevenLabsCredential {
    pub api_key: SecretBytes,
}

/// A destination of `http.post`. Stored as the JSON `{"name","url","secrets":["whsec_…", …]}`,
/// newest first: all sign while one is rotated.
pub struct HttpCredential {
    pub name: String,
    pub url: String,
    pub secrets: Vec<SecretBytes>,
}

/// A destination's URL can carry a token in its path or query: only its host is shown.
impl std::fmt::Debug for HttpCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = reqwest::Url::parse(&self.url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        f.debug_struct("HttpCredential")
            .field("name", &self.name)
            .field("host", &host)
            .field("secrets", &self.secrets)
            .finish()
    }
}

/// Why a credential cannot be used: the field and its expected form, never its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct CredentialError {
    pub field: &'static str,
    pub problem: &'static str,
}

const fn wrong(field: &'static str, problem: &'static str) -> CredentialError {
    CredentialError { field, problem }
}

impl Credential {
    /// Checks the form of every field. [`Credential::parse`] calls it, and `admin` calls it for a
    /// credential that a person typed.
    ///
    /// # Errors
    /// The first field that has not its form.
    pub fn check(&self) -> Result<(), CredentialError> {
        match self {
            Self::Twilio(twilio) => twilio.check(),
            Self::Vapi(vapi) => usable_in_header("api_key", &vapi.api_key),
            Self::ElevenLabs(elevenlabs) => usable_in_header("api_key", &elevenlabs.api_key),
            Self::Resend(resend) if resend.from.as_deref().is_some_and(|from| !is_mailbox(from)) => Err(wrong(
                "from",
                "expected an address such as mail@example.com, or Name <mail@example.com>",
            )),
            Self::Resend(resend) => usable_in_header("api_key", &resend.api_key),
            Self::Google(google) => google.check(),
            Self::Http(http) => http.check(),
        }
    }
}

impl Credential {
    /// The fields that are no secret, by their names in the form of [`super::table`].
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Twilio(twilio) => {
                let mut settings = vec![("account_sid", twilio.account_sid.as_str())];
                if let TwilioAuth::ApiKey { sid, .. } = &twilio.auth {
                    settings.push(("api_key_sid", sid));
                }
                settings.extend(twilio.phone_number.as_deref().map(|number| ("phone_number", number)));
                settings
            }
            Self::Resend(resend) => resend.from.as_deref().map(|from| ("from", from)).into_iter().collect(),
            Self::Vapi(_) | Self::ElevenLabs(_) | Self::Google(_) | Self::Http(_) => Vec::new(),
        }
    }

    /// The secret fields that are set, by their names in the form.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &SecretBytes)> {
        match self {
            Self::Twilio(twilio) => match &twilio.auth {
                TwilioAuth::AuthToken(token) => vec![("auth_token", token)],
                TwilioAuth::ApiKey { secret, .. } => vec![("api_key_secret", secret)],
            },
            Self::Vapi(VapiCredential { api_key })
            | Self::ElevenLabs(ElevenLabsCredential { api_key })
            | Self::Resend(ResendCredential { api_key, .. }) => vec![("api_key", api_key)],
            Self::Google(_) | Self::Http(_) => Vec::new(),
        }
    }

    /// Their names alone.
    #[must_use]
    pub fn secrets_set(&self) -> Vec<&'static str> {
        self.secrets().into_iter().map(|(name, _)| name).collect()
    }
}

impl TwilioCredential {
    fn check(&self) -> Result<(), CredentialError> {
        if !is_sid(&self.account_sid, "AC") {
            return Err(wrong("account_sid", "expected AC and 32 hexadecimal digits"));
        }
        match &self.auth {
            TwilioAuth::AuthToken(token) => usable_in_header("auth_token", token)?,
            TwilioAuth::ApiKey { sid, .. } if !is_sid(sid, "SK") => {
                return Err(wrong("api_key_sid", "expected SK and 32 hexadecimal digits"));
            }
            TwilioAuth::ApiKey { secret, .. } => usable_in_header("api_key_secret", secret)?,
        }
        if self.phone_number.as_deref().is_some_and(|number| !is_e164(number)) {
            return Err(wrong("phone_number", "expected E.164: + and 8 to 15 digits"));
        }
        Ok(())
    }
}

impl GoogleCredential {
    /// Google's own limit for an access token is 2,048 bytes.
    fn check(&self) -> Result<(), CredentialError> {
        visible("access_token", &self.access_token, 4096)?;
        visible("refresh_token", &self.refresh_token, 4096)
    }

    /// Whether it can be stored and read again.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.check().is_ok()
    }
}

impl HttpCredential {
    fn check(&self) -> Result<(), CredentialError> {
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(named) {
            return Err(wrong("name", "expected 1 to 64 letters, digits, -, _ or ."));
        }
        if !reqwest::Url::parse(&self.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(wrong(
                "url",
                "expected an absolute URL such as https://example.com/hooks",
            ));
        }
        if self.secrets.is_empty() {
            return Err(wrong("secrets", "expected at least one"));
        }
        self.signing_keys().map(|_| ())
    }

    /// The decoded keys, newest first. Standard Webhooks: the key is the base64 after `whsec_`,
    /// decoded, 24 to 64 bytes.
    pub(crate) fn signing_keys(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, CredentialError> {
        const BASE64: GeneralPurpose = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let problem = wrong("secrets", "expected whsec_ and the base64 of 24 to 64 bytes");
        self.secrets
            .iter()
            .map(|secret| {
                let text = secret.expose_secret();
                let decoded = BASE64
                    .decode(text.strip_prefix(b"whsec_").unwrap_or(text))
                    .map(Zeroizing::new)
                    .map_err(|_| problem)?;
                if (24..=64).contains(&decoded.len()) {
                    Ok(decoded)
                } else {
                    Err(problem)
                }
            })
            .collect()
    }
}

fn usable_in_header(field: &'static str, secret: &SecretBytes) -> Result<(), CredentialError> {
    let bytes = secret.expose_secret();
    if bytes.is_empty() || bytes.len() > 512 || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(wrong(field, "expected 1 to 512 visible characters, without blanks"));
    }
    Ok(())
}

fn visible(field: &'static str, secret: &SecretBytes, bytes_max: usize) -> Result<(), CredentialError> {
    let bytes = secret.expose_secret();
    let is_usable = !bytes.is_empty() && bytes.len() <= bytes_max && bytes.iter().all(u8::is_ascii_graphic);
    if is_usable {
        Ok(())
    } else {
        Err(wrong(field, "expected visible characters, without blanks"))
    }
}
