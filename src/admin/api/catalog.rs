//! `/api/catalog`: the parts that rules are made of. Forms, completion and `docs/rules.md` come
//! from it.

use crate::{
    action::parameters::{self, Parameter},
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::Reader,
            body::Id,
            page::Params,
            problem::{Code, Problem},
        },
    },
    domain::{ActionKind, EventType, Provider, Source},
    rule::{self, VISIBLE, Visible},
    source::{
        self,
        samples::{SAMPLES, Sample},
        sign::{form_body, form_pairs},
    },
};
use axum::{Json, Router, extract::State, routing::get};
use http::Uri;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/catalog", get(show))
        .route("/api/catalog/samples/{name}", get(sample))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct CatalogView {
    actions: Vec<ActionKindView>,
    sources: Vec<SourceView>,
    /// The names that expressions and templates can use.
    names: Vec<NameView>,
    limits: LimitsView,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ActionKindView {
    action: &'static str,
    provider: Provider,
    purpose: &'static str,
    /// How long after its event an action may begin, where its rule says nothing.
    expires_after_seconds_default: u64,
    parameters: Vec<ParameterView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ParameterView {
    name: &'static str,
    r#type: &'static str,
    required: bool,
    multiline: bool,
    help: &'static str,
    example: &'static str,
}

impl From<&Parameter> for ParameterView {
    fn from(row: &Parameter) -> Self {
        Self {
            name: row.name,
            r#type: row.shape.as_str(),
            required: row.is_required,
            multiline: row.is_multiline,
            help: row.help,
            example: row.example,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SourceView {
    source: Source,
    event_types: Vec<EventTypeView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct EventTypeView {
    /// With its source in front, as events have it. A rule takes it as well.
    r#type: String,
    /// As `event_type` of a rule is stored.
    event_type: String,
    /// Names for `/api/catalog/samples/{name}`.
    samples: Vec<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct NameView {
    name: &'static str,
    /// The source whose events have it; `null`: all.
    source: Option<Source>,
    members: &'static [&'static str],
    help: &'static str,
}

impl From<&Visible> for NameView {
    fn from(row: &Visible) -> Self {
        Self {
            name: row.name,
            source: row.source,
            members: row.members,
            help: row.help,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct LimitsView {
    name_characters_max: usize,
    template_bytes_max: usize,
    parameters_bytes_max: usize,
    expires_after_seconds_min: u32,
    expires_after_seconds_max: u32,
}

pub async fn show(State(_): Admin, Reader(_): Reader, uri: Uri) -> Answer<Json<CatalogView>> {
    Params::of(&uri)?.finish()?;
    let action = |kind: &ActionKind| ActionKindView {
        action: kind.as_str(),
        provider: kind.provider(),
        purpose: parameters::purpose(*kind),
        expires_after_seconds_default: kind.expires_after_default().as_secs(),
        parameters: parameters::parameters(*kind).iter().map(ParameterView::from).collect(),
    };
    let received = Source::ALL.iter().filter(|source| !source::kinds(**source).is_empty());
    Ok(Json(CatalogView {
        actions: ActionKind::ALL.iter().map(action).collect(),
        sources: received.map(|source| source_view(*source)).collect(),
        names: VISIBLE.iter().map(NameView::from).collect(),
        limits: LimitsView {
            name_characters_max: rule::NAME_CHARACTERS_MAX,
            template_bytes_max: rule::TEMPLATE_BYTES_MAX,
            parameters_bytes_max: rule::PARAMETERS_BYTES_MAX,
            expires_after_seconds_min: *rule::EXPIRES_AFTER_SECONDS.start(),
            expires_after_seconds_max: *rule::EXPIRES_AFTER_SECONDS.end(),
        },
    }))
}

fn source_view(source: Source) -> SourceView {
    let event_type = |kind: &&'static str| {
        let full = EventType::new(source, kind);
        EventTypeView {
            event_type: full.kind().to_owned(),
            r#type: full.to_string(),
            samples: SAMPLES
                .iter()
                .filter(|sample| sample.source == source && sample.kind() == *kind)
                .map(shown_name)
                .collect(),
        }
    };
    SourceView {
        source,
        event_types: source::kinds(source).iter().map(event_type).collect(),
    }
}

/// `vapi.status-update.ended` for `vapi/status-update.ended`: the type of the event, and the part
/// that tells the sample from others of its type.
fn shown_name(sample: &Sample) -> String {
    sample.name.replacen('/', ".", 1)
}

/// A sample in the form that a dry run takes.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SampleView {
    event_type: &'static str,
    /// JSON as the sender writes it, or a form as a text.
    body: Value,
}

pub async fn sample(State(_): Admin, Reader(_): Reader, Id(name): Id<String>, uri: Uri) -> Answer<Json<SampleView>> {
    Params::of(&uri)?.finish()?;
    let found = SAMPLES.iter().find(|sample| shown_name(sample) == name);
    let sample = found.ok_or_else(|| Problem::not_found().detail("GET /api/catalog lists the samples."))?;
    let body = if sample.text.starts_with(['{', '[']) {
        serde_json::from_str(sample.text).map_err(|_| Problem::new(Code::Internal))?
    } else {
        Value::String(form_body(&form_pairs(sample.text)))
    };
    Ok(Json(SampleView {
        event_type: sample.kind(),
        body,
    }))
}
