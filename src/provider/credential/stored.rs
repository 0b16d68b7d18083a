//! The JSON in which credentials are sealed: read, and written without leaving copies behind.

use super::{
    Credential, CredentialError, ElevenLabsCredential, GoogleCredential, HttpCredential, ResendCredential, TwilioAuth,
    TwilioCredential, VapiCredential, wrong,
};
use crate::domain::{Provider, SecretBytes, Timestamp};
use serde::Deserialize;
use zeroize::Zeroizing;

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
            Provider::Twilio => Self::Twilio(TwilioCredential::parse(stored)?),
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
            Provider::GoogleCalendar => Self::Google(GoogleCredential::parse(stored)?),
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

impl TwilioCredential {
    fn parse(stored: &SecretBytes) -> Result<Self, CredentialError> {
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
        Ok(Self {
            account_sid: stored.account_sid,
            auth,
            phone_number: stored.phone_number,
        })
    }
}

impl GoogleCredential {
    fn parse(stored: &SecretBytes) -> Result<Self, CredentialError> {
        let stored: StoredGoogle = json(stored)?;
        let seconds = stored
            .expires_at
            .parse()
            .map_err(|_| wrong("expires_at", "expected seconds since the epoch"))?;
        Ok(Self {
            access_token: stored.access_token.into(),
            refresh_token: stored.refresh_token.into(),
            expires_at: Timestamp::from_seconds(seconds),
            scope: stored.scope,
        })
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
