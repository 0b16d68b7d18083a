//! What a person typed, read by the provider's table: known fields only, blanks at the ends cut
//! off, each held against its shape.
//!
//! **Invariant:** a refusal names the field and what is expected, and never repeats what was typed.

use crate::{
    admin::{
        plans,
        state::Answer,
        web::{
            body,
            problem::{Code, Problem},
            view::last_four,
        },
    },
    domain::{Provider, SecretBytes, Source},
    provider::{
        Credential, ElevenLabsCredential, ResendCredential, TwilioAuth, TwilioCredential, VapiCredential,
        table::{Form, How},
    },
    source::{self, Plan},
};
use axum::extract::{FromRequest, Request};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::fmt;

/// A secret that signs webhooks, with every plan that it can sign by.
pub struct Signing {
    /// The field that it was typed into.
    pub field: &'static str,
    pub secret: SecretString,
    pub plans: Vec<Plan>,
}

/// What a person wants to connect.
pub struct Wish {
    pub provider: Provider,
    pub credential: Credential,
    pub signing: Vec<Signing>,
    pub last_four: Option<String>,
}

/// The source whose webhooks a provider's secrets sign.
pub const fn source_of(provider: Provider) -> Option<Source> {
    match provider {
        Provider::Vapi => Some(Source::Vapi),
        Provider::Twilio => Some(Source::Twilio),
        Provider::Resend => Some(Source::Resend),
        Provider::ElevenLabs => Some(Source::ElevenLabs),
        Provider::GoogleCalendar | Provider::Http => None,
    }
}

/// The fields of a body as they were typed: texts by name, each once.
struct Typed(Vec<(String, Option<SecretString>)>);

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Typed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Typed, A::Error> {
                let mut fields: Vec<(String, Option<SecretString>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<SecretString>>()? {
                    fields.push((name, value));
                }
                Ok(Typed(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Typed fields, checked against the table.
struct Checked {
    form: &'static Form,
    fields: Vec<(&'static str, SecretString)>,
}

impl Checked {
    fn new(form: &'static Form, typed: Typed) -> Answer<Self> {
        let wrong = |field: &str, problem: &str| Problem::field(Code::InvalidField, field, problem);
        // A name that nobody knows first: whoever mistyped it looks for the field that is said to
        // be missing.
        if let Some((name, _)) = typed.0.iter().find(|(name, _)| form.field(name).is_none()) {
            return Err(wrong(&body::shown_name(name), "is not a known field here"));
        }
        let mut fields: Vec<(&'static str, SecretString)> = Vec::new();
        for (field, value) in typed
            .0
            .into_iter()
            .filter_map(|(name, value)| Some((form.field(&name)?, value)))
        {
            if fields.iter().any(|(known, _)| *known == field.name) {
                return Err(wrong(field.name, "occurs more than once"));
            }
            let Some(value) = value else { continue };
            // What is pasted often has a blank or a line break at its ends.
            let text = value.expose_secret().trim();
            if text.is_empty() && !field.is_required {
                continue;
            }
            if !field.shape.matches(text) {
                return Err(wrong(field.name, field.shape.expected()));
            }
            fields.push((field.name, SecretString::from(text)));
        }
        let has = |name: &str| fields.iter().any(|(known, _)| *known == name);
        if let Some(missing) = form.fields.iter().find(|field| field.is_required && !has(field.name)) {
            return Err(wrong(missing.name, "is required"));
        }
        if !form.ways.is_empty() {
            let given = form.ways.iter().filter(|way| way.iter().any(|name| has(name))).count();
            let is_whole = form.ways.iter().filter(|way| way.iter().all(|name| has(name))).count() == 1;
            if given != 1 || !is_whole {
                let ways = form
                    .ways
                    .iter()
                    .map(|way| way.join(" with "))
                    .collect::<Vec<_>>()
                    .join(", or ");
                let first = form.ways[0][0];
                // The field that is missing where a way was begun; the first one where none or
                // several were.
                let begun = form
                    .ways
                    .iter()
                    .find(|way| way.iter().any(|name| has(name)))
                    .filter(|_| given == 1);
                let field = begun
                    .and_then(|way| way.iter().find(|name| !has(name)))
                    .copied()
                    .unwrap_or(first);
                return Err(wrong(field, &format!("expected {ways}, and not both")));
            }
        }
        Ok(Self { form, fields })
    }

    fn take(&mut self, name: &str) -> Option<SecretString> {
        let index = self.fields.iter().position(|(known, _)| *known == name)?;
        Some(self.fields.swap_remove(index).1)
    }

    fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|text| text.expose_secret().to_owned())
    }

    fn key(&mut self, name: &'static str) -> Answer<SecretString> {
        self.take(name)
            .ok_or_else(|| Problem::field(Code::InvalidField, name, "is required"))
    }
}

fn secret_bytes(secret: &SecretString) -> SecretBytes {
    SecretBytes::from(secret.expose_secret().to_owned())
}

impl Wish {
    /// # Errors
    /// The field that is wrong, or that this provider is not connected by fields.
    pub async fn read(provider: Provider, request: Request) -> Answer<Self> {
        let form = Form::of(provider).ok_or(Problem::not_found())?;
        if form.how == How::Oauth {
            return Err(Problem::new(Code::NotServed).detail(
                "It is connected by consent: ask for /api/integrations/google_calendar/authorize and open its url.",
            ));
        }
        let body::Json(typed) = body::Json::<Typed>::from_request(request, &()).await?;
        let mut fields = Checked::new(form, typed)?;
        let mut signing = Vec::new();
        let mut signs = |field: &'static str, secret: Option<SecretString>| {
            let source = source_of(provider).expect("what has a signing field has a source");
            let plans = if source == Source::Vapi {
                plans::of_vapi()
            } else {
                source::plan_default(source).into_iter().collect()
            };
            signing.extend(secret.map(|secret| Signing { field, secret, plans }));
        };
        let (credential, shown) = match provider {
            Provider::Twilio => {
                let account_sid = fields.key("account_sid")?.expose_secret().to_owned();
                let phone_number = fields.take_text("phone_number");
                let (auth, shown) = if let Some(token) = fields.take("auth_token") {
                    let (auth, shown) = (
                        TwilioAuth::AuthToken(secret_bytes(&token)),
                        last_four(token.expose_secret()),
                    );
                    signs("auth_token", Some(token));
                    (auth, shown)
                } else {
                    let (sid, secret) = (
                        fields.key("api_key_sid")?.expose_secret().to_owned(),
                        fields.key("api_key_secret")?,
                    );
                    (
                        TwilioAuth::ApiKey {
                            sid,
                            secret: secret_bytes(&secret),
                        },
                        last_four(secret.expose_secret()),
                    )
                };
                // While a token is rotated Twilio signs with whichever it has promoted.
                signs("auth_token_secondary", fields.take("auth_token_secondary"));
                (
                    Credential::Twilio(TwilioCredential {
                        account_sid,
                        auth,
                        phone_number,
                    }),
                    shown,
                )
            }
            Provider::Vapi | Provider::Resend | Provider::ElevenLabs => {
                let key = fields.key("api_key")?;
                let api_key = secret_bytes(&key);
                signs("webhook_secret", fields.take("webhook_secret"));
                let credential = match provider {
                    Provider::Vapi => Credential::Vapi(VapiCredential { api_key }),
                    Provider::ElevenLabs => Credential::ElevenLabs(ElevenLabsCredential { api_key }),
                    _ => Credential::Resend(ResendCredential {
                        api_key,
                        from: fields.take_text("from"),
                    }),
                };
                (credential, last_four(key.expose_secret()))
            }
            Provider::GoogleCalendar | Provider::Http => return Err(Problem::not_found()),
        };
        debug_assert!(
            fields.fields.is_empty(),
            "{}: a field of the table is not read",
            fields.form.name
        );
        if let Some(signed) = signing.iter().find(|signed| signed.plans.is_empty()) {
            let problem = "webhooks of this provider cannot be received in this version";
            return Err(Problem::field(Code::InvalidField, signed.field, problem));
        }
        credential
            .check()
            .map_err(|error| Problem::field(Code::InvalidField, error.field, error.problem))?;
        Ok(Self {
            provider,
            credential,
            signing,
            last_four: shown,
        })
    }
}
