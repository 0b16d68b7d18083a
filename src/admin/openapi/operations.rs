//! The operations, a line each. The router stands with the resources; a test holds both against
//! each other.

use super::schemas::{Schemas, credential, listed, rule_changes, settings_changes};
use crate::{
    admin::{api::shapes::*, statistics::Over},
    domain::{ActionState, Cause, Provider, RuleSpec, Source},
    store::marks::List,
};
use serde_json::{Value, json};

/// The callers that an operation allows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anyone,
    /// A person of an organisation, or an operator.
    SignedIn,
    Viewer,
    Member,
    Admin,
    Owner,
    Operator,
}

impl Who {
    /// The least role of an organisation.
    pub const fn role(self) -> Option<&'static str> {
        match self {
            Self::Anyone | Self::SignedIn | Self::Operator => None,
            Self::Viewer => Some("viewer"),
            Self::Member => Some("member"),
            Self::Admin => Some("admin"),
            Self::Owner => Some("owner"),
        }
    }
}

type Shape = fn(&mut Schemas) -> Value;

pub struct Query {
    pub name: &'static str,
    pub schema: fn() -> Value,
}

/// The operation whose answer goes on.
const STREAM: &str = "stream";
/// The PUT that makes what is not there: there is no version yet that it could name.
const ENSURE: &str = "assistant_ensure";

pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub id: &'static str,
    pub summary: &'static str,
    pub who: Who,
    pub query: &'static [Query],
    pub body: Option<Shape>,
    pub needs_body: bool,
    pub answers: &'static [(u16, Option<Shape>)],
}

impl Operation {
    /// The form of its answers.
    pub fn media(&self) -> &'static str {
        if self.is_stream() {
            "text/event-stream"
        } else {
            "application/json"
        }
    }

    pub fn is_stream(&self) -> bool {
        self.id == STREAM
    }

    pub fn makes(&self) -> bool {
        self.id == ENSURE
    }
}

/// A path with one of its methods.
pub type PathMethod = (&'static str, &'static str);

/// Every operation of the document.
pub fn path_methods() -> Vec<PathMethod> {
    OPERATIONS.iter().map(|one| (one.path, one.method)).collect()
}

const fn query(name: &'static str, schema: fn() -> Value) -> Query {
    Query { name, schema }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn flag() -> Value {
    json!({ "type": "string", "enum": ["true", "false"] })
}

fn limit() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": 200 })
}

fn sources() -> Value {
    json!({ "type": "string", "enum": Source::ALL.map(Source::as_str) })
}

fn providers() -> Value {
    json!({ "type": "string", "enum": Provider::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>() })
}

fn number_providers() -> Value {
    json!({ "type": "string", "enum": [Provider::Twilio.as_str(), Provider::Vapi.as_str()] })
}

fn causes() -> Value {
    json!({ "type": "string", "enum": Cause::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>() })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn over() -> Value {
    json!({ "type": "string", "enum": Over::ALL.map(Over::as_str) })
}

fn states() -> Value {
    let all: Vec<_> = ActionState::ALL.iter().map(|one| one.as_str()).collect();
    let pattern = format!("^({0})(,({0}))*$", all.join("|"));
    json!({ "type": "string", "pattern": pattern, "description": "One state, or several with commas between them." })
}

const NONE: &[Query] = &[];
const PAGE: &[Query] = &[query("limit", limit), query("cursor", text)];
const OF_ORG: &[Query] = &[query("limit", limit), query("cursor", text), query("org_id", text)];
const EVENTS: &[Query] = &[
    query("limit", limit),
    query("cursor", text),
    query("source", sources),
    query("type", text),
    query("subject", text),
    query("since", time),
    query("until", time),
];
const STATISTICS: &[Query] = &[query("over", over)];
const EVENT: &[Query] = &[query("body", flag)];
const ACTIONS: &[Query] = &[
    query("limit", limit),
    query("cursor", text),
    query("state", states),
    query("event_id", text),
    query("rule_id", text),
    query("provider", providers),
    query("cause", causes),
    query("since", time),
    query("until", time),
];
const REJECTIONS: &[Query] = &[
    query("limit", limit),
    query("cursor", text),
    query("cause", text),
    query("since", time),
    query("until", time),
];
const AUDIT: &[Query] = &[
    query("limit", limit),
    query("cursor", text),
    query("actor", text),
    query("integration", text),
    query("verb", text),
    query("since", time),
    query("until", time),
];
const NUMBER: &[Query] = &[query("provider", number_providers)];
const CONNECT: &[Query] = &[query("unverified", flag), query("replace_account", flag)];
const JOB: &[Query] = &[query("org_id", text)];
const BULK: &[Query] = &[query("plan", flag)];
const AUTHORIZE: &[Query] = &[query("return_to", text), query("replace_account", flag)];
const CALLBACK: &[Query] = &[query("state", text), query("code", text), query("error", text)];
const OPEN: &[Query] = &[query("code", text), query("return_to", text)];

/// `METHOD PATH id, who, "summary", query, body, status shape, …`
macro_rules! operations {
    ($($method:ident $path:literal $id:ident $who:ident $summary:literal $query:ident
        $(body($($body:tt)+))? => $($status:literal $(($($shape:tt)+))?),+;)+) => {
        pub const OPERATIONS: &[Operation] = &[$(Operation {
            method: stringify!($method),
            path: $path,
            id: stringify!($id),
            summary: $summary,
            who: Who::$who,
            query: $query,
            body: operations!(@shape $(($($body)+))?),
            needs_body: operations!(@needed $(($($body)+))?),
            answers: &[$(($status, operations!(@shape $(($($shape)+))?))),+],
        }),+];
    };
    (@shape) => { None };
    (@shape (optional $type:ty)) => { Some(|schemas| schemas.reference::<$type>()) };
    (@shape (with $function:path)) => { Some($function) };
    (@shape (list $type:ty)) => { Some(listed::<$type>) };
    (@shape ($type:ty)) => { Some(|schemas| schemas.reference::<$type>()) };
    (@needed) => { false };
    (@needed (optional $($rest:tt)+)) => { false };
    (@needed ($($rest:tt)+)) => { true };
}

operations! {
    get "/api/openapi.json" openapi Anyone "This document" NONE => 200(with anything);
    post "/api/session" session_begin SignedIn "Make a cookie of a bearer token" NONE => 201(Me);
    delete "/api/session" session_end Anyone "Sign out" NONE => 204;
    get "/api/session/open" session_open Anyone "Sign in by a link" OPEN => 303, 204;
    get "/api/me" me SignedIn "Who is asking" NONE => 200(Me);
    get "/api/settings" settings Viewer "Show the settings of the organisation" NONE => 200(SettingsView);
    patch "/api/settings" settings_change Admin "Change settings of the organisation" NONE body(with settings_changes)
        => 200(SettingsView);
    get "/api/catalog" catalog Viewer "What rules can be made of" NONE => 200(CatalogView);
    get "/api/catalog/samples/{name}" sample Viewer "An event to try a rule on" NONE => 200(SampleView);
    get "/api/providers" providers Viewer "The forms of all providers" NONE => 200(Forms);
    get "/api/integrations/status" status Viewer "The state of every integration" NONE => 200(Status);
    post "/api/integrations/{provider}" connect Owner "Check a credential and store it" CONNECT
        body(with credential) => 200(ConnectedView);
    patch "/api/integrations/{provider}" integration_change Admin "Set when another secret is due" NONE
        body(IntegrationChanges) => 200(IntegrationView);
    delete "/api/integrations/{provider}" disconnect Owner "Erase a credential" NONE => 204;
    post "/api/integrations/{provider}/test" test Admin "Check a credential and store nothing" NONE
        body(with credential) => 200(TestedView);
    post "/api/integrations/{provider}/verify" verify Admin "Check the stored credential" NONE
        => 200(IntegrationView);
    get "/api/integrations/google_calendar/authorize" authorize Owner "Begin a consent" AUTHORIZE => 200(Authorize);
    get "/api/integrations/google_calendar/callback" callback Anyone "Where Google sends people back to" CALLBACK
        => 200(IntegrationView), 303;
    get "/api/assistants" assistants Viewer "List assistants" PAGE => 200(list AssistantView);
    post "/api/assistants" assistant_claim Admin "Claim an assistant" NONE body(NewAssistant)
        => 201(AssistantView), 200(AssistantView);
    get "/api/assistants/{id}" assistant Viewer "Show an assistant" NONE => 200(AssistantView);
    delete "/api/assistants/{id}" assistant_release Admin "Release an assistant" NONE => 204;
    put "/api/assistants/{id}" assistant_ensure Admin "Keep one assistant for a role: inbound or outbound" NONE
        body(NewManagedAssistant) => 200(ManagedAssistantView);
    get "/api/managed-assistants" managed_assistants Viewer "List the assistants that are kept" NONE
        => 200(ManagedAssistants);
    get "/api/managed-assistants/{role}" managed_assistant Viewer "Show the assistant that is kept for a role" NONE
        => 200(ManagedAssistantView);
    delete "/api/managed-assistants/{role}" managed_assistant_delete Admin "Delete it, here and at Vapi" NONE => 204;
    get "/api/phone-numbers" phone_numbers Viewer "List phone numbers" PAGE => 200(list NumberView);
    post "/api/phone-numbers" phone_number_claim Admin "Claim a phone number" NONE body(NewNumber)
        => 201(NumberView), 200(NumberView);
    get "/api/phone-numbers/{number}" phone_number Viewer "Show a phone number" NUMBER => 200(NumberView);
    delete "/api/phone-numbers/{number}" phone_number_release Admin "Release a phone number" NUMBER => 204;
    get "/api/endpoints" endpoints Viewer "List endpoints" PAGE => 200(list EndpointView);
    post "/api/endpoints" endpoint_create Admin "Make an endpoint" NONE body(NewEndpoint) => 201(EndpointDetail);
    get "/api/endpoints/{id}" endpoint Viewer "Show an endpoint" NONE => 200(EndpointDetail);
    patch "/api/endpoints/{id}" endpoint_change Admin "Change an endpoint" NONE body(EndpointChanges)
        => 200(EndpointDetail);
    delete "/api/endpoints/{id}" endpoint_delete Admin "Delete an endpoint" NONE => 204;
    post "/api/endpoints/{id}/secrets" endpoint_rotate Admin "Rotate the secret of an endpoint" NONE
        body(optional Rotation) => 201(EndpointDetail);
    get "/api/destinations" destinations Viewer "List destinations" PAGE => 200(list DestinationView);
    post "/api/destinations" destination_create Admin "Make a destination" NONE body(NewDestination)
        => 201(DestinationView);
    get "/api/destinations/{name}" destination Viewer "Show a destination" NONE => 200(DestinationView);
    patch "/api/destinations/{name}" destination_change Admin "Change a destination" NONE body(DestinationChanges)
        => 200(DestinationView);
    delete "/api/destinations/{name}" destination_delete Admin "Delete a destination" NONE => 204;
    post "/api/destinations/{name}/secrets" destination_rotate Admin "Rotate the secret of a destination" NONE
        => 201(DestinationView);
    post "/api/destinations/{name}/test" destination_test Admin "Post to a destination once" NONE
        => 200(DestinationTestView);
    get "/api/rules" rules Viewer "List rules" PAGE => 200(with rule_list);
    post "/api/rules" rule_create Admin "Make a rule" NONE body(RuleSpec) => 201(RuleView);
    post "/api/rules/dry-run" rule_try Viewer "Try a rule" NONE body(DryRunRequest) => 200(DryRunView);
    get "/api/rules/{id}" rule Viewer "Show a rule" NONE => 200(with one_rule);
    put "/api/rules/{id}" rule_replace Admin "Replace a rule" NONE body(RuleSpec) => 200(RuleView);
    patch "/api/rules/{id}" rule_change Admin "Change fields of a rule" NONE body(with rule_changes) => 200(RuleView);
    delete "/api/rules/{id}" rule_delete Admin "Delete a rule" NONE => 204;
    post "/api/rules/{id}/dry-run" rule_try_stored Viewer "Try a stored rule" NONE body(StoredDryRunRequest)
        => 200(DryRunView);
    get "/api/events" events Viewer "List events, newest first" EVENTS => 200(list EventView);
    get "/api/events/{id}" event Viewer "Show an event" EVENT => 200(EventDetail);
    post "/api/events/{id}/replay" event_replay Member "Plan an event once more" NONE body(optional ReplayRequest)
        => 202(ReplayView);
    get "/api/actions" actions Viewer "List actions, newest first" ACTIONS => 200(list ActionView);
    get "/api/actions/{id}" action Viewer "Show an action with its attempts" NONE => 200(ActionDetail);
    post "/api/actions/{id}/retry" action_retry Member "Try an action again" NONE => 200(ActionDetail);
    post "/api/actions/{id}/cancel" action_cancel Member "Cancel an action" NONE => 200(ActionDetail);
    post "/api/actions/{id}/resolve" action_resolve Member "Decide an unknown outcome" NONE body(Resolution)
        => 200(ActionDetail);
    post "/api/actions/retry" actions_retry Member "Try many actions again" BULK body(BulkRequest)
        => 200(BulkPlanView), 202(JobView);
    post "/api/actions/cancel" actions_cancel Member "Cancel many actions" BULK body(BulkRequest)
        => 200(BulkPlanView), 202(JobView);
    get "/api/jobs/{id}" job Viewer "Show the progress of a job" NONE => 200(JobView);
    post "/api/jobs/{id}/stop" job_stop Member "Stop a job" NONE => 200(JobView);
    get "/api/statistics" statistics Viewer "Count the last hour or day" STATISTICS => 200(StatisticsView);
    get "/api/stream" stream Viewer "Learn which lists change, as server-sent events" NONE => 200(with messages);
    get "/api/rejections" rejections Viewer "List refused requests" REJECTIONS => 200(list RejectionView);
    get "/api/audit" audit Viewer "List changes" AUDIT => 200(list AuditView);
    get "/operator/organizations" organizations Operator "List organisations" PAGE => 200(list OrganisationView);
    post "/operator/organizations" organization_create Operator "Make an organisation" NONE body(NewOrganisation)
        => 201(OrganisationView);
    get "/operator/rejections" rejections_of_all Operator "List refused requests of all" REJECTIONS
        => 200(list RejectionView);
    get "/operator/dead-events" dead_events Operator "List events that could not be planned" OF_ORG
        => 200(list DeadEventView);
    get "/operator/dead-events/{id}" dead_event Operator "Show an event that could not be planned" NONE
        => 200(DeadEventView);
    post "/operator/dead-events/{id}/replay" dead_event_replay Operator "Plan it again" NONE => 202(ReplayView);
    get "/operator/jobs/{id}" operator_job Operator "Show the progress of a job of an organisation" JOB => 200(JobView);
    post "/operator/jobs/{id}/stop" operator_job_stop Operator "Stop a job of an organisation" JOB => 200(JobView);
    post "/operator/actions/cancel" operator_cancel Operator "Cancel many actions of organisations" BULK
        body(OperatorCancel) => 200(BulkPlanView), 202(BegunView);
    post "/operator/actions/{id}/resolve" operator_resolve Operator "Decide an unknown outcome" NONE
        body(Resolution) => 200(ResolvedView);
    get "/api/pauses" pauses_own Viewer "What holds actions of this organisation back" NONE => 200(PausesView);
    get "/operator/pauses" pauses Operator "What is paused" NONE => 200(PausesView);
    post "/operator/pause" pause Operator "Let no attempt begin" NONE body(PauseRequest) => 200(PausedView);
    post "/operator/resume" resume Operator "Let attempts begin again" NONE body(ResumeRequest)
        => 200(ResumedView);
    get "/operator/keys" keys Operator "Which key seals, and what stands under each" NONE => 200(KeysView);
    post "/operator/keys/rotate" keys_rotate Operator "One step of a change of the key" NONE
        body(RotateRequest) => 200(RotatedView);
    get "/operator/audit" operator_audit Operator "List changes of the installation" AUDIT => 200(list AuditView);
    put "/operator/routes" route_approve Operator "Approve a route, and say who signs for it" NONE
        body(ApprovedRoute) => 200(ApprovedRouteView);
    get "/operator/quarantine" quarantine Operator "List events without an organisation" PAGE
        => 200(list QuarantineView);
    post "/operator/quarantine/{id}/replay" quarantine_replay Operator "Give one to an organisation" NONE
        body(QuarantineReplay) => 202(ReplayView);
    get "/operator/cache" cache Operator "How the caches of this process are used" NONE => 200(CachesView);
    get "/operator/statistics" samples Operator "The queue's depth and the use of caches, over the last hour or day"
        STATISTICS => 200(SamplesView);
    post "/operator/cache/invalidate" cache_invalidate Operator "Forget what is cached of an organisation" NONE
        body(Invalidate) => 200(Invalidated);
    post "/api/debug/invalidate-cache" cache_invalidate_debug Operator "The same under its former path" NONE
        body(Invalidate) => 200(Invalidated);
}

fn anything(_: &mut Schemas) -> Value {
    json!({ "type": "object" })
}

/// The messages of a stream, as a browser reads them.
fn messages(_: &mut Schemas) -> Value {
    let lists = List::ALL.map(List::as_str).join("`, `");
    json!({ "type": "string", "description": format!(
        "`event: changed` with `{{\"lists\":[…]}}` of `{lists}`; `event: end` with `{{\"reason\":…}}` of \
        `token_ended`, `session_ended`, `organisation_inactive`, `stopping`; a comment every 15 seconds."
    ) })
}

/// A page of rules, with the rules that cannot be read.
fn rule_list(schemas: &mut Schemas) -> Value {
    let mut list = listed::<RuleView>(schemas);
    list["properties"]["damaged"] = json!({ "type": "array", "items": schemas.reference::<DamagedRuleView>() });
    list["required"] = json!(["data", "next_cursor", "damaged"]);
    list
}

fn one_rule(schemas: &mut Schemas) -> Value {
    json!({ "anyOf": [schemas.reference::<RuleView>(), schemas.reference::<DamagedRuleView>()] })
}
