//! Events that wait in the store, and dead events on their way back.

use super::*;
use hookswitch::store::audit::AuditFilter;
use hookswitch::store::{dead::Replayed, held::HeldEvent};

pub async fn held_events_are_read_by_organisation_in_their_order(b: &Bench) {
    let (first, second) = (EventId::generate(), EventId::generate());
    // Neither is known to the store: an organisation may be what is waited for.
    let mut orgs = [OrgId::generate(), OrgId::generate()];
    orgs.sort();
    let held = |org, event| HeldEvent {
        org,
        event,
        cause: HeldCause::OrganisationUnknown,
        received_at: b.now(),
        envelope: SealedBytes(Box::from(*b"sealed")),
        replay: None,
    };
    let rows = vec![
        held(orgs[0], second),
        held(orgs[0], first),
        held(orgs[1], first),
        held(orgs[0], first),
    ];
    b.store.hold_events(rows).await.expect("held");
    let state = b.store.ledger_state().await.expect("read");
    assert_eq!(state.held, [(HeldCause::OrganisationUnknown, 3)]);
    assert_eq!(state.oldest_held_at, Some(b.now()));
    let next = |after| b.store.next_held_org(after);
    assert_eq!(next(None).await.expect("read"), Some(orgs[0]));
    assert_eq!(next(Some(orgs[0])).await.expect("read"), Some(orgs[1]));
    assert_eq!(next(Some(orgs[1])).await.expect("read"), None);
    let list = |after, count_max| b.store.list_held_events(orgs[0], after, count_max);
    let both = [held(orgs[0], first), held(orgs[0], second)];
    assert_eq!(list(None, 10).await.expect("read"), both);
    assert_eq!(list(None, 1).await.expect("read"), both[..1]);
    assert_eq!(list(Some(first), 10).await.expect("read"), both[1..]);
    let all = vec![(orgs[0], first), (orgs[0], second), (orgs[1], first)];
    b.store.drop_held_events(all).await.expect("forgotten");
    assert_eq!(next(None).await.expect("read"), None);
    assert_eq!(b.store.ledger_state().await.expect("read").oldest_held_at, None);
}

pub async fn a_dead_event_is_put_back_once_with_its_audit_entry(b: &Bench) {
    let (org, other) = (b.organisation().await, b.organisation().await);
    let dead = |id, org, envelope: &[u8]| DeadEvent {
        id,
        org,
        source: Some(Source::Vapi),
        event_type: Some(EventType::new(Source::Vapi, "end-of-call-report")),
        received_at: b.now(),
        reason: "planning it broke".into(),
        envelope: envelope.into(),
    };
    let ids: [EventId; 3] = std::array::from_fn(|_| EventId::generate());
    for event in [
        dead(ids[0], Some(org), b"sealed"),
        dead(ids[1], Some(org), b""),
        dead(ids[2], None, b""),
    ] {
        b.store.store_dead_event(event).await.expect("stored");
    }
    assert_eq!(b.store.ledger_state().await.expect("read").dead_events, 3);
    let listed = |org, before| async move {
        let rows = b.store.list_dead_events(org, before, 10).await.expect("read");
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, None).await, [ids[2], ids[1], ids[0]], "newest first");
    assert_eq!(listed(Some(org), None).await, [ids[1], ids[0]]);
    assert_eq!(listed(None, Some(ids[1])).await, [ids[0]]);
    assert_eq!(listed(Some(other), None).await, []);

    let entry = |org| AuditEntry {
        verb: "replay",
        ..audit(org)
    };
    let replay = |org, id| b.store.replay_dead_event(org, id, entry(org));
    let version = b.store.config_version().await.expect("read");
    assert_eq!(replay(other, ids[0]).await.expect("answered"), Replayed::Absent);
    assert_eq!(replay(org, ids[1]).await.expect("answered"), Replayed::NothingKept);
    assert_eq!(b.store.config_version().await.expect("read"), version);
    assert_eq!(replay(org, ids[0]).await.expect("answered"), Replayed::PutBack);
    assert_eq!(replay(org, ids[0]).await.expect("answered"), Replayed::Absent);
    assert!(b.store.config_version().await.expect("read") > version, "workers look");
    assert_eq!(listed(None, None).await, [ids[2], ids[1]]);
    let held = b.store.list_held_events(org, None, 10).await.expect("read");
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].event, held[0].cause, &*held[0].envelope.0),
        (ids[0], HeldCause::Replay, b"sealed".as_slice())
    );
    let entries = b
        .store
        .list_audit(org, AuditFilter::default(), None, 10)
        .await
        .expect("read");
    assert_eq!(entries.iter().filter(|entry| entry.verb == "replay").count(), 1);
    b.store.drop_held_events(vec![(org, ids[0])]).await.expect("forgotten");
}

/// Invariant 4: a replay passes dedupe by its series, and leaves alone what has been done or may
/// still be done. The same series plans each action once.
pub async fn a_replay_plans_what_has_not_succeeded(b: &Bench) {
    let org = b.organisation().await;
    let rules: [RuleId; 4] = std::array::from_fn(|_| RuleId::generate());
    let actions = || {
        rules
            .iter()
            .map(|&rule| PlannedAction { rule, ..action() })
            .collect::<Vec<_>>()
    };
    let first = event(org, 1, actions());
    assert_eq!(b.plan(vec![first.clone()]).await, [Planned::New]);
    for (claim, end) in b.claim(10).await.iter().zip([
        ActionState::Succeeded,
        ActionState::Dead,
        ActionState::Parked,
        ActionState::Suppressed,
    ]) {
        let ended = record(claim, end, b.now());
        b.store.record(vec![ended]).await.expect("recorded");
    }
    let state = |rule: usize| {
        let id = first.actions[rule].id;
        async move { b.state(org, id).await }
    };
    let failed: Vec<usize> = {
        let mut failed = Vec::new();
        for rule in 0..rules.len() {
            if matches!(state(rule).await, ActionState::Dead | ActionState::Suppressed) {
                failed.push(rule);
            }
        }
        failed
    };
    assert_eq!(failed.len(), 2);

    let again = |series, is_forced| PlannedEvent {
        actions: actions(),
        occasion: Occasion::Replay(Replay { series, is_forced }),
        ..first.clone()
    };
    let rules_of = |event: &PlannedEvent, planned: &[Planned]| -> Vec<RuleId> {
        let [Planned::Again { actions }] = planned else {
            panic!("{planned:?}")
        };
        let of = |id: &ActionId| event.actions.iter().find(|action| action.id == *id).expect("its own");
        actions.iter().map(|id| of(id).rule).collect()
    };
    let replay = again(1, false);
    let planned = b.plan(vec![replay.clone()]).await;
    let expected: Vec<RuleId> = failed.iter().map(|&rule| rules[rule]).collect();
    assert_eq!(rules_of(&replay, &planned), expected);
    for rule in &failed {
        assert_eq!(b.action(org, replay.actions[*rule].id).await.series, 1);
    }
    // The worker died before it forgot the held event.
    let repeated = again(1, false);
    assert_eq!(rules_of(&repeated, &b.plan(vec![repeated.clone()]).await), []);
    let forced = again(2, true);
    assert_eq!(rules_of(&forced, &b.plan(vec![forced.clone()]).await), rules);
    let repeated = again(2, true);
    assert_eq!(rules_of(&repeated, &b.plan(vec![repeated.clone()]).await), []);
    for claim in b.claim(10).await {
        let done = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![done]).await.expect("recorded");
    }
}

/// Two people press the button: the event waits once, and each later replay has a series of its
/// own.
pub async fn a_replay_waits_once_with_its_audit_entry(b: &Bench) {
    let (org, other) = (b.organisation().await, b.organisation().await);
    let whole = event(org, 1, vec![action()]);
    b.plan(vec![whole.clone()]).await;
    let id = whole.envelope.id;
    let held = |org| HeldEvent {
        org,
        event: id,
        cause: HeldCause::Replay,
        received_at: b.now(),
        envelope: SealedBytes(Box::from(*b"sealed")),
        replay: Some(Replay {
            series: 0,
            is_forced: true,
        }),
    };
    let entry = || AuditEntry {
        verb: "replay",
        ..audit(org)
    };
    let version = b.store.config_version().await.expect("read");
    assert_eq!(b.store.replay_event(held(org), entry()).await.expect("held"), 1);
    assert!(b.store.config_version().await.expect("read") > version, "workers look");
    assert_eq!(b.store.replay_event(held(org), entry()).await.expect("held"), 1);
    let rows = b.store.list_held_events(org, None, 10).await.expect("read");
    let replay = Replay {
        series: 1,
        is_forced: true,
    };
    assert_eq!((rows.len(), rows[0].replay), (1, Some(replay)));
    assert_eq!(b.store.list_held_events(other, None, 10).await.expect("read"), []);
    let filter = AuditFilter::default();
    let entries = b.store.list_audit(org, filter, None, 10).await.expect("read");
    assert_eq!(entries.iter().filter(|entry| entry.verb == "replay").count(), 1);
    let again = PlannedEvent {
        actions: vec![action()],
        occasion: Occasion::Replay(replay),
        ..whole
    };
    b.plan(vec![again]).await;
    b.store.drop_held_events(vec![(org, id)]).await.expect("forgotten");
    assert_eq!(b.store.replay_event(held(org), entry()).await.expect("held"), 2);
    b.store.drop_held_events(vec![(org, id)]).await.expect("forgotten");
    for claim in b.claim(10).await {
        let done = record(&claim, ActionState::Succeeded, b.now());
        b.store.record(vec![done]).await.expect("recorded");
    }
}

/// Invariant 4: of two runs of a rule for one event a person sends one again, whichever it is.
pub async fn a_retry_is_refused_while_another_run_of_the_rule_stands(b: &Bench) {
    use ActionState::{Dead, Pending, Succeeded};
    let org = b.organisation().await;
    let rule = RuleId::generate();
    let end = async |state: ActionState| {
        let claims = b.claim(1).await;
        b.store
            .record(vec![record(&claims[0], state, b.now())])
            .await
            .expect("recorded");
    };
    let first = event(org, 1, vec![PlannedAction { rule, ..action() }]);
    b.plan(vec![first.clone()]).await;
    end(Dead).await;
    b.clock.advance(Duration::from_secs(1));
    let replay = |series| PlannedEvent {
        actions: vec![PlannedAction { rule, ..action() }],
        occasion: Occasion::Replay(Replay {
            series,
            is_forced: false,
        }),
        ..first.clone()
    };
    let second = replay(1);
    b.plan(vec![second.clone()]).await;
    let (old, new) = (first.actions[0].id, second.actions[0].id);
    let retry = async |id| {
        let retried = b.store.retry(org, id, b.now() + LEASE, b.now(), audit(org)).await;
        retried.expect("answered")
    };
    let stands = |series, state| ManualTransition::RanAgain { series, state };
    let has_other_run = async |id| b.action(org, id).await.has_other_run;
    assert_eq!(retry(old).await, stands(1, Pending), "it may still act");
    assert!(has_other_run(old).await);
    end(Succeeded).await;
    assert_eq!(retry(old).await, stands(1, Succeeded));
    assert_eq!(b.state(org, old).await, Dead);
    assert!(
        has_other_run(old).await && !has_other_run(new).await,
        "its own run is none"
    );

    // Both failed: the first one is tried again, and then the other is refused.
    let third = event(org, 2, vec![PlannedAction { rule, ..action() }]);
    b.plan(vec![third.clone()]).await;
    end(Dead).await;
    b.clock.advance(Duration::from_secs(1));
    let fourth = PlannedEvent {
        occasion: Occasion::Replay(Replay {
            series: 1,
            is_forced: false,
        }),
        actions: vec![PlannedAction { rule, ..action() }],
        ..third.clone()
    };
    b.plan(vec![fourth.clone()]).await;
    end(Dead).await;
    b.clock.advance(Duration::from_secs(1));
    let (old, newer) = (third.actions[0].id, fourth.actions[0].id);
    assert!(!has_other_run(old).await && !has_other_run(newer).await);
    assert_eq!(retry(old).await, ManualTransition::Done(Pending));
    assert_eq!(retry(newer).await, stands(0, Pending));
    assert!(has_other_run(newer).await && !has_other_run(old).await);
    assert_eq!(b.state(org, newer).await, Dead);
    assert_ne!(new, newer);
}
