//! Rules: compiles their expressions and templates, bounds what they see of an event, and renders
//! the request.
//!
//! `worker` (to plan) and `admin` (to check on save, to dry-run, to mask what it shows) enter.
//! Pure: no I/O, no clock. **Invariant:** a template sees the context and nothing else, text that
//! was rendered is never evaluated again, and no failure carries text of the event.

mod body;
mod compile;
mod context;
mod environment;
mod mask;
mod operators;

pub use body::shown_body;
use body::{UnreadableBody, masked_body};
pub use compile::{Compiled, Rendered};
pub use context::{Context, Sample, VISIBLE, Visible};

use crate::{
    action,
    domain::{ActionKind, Cause, EventType, RuleSpec},
    source,
};
use serde_json::{Map, Value};

/// The fault of one field of a rule, in the words of an answer's `errors`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldProblem {
    /// `name`, `when`, `parameters.to`, …
    pub field: String,
    pub problem: String,
}

/// Why a rule could not be applied to one event. Only that rule's action suffers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct RuleError {
    /// `template_failed`, `template_limit`, `unreadable_body`, or what the action says of its
    /// parameters.
    pub cause: Cause,
    /// Names the field and the problem, in the rule's words; never text of the event.
    pub detail: String,
}

/// Longest name of a rule, in characters.
pub const NAME_CHARACTERS_MAX: usize = 100;
/// Longest glob over event types, in bytes.
pub const TYPE_PATTERN_BYTES_MAX: usize = 128;
/// Longest single template or expression, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 16 << 10;
/// All texts of a rule's parameters together, in bytes.
pub const PARAMETERS_BYTES_MAX: usize = 64 << 10;
/// Longest text that one template may render, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// All texts that one rule may render for one event, in bytes.
pub const RENDERED_BYTES_MAX: usize = 256 << 10;
/// Bounds of `expires_after_seconds`: a minute, and 30 days.
pub const EXPIRES_AFTER_SECONDS: std::ops::RangeInclusive<u32> = 60..=30 * 24 * 3600;

/// The work that one event may cost over all rules of its organisation (invariant 22), in template
/// instructions. The engine also charges for the bytes that it makes.
#[derive(Debug)]
pub struct Budget {
    remaining: u64,
}

impl Budget {
    #[must_use]
    pub const fn new(fuel: u64) -> Self {
        Self { remaining: fuel }
    }

    const fn spend(&mut self, fuel: u64) {
        self.remaining = self.remaining.saturating_sub(fuel);
    }

    /// A render that fails does not say what it used. A failure is charged an eighth of the rest.
    /// So fifty failures in a row cost at most eight budgets of work, and one failure leaves the
    /// other rules enough.
    const fn spend_failure(&mut self) {
        self.remaining -= self.remaining.div_ceil(8);
    }
}

/// Whether a rule can be saved: everything compiles, only known names are used, the parameters suit
/// the action.
///
/// # Errors
/// Every problem at once, each with its field.
pub fn check(spec: &RuleSpec) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, problem: String| {
        problems.push(FieldProblem {
            field: field.to_owned(),
            problem,
        });
    };
    let name = spec.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX || name.contains('\0') {
        wrong(
            "name",
            format!("expected 1 to {NAME_CHARACTERS_MAX} characters without a NUL"),
        );
    }
    if spec.event_type.0.is_empty() || spec.event_type.0.len() > TYPE_PATTERN_BYTES_MAX {
        wrong(
            "event_type",
            format!("expected 1 to {TYPE_PATTERN_BYTES_MAX} bytes, such as end-of-call-report or status-*"),
        );
    }
    if let Some(seconds) = spec.expires_after_seconds
        && !EXPIRES_AFTER_SECONDS.contains(&seconds)
    {
        wrong(
            "expires_after_seconds",
            format!(
                "expected {} to {} seconds",
                EXPIRES_AFTER_SECONDS.start(),
                EXPIRES_AFTER_SECONDS.end()
            ),
        );
    }
    if spec.ignores_quiet_hours && spec.action != ActionKind::TwilioSendSms {
        wrong(
            "ignores_quiet_hours",
            "only twilio.send_sms waits for quiet hours: leave it out".to_owned(),
        );
    }
    if let Some((field, problem)) = no_such_event(spec) {
        wrong(field, problem);
    }
    let mut of_parameters = action::check_all(spec.action, &spec.parameters);
    if of_parameters.is_empty() {
        of_parameters = action::check_literals(spec.action, &spec.parameters);
    }
    for error in of_parameters {
        wrong(&error.field, error.problem);
    }
    if let Err(more) = Compiled::new(spec) {
        problems.extend(more);
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The field that keeps every event away from the rule, and what is wrong with it.
fn no_such_event(spec: &RuleSpec) -> Option<(&'static str, String)> {
    let kinds = source::kinds(spec.source);
    if kinds.is_empty() {
        let problem = "expected vapi or twilio: webhooks of the others cannot be received in this version";
        return Some(("source", problem.to_owned()));
    }
    let pattern = spec.event_type.canonical(spec.source);
    let exists = |kind: &&str| pattern.matches(&EventType::new(spec.source, kind));
    (!kinds.iter().any(exists)).then(|| ("event_type", no_such_type(&pattern.0, kinds)))
}

/// The words for a type that no event has, with the most similar type.
fn no_such_type(pattern: &str, kinds: &[&str]) -> String {
    let in_common = |kind: &str| kind.bytes().zip(pattern.bytes()).take_while(|(a, b)| a == b).count();
    match kinds.iter().max_by_key(|kind| in_common(kind)) {
        Some(nearest) if in_common(nearest) >= 3 => {
            format!("no event of this source has such a type; did you mean `{nearest}`?")
        }
        _ => format!(
            "no event of this source has such a type; there are {}",
            kinds.join(", ")
        ),
    }
}

/// The result of a rule for an event, without doing it.
#[derive(Clone, PartialEq, Debug)]
pub enum DryRun {
    /// Source, type or expression say no: which one.
    NotMatched { field: &'static str },
    /// The action would be planned with these parameters. Nothing was sent.
    Planned { parameters: Map<String, Value> },
    /// The action would be dead.
    Failed(RuleError),
}

/// Applies a rule to a sample or a stored event without planning anything.
///
/// # Errors
/// The rule itself is wrong, as [`check`] says.
pub fn dry_run(spec: &RuleSpec, sample: &Sample<'_>, fuel: u64) -> Result<DryRun, Vec<FieldProblem>> {
    check(spec)?;
    let rule = Compiled::new(spec)?;
    if spec.source != sample.source {
        return Ok(DryRun::NotMatched { field: "source" });
    }
    if !spec.event_type.matches(sample.event_type) {
        return Ok(DryRun::NotMatched { field: "event_type" });
    }
    let context = Context::new(sample);
    let mut budget = Budget::new(fuel);
    Ok(match rule.matches(&context, &mut budget) {
        Ok(false) => DryRun::NotMatched { field: "when" },
        Ok(true) => match rule.render(&context, &mut budget) {
            Ok(rendered) => DryRun::Planned {
                parameters: rendered.request.0,
            },
            Err(error) => DryRun::Failed(error),
        },
        Err(error) => DryRun::Failed(error),
    })
}

#[cfg(test)]
mod tests;
