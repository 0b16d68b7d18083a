//! The body of a connect or a test, read by the provider's form. A field that the body leaves out
//! keeps its stored value, and `null` removes it.

use super::fields::{CheckedFields, TypedFields};
use crate::{
    admin::{
        credentials, plans,
        state::{AdminState, Answer},
        web::{
            body,
            problem::{Code, Problem},
            view::last_four,
        },
    },
    domain::{OrgId, Provider, SecretBytes, Source},
    provider::{
        Credential, ElevenLabsCredential, ResendCredential, TwilioAuth, TwilioCredential, VapiCredential,
        table::{Form, How},
    },
    source::{self, Plan},
    store::credentials::StoredCredential,
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

/// The change to the organisation's signing secrets.
pub enum SigningChange {
    Keep,
    Replace(Vec<SigningSecret>),
    Erase,
}

/// A credential, and the signing secrets that were typed beside it.
pub struct ConnectRequest {
    pub provider: Provider,
    pub credential: Credential,
    pub signing: SigningChange,
    pub last_four: Option<String>,
    /// The row that it takes the place of, erased ones included.
    pub existing: Option<StoredCredential>,
    /// Whether the body used field names of the API before this one.
    pub has_former_names: bool,
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

/// A stored credential holds visible characters alone, so it is UTF-8.
fn secret_text(secret: &SecretBytes) -> SecretString {
    SecretString::from(String::from_utf8_lossy(secret.expose_secret()).into_owned())
}

/// The credential and what changes beside it.
struct Read {
    credential: Credential,
    signing: SigningChange,
    /// The secret of the credential that was typed. `None`: the stored secret stays.
    typed: Option<SecretString>,
}

impl ConnectRequest {
    /// # Errors
    /// All fields that are wrong, or that this provider is not connected by fields.
    pub async fn read(state: &AdminState, org: OrgId, provider: Provider, request: Request) -> Answer<Self> {
        let form = Form::of(provider).ok_or(Problem::not_found())?;
        if form.how == How::Oauth {
            return Err(Problem::new(Code::NotServed).detail(
                "It is connected by consent: ask for /api/integrations/google_calendar/authorize and open its url.",
            ));
        }
        let body::Json(mut typed) = body::Json::<TypedFields>::from_request(request, &()).await?;
        let has_former_names = typed.rename_former();
        let existing = state.store.find_credential(org, provider, "").await?;
        let stored = stored_for(state, existing.as_ref(), &typed).await?;
        let mut fields = CheckedFields::new(form, typed, stored.as_ref())?;
        let read = match provider {
            Provider::Twilio => read_twilio(&mut fields, stored),
            _ => read_keyed(provider, &mut fields, stored),
        };
        fields.finish();
        let Some(read) = read else {
            // The check of the fields leaves no required field out.
            tracing::error!(provider = %provider, "A form was checked and could not be read");
            return Err(Problem::new(Code::Internal));
        };
        read.credential
            .check()
            .map_err(|error| Problem::field(Code::InvalidField, error.field, error.problem))?;
        let last_four = match &read.typed {
            Some(secret) => last_four(secret.expose_secret()),
            None => existing.as_ref().and_then(|row| row.last_four.clone()),
        };
        Ok(Self {
            provider,
            credential: read.credential,
            signing: read.signing,
            last_four,
            existing,
            has_former_names,
        })
    }
}

/// The stored credential, whose values stand in for fields that the body leaves out. `None` where
/// nothing usable is stored, and where the body names another account: nothing of one account is
/// kept for another.
async fn stored_for(
    state: &AdminState,
    existing: Option<&StoredCredential>,
    typed: &TypedFields,
) -> Answer<Option<Credential>> {
    let Some(row) = existing.filter(|row| row.is_active) else {
        return Ok(None);
    };
    let opened = credentials::open(state, row.clone()).await?;
    let stored = opened.and_then(|opened| opened.credential.ok());
    Ok(stored.filter(|stored| match (stored, typed.text("account_sid")) {
        (Credential::Twilio(twilio), Some(sid)) => sid.is_empty() || sid == twilio.account_sid,
        _ => true,
    }))
}

fn read_twilio(fields: &mut CheckedFields, stored: Option<Credential>) -> Option<Read> {
    let (mut sid, mut auth, mut number) = (None, None, None);
    if let Some(Credential::Twilio(twilio)) = stored {
        (sid, auth, number) = (Some(twilio.account_sid), Some(twilio.auth), twilio.phone_number);
    }
    let account_sid = fields.take_or_keep("account_sid", sid)?;
    let phone_number = fields.take_or_keep("phone_number", number);
    let (token, key_sid, key_secret) = (
        fields.take("auth_token"),
        fields.take("api_key_sid"),
        fields.take("api_key_secret"),
    );
    let is_token_typed = token.is_some();
    let auth = if let Some(token) = &token {
        TwilioAuth::AuthToken(secret_bytes(token))
    } else if key_sid.is_some() || key_secret.is_some() {
        let (stored_sid, stored_secret) = match auth {
            Some(TwilioAuth::ApiKey { sid, secret }) => (Some(sid), Some(secret)),
            _ => (None, None),
        };
        TwilioAuth::ApiKey {
            sid: key_sid.map(|sid| sid.expose_secret().to_owned()).or(stored_sid)?,
            secret: key_secret.as_ref().map(secret_bytes).or(stored_secret)?,
        }
    } else {
        auth?
    };
    // While a token is rotated, Twilio signs with the token that was promoted last.
    let is_second_cleared = fields.is_cleared("auth_token_secondary");
    let second = fields.take("auth_token_secondary");
    let signing = if is_token_typed || second.is_some() || is_second_cleared {
        let mut secrets = Vec::new();
        if let TwilioAuth::AuthToken(token) = &auth {
            secrets.push(SigningSecret::of(Source::Twilio, "auth_token", secret_text(token)));
        }
        secrets.extend(second.map(|second| SigningSecret::of(Source::Twilio, "auth_token_secondary", second)));
        if secrets.is_empty() {
            SigningChange::Erase
        } else {
            SigningChange::Replace(secrets)
        }
    } else {
        SigningChange::Keep
    };
    Some(Read {
        credential: Credential::Twilio(TwilioCredential {
            account_sid,
            auth,
            phone_number,
        }),
        signing,
        typed: token.or(key_secret),
    })
}

/// Providers whose credential is one API key.
fn read_keyed(provider: Provider, fields: &mut CheckedFields, stored: Option<Credential>) -> Option<Read> {
    let (stored_key, stored_from) = match stored {
        Some(
            Credential::Vapi(VapiCredential { api_key }) | Credential::ElevenLabs(ElevenLabsCredential { api_key }),
        ) => (Some(api_key), None),
        Some(Credential::Resend(ResendCredential { api_key, from })) => (Some(api_key), from),
        _ => (None, None),
    };
    let key = fields.take("api_key");
    let api_key = key.as_ref().map(secret_bytes).or(stored_key)?;
    let signing = match (source_of(provider), fields.take("webhook_secret")) {
        (Some(source), Some(secret)) => {
            SigningChange::Replace(vec![SigningSecret::of(source, "webhook_secret", secret)])
        }
        _ if fields.is_cleared("webhook_secret") => SigningChange::Erase,
        _ => SigningChange::Keep,
    };
    let credential = match provider {
        Provider::Vapi => Credential::Vapi(VapiCredential { api_key }),
        Provider::ElevenLabs => Credential::ElevenLabs(ElevenLabsCredential { api_key }),
        Provider::Resend => Credential::Resend(ResendCredential {
            api_key,
            from: fields.take_or_keep("from", stored_from),
        }),
        Provider::Twilio | Provider::GoogleCalendar | Provider::Http => return None,
    };
    Some(Read {
        credential,
        signing,
        typed: key,
    })
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
