//! Rules: one template by itself, one event's whole plan by its rules, and the plan's transaction.

use super::{
    queue::report,
    routing::{ORG, WORLD},
};
use divan::{Bencher, black_box, counter::ItemsCount};
use hookswitch::{
    domain::{ActionId, ActionState, DedupeKey, EventId, RuleId, RuleSpec, SealedBytes},
    rule::{Budget, Compiled, Context, Sample},
    store::ledger::{Ledger, Occasion, PlannedAction, PlannedEvent},
};
use serde_json::json;
use std::sync::Arc;

/// Enough for any of these, as the default setting is.
const FUEL: u64 = 100_000;

fn rule(when: Option<&str>, parameters: &serde_json::Value) -> Compiled {
    let spec: RuleSpec = serde_json::from_value(json!({
        "name": "text", "source": "vapi", "event_type": "end-of-call-report", "when": when,
        "action": "twilio.send_sms", "parameters": parameters,
    }))
    .expect("a good rule");
    Compiled::new(&spec).expect("it compiles")
}

fn text_the_caller() -> Compiled {
    let when = r#"message.endedReason != "customer-busy""#;
    rule(
        Some(when),
        &json!({ "to": "{{ message.customer.number }}", "body": "Thank you for your call {{ message.call.id }}." }),
    )
}

/// `literal` has nothing to fill in; `filters` does what long templates do.
#[divan::bench(args = ["literal", "two values", "filters"])]
fn template(bencher: Bencher, which: &str) {
    let body = match which {
        "literal" => "Thank you for your call.",
        "two values" => "Thank you, {{ message.customer.number }}, for your call {{ message.call.id }}.",
        _ => "{% if message.endedReason is defined %}{{ message.artifact.transcript | upper | length }}{% endif %}",
    };
    let (compiled, report) = (rule(None, &json!({ "to": "+15552010188", "body": body })), report());
    let context = Context::new(&Sample::from(&report));
    bencher.bench(|| {
        compiled
            .render(black_box(&context), &mut Budget::new(FUEL))
            .expect("it renders")
    });
}

/// The condition alone, on a context that stands: what a rule costs that does not want the event.
#[divan::bench]
fn condition(bencher: Bencher) {
    let (compiled, report) = (text_the_caller(), report());
    let context = Context::new(&Sample::from(&report));
    bencher.bench(|| {
        compiled
            .matches(black_box(&context), &mut Budget::new(FUEL))
            .expect("it holds")
    });
}

/// An end-of-call report of 2 kB: parsed and masked for rules, the condition, the templates, the
/// request frozen. No I/O.
#[divan::bench(args = [1, 5])]
fn plan(bencher: Bencher, rules: usize) {
    let (rules, report): (Vec<_>, _) = ((0..rules).map(|_| text_the_caller()).collect(), report());
    bencher.bench(|| {
        let (context, mut budget) = (Context::new(&Sample::from(black_box(&report))), Budget::new(FUEL));
        for rule in &rules {
            assert!(rule.matches(&context, &mut budget).expect("it holds"));
            black_box(rule.render(&context, &mut budget).expect("it renders"));
        }
    });
}

/// The same of an event that no rule asks about: what the context costs alone.
#[divan::bench]
fn plan_context(bencher: Bencher) {
    let report = report();
    bencher.bench(|| Context::new(&Sample::from(black_box(&report))));
}

/// Events with one action each to SQLite, durable: one transaction a batch.
#[divan::bench(args = [1_usize, 64, 512], sample_count = 20, sample_size = 1)]
fn plan_transaction(bencher: Bencher, events: usize) {
    let batch = move || -> Arc<[PlannedEvent]> { (0..events).map(|_| planned()).collect() };
    bencher
        .counter(ItemsCount::new(events))
        .with_inputs(batch)
        .bench_values(|batch| WORLD.runtime.block_on(WORLD.store.plan(batch)).expect("planned"));
}

fn planned() -> PlannedEvent {
    let mut envelope = report();
    envelope.id = EventId::generate();
    envelope.dedupe_key = DedupeKey(*envelope.id.as_bytes());
    let action = PlannedAction {
        id: ActionId::generate(),
        rule: RuleId::generate(),
        rule_name: "text".to_owned(),
        kind: hookswitch::domain::ActionKind::TwilioSendSms,
        credential_name: String::new(),
        request: Some(SealedBytes(vec![7; 200].into())),
        state: ActionState::Pending,
        cause: None,
        detail: None,
        due_at: None,
        expires_at: envelope.received_at + std::time::Duration::from_hours(24),
    };
    PlannedEvent {
        org: ORG,
        body: SealedBytes(envelope.body.to_vec().into()),
        envelope,
        actions: vec![action],
        occasion: Occasion::Receipt,
    }
}
