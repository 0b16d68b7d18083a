//! Credentials as they are stored and used. Reading never repeats the text in an error: serde's own
//! messages would.

use crate::domain::{Provider, SecretBytes, Timestamp};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
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
    /// What was granted, as Google says it.
    pub scope: String,
}

/// Stored as the JSON `{"api_key","from"?}`.
#[derive(Debug)]
pub struct ResendCredential {
    pub api_key: SecretBytes,
    /// Who e-mails are from where a rule names none.
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

/// A credential that cannot be one: which field, and what is expected. Never the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct CredentialError {
    pub field: &'static str,
    pub problem: &'static str,
}

const fn wrong(field: &'static str, problem: &'static str) -> CredentialError {
    CredentialError { field, problem }
}

#[derive(Deserialize)]
struct StoredTwilio {
    account_sid: String,
    auth_token: Option<String>,
    api_key_sid: Option<String>,
    api_key_secret: Option<String>,
    phone_number: Option<String>,
}

#[derive(Deserialize)]
struct StoredKey {
    api_key: String,
    from: Option<String>,
}

#[derive(Deserialize)]
struct StoredGoogle {
    access_token: String,
    refresh_token: String,
    expires_at: String,
    scope: String,
}

#[derive(Deserialize)]
struct StoredHttp {
    name: String,
    url: String,
    secrets: Vec<String>,
}

fn json<'a, T: Deserialize<'a>>(stored: &'a SecretBytes) -> Result<T, CredentialError> {
    serde_json::from_slice(stored.expose_secret()).map_err(|_| wrong("", "not the JSON of this provider's credential"))
}

impl Credential {
    /// Reads the stored JSON of a provider and checks it.
    ///
    /// # Errors
    /// Which field is missing or cannot be used.
    pub fn parse(provider: Provider, stored: &SecretBytes) -> Result<Self, CredentialError> {
        let credential = match provider {
            Provider::Twilio => {
                let stored: StoredTwilio = json(stored)?;
                let auth = match (stored.auth_token, stored.api_key_sid, stored.api_key_secret) {
                    (Some(token), None, None) => TwilioAuth::AuthToken(token.into()),
                    (None, Some(sid), Some(secret)) => TwilioAuth::ApiKey {
                        sid,
                        secret: secret.into(),
                    },
                    (None, Some(_), None) => return Err(wrong("api_key_secret", "missing beside api_key_sid")),
                    (None, None, Some(_)) => return Err(wrong("api_key_sid", "missing beside api_key_secret")),
                    (None, None, None) => {
                        return Err(wrong(
                            "auth_token",
                            "missing: give auth_token, or api_key_sid and api_key_secret",
                        ));
                    }
                    (Some(_), ..) => return Err(wrong("auth_token", "give auth_token or an API key, not both")),
                };
                Self::Twilio(TwilioCredential {
                    account_sid: stored.account_sid,
                    auth,
                    phone_number: stored.phone_number,
                })
            }
            Provider::Vapi => Self::Vapi(VapiCredential {
                api_key: json::<StoredKey>(stored)?.api_key.into(),
            }),
            Provider::ElevenLabs => Self::ElevenLabs(ElevenLabsCredential {
                api_key: json::<StoredKey>(stored)?.api_key.into(),
            }),
            Provider::Resend => {
                let StoredKey { api_key, from } = json(stored)?;
                Self::Resend(ResendCredential {
                    api_key: api_key.into(),
                    from,
                })
            }
            Provider::GoogleCalendar => {
                let stored: StoredGoogle = json(stored)?;
                let seconds = stored
                    .expires_at
                    .parse()
                    .map_err(|_| wrong("expires_at", "expected seconds since the epoch"))?;
                Self::Google(GoogleCredential {
                    access_token: stored.access_token.into(),
                    refresh_token: stored.refresh_token.into(),
                    expires_at: Timestamp::from_seconds(seconds),
                    scope: stored.scope,
                })
            }
            Provider::Http => {
                let stored: StoredHttp = json(stored)?;
                Self::Http(HttpCredential {
                    name: stored.name,
                    url: stored.url,
                    secrets: stored.secrets.into_iter().map(SecretBytes::from).collect(),
                })
            }
        };
        credential.check()?;
        Ok(credential)
    }

    /// Whether every field can be what it says. [`Credential::parse`] calls it; `admin` does so for
    /// what a person typed.
    ///
    /// # Errors
    /// The first field that cannot.
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

    /// The JSON that [`Credential::parse`] reads. Written into one buffer that is zeroed, never
    /// grown.
    #[must_use]
    pub fn to_stored(&self) -> SecretBytes {
        let mut fields: Vec<(&str, Vec<&[u8]>, bool)> = Vec::new();
        let expires_at;
        match self {
            Self::Twilio(twilio) => {
                fields.push(("account_sid", vec![twilio.account_sid.as_bytes()], false));
                match &twilio.auth {
                    TwilioAuth::AuthToken(token) => fields.push(("auth_token", vec![token.expose_secret()], false)),
                    TwilioAuth::ApiKey { sid, secret } => {
                        fields.push(("api_key_sid", vec![sid.as_bytes()], false));
                        fields.push(("api_key_secret", vec![secret.expose_secret()], false));
                    }
                }
                if let Some(number) = &twilio.phone_number {
                    fields.push(("phone_number", vec![number.as_bytes()], false));
                }
            }
            Self::Vapi(VapiCredential { api_key }) | Self::ElevenLabs(ElevenLabsCredential { api_key }) => {
                fields.push(("api_key", vec![api_key.expose_secret()], false));
            }
            Self::Resend(resend) => {
                fields.push(("api_key", vec![resend.api_key.expose_secret()], false));
                fields.extend(resend.from.as_ref().map(|from| ("from", vec![from.as_bytes()], false)));
            }
            Self::Google(google) => {
                expires_at = google.expires_at.as_seconds().to_string();
                fields.push(("access_token", vec![google.access_token.expose_secret()], false));
                fields.push(("refresh_token", vec![google.refresh_token.expose_secret()], false));
                fields.push(("expires_at", vec![expires_at.as_bytes()], false));
                fields.push(("scope", vec![google.scope.as_bytes()], false));
            }
            Self::Http(http) => {
                fields.push(("name", vec![http.name.as_bytes()], false));
                fields.push(("url", vec![http.url.as_bytes()], false));
                fields.push((
                    "secrets",
                    http.secrets.iter().map(SecretBytes::expose_secret).collect(),
                    true,
                ));
            }
        }
        write_json(&fields)
    }
}

/// Each field is a text, or a list of texts where its flag says so.
fn write_json(fields: &[(&str, Vec<&[u8]>, bool)]) -> SecretBytes {
    // A byte takes at most six in JSON (`\u00xx`), a name and its marks at most 32.
    let most = 2 + fields
        .iter()
        .map(|(_, values, _)| 32 + values.iter().map(|value| 6 * value.len() + 3).sum::<usize>())
        .sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(most));
    for (index, (name, values, is_list)) in fields.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        write_text(&mut out, name.as_bytes());
        out.push(b':');
        if *is_list {
            out.push(b'[');
        }
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(&mut out, value);
        }
        if *is_list {
            out.push(b']');
        }
    }
    out.push(b'}');
    debug_assert!(
        out.len() <= most,
        "the buffer was grown: a copy of a secret was left behind"
    );
    SecretBytes::new(std::mem::take(&mut *out))
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
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

/// `prefix` and 32 hexadecimal digits (the pattern of Twilio's API description).
#[must_use]
pub fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// E.164 as we send it: `+`, then 8 to 15 digits that do not begin with 0. No spaces, no channel
/// prefix.
#[must_use]
pub fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `mail@example.com`, or `Name <mail@example.com>`: one mailbox, without anything that could begin
/// another header or another address.
#[must_use]
pub fn is_mailbox(text: &str) -> bool {
    let is_address = |address: &str| {
        let Some((local, domain)) = address.split_once('@') else {
            return false;
        };
        let is_plain = |c: char| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(c, '<' | '>' | '@' | '"' | ',' | ';' | ':' | '(' | ')' | '\\')
        };
        let is_label = |label: &str| {
            !label.is_empty() && !label.starts_with('-') && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        (1..=64).contains(&local.len())
            && local.chars().all(is_plain)
            && domain.len() <= 255
            && domain.contains('.')
            && domain.split('.').all(is_label)
    };
    if text.len() > 512 || text.chars().any(char::is_control) {
        return false;
    }
    match text.split_once('<') {
        Some((name, rest)) => !name.contains(['@', ',', ';', '>']) && rest.strip_suffix('>').is_some_and(is_address),
        None => is_address(text),
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

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "AC0123456789abcdef0123456789abcdef";
    const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

    fn parse(provider: Provider, json: &str) -> Result<Credential, CredentialError> {
        Credential::parse(provider, &SecretBytes::from(json.to_owned()))
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for (provider, json) in [
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","auth_token":"t\"o\\ken","phone_number":"+15550001111"}}"#),
            ),
            (
                Provider::Twilio,
                format!(
                    r#"{{"account_sid":"{SID}","api_key_sid":"SK0123456789abcdef0123456789abcdef","api_key_secret":"s3cret"}}"#
                ),
            ),
            (Provider::Vapi, r#"{"api_key":"key-1"}"#.to_owned()),
            (Provider::ElevenLabs, r#"{"api_key":"sk_1"}"#.to_owned()),
            (
                Provider::Resend,
                r#"{"api_key":"re_1","from":"Büro <a@b.example>"}"#.to_owned(),
            ),
            (
                Provider::GoogleCalendar,
                r#"{"access_token":"ya29.a","refresh_token":"1//b","expires_at":"1700000000","scope":"openid x"}"#
                    .to_owned(),
            ),
            (
                Provider::Http,
                format!(r#"{{"name":"demo","url":"https://example.com/x","secrets":["{WHSEC}","{WHSEC}"]}}"#),
            ),
        ] {
            let credential = parse(provider, &json).expect("a credential");
            assert_eq!(credential.to_stored().expose_secret(), json.as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_a_credential_names_its_field() {
        for (provider, json, field) in [
            (Provider::Twilio, "{}".to_owned(), ""),
            (Provider::Twilio, "\"secret-canary\"".to_owned(), ""),
            (
                Provider::Twilio,
                r#"{"account_sid":"AC1","auth_token":"x"}"#.to_owned(),
                "account_sid",
            ),
            (
                Provider::Twilio,
                r#"{"account_sid":"AC0123456789abcdef0123456789abcde/","auth_token":"x"}"#.to_owned(),
                "account_sid",
            ),
            (Provider::Twilio, format!(r#"{{"account_sid":"{SID}"}}"#), "auth_token"),
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","auth_token":""}}"#),
                "auth_token",
            ),
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","auth_token":"a\r\nb"}}"#),
                "auth_token",
            ),
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","auth_token":"a","api_key_sid":"b"}}"#),
                "auth_token",
            ),
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","api_key_sid":"SK1","api_key_secret":"b"}}"#),
                "api_key_sid",
            ),
            (
                Provider::Twilio,
                format!(r#"{{"account_sid":"{SID}","auth_token":"a","phone_number":"555"}}"#),
                "phone_number",
            ),
            (Provider::Vapi, r#"{"api_key":""}"#.to_owned(), "api_key"),
            (
                Provider::Http,
                format!(r#"{{"name":"a b","url":"https://example.com","secrets":["{WHSEC}"]}}"#),
                "name",
            ),
            (
                Provider::Http,
                format!(r#"{{"name":"a","url":"example.com","secrets":["{WHSEC}"]}}"#),
                "url",
            ),
            (
                Provider::Http,
                r#"{"name":"a","url":"https://example.com","secrets":[]}"#.to_owned(),
                "secrets",
            ),
            (
                Provider::Http,
                r#"{"name":"a","url":"https://example.com","secrets":["whsec_c2hvcnQ="]}"#.to_owned(),
                "secrets",
            ),
            (Provider::Resend, "{}".to_owned(), ""),
            (
                Provider::Resend,
                r#"{"api_key":"re_canary","from":"a@b.example, c@d.example"}"#.to_owned(),
                "from",
            ),
            (Provider::ElevenLabs, r#"{"api_key":"a b"}"#.to_owned(), "api_key"),
            (
                Provider::GoogleCalendar,
                r#"{"access_token":"a","refresh_token":"","expires_at":"1","scope":""}"#.to_owned(),
                "refresh_token",
            ),
            (
                Provider::GoogleCalendar,
                r#"{"access_token":"a","refresh_token":"b","expires_at":"soon","scope":""}"#.to_owned(),
                "expires_at",
            ),
        ] {
            let error = parse(provider, &json).expect_err(&json);
            assert_eq!(error.field, field, "{json}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let url =
            format!(r#"{{"name":"demo","url":"https://example.com/hooks/canary?token=canary","secrets":["{WHSEC}"]}}"#);
        for credential in [
            parse(
                Provider::Twilio,
                &format!(r#"{{"account_sid":"{SID}","auth_token":"canary"}}"#),
            ),
            parse(Provider::Vapi, r#"{"api_key":"canary"}"#),
            parse(Provider::Resend, r#"{"api_key":"canary"}"#),
            parse(Provider::ElevenLabs, r#"{"api_key":"canary"}"#),
            parse(
                Provider::GoogleCalendar,
                r#"{"access_token":"canary","refresh_token":"canary","expires_at":"1","scope":"x"}"#,
            ),
            parse(Provider::Http, &url),
        ] {
            let text = format!("{:?}", credential.expect("a credential"));
            assert!(!text.contains("canary") && !text.contains("whsec_"), "{text}");
        }
    }
}
