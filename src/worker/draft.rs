//! Applies the rules of an organisation to one event, and drafts the requests that they want.

use super::rules::ActiveRule;
use crate::{
    domain::{Cause, Envelope, OrgSettings, RULES_PER_TYPE_MAX},
    rule::{Budget, Context, FieldProblem, Rendered, RuleError, Sample},
};
use std::sync::Arc;

/// A rule that wants an action for an event, and the action's request or why there is none.
pub(super) struct Drafted {
    pub rule: Arc<ActiveRule>,
    pub result: Result<Rendered, RuleError>,
}

/// Applies one rule to an event whose part has waited for this rule.
pub(super) fn draft_one(
    rule: &Arc<ActiveRule>,
    envelope: &Envelope,
    settings: Option<&Arc<OrgSettings>>,
    fuel: u64,
) -> Option<Drafted> {
    rule.is_meant(envelope)
        .then(|| draft([rule], envelope, settings, fuel))?
        .pop()
}

/// Applies rules of an organisation to one event, under one budget. A rule that fails loses its
/// own action only.
pub(super) fn draft<'r>(
    rules: impl IntoIterator<Item = &'r Arc<ActiveRule>>,
    envelope: &Envelope,
    settings: Option<&Arc<OrgSettings>>,
    fuel: u64,
) -> Vec<Drafted> {
    let mut drafted = Vec::new();
    let mut context = None;
    let mut budget = Budget::new(fuel);
    let meant = rules.into_iter().filter(|rule| rule.is_meant(envelope));
    for rule in meant.take(RULES_PER_TYPE_MAX) {
        let compiled = match rule.compiled() {
            Ok(compiled) => compiled,
            Err(problems) => {
                drafted.push(Drafted {
                    rule: rule.clone(),
                    result: Err(does_not_compile(problems)),
                });
                continue;
            }
        };
        // Made when a rule first needs it.
        let context = context.get_or_insert_with(|| {
            Context::new(&Sample {
                settings,
                ..Sample::from(envelope)
            })
        });
        let result = match compiled.matches(context, &mut budget) {
            Ok(false) => continue,
            Ok(true) => compiled.render(context, &mut budget),
            Err(error) => Err(error),
        };
        drafted.push(Drafted {
            rule: rule.clone(),
            result,
        });
    }
    drafted
}

fn does_not_compile(problems: &[FieldProblem]) -> RuleError {
    let detail = problems.first().map_or_else(String::new, |first| {
        format!("the rule does not compile: {}: {}", first.field, first.problem)
    });
    RuleError {
        cause: Cause::TemplateFailed,
        detail,
    }
}
