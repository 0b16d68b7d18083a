//! `/api/actions`: planned actions, their outcomes, and the manual transitions retry, cancel and
//! resolve.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Reader, Retrier},
            body::{self, Id, NoFields},
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            token::Member,
            view::Time,
        },
    },
    domain::{ActionId, ActionState, Cause, DeliveryStatus, EventId, Provider, RuleId},
    store::{
        history::{ActionFilter, StoredAction, StoredAttempt},
        ledger::ManualTransition,
    },
    vault::Purpose,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/actions", get(list))
        .route("/api/actions/{id}", get(show))
        .route("/api/actions/{id}/retry", post(retry))
        .route("/api/actions/{id}/cancel", post(cancel))
        .route("/api/actions/{id}/resolve", post(resolve))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ActionView {
    id: String,
    event_id: String,
    rule_id: String,
    rule_name: String,
    /// An action of the catalogue, or the word of a newer release for one.
    action: String,
    /// A provider, or the word of a newer release for one.
    provider: String,
    /// The destination's name, for `http.post`.
    credential: Option<String>,
    state: ActionState,
    cause: Option<Cause>,
    detail: Option<String>,
    http_status: Option<u16>,
    provider_code: Option<String>,
    provider_ref: Option<String>,
    series: u32,
    /// Tries and look-ups so far.
    attempts: u32,
    /// The tries that count for the limit.
    attempts_counted: u32,
    look_ups: u32,
    /// The manual transitions that would be made now: no `retry` beside another run of the rule
    /// that has acted or may still act.
    can: Vec<&'static str>,
    /// When the action is tried or looked up next. `null` where only a person moves it.
    due_at: Option<Time>,
    expires_at: Time,
    created_at: Time,
    updated_at: Time,
    /// The delivery after the provider had accepted the action, as the provider's callbacks report
    /// it. `null` before the first callback.
    delivery: Option<DeliveryView>,
}

/// The manual transitions that are possible. An action whose request was never made cannot be sent,
/// and one beside another run of its rule is not sent again. An open outcome is only looked up. An
/// action of a kind that only a newer release knows is not tried again by this one.
fn possible(row: &StoredAction) -> Vec<&'static str> {
    use ActionState::{Cancelled, Dead, Parked, Pending, Suppressed, Unknown, Waiting};
    let state = row.state;
    let may_start = matches!(state, Dead | Parked | Suppressed | Cancelled | Waiting) && !row.has_other_run;
    let may_retry = row.request.is_some() && row.kind.known().is_some() && (state == Unknown || may_start);
    let may = [
        ("retry", may_retry),
        ("cancel", matches!(state, Pending | Waiting | Parked)),
        ("resolve", state == Unknown),
    ];
    may.into_iter().filter_map(|(verb, may)| may.then_some(verb)).collect()
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct DeliveryView {
    status: DeliveryStatus,
    code: Option<String>,
    detail: Option<String>,
    at: Time,
}

impl From<&StoredAction> for ActionView {
    fn from(row: &StoredAction) -> Self {
        let goes_on = matches!(
            row.state,
            ActionState::Pending | ActionState::Waiting | ActionState::Unknown
        );
        Self {
            id: row.id.to_string(),
            event_id: row.event.to_string(),
            rule_id: row.rule.to_string(),
            rule_name: row.rule_name.clone(),
            action: row.kind.to_string(),
            provider: row.provider.to_string(),
            credential: Some(row.credential_name.clone()).filter(|name| !name.is_empty()),
            state: row.state,
            cause: row.cause,
            detail: row.detail.clone(),
            http_status: row.http_status,
            provider_code: row.provider_code.clone(),
            provider_ref: row.provider_ref.clone(),
            series: row.series,
            attempts: row.claims,
            attempts_counted: row.attempts,
            can: possible(row),
            look_ups: row.look_ups,
            due_at: goes_on.then_some(Time(row.due_at)),
            expires_at: Time(row.expires_at),
            created_at: Time(row.created_at),
            updated_at: Time(row.updated_at),
            delivery: row.delivery.as_ref().map(|(delivery, at)| DeliveryView {
                status: delivery.status,
                code: delivery.code.clone(),
                detail: delivery.detail.clone(),
                at: Time(*at),
            }),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct AttemptView {
    number: u32,
    look_up: bool,
    started_at: Time,
    ended_at: Option<Time>,
    outcome: Option<String>,
    cause: Option<String>,
    http_status: Option<u16>,
    provider_code: Option<String>,
    detail: Option<String>,
    credential_version: Option<i64>,
}

impl From<StoredAttempt> for AttemptView {
    fn from(row: StoredAttempt) -> Self {
        Self {
            number: row.number,
            look_up: row.is_look_up,
            started_at: Time(row.started_at),
            ended_at: row.ended_at.map(Time),
            outcome: row.outcome,
            cause: row.cause,
            http_status: row.http_status,
            provider_code: row.provider_code,
            detail: row.detail,
            credential_version: row.credential_version,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ActionDetail {
    #[serde(flatten)]
    action: ActionView,
    /// The request that was rendered at planning (invariant 4). `null` where rendering failed.
    request: Option<Value>,
    attempts_made: Vec<AttemptView>,
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<ActionView>>> {
    let mut params = Params::of(&uri)?;
    let mut states = take_states(&mut params)?;
    let filter = ActionFilter {
        state: None,
        event: params.take_parsed::<EventId>("event_id")?,
        rule: params.take_parsed::<RuleId>("rule_id")?,
        provider: params.take_parsed::<Provider>("provider")?,
        cause: params.take_parsed::<Cause>("cause")?,
        period: params.take_period()?,
    };
    let of = (filter.event, filter.rule, filter.provider, filter.cause, filter.period);
    let bound = format!("{:?}", (&states, of));
    let page = Page::<ActionId>::take(&mut params, &state.vault, Some(member.org), "actions", bound)?;
    params.finish()?;
    let mut rows = Vec::new();
    if states.is_empty() {
        states.push(None);
    }
    // Read a list for each state, because an index holds each, and keep the newest of all of them.
    for one in states {
        let filter = ActionFilter { state: one, ..filter };
        let listed = state.store.list_actions(member.org, filter, page.after, page.count());
        rows.extend(listed.await?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    rows.truncate(page.count() as usize);
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.id,
        |row| ActionView::from(&row),
    )))
}

/// `state=parked,dead`: any of these. In one order, so that a cursor fits either way of writing it.
fn take_states(params: &mut Params) -> Answer<Vec<Option<ActionState>>> {
    let text = params.take("state").unwrap_or_default();
    let mut states = Vec::new();
    for one in text.split(',').filter(|_| !text.is_empty()) {
        let state = one
            .parse::<ActionState>()
            .map_err(|error| Problem::field(Code::InvalidQuery, "state", error))?;
        states.push(Some(state));
    }
    states.sort();
    states.dedup();
    Ok(states)
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(id): Id<ActionId>) -> Answer<Json<ActionDetail>> {
    detail(&state, &member, id).await
}

async fn detail(state: &AdminState, member: &Member, id: ActionId) -> Answer<Json<ActionDetail>> {
    let row = state
        .store
        .find_action(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    let attempts = state.store.list_attempts(member.org, id).await?;
    let request = match &row.request {
        None => None,
        Some(sealed) => {
            let read = |plain: &crate::domain::SecretBytes| serde_json::from_slice(plain.expose_secret()).ok();
            state.vault.open(member.org, Purpose::Payload, sealed, read).await?
        }
    };
    Ok(Json(ActionDetail {
        action: ActionView::from(&row),
        request,
        attempts_made: attempts.into_iter().map(AttemptView::from).collect(),
    }))
}

/// Tries a stopped action again. An action of unknown outcome keeps its key and is looked up first
/// (invariant 4). The lifetime of the action begins anew, as its rule says.
pub async fn retry(
    State(state): Admin,
    Retrier(member): Retrier,
    Id(id): Id<ActionId>,
    _: NoFields,
) -> Answer<Json<ActionDetail>> {
    let row = state
        .store
        .find_action(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    let kind = row.kind.known().ok_or_else(of_newer_release)?;
    let own = state
        .store
        .find_rule(member.org, row.rule)
        .await?
        .and_then(|rule| rule.spec.expires_after_seconds);
    let life = own.map_or_else(
        || kind.expires_after_default(),
        |seconds| Duration::from_secs(seconds.into()),
    );
    let now = state.now();
    let audit = state.audit(&member, "retry", "action", id, &["state"]);
    let transition = state.store.retry(member.org, id, now + life, now, audit).await?;
    transition_answer(&state, &member, id, "retry", transition).await
}

pub async fn cancel(
    State(state): Admin,
    Retrier(member): Retrier,
    Id(id): Id<ActionId>,
    _: NoFields,
) -> Answer<Json<ActionDetail>> {
    let audit = state.audit(&member, "cancel", "action", id, &["state"]);
    let transition = state.store.cancel(member.org, id, state.now(), audit).await?;
    transition_answer(&state, &member, id, "cancel", transition).await
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    outcome: ResolvedAs,
}

impl Resolution {
    /// The state that the action goes to.
    pub const fn state(&self) -> ActionState {
        match self.outcome {
            ResolvedAs::Sent => ActionState::Succeeded,
            ResolvedAs::Resend => ActionState::Pending,
        }
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum ResolvedAs {
    /// The provider carried it out.
    Sent,
    /// The provider did not carry it out: send it again.
    Resend,
}

/// A person decides the outcome of an action whose outcome is unknown (invariant 2).
pub async fn resolve(
    State(state): Admin,
    Retrier(member): Retrier,
    Id(id): Id<ActionId>,
    body::Json(resolution): body::Json<Resolution>,
) -> Answer<Json<ActionDetail>> {
    let audit = state.audit(&member, "resolve", "action", id, &["state"]);
    let (to, now) = (resolution.state(), state.now());
    let transition = state.store.resolve(member.org, id, to, now, audit).await?;
    transition_answer(&state, &member, id, "resolve", transition).await
}

async fn transition_answer(
    state: &AdminState,
    member: &Member,
    id: ActionId,
    verb: &'static str,
    transition: ManualTransition,
) -> Answer<Json<ActionDetail>> {
    match transition {
        ManualTransition::Absent => Err(Problem::not_found()),
        ManualTransition::NotFrom(from) => Err(refused_transition(state, member, id, verb, from).await?),
        ManualTransition::RanAgain { series, state } => Err(ran_again(series, state)),
        ManualTransition::Done(_) => detail(state, member, id).await,
    }
}

fn of_newer_release() -> Problem {
    Problem::new(Code::OfNewerRelease).detail(
        "A newer release planned this action, and this release does not know its kind. It can be cancelled; the newer \
         release can try it again.",
    )
}

/// To send this one as well would act twice.
pub fn ran_again(series: u32, state: ActionState) -> Problem {
    let which = match series {
        0 => "its first run".to_owned(),
        series => format!("the run of replay {series}"),
    };
    Problem::new(Code::RanAgain).detail(format!(
        "The rule ran for this event again, and {which} is {state}. To act once more all the same, replay the event \
         with \"force\": true."
    ))
}

/// Why a manual transition is not possible, and what is.
async fn refused_transition(
    state: &AdminState,
    member: &Member,
    id: ActionId,
    verb: &'static str,
    from: ActionState,
) -> Answer<Problem> {
    let row = state.store.find_action(member.org, id).await?;
    let row = row.ok_or(Problem::not_found())?;
    let has_request = row.request.is_some();
    let can = possible(&row);
    let why = if verb == "retry" && !has_request {
        "It has no request to send, because its rule could not be rendered: mend the rule, and replay the event."
            .to_owned()
    } else if can.is_empty() {
        "Nothing is to be done by hand in this state.".to_owned()
    } else {
        format!("From there: {}.", can.join(", "))
    };
    Ok(Problem::new(Code::NotFromState).detail(format!(
        "The action is {from}; {verb} is not possible from there. {why}"
    )))
}
