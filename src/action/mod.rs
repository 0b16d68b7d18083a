//! The actions at providers: one file an action. Each knows how to check its parameters, freeze its
//! request, send it, and what to do when the outcome is unknown.
//!
//! `worker` (to plan) and `attempt` (to send) enter. **Invariant:** an action gets a decrypted
//! credential as an argument and never sees the vault; a frozen request carries no secret.

mod google_calendar_create_event;
pub mod http_post;
pub mod parameters;
mod resend_send_email;
mod twilio_send_sms;

use crate::{
    domain::{ActionId, ActionKind, Cause, Delivery, Envelope, EventId, OrgId, Outcome, Timestamp},
    provider::{CallError, Credential, Providers},
};
use async_trait::async_trait;
use parameters::Shape;
use serde_json::{Map, Value};
use std::time::Duration;

/// A request as it was rendered when it was planned. A row keeps it unchanged through every attempt
/// (invariant 4).
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FrozenRequest(pub Map<String, Value>);

/// The key under which the planner hands the event to [`Action::freeze`], beside the rendered
/// parameters.
pub const EVENT_KEY: &str = "event";

/// A parameter that a rule gives wrongly, or a rendered value that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ParameterError {
    /// `parameters.to`
    pub field: String,
    /// Says what is wrong and what is expected. Carries no value from an event.
    pub problem: String,
    /// Why the action is dead, where it is found at planning.
    pub cause: Cause,
}

/// Everything that an attempt hands to an action.
pub struct Attempt<'a> {
    pub action: ActionId,
    pub org: OrgId,
    pub event: EventId,
    pub request: &'a FrozenRequest,
    /// Begins with the organisation; the same for every try at this action.
    pub idempotency_key: &'a str,
    pub credential: &'a Credential,
    /// When the event was received and when this action was planned; for bodies and headers that
    /// say so.
    pub planned_at: Timestamp,
    /// When the first attempt that may have gone out began; look-ups match nothing older.
    pub first_sent_at: Option<Timestamp>,
    /// The time that is left for the whole exchange. The lease covers it.
    pub deadline: Duration,
    /// Scheme and host under which providers reach this installation, where it has any.
    pub public_url: Option<&'a str>,
    /// Posts that led to this event (invariant 5).
    pub hops: u8,
    /// The value of `hookswitch-hops` for a post from this event: `<hops + 1>.<hex hmac>`. Made by
    /// `attempt`, which can reach the key.
    pub hops_header: Option<String>,
}

/// How an action of this kind finds out an unknown outcome (invariant 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnUnknown {
    /// Send again with the same key: the other side absorbs it. For this long after the first try.
    SameKeyAgain { window: Duration },
    /// Ask the provider's list; not before `delay` after the attempt began. It must be absent
    /// `times` over before it counts as not sent.
    LookUp {
        delay: Duration,
        times: u8,
        /// It asks by an id that we make from the action's. A row that was planned anew has another
        /// one, and asks in vain.
        is_by_own_id: bool,
    },
}

/// The provider's text about an outcome, for the people of that organisation. No secrets, no
/// personal data; at most 500 characters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Detail {
    pub http_status: Option<u16>,
    /// The provider's own code, such as `21610`.
    pub provider_code: Option<Box<str>>,
    pub text: Box<str>,
}

impl Detail {
    /// A detail of our own, without an answer of the provider.
    #[must_use]
    pub fn in_words(text: impl Into<Box<str>>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// The result of a look-up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookUp {
    /// The provider's ids of everything that matches; none when there is nothing.
    Matches(Vec<Box<str>>),
    /// It could not be seen: `Unknown` (transient, or forbidden) or `Park`.
    Failed(Outcome),
}

/// A provider's word about an action of ours (invariant 2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callback {
    pub action: ActionId,
    /// The provider's id of the thing that the action made.
    pub provider_ref: String,
    /// The delivery, where the callback reports one.
    pub delivery: Option<Delivery>,
}

/// Checks names and kinds of what a person wrote, by the table of the action.
fn check_names(kind: ActionKind, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
    let table = parameters::parameters(kind);
    for (name, value) in parameters {
        let Some(known) = table.iter().find(|known| known.name == name) else {
            let names = table.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
            return Err(invalid(name, &format!("there is no such parameter; known are {names}")));
        };
        let problem = match (known.shape, value) {
            (Shape::Text, Value::String(_)) | (Shape::Json, Value::Object(_) | Value::Array(_) | Value::String(_)) => {
                continue;
            }
            (Shape::Texts, Value::String(_)) => continue,
            (Shape::Texts, Value::Array(items)) if items.iter().all(Value::is_string) => continue,
            (Shape::Text, _) => "expected a text",
            (Shape::Texts, _) => "expected a text, or a list of texts",
            (Shape::Json, _) => "expected an object, a list or a text",
        };
        return Err(invalid(name, problem));
    }
    match table
        .iter()
        .find(|known| known.is_required && !parameters.contains_key(known.name))
    {
        Some(missing) => Err(invalid(missing.name, "missing")),
        None => Ok(()),
    }
}

/// Everything that is wrong with names and kinds of what a person wrote, at once: a form shows each
/// at its field.
#[must_use]
pub fn check_all(kind: ActionKind, parameters: &Map<String, Value>) -> Vec<ParameterError> {
    let action = get(kind);
    let mut trial = parameters.clone();
    let mut wrong: Vec<ParameterError> = Vec::new();
    while let Err(error) = action.check_parameters(&trial) {
        let name = error.field.trim_start_matches("parameters.").to_owned();
        if wrong.iter().any(|known| known.field == error.field) {
            break;
        }
        if parameters::parameters(kind).iter().any(|known| known.name == name) {
            trial.insert(name.clone(), action.stand_in(&name));
        } else {
            trial.remove(&name);
        }
        wrong.push(error);
    }
    wrong
}

/// Cuts white space off the ends of addresses and names: templates render it easily, and no
/// provider takes it.
fn trim(rendered: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        let texts = match rendered.get_mut(*name) {
            Some(Value::Array(items)) => items.as_mut_slice(),
            Some(value) => std::slice::from_mut(value),
            None => &mut [],
        };
        for value in texts {
            if let Value::String(text) = value
                && text.trim().len() < text.len()
            {
                *text = text.trim().to_owned();
            }
        }
    }
}

fn invalid(name: &str, problem: &str) -> ParameterError {
    ParameterError {
        field: format!("parameters.{name}"),
        problem: problem.to_owned(),
        cause: Cause::InvalidRequest,
    }
}

/// The detail of a call that was not accepted.
fn detail_of(error: &CallError) -> Detail {
    match error {
        CallError::Refused(refused) => Detail {
            http_status: Some(refused.http_status),
            provider_code: refused.code.clone(),
            text: refused.message.clone(),
        },
        CallError::Redirect { status, .. } => Detail {
            http_status: Some(*status),
            provider_code: None,
            text: error.to_string().into(),
        },
        _ => Detail {
            text: error.to_string().chars().take(500).collect(),
            ..Detail::default()
        },
    }
}

/// The outcome for a credential of another provider than the action's. Nothing was sent, and
/// nothing is sent until the credential changes.
fn wrong_credential() -> (Cause, Detail) {
    (
        Cause::NotConnected,
        Detail {
            text: "the credential is of another provider".into(),
            ..Detail::default()
        },
    )
}

#[async_trait]
pub trait Action: Send + Sync + 'static {
    fn kind(&self) -> ActionKind;

    fn on_unknown(&self) -> OnUnknown;

    /// Checks what a person wrote, before templates are rendered: known names, required ones there.
    /// Called on save.
    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError>;

    /// A value of a parameter that [`Action::freeze`] accepts. It stands in for a template when a
    /// rule is saved, so that the literal parameters beside it can be checked.
    fn stand_in(&self, name: &str) -> Value;

    /// Turns rendered parameters into the request to freeze. Pure.
    ///
    /// The planner adds the key [`EVENT_KEY`] to what was rendered: `{"type","timestamp","data"}`
    /// of the event (its type, its time in RFC 3339, and the body that templates see, masked as
    /// they see it). Actions that have no use for it drop it. A rule cannot give it:
    /// `check_parameters` refuses the name.
    fn freeze(&self, rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError>;

    /// One try. Never waits longer than `attempt.deadline`; what is neither clearly done nor
    /// clearly refused is `Outcome::Unknown`.
    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail);

    /// Asks the provider what it has that could be this action, created since the attempt began.
    /// The caller drops what other actions hold and decides (invariant 2).
    async fn look_up(&self, providers: &Providers, attempt: &Attempt<'_>) -> (LookUp, Detail);

    /// Reads a verified event that is a callback of the provider about one of our actions.
    fn read_callback(&self, _event: &Envelope) -> Option<Callback> {
        None
    }
}

/// The callback that a verified event is, if any action knows it as its own.
#[must_use]
pub fn read_callback(event: &Envelope) -> Option<Callback> {
    ActionKind::ALL.iter().find_map(|kind| get(*kind).read_callback(event))
}

/// The literal parameters with which no event can ever be sent, such as a recipient that is no
/// address. `freeze` checks them, with a stand-in for each template.
#[must_use]
pub fn check_literals(kind: ActionKind, parameters: &Map<String, Value>) -> Vec<ParameterError> {
    let action = get(kind);
    let mut trial = Map::new();
    for (name, value) in parameters {
        let value = if has_template(value) {
            action.stand_in(name)
        } else {
            value.clone()
        };
        trial.insert(name.clone(), value);
    }
    let mut wrong: Vec<ParameterError> = Vec::new();
    // `freeze` names one wrong parameter at a time: replace it by its stand-in and look for the
    // next.
    while let Err(error) = action.freeze(trial.clone()) {
        let name = error.field.trim_start_matches("parameters.").to_owned();
        let is_new = wrong.iter().all(|known| known.field != error.field);
        let Some(value) = trial.get_mut(&name).filter(|_| is_new) else {
            break;
        };
        *value = action.stand_in(&name);
        wrong.push(error);
    }
    wrong
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)),
        Value::Array(values) => values.iter().any(has_template),
        Value::Object(values) => values.values().any(has_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The action of a kind.
#[must_use]
pub fn get(kind: ActionKind) -> &'static dyn Action {
    match kind {
        ActionKind::TwilioSendSms => &twilio_send_sms::TwilioSendSms,
        ActionKind::HttpPost => &http_post::HttpPost,
        ActionKind::ResendSendEmail => &resend_send_email::ResendSendEmail,
        ActionKind::GoogleCalendarCreateEvent => &google_calendar_create_event::GoogleCalendarCreateEvent,
    }
}
