//! `/api/actions/retry`, `/api/actions/cancel` and their jobs: many actions at once, with a look at
//! what it would touch first. The operators' cancel does the same for organisations.

use crate::{
    admin::{
        Admin, AdminState,
        api::actions::{Resolution, ran_again},
        state::Answer,
        web::{
            auth::{Operator, Reader, Retrier},
            body::{self, Id, NoFields},
            page::Params,
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{ActionId, ActionState, Cause, OrgId, Period, Provider, RuleId},
    store::{
        audit::{AuditEntry, Changes},
        bulk::{BulkCount, BulkFilter, BulkJob, BulkVerb, JobState},
        ledger::ManualTransition,
    },
};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/actions/retry", post(retry))
        .route("/api/actions/cancel", post(cancel))
        .route("/api/jobs/{id}", get(show))
        .route("/api/jobs/{id}/stop", post(stop))
        .route("/operator/jobs/{id}", get(show_to_operator))
        .route("/operator/jobs/{id}/stop", post(stop_by_operator))
        .route("/operator/actions/cancel", post(cancel_of_operator))
        .route("/operator/actions/{id}/resolve", post(resolve_of_operator))
}

/// Which actions: those that fit every field that is there.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    state: Option<ActionState>,
    provider: Option<Provider>,
    cause: Option<Cause>,
    rule_id: Option<String>,
    /// Planned at this moment or later.
    since: Option<String>,
    /// Planned before this moment.
    until: Option<String>,
}

/// The actions that a job would change. None was changed yet.
#[derive(Serialize, utoipa::ToSchema)]
pub struct BulkPlanView {
    count: u64,
    by: Vec<BulkCountView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct BulkCountView {
    org_id: String,
    state: ActionState,
    /// A provider, or the word of a newer release for one.
    provider: String,
    count: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct JobView {
    id: String,
    /// `retry` or `cancel`.
    verb: &'static str,
    /// `running`, `stopped` or `done`.
    state: &'static str,
    /// Actions that it was to touch when it began.
    planned: u64,
    done: u64,
    /// Actions that had moved on meanwhile, that have no request, or that only a newer release can
    /// try again.
    skipped: u64,
    actor: String,
    started_at: Time,
    updated_at: Time,
    ended_at: Option<Time>,
}

impl From<BulkJob> for JobView {
    fn from(job: BulkJob) -> Self {
        Self {
            id: job.id.to_string(),
            verb: job.verb.as_str(),
            state: job.state.as_str(),
            planned: job.planned,
            done: job.done,
            skipped: job.skipped,
            actor: job.actor,
            started_at: Time(job.started_at),
            updated_at: Time(job.updated_at),
            ended_at: job.ended_at.map(Time),
        }
    }
}

impl BulkPlanView {
    fn of(counts: Vec<BulkCount>) -> Self {
        Self {
            count: counts.iter().map(|one| one.count).sum(),
            by: counts
                .into_iter()
                .map(|one| BulkCountView {
                    org_id: one.org.to_string(),
                    state: one.state,
                    provider: one.provider.to_string(),
                    count: one.count,
                })
                .collect(),
        }
    }
}

impl BulkRequest {
    fn filter(self, verb: BulkVerb) -> Answer<BulkFilter> {
        let wrong = |field: &'static str, problem: &str| Problem::field(Code::InvalidField, field, problem);
        if let Some(state) = self.state
            && !verb.states().contains(&state)
        {
            let may: Vec<&str> = verb.states().iter().map(|state| state.as_str()).collect();
            return Err(wrong(
                "state",
                &format!("{} starts from: {}", verb.as_str(), may.join(", ")),
            ));
        }
        let rule = self.rule_id.map(|text| text.parse::<RuleId>()).transpose();
        let moment = |field: &'static str, text: Option<String>| {
            let parsed = text.as_deref().map(Time::parse).transpose();
            parsed.map_err(|problem| wrong(field, problem))
        };
        Ok(BulkFilter {
            state: self.state,
            provider: self.provider,
            cause: self.cause,
            rule: rule.map_err(|_| wrong("rule_id", "expected a UUID"))?,
            period: Period {
                since: moment("since", self.since)?,
                until: moment("until", self.until)?,
            },
        })
    }
}

pub async fn retry(state: Admin, retrier: Retrier, uri: Uri, request: body::Json<BulkRequest>) -> Answer<Response> {
    of_member(state, retrier, &uri, request, BulkVerb::Retry).await
}

pub async fn cancel(state: Admin, retrier: Retrier, uri: Uri, request: body::Json<BulkRequest>) -> Answer<Response> {
    of_member(state, retrier, &uri, request, BulkVerb::Cancel).await
}

async fn of_member(
    State(state): Admin,
    Retrier(member): Retrier,
    uri: &Uri,
    body::Json(request): body::Json<BulkRequest>,
    verb: BulkVerb,
) -> Answer<Response> {
    let mut params = Params::of(uri)?;
    let is_plan = params.take_flag("plan")?;
    params.finish()?;
    // Everything that was ever dead would be sent again.
    if verb == BulkVerb::Retry && request.state.is_none() {
        return Err(Problem::field(
            Code::InvalidField,
            "state",
            "is required: which actions are tried again",
        ));
    }
    let filter = request.filter(verb)?;
    let counts = state.store.count_bulk(member.org, verb, filter).await?;
    if is_plan {
        return Ok(Json(BulkPlanView::of(counts)).into_response());
    }
    let id = Uuid::now_v7();
    let audit = state.audit(&member, verb.as_str(), "actions", id, Changes::default());
    let job = begin(&state, member.org, (verb, filter), &counts, audit).await?;
    state.jobs.wake();
    Ok((StatusCode::ACCEPTED, Json(JobView::from(job))).into_response())
}

async fn begin(
    state: &AdminState,
    org: OrgId,
    (verb, filter): (BulkVerb, BulkFilter),
    counts: &[BulkCount],
    audit: AuditEntry,
) -> Answer<BulkJob> {
    let job = BulkJob {
        id: audit.target_id.parse().map_err(|_| Problem::new(Code::Internal))?,
        org,
        verb,
        filter,
        state: JobState::Running,
        planned: counts.iter().map(|one| one.count).sum(),
        done: 0,
        skipped: 0,
        actor: audit.actor.clone(),
        started_at: state.now(),
        updated_at: state.now(),
        ended_at: None,
    };
    let audit = AuditEntry {
        changes: begun(&job, counts),
        ..audit
    };
    state.store.begin_bulk(job.clone(), audit).await?;
    Ok(job)
}

/// What a job is to change: the states that it meets, those that follow, and what its filter names.
fn begun(job: &BulkJob, counts: &[BulkCount]) -> Changes {
    let after = |state: ActionState| match job.verb {
        BulkVerb::Cancel => ActionState::Cancelled,
        // An open outcome is looked up, and stays open until then.
        BulkVerb::Retry if state == ActionState::Unknown => state,
        BulkVerb::Retry => ActionState::Pending,
    };
    let states = |of: &dyn Fn(ActionState) -> ActionState| -> BTreeSet<&'static str> {
        counts.iter().map(|one| of(one.state).as_str()).collect()
    };
    let filter = &job.filter;
    Changes::default()
        .value("state", states(&|state| state), states(&after))
        .value("planned", (), job.planned)
        .value("provider", (), filter.provider)
        .value("cause", (), filter.cause)
        .value("rule_id", (), filter.rule.map(|rule| rule.to_string()))
        .value("since", (), filter.period.since.map(Time))
        .value("until", (), filter.period.until.map(Time))
}

fn stopped() -> Changes {
    Changes::default().value("state", JobState::Running.as_str(), JobState::Stopped.as_str())
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(id): Id<Uuid>) -> Answer<Json<JobView>> {
    look_at(&state, member.org, id).await
}

async fn look_at(state: &AdminState, org: OrgId, id: Uuid) -> Answer<Json<JobView>> {
    let found = state.store.find_bulk(org, id).await?;
    Ok(Json(found.ok_or(Problem::not_found())?.into()))
}

/// Actions that the job has changed stay changed.
pub async fn stop(
    State(state): Admin,
    Retrier(member): Retrier,
    Id(id): Id<Uuid>,
    _: NoFields,
) -> Answer<Json<JobView>> {
    let audit = state.audit(&member, "stop", "actions", id, stopped());
    end(&state, member.org, id, audit).await
}

async fn end(state: &AdminState, org: OrgId, id: Uuid, audit: AuditEntry) -> Answer<Json<JobView>> {
    state.store.stop_bulk(org, id, audit).await?;
    look_at(state, org, id).await
}

/// The organisation of a job that an operator names.
fn named_org(uri: &Uri) -> Answer<OrgId> {
    let mut params = Params::of(uri)?;
    let org = params.take_parsed::<OrgId>("org_id")?;
    params.finish()?;
    org.ok_or_else(|| Problem::field(Code::InvalidQuery, "org_id", "is required: the organisation of the job"))
}

pub async fn show_to_operator(State(state): Admin, _: Operator, Id(id): Id<Uuid>, uri: Uri) -> Answer<Json<JobView>> {
    look_at(&state, named_org(&uri)?, id).await
}

/// An operator stops any job, also one that the organisation's own people began.
pub async fn stop_by_operator(
    State(state): Admin,
    Operator(subject): Operator,
    Id(id): Id<Uuid>,
    uri: Uri,
    _: NoFields,
) -> Answer<Json<JobView>> {
    let org = named_org(&uri)?;
    let audit = AuditEntry {
        changes: stopped(),
        ..state.audit_of_operator(&subject, Some(org), "stop", "actions", id)
    };
    end(&state, org, id, audit).await
}

/// At least one of these.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorCancel {
    /// `true`: of every organisation.
    all: Option<bool>,
    org_id: Option<String>,
    provider: Option<Provider>,
    rule_id: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct BegunView {
    /// Actions that the jobs are to touch.
    count: u64,
    /// A job for each organisation.
    jobs: Vec<BegunJobView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct BegunJobView {
    org_id: String,
    id: String,
}

pub async fn cancel_of_operator(
    State(state): Admin,
    Operator(subject): Operator,
    uri: Uri,
    body::Json(request): body::Json<OperatorCancel>,
) -> Answer<Response> {
    let mut params = Params::of(&uri)?;
    let is_plan = params.take_flag("plan")?;
    params.finish()?;
    let (orgs, filter) = wanted(&state, request).await?;
    let mut counts = Vec::new();
    for org in orgs {
        counts.extend(state.store.count_bulk(org, BulkVerb::Cancel, filter).await?);
    }
    if is_plan {
        return Ok(Json(BulkPlanView::of(counts)).into_response());
    }
    let mut begun = BegunView {
        count: counts.iter().map(|one| one.count).sum(),
        jobs: Vec::new(),
    };
    for own in counts.chunk_by(|a, b| a.org == b.org) {
        let org = own[0].org;
        let id = Uuid::now_v7();
        let audit = state.audit_of_operator(&subject, Some(org), "cancel", "actions", id);
        begin(&state, org, (BulkVerb::Cancel, filter), own, audit).await?;
        begun.jobs.push(BegunJobView {
            org_id: org.to_string(),
            id: id.to_string(),
        });
    }
    state.jobs.wake();
    Ok((StatusCode::ACCEPTED, Json(begun)).into_response())
}

async fn wanted(state: &AdminState, request: OperatorCancel) -> Answer<(Vec<OrgId>, BulkFilter)> {
    let wrong = |field: &'static str, problem: &str| Problem::field(Code::InvalidField, field, problem);
    let org = request.org_id.map(|text| text.parse::<OrgId>()).transpose();
    let org = org.map_err(|_| wrong("org_id", "expected a UUID"))?;
    let rule = request.rule_id.map(|text| text.parse::<RuleId>()).transpose();
    let rule = rule.map_err(|_| wrong("rule_id", "expected a UUID"))?;
    let filter = BulkFilter {
        provider: request.provider,
        rule,
        ..BulkFilter::default()
    };
    let orgs = match (org, rule) {
        (Some(org), _) => vec![org],
        (None, Some(rule)) => {
            let owner = state.store.find_org_of_rule(rule).await?;
            vec![owner.ok_or_else(|| wrong("rule_id", "is no rule here"))?]
        }
        (None, None) if request.all == Some(true) || request.provider.is_some() => {
            state.store.list_orgs_with_open_actions().await?
        }
        (None, None) => return Err(wrong("all", "name all (true), org_id, provider or rule_id")),
    };
    Ok((orgs, filter))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ResolvedView {
    id: String,
    org_id: String,
    state: ActionState,
}

/// An operator decides an open outcome, as the organisation's own people can.
pub async fn resolve_of_operator(
    State(state): Admin,
    Operator(subject): Operator,
    Id(id): Id<ActionId>,
    body::Json(resolution): body::Json<Resolution>,
) -> Answer<Json<ResolvedView>> {
    let found = state.store.find_org_of_action(id).await?;
    let org = found.ok_or(Problem::not_found())?;
    let audit = state.audit_of_operator(&subject, Some(org), "resolve", "action", id);
    match state
        .store
        .resolve(org, id, resolution.state(), state.now(), audit)
        .await?
    {
        ManualTransition::Absent => Err(Problem::not_found()),
        ManualTransition::NotFrom(from) => Err(Problem::new(Code::NotFromState)
            .detail(format!("The action is {from}; only an unknown outcome can be decided."))),
        ManualTransition::RanAgain { series, state } => Err(ran_again(series, state)),
        ManualTransition::Done(state) => Ok(Json(ResolvedView {
            id: id.to_string(),
            org_id: org.to_string(),
            state,
        })),
    }
}
