//! Delivery beside acceptance, and parts of events that wait for a rule.

use super::*;

pub async fn a_delivery_stands_beside_the_state_and_only_rises(b: &Bench) {
    let org = b.organisation().await;
    b.due(org, 1).await;
    let claim = b.claim_one().await;
    let sent = Record {
        provider_ref: Some("SM-1".into()),
        ..record(&claim, ActionState::Succeeded, b.now())
    };
    b.store.record(vec![sent]).await.expect("recorded");
    let deliver = |provider_ref: &'static str, status| {
        let delivery = Delivery {
            status,
            code: (status == DeliveryStatus::Undelivered).then(|| "30007".to_owned()),
            detail: None,
        };
        b.store
            .record_delivery(org, claim.action, provider_ref, delivery, b.now())
    };
    for (provider_ref, status, is_kept) in [
        ("SM-2", DeliveryStatus::Delivered, false),
        ("SM-1", DeliveryStatus::Sent, true),
        ("SM-1", DeliveryStatus::Sent, false),
        ("SM-1", DeliveryStatus::Undelivered, true),
        ("SM-1", DeliveryStatus::Sent, false),
        ("SM-1", DeliveryStatus::Failed, false),
        ("SM-1", DeliveryStatus::Delivered, true),
        ("SM-1", DeliveryStatus::Undelivered, false),
        ("SM-1", DeliveryStatus::Read, true),
    ] {
        let kept = deliver(provider_ref, status).await.expect("answered");
        assert_eq!(kept, is_kept, "{provider_ref} {status}");
    }
    assert_eq!(b.state(org, claim.action).await, ActionState::Succeeded);
    let stored = b.action(org, claim.action).await.delivery.expect("a delivery");
    assert_eq!((stored.0.status, stored.1), (DeliveryStatus::Read, b.now()));
    let other = b.organisation().await;
    let foreign = Delivery {
        status: DeliveryStatus::Read,
        code: None,
        detail: None,
    };
    let kept = b
        .store
        .record_delivery(other, claim.action, "SM-1", foreign, b.now())
        .await;
    assert!(!kept.expect("answered"), "another organisation's action");
}

pub async fn parts_are_held_once_for_each_rule_and_event_until_they_are_forgotten(b: &Bench) {
    let org = b.organisation().await;
    let part = |rule: u8, event: EventId| HeldPart {
        org,
        rule_key: Box::from([rule; 16]),
        event,
        envelope: SealedBytes(Box::from(*b"sealed")),
    };
    let (first, second) = (EventId::generate(), EventId::generate());
    for (rule, event) in [(1, second), (1, first), (1, first), (2, first)] {
        assert!(b.store.hold_part(part(rule, event)).await.expect("held"));
    }
    let mut rules = b.store.list_held_rules(10).await.expect("read");
    rules.sort();
    assert_eq!(rules, [(org, Box::from([1; 16])), (org, Box::from([2; 16]))]);
    let held = b.store.list_held_parts(org, &[1; 16], 10).await.expect("read");
    assert_eq!(held, [part(1, first), part(1, second)], "the older event first");
    b.store.drop_held_parts(held).await.expect("forgotten");
    assert_eq!(b.store.list_held_rules(10).await.expect("read").len(), 1);
    b.store.drop_held_parts(vec![part(2, first)]).await.expect("forgotten");
}

pub async fn tries_are_counted_until_they_end(b: &Bench) {
    let (org, other) = (b.organisation().await, b.organisation().await);
    let (event, neighbour) = (EventId::generate(), EventId::generate());
    let tries = async |org, event| b.store.begin_try(org, event).await.expect("recorded");
    for before in [0, 1, 2, TRIES_MAX, TRIES_MAX] {
        assert_eq!(tries(org, event).await, before);
    }
    assert_eq!(tries(org, neighbour).await, 0);
    assert_eq!(tries(other, event).await, 0, "a try is its organisation's");
    b.store.end_try(org, event).await.expect("forgotten");
    assert_eq!(tries(org, event).await, 0);
    assert_eq!(tries(org, neighbour).await, 1);
    assert_eq!(tries(other, event).await, 1);
}

/// The part of an event that is there already gets its action, once.
pub async fn a_part_is_planned_beside_what_its_event_has(b: &Bench) {
    let org = b.organisation().await;
    let whole = event(org, 1, vec![action()]);
    assert_eq!(b.plan(vec![whole.clone()]).await, [Planned::New]);
    let rule = RuleId::generate();
    let part = || PlannedEvent {
        actions: vec![PlannedAction { rule, ..action() }],
        occasion: Occasion::Rest,
        ..whole.clone()
    };
    let again = |actions: &[&PlannedAction]| Planned::Again {
        actions: actions.iter().map(|action| action.id).collect(),
    };
    let first = part();
    assert_eq!(b.plan(vec![first.clone()]).await, [again(&[&first.actions[0]])]);
    assert_eq!(b.plan(vec![part()]).await, [again(&[])]);
    let filter = ActionFilter {
        event: Some(whole.envelope.id),
        ..ActionFilter::default()
    };
    let actions = b.store.list_actions(org, filter, None, 10).await.expect("read");
    assert_eq!(actions.len(), 2);
    for claim in b.claim(10).await {
        let done = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![done]).await.expect("recorded");
    }
}
