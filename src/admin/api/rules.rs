//! `/api/rules`: the rules of an organisation. A rule is checked before it is stored, and can be
//! tried on a sample without an effect.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{self, Id, check_text},
            etag,
            page::{Listed, Page, Params},
            problem::{Code, FieldError, Problem},
            token::Member,
            view::Time,
        },
    },
    domain::{
        ActionKind, EventId, EventType, OrgId, OrgSettings, Provider, RULES_PER_TYPE_MAX, Rule, RuleId, RuleSpec,
    },
    provider::table::Form,
    rule::{self, DryRun, FieldProblem, Sample},
    store::{StoreError, audit::Changes, rules::UnreadableRule},
    vault::Purpose,
};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/rules", get(list).post(create))
        .route("/api/rules/dry-run", post(dry_run))
        .route("/api/rules/{id}", get(show).put(update).patch(patch).delete(delete))
        .route("/api/rules/{id}/dry-run", post(dry_run_stored))
}

/// Rules of one organisation, enabled or not.
const RULES_MAX: usize = 1_000;

#[derive(Serialize, utoipa::ToSchema)]
pub struct RuleView {
    id: String,
    version: i64,
    created_at: Time,
    updated_at: Time,
    etag: String,
    /// Of the answer to a write: why its actions would wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<FieldError>,
    #[serde(flatten)]
    spec: RuleSpec,
}

/// Fields of a [`RuleView`] that a person cannot change. A PUT ignores them, so that the body of a
/// GET can be changed and sent back.
const READ_ONLY: [&str; 6] = ["id", "version", "created_at", "updated_at", "etag", "warnings"];

impl RuleView {
    fn new(state: &AdminState, rule: Rule) -> Self {
        Self {
            etag: tag(state, &rule),
            id: rule.id.to_string(),
            version: rule.version,
            created_at: Time(rule.created_at),
            updated_at: Time(rule.updated_at),
            warnings: Vec::new(),
            spec: rule.spec,
        }
    }

    fn with_warnings(self, warnings: Vec<FieldError>) -> Self {
        Self { warnings, ..self }
    }
}

fn tag(state: &AdminState, rule: &Rule) -> String {
    etag::tag(&state.vault, rule.org, "rule", rule.id, rule.version)
}

/// A stored rule that this release cannot read. It can be shown and deleted; its part of each event
/// waits.
#[derive(Serialize, utoipa::ToSchema)]
pub struct DamagedRuleView {
    /// `null` where the row has no id either.
    id: Option<String>,
    damaged: bool,
    problem: String,
}

impl From<UnreadableRule> for DamagedRuleView {
    fn from(rule: UnreadableRule) -> Self {
        Self {
            id: rule.id().map(|id| id.to_string()),
            damaged: true,
            problem: format!(
                "this release cannot read the column `{}` of the stored rule: a later release may have written it",
                rule.column
            ),
        }
    }
}

#[derive(Serialize)]
pub struct RuleList {
    #[serde(flatten)]
    listed: Listed<RuleView>,
    /// On every page.
    damaged: Vec<DamagedRuleView>,
}

/// The damaged rule with an id.
async fn find_damaged(state: &AdminState, org: OrgId, id: RuleId) -> Answer<DamagedRuleView> {
    let damaged = state.store.list_unreadable_rules(org).await?;
    let found = damaged.into_iter().find(|rule| rule.id() == Some(id));
    found.map(DamagedRuleView::from).ok_or(Problem::not_found())
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<RuleList>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<RuleId>::take(&mut params, &state.vault, Some(member.org), "rules", String::new())?;
    params.finish()?;
    let rows = state.store.list_rules(member.org, page.after, page.count()).await?;
    let damaged = state.store.list_unreadable_rules(member.org).await?;
    let listed = page.answer(&state.vault, rows, |row| row.id, |row| RuleView::new(&state, row));
    Ok(Json(RuleList {
        listed,
        damaged: damaged.into_iter().map(DamagedRuleView::from).collect(),
    }))
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(id): Id<RuleId>) -> Answer<Response> {
    let rule = match state.store.find_rule(member.org, id).await {
        Ok(found) => found.ok_or(Problem::not_found())?,
        Err(StoreError::Corrupt { .. }) => {
            return Ok(Json(find_damaged(&state, member.org, id).await?).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    Ok(etag::tagged(RuleView::new(&state, rule), |view| &view.etag).into_response())
}

pub async fn create(
    State(state): Admin,
    Manager(member): Manager,
    body::Json(spec): body::Json<RuleSpec>,
) -> Answer<impl IntoResponse> {
    let spec = canonical(spec);
    check(&spec)?;
    check_destination(&state, member.org, &spec).await?;
    let _one_writer = state.rule_writes.lock().await;
    check_room(&state, member.org, None, &spec).await?;
    let now = state.now();
    let rule = Rule {
        id: RuleId::generate(),
        org: member.org,
        spec,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let audit = state.audit(&member, "create", "rule", rule.id, changed(None, Some(&rule.spec)));
    state.store.create_rule(rule.clone(), audit).await?;
    let headers = [
        (header::ETAG, etag::header_value(&tag(&state, &rule))),
        (header::LOCATION, location(rule.id)),
    ];
    let warnings = warnings(&state, member.org, &rule.spec).await?;
    let view = RuleView::new(&state, rule).with_warnings(warnings);
    Ok((StatusCode::CREATED, headers, Json(view)))
}

fn location(id: RuleId) -> http::HeaderValue {
    http::HeaderValue::from_str(&format!("/api/rules/{id}")).expect("an id is visible ASCII")
}

pub async fn update(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<RuleId>,
    headers: HeaderMap,
    body::Json(mut fields): body::Json<Map<String, Value>>,
) -> Answer<impl IntoResponse> {
    let rule = state
        .store
        .find_rule(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    etag::require(&headers, &tag(&state, &rule))?;
    fields.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    let spec = body::parse_object(fields)?;
    replace(&state, &member, rule, spec).await
}

/// Changes the fields that the body names and keeps the others; `null` removes an optional field
/// (RFC 7396, of whole fields). `If-Match` is checked where it is sent.
pub async fn patch(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<RuleId>,
    headers: HeaderMap,
    body::Json(changes): body::Json<Map<String, Value>>,
) -> Answer<impl IntoResponse> {
    let rule = state
        .store
        .find_rule(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    etag::check(&headers, &tag(&state, &rule))?;
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&rule.spec) else {
        return Err(Problem::new(Code::Internal));
    };
    for (name, value) in changes {
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    let spec = body::parse_object(fields)?;
    replace(&state, &member, rule, spec).await
}

/// Checks `spec` and stores it in the place of the version that `rule` has.
async fn replace(state: &AdminState, member: &Member, rule: Rule, spec: RuleSpec) -> Answer<impl IntoResponse + use<>> {
    let id = rule.id;
    let spec = canonical(spec);
    check(&spec)?;
    check_destination(state, member.org, &spec).await?;
    let _one_writer = state.rule_writes.lock().await;
    check_room(state, member.org, Some(id), &spec).await?;
    let changes = changed(Some(&rule.spec), Some(&spec));
    let audit = state.audit(member, "update", "rule", id, changes);
    match state.store.update_rule(member.org, id, rule.version, spec, audit).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Problem::not_found()),
        Err(StoreError::Conflict { .. }) => return Err(etag::stale()),
        Err(error) => return Err(error.into()),
    }
    let rule = state
        .store
        .find_rule(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    let warnings = warnings(state, member.org, &rule.spec).await?;
    let view = RuleView::new(state, rule).with_warnings(warnings);
    Ok(etag::tagged(view, |view| &view.etag))
}

pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<RuleId>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let (version, changes) = match state.store.find_rule(member.org, id).await {
        Ok(found) => {
            let rule = found.ok_or(Problem::not_found())?;
            let version = etag::checked(&headers, &tag(&state, &rule), rule.version)?;
            (version, changed(Some(&rule.spec), None))
        }
        // A damaged rule has no tag: it can be deleted all the same.
        Err(StoreError::Corrupt { .. }) => (None, Changes::default()),
        Err(error) => return Err(error.into()),
    };
    let audit = state.audit(&member, "delete", "rule", id, changes);
    if state.store.delete_rule(member.org, id, version, audit).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

/// The fields of a rule that differ. They are shown to every member, so none of them is a secret.
fn changed(old: Option<&RuleSpec>, new: Option<&RuleSpec>) -> Changes {
    let fields = |spec: Option<&RuleSpec>| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    names.fold(Changes::default(), |changes, name| {
        changes.value(name.as_str(), old.get(name), new.get(name))
    })
}

fn check(spec: &RuleSpec) -> Answer<()> {
    // Everything that is wrong, at once: a form shows each at its field.
    let name = check_text("name", &spec.name, rule::NAME_CHARACTERS_MAX);
    let mut wrong = rule::check(spec).err().unwrap_or_default();
    if name.is_err() {
        wrong.retain(|wrong| wrong.field != "name");
    }
    match name {
        Err(name) if wrong.is_empty() => Err(name),
        Ok(()) if wrong.is_empty() => Ok(()),
        Ok(()) => Err(invalid(wrong)),
        Err(_) => {
            let max = rule::NAME_CHARACTERS_MAX;
            let problem = format!("expected 1 to {max} characters, no control characters, and no blanks at the ends");
            let field = "name".to_owned();
            wrong.insert(0, FieldProblem { field, problem });
            Err(invalid(wrong))
        }
    }
}

/// The rule with its event type in the form that is stored.
fn canonical(mut spec: RuleSpec) -> RuleSpec {
    spec.event_type = spec.event_type.canonical(spec.source);
    spec
}

/// A destination that a rule names has to be there: without it each event would make an action that
/// parks.
async fn check_destination(state: &AdminState, org: OrgId, spec: &RuleSpec) -> Answer<()> {
    let name = spec.parameters.get("destination").and_then(Value::as_str);
    let Some(name) = name.filter(|name| spec.action == ActionKind::HttpPost && !name.contains('{')) else {
        return Ok(());
    };
    match state.store.find_credential(org, Provider::Http, name).await? {
        Some(row) if row.is_active => Ok(()),
        _ => Err(Problem::field(
            Code::RuleInvalid,
            "parameters.destination",
            "there is no destination of this name: create it first",
        )),
    }
}

/// A rule may be made before its provider is connected. Its actions then wait, and the person hears
/// of it.
async fn warnings(state: &AdminState, org: OrgId, spec: &RuleSpec) -> Answer<Vec<FieldError>> {
    let provider = spec.action.provider();
    let row = match provider {
        // By `check_destination`.
        Provider::Http => return Ok(Vec::new()),
        _ => state.store.find_credential(org, provider, "").await?,
    };
    if row.is_some_and(|row| row.is_active) {
        return Ok(Vec::new());
    }
    let name = Form::of(provider).map_or(provider.as_str(), |form| form.name);
    Ok(vec![FieldError {
        field: "action".to_owned(),
        problem: format!("{name} is not connected: actions of this rule wait until it is"),
    }])
}

fn invalid(problems: Vec<FieldProblem>) -> Problem {
    problems
        .into_iter()
        .fold(Problem::new(Code::RuleInvalid), |problem, wrong| {
            problem.and_field(wrong.field, wrong.problem)
        })
}

/// Whether there is room for `spec`, in place of the rule `instead_of` where one is given.
async fn check_room(state: &AdminState, org: OrgId, instead_of: Option<RuleId>, spec: &RuleSpec) -> Answer<()> {
    let count_max = u32::try_from(RULES_MAX).unwrap_or(u32::MAX) + 1;
    let mut others = state.store.list_rules(org, None, count_max).await?;
    others.retain(|rule| Some(rule.id) != instead_of);
    if others.len() >= RULES_MAX {
        return Err(Problem::new(Code::LimitReached).detail(format!(
            "An organisation has {RULES_MAX} rules at most; delete one first."
        )));
    }
    if !spec.enabled || others.len() < RULES_PER_TYPE_MAX {
        return Ok(());
    }
    let meets = |other: &Rule| {
        other.spec.enabled && other.spec.source == spec.source && other.spec.event_type.overlaps(&spec.event_type)
    };
    if others.iter().filter(|other| meets(other)).count() >= RULES_PER_TYPE_MAX {
        return Err(Problem::field(
            Code::LimitReached,
            "event_type",
            format!("{RULES_PER_TYPE_MAX} enabled rules can apply to events of this type already; that is the most"),
        ));
    }
    Ok(())
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRunRequest {
    spec: RuleSpec,
    event_id: Option<String>,
    sample: Option<SampleEvent>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredDryRunRequest {
    event_id: Option<String>,
    sample: Option<SampleEvent>,
}

/// A made-up event to try a rule on.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleEvent {
    /// The kind, such as `end-of-call-report`.
    event_type: String,
    /// As the sender would write it: JSON, or a form as a text.
    body: Value,
    subject: Option<String>,
    query: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DryRunView {
    /// The action would be planned with these parameters.
    Planned {
        parameters: Map<String, Value>,
        /// The end of the organisation's quiet hours, where a text that was planned now would wait
        /// for it.
        held_until: Option<Time>,
        /// Why the action would wait.
        warnings: Vec<FieldError>,
    },
    /// `field` says no: `source`, `event_type` or `when`.
    NotMatched { field: &'static str },
    /// The action would be dead.
    Failed {
        cause: &'static str,
        detail: String,
        /// The field that fails, where it is one.
        errors: Vec<FieldError>,
    },
}

pub async fn dry_run(
    State(state): Admin,
    Reader(member): Reader,
    body::Json(request): body::Json<DryRunRequest>,
) -> Answer<Json<DryRunView>> {
    let spec = canonical(request.spec);
    check(&spec)?;
    run(&state, member.org, &spec, request.event_id, request.sample).await
}

pub async fn dry_run_stored(
    State(state): Admin,
    Reader(member): Reader,
    Id(id): Id<RuleId>,
    body::Json(request): body::Json<StoredDryRunRequest>,
) -> Answer<Json<DryRunView>> {
    let rule = state
        .store
        .find_rule(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    run(&state, member.org, &rule.spec, request.event_id, request.sample).await
}

async fn run(
    state: &AdminState,
    org: OrgId,
    spec: &RuleSpec,
    event_id: Option<String>,
    sample: Option<SampleEvent>,
) -> Answer<Json<DryRunView>> {
    let settings = Arc::new(state.store.find_settings(org).await?.settings);
    let ran = match (event_id, sample) {
        (Some(id), None) => on_stored(state, org, spec, &id, &settings).await?,
        (None, Some(sample)) => on_sample(state, spec, &sample, &settings)?,
        _ => {
            return Err(Problem::field(
                Code::InvalidField,
                "event_id",
                "expected either event_id or sample, and not both",
            ));
        }
    };
    // As the worker does it with an event that comes now.
    let held_until = settings.quiet_until(state.now()).filter(|_| spec.keeps_quiet_hours());
    Ok(Json(match ran.map_err(invalid)? {
        DryRun::Planned { parameters } => DryRunView::Planned {
            parameters,
            held_until: held_until.map(Time),
            warnings: warnings(state, org, spec).await?,
        },
        DryRun::NotMatched { field } => DryRunView::NotMatched { field },
        DryRun::Failed(error) => DryRunView::Failed {
            cause: error.cause.as_str(),
            errors: field_of(&error.detail).into_iter().collect(),
            detail: error.detail,
        },
    }))
}

/// A failure begins with its field and a colon, where it is one field's.
fn field_of(detail: &str) -> Option<FieldError> {
    let (field, problem) = detail.split_once(": ")?;
    let is_field = field == "when" || field.starts_with("parameters.") && !field.contains(char::is_whitespace);
    is_field.then(|| FieldError {
        field: field.to_owned(),
        problem: problem.to_owned(),
    })
}

type Ran = Result<DryRun, Vec<FieldProblem>>;

async fn on_stored(
    state: &AdminState,
    org: OrgId,
    spec: &RuleSpec,
    id: &str,
    settings: &Arc<OrgSettings>,
) -> Answer<Ran> {
    let absent = || {
        Problem::field(
            Code::InvalidField,
            "event_id",
            "there is no such event, or its body was forgotten",
        )
    };
    let id: EventId = id.parse().map_err(|_| absent())?;
    let event = state.store.find_event(org, id).await?.ok_or_else(absent)?;
    let sealed = event.body.as_ref().ok_or_else(absent)?;
    let source = event.source.known().ok_or_else(|| {
        let problem = "the event is of a source that only a newer release knows";
        Problem::field(Code::InvalidField, "event_id", problem)
    })?;
    let headers: Vec<_> = event
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect();
    let apply = |body: &crate::domain::SecretBytes| {
        let sample = Sample {
            id,
            source,
            event_type: &event.event_type,
            subject: &event.subject,
            time: event.time,
            received_at: event.received_at,
            endpoint: event.endpoint,
            content_type: &event.content_type,
            query: &event.query,
            headers: &headers,
            body: body.expose_secret(),
            settings: Some(settings),
        };
        rule::dry_run(spec, &sample, state.template_fuel)
    };
    Ok(state.vault.open(org, Purpose::Payload, sealed, apply).await?)
}

fn on_sample(state: &AdminState, spec: &RuleSpec, sample: &SampleEvent, settings: &Arc<OrgSettings>) -> Answer<Ran> {
    let mut headers = Vec::with_capacity(sample.headers.len());
    for (name, value) in &sample.headers {
        let value = value
            .as_str()
            .ok_or_else(|| Problem::field(Code::InvalidField, "sample.headers", "expected a text for each header"))?;
        headers.push((name.to_ascii_lowercase().into(), value.into()));
    }
    let (content_type, bytes) = match &sample.body {
        Value::String(text) => ("application/x-www-form-urlencoded", text.clone().into_bytes()),
        body => ("application/json", body.to_string().into_bytes()),
    };
    let now = state.now();
    let kind = sample
        .event_type
        .strip_prefix(&format!("{}.", spec.source))
        .unwrap_or(&sample.event_type);
    let event_type = EventType::new(spec.source, kind);
    let sample = Sample {
        id: EventId::generate(),
        source: spec.source,
        event_type: &event_type,
        subject: sample.subject.as_deref().unwrap_or("sample"),
        time: now,
        received_at: now,
        endpoint: None,
        content_type,
        query: sample.query.as_deref().unwrap_or(""),
        headers: &headers,
        body: &bytes,
        settings: Some(settings),
    };
    Ok(rule::dry_run(spec, &sample, state.template_fuel))
}
