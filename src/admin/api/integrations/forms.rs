//! `GET /api/providers`: the table of providers, as forms are drawn from it.

use super::request::source_of;
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Reader, page::Params},
    },
    domain::Provider,
    provider::table::{FORMS, Field, Form, How, Probe},
    source,
};
use axum::{Json, extract::State};
use http::Uri;
use serde::Serialize;

#[derive(Serialize, utoipa::ToSchema)]
pub struct FieldView {
    name: &'static str,
    label: &'static str,
    required: bool,
    /// The API takes it and never shows it.
    secret: bool,
    /// A regular expression over the whole text, as HTML's `pattern`.
    pattern: String,
    expected: &'static str,
    example: &'static str,
    help: &'static str,
    help_url: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ProbeView {
    method: &'static str,
    path: &'static str,
    /// Which feature a key lacks that may not make this request.
    feature: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct FormView {
    provider: Provider,
    name: &'static str,
    help_url: &'static str,
    /// `fields` or `oauth`.
    connect: &'static str,
    /// Whether this installation can connect the provider.
    available: bool,
    fields: Vec<FieldView>,
    /// Exactly one of these sets of fields has to be given. Empty where there is no choice.
    one_of: &'static [&'static [&'static str]],
    /// The requests that check a credential.
    verify: Vec<ProbeView>,
    /// The URL to enter at the provider, shared by all organisations; endpoints have URLs of their
    /// own. `null` where nothing can be received from it, and until `HOOKSWITCH_PUBLIC_URL` is set.
    webhook_url: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct Forms {
    providers: Vec<FormView>,
}

impl From<&Field> for FieldView {
    fn from(field: &Field) -> Self {
        Self {
            name: field.name,
            label: field.label,
            required: field.is_required,
            secret: field.shape.is_secret(),
            pattern: field.shape.pattern(),
            expected: field.shape.expected(),
            example: field.example,
            help: field.help,
            help_url: field.help_url,
        }
    }
}

pub async fn list(State(state): Admin, Reader(_): Reader, uri: Uri) -> Answer<Json<Forms>> {
    Params::of(&uri)?.finish()?;
    let view = |form: &Form| FormView {
        provider: form.provider,
        name: form.name,
        help_url: form.help_url,
        connect: if form.how == How::Oauth { "oauth" } else { "fields" },
        available: form.how == How::Fields || state.providers.google.app().is_some(),
        fields: form.fields.iter().map(FieldView::from).collect(),
        one_of: form.ways,
        verify: form
            .probes
            .iter()
            .map(|Probe { method, path, feature }| ProbeView { method, path, feature })
            .collect(),
        webhook_url: source_of(form.provider)
            .filter(|source| source::plan_default(*source).is_some())
            .and_then(|source| Some(format!("{}/webhooks/{source}", state.public_url.as_ref()?))),
    };
    Ok(Json(Forms {
        providers: FORMS.iter().map(view).collect(),
    }))
}
