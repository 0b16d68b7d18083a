//! A credential of the earlier system: opened, and read into the fields of its provider's form.

use super::rows::{CredentialRow, normal};
use crate::{
    domain::Provider,
    provider::table::{Form, How},
    vault::LegacyKey,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::fmt;

/// Names in the earlier system, letters and digits only, and the field of today.
const NAMES: &[(Provider, &str, &[&str])] = &[
    (
        Provider::Twilio,
        "account_sid",
        &["accountsid", "twilioaccountsid", "sid"],
    ),
    (
        Provider::Twilio,
        "auth_token",
        &["authtoken", "twilioauthtoken", "token"],
    ),
    (Provider::Twilio, "api_key_sid", &["apikeysid", "apikey"]),
    (Provider::Twilio, "api_key_secret", &["apikeysecret", "apisecret"]),
    (
        Provider::Twilio,
        "phone_number",
        &["phonenumber", "twiliophonenumber", "fromnumber", "from"],
    ),
    (
        Provider::Vapi,
        "api_key",
        &["apikey", "vapiapikey", "privatekey", "privateapikey"],
    ),
    (
        Provider::Vapi,
        "webhook_secret",
        &["webhooksecret", "vapiwebhooksecret", "serversecret", "serverurlsecret"],
    ),
    (Provider::Resend, "api_key", &["apikey", "resendapikey"]),
    (
        Provider::Resend,
        "from",
        &["from", "fromemail", "fromaddress", "sender"],
    ),
    (
        Provider::ElevenLabs,
        "api_key",
        &["apikey", "elevenlabsapikey", "xiapikey"],
    ),
];

/// The fields of a form, in the names of today.
pub struct Fields {
    pub fields: Vec<(&'static str, SecretString)>,
    /// Names that stand in the row and lead nowhere.
    pub ignored: Vec<String>,
    /// It stood in the column as plain text.
    pub was_plain: bool,
}

/// Texts by name. A value of another type is no field of a credential.
struct Texts(Vec<(String, Option<SecretString>)>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    let text = match value {
                        Value::String(text) => Some(SecretString::from(text)),
                        _ => None,
                    };
                    texts.push((name, text));
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// # Errors
/// Why it cannot be imported, without a value of it.
pub fn read(row: &CredentialRow, key: Option<&LegacyKey>) -> Result<Fields, String> {
    let form = Form::of(row.provider)
        .filter(|form| form.how == How::Fields)
        .ok_or("it is connected by consent: the organisation connects it anew, in the dashboard")?;
    let (texts, was_plain) = open(row, key)?;
    let mut read = Fields {
        fields: Vec::new(),
        ignored: Vec::new(),
        was_plain,
    };
    for (name, text) in texts.0 {
        let field = NAMES
            .iter()
            .find(|(provider, _, names)| *provider == row.provider && names.contains(&&*normal(&name)));
        match (field, text) {
            (Some((_, field, _)), Some(text)) if read.fields.iter().all(|(known, _)| known != field) => {
                if !text.expose_secret().trim().is_empty() {
                    read.fields.push((field, text));
                }
            }
            _ => read.ignored.push(shown(&name)),
        }
    }
    check(form, &read.fields)?;
    Ok(read)
}

fn open(row: &CredentialRow, key: Option<&LegacyKey>) -> Result<(Texts, bool), String> {
    let plain = |bytes: &[u8]| serde_json::from_slice::<Texts>(bytes).ok();
    let text = match &row.value {
        Value::Object(_) => {
            let bytes = zeroize::Zeroizing::new(row.value.to_string().into_bytes());
            let texts = plain(&bytes).ok_or("its value is no object of texts")?;
            return Ok((texts, true));
        }
        Value::String(text) => text,
        _ => return Err("its value is neither a text nor an object".to_owned()),
    };
    if let Some(texts) = plain(text.trim().as_bytes()) {
        return Ok((texts, true));
    }
    let key = key.ok_or("it is sealed: give the key of the earlier system with --key-file")?;
    let opened = key.open(text).map_err(|error| error.to_string())?;
    if let Some(texts) = plain(opened.expose_secret()) {
        return Ok((texts, false));
    }
    // A key by itself, where a provider has nothing else.
    let alone = std::str::from_utf8(opened.expose_secret()).map_err(|_| "its value is no text")?;
    let alone = alone.trim().trim_matches('"');
    if row.provider == Provider::Twilio || alone.is_empty() {
        return Err("its value is no object of texts".to_owned());
    }
    Ok((
        Texts(vec![("api_key".to_owned(), Some(alone.to_owned().into()))]),
        false,
    ))
}

/// As the admin API checks it, so that a dry run says what an import would meet.
fn check(form: &'static Form, fields: &[(&'static str, SecretString)]) -> Result<(), String> {
    for (name, text) in fields {
        let Some(field) = form.field(name) else { continue };
        if !field.shape.matches(text.expose_secret().trim()) {
            return Err(format!("{name}: {}", field.shape.expected()));
        }
    }
    let has = |name: &str| fields.iter().any(|(field, _)| *field == name);
    if let Some(field) = form.fields.iter().find(|field| field.is_required && !has(field.name)) {
        return Err(format!("{}: is not in the row", field.name));
    }
    if !form.ways.is_empty() && !form.ways.iter().any(|way| way.iter().all(|name| has(name))) {
        let ways: Vec<String> = form.ways.iter().map(|way| way.join(" with ")).collect();
        return Err(format!("{} is not in the row", ways.join(", or ")));
    }
    Ok(())
}

/// A name of a field as the report shows it: it is the row's own text.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        .take(40)
        .collect()
}
