//! The body of a connect or a test, read by the provider's form.

use super::fields::{CheckedFields, TypedFields};
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

/// A secret that signs webhooks, with every plan that it can sign by.
pub struct SigningSecret {
    /// The field that it was typed into.
    pub field: &'static str,
    pub secret: SecretString,
    pub plans: Vec<Plan>,
}

/// A credential, and the signing secrets that were typed beside it.
pub struct ConnectRequest {
    pub provider: Provider,
    pub credential: Credential,
    pub signing: Vec<SigningSecret>,
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

fn secret_bytes(secret: &SecretString) -> SecretBytes {
    SecretBytes::from(secret.expose_secret().to_owned())
}

impl ConnectRequest {
    /// # Errors
    /// The field that is wrong, or that this provider is not connected by fields.
    pub async fn read(provider: Provider, request: Request) -> Answer<Self> {
        let form = Form::of(provider).ok_or(Problem::not_found())?;
        if form.how == How::Oauth {
            return Err(Problem::new(Code::NotServed).detail(
                "It is connected by consent: ask for /api/integrations/google_calendar/authorize and open its url.",
            ));
        }
        let body::Json(typed) = body::Json::<TypedFields>::from_request(request, &()).await?;
        let mut fields = CheckedFields::new(form, typed)?;
        let read = match provider {
            Provider::Twilio => Self::read_twilio(&mut fields)?,
            Provider::Vapi | Provider::Resend | Provider::ElevenLabs => Self::read_keyed(provider, &mut fields)?,
            Provider::GoogleCalendar | Provider::Http => return Err(Problem::not_found()),
        };
        fields.finish();
        if let Some(secret) = read.signing.iter().find(|secret| secret.plans.is_empty()) {
            let problem = "webhooks of this provider cannot be received in this version";
            return Err(Problem::field(Code::InvalidField, secret.field, problem));
        }
        read.credential
            .check()
            .map_err(|error| Problem::field(Code::InvalidField, error.field, error.problem))?;
        Ok(read)
    }

    fn read_twilio(fields: &mut CheckedFields) -> Answer<Self> {
        let account_sid = fields.take_required("account_sid")?.expose_secret().to_owned();
        let phone_number = fields.take_text("phone_number");
        let mut signing = Vec::new();
        let (auth, shown) = if let Some(token) = fields.take("auth_token") {
            let auth = TwilioAuth::AuthToken(secret_bytes(&token));
            let shown = last_four(token.expose_secret());
            signing.push(SigningSecret::of(Source::Twilio, "auth_token", token));
            (auth, shown)
        } else {
            let sid = fields.take_required("api_key_sid")?.expose_secret().to_owned();
            let secret = fields.take_required("api_key_secret")?;
            let shown = last_four(secret.expose_secret());
            let secret = secret_bytes(&secret);
            (TwilioAuth::ApiKey { sid, secret }, shown)
        };
        // While a token is rotated, Twilio signs with the token that was promoted last.
        if let Some(token) = fields.take("auth_token_secondary") {
            signing.push(SigningSecret::of(Source::Twilio, "auth_token_secondary", token));
        }
        Ok(Self {
            provider: Provider::Twilio,
            credential: Credential::Twilio(TwilioCredential {
                account_sid,
                auth,
                phone_number,
            }),
            signing,
            last_four: shown,
        })
    }

    /// Providers whose credential is one API key.
    fn read_keyed(provider: Provider, fields: &mut CheckedFields) -> Answer<Self> {
        let key = fields.take_required("api_key")?;
        let api_key = secret_bytes(&key);
        let signing = match (source_of(provider), fields.take("webhook_secret")) {
            (Some(source), Some(secret)) => vec![SigningSecret::of(source, "webhook_secret", secret)],
            _ => Vec::new(),
        };
        let credential = match provider {
            Provider::Vapi => Credential::Vapi(VapiCredential { api_key }),
            Provider::ElevenLabs => Credential::ElevenLabs(ElevenLabsCredential { api_key }),
            _ => Credential::Resend(ResendCredential {
                api_key,
                from: fields.take_text("from"),
            }),
        };
        Ok(Self {
            provider,
            credential,
            signing,
            last_four: last_four(key.expose_secret()),
        })
    }
}

impl SigningSecret {
    fn of(source: Source, field: &'static str, secret: SecretString) -> Self {
        let plans = if source == Source::Vapi {
            plans::of_vapi()
        } else {
            source::plan_default(source).into_iter().collect()
        };
        Self { field, secret, plans }
    }
}
