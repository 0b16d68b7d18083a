//! A paused action is not claimed, and comes when it is resumed.

use super::*;
use hookswitch::{
    domain::INSTALLATION,
    store::{
        audit::AuditFilter,
        pauses::{Pause, Paused},
    },
};

fn pause_of(b: &Bench, paused: Paused) -> Pause {
    Pause {
        paused,
        reason: "the provider is being moved".into(),
        actor: "operator:a person".into(),
        since: b.now(),
    }
}

fn entry_of(paused: Paused) -> AuditEntry {
    AuditEntry {
        verb: "pause",
        ..audit(paused.org().unwrap_or(INSTALLATION))
    }
}

async fn pause(b: &Bench, paused: Paused) -> bool {
    b.store
        .pause(pause_of(b, paused), entry_of(paused))
        .await
        .expect("paused")
}

async fn resume(b: &Bench, paused: Paused) -> bool {
    b.store.resume(paused, entry_of(paused)).await.expect("resumed")
}

async fn claimed(b: &Bench) -> Vec<ActionId> {
    let mut claims: Vec<_> = b.claim(10).await.into_iter().map(|claim| claim.action).collect();
    claims.sort();
    claims
}

pub async fn what_is_paused_is_not_claimed_until_it_is_resumed(b: &Bench) {
    for scope in ["all", "org", "provider"] {
        let (a, other) = (b.organisation().await, b.organisation().await);
        let paused = match scope {
            "all" => Paused::All,
            "org" => Paused::Org(a),
            _ => Paused::Provider(Provider::Twilio),
        };
        let (mine, theirs) = (b.due(a, 1).await[0], b.due(other, 1).await[0]);
        let before = b.store.config_version().await.expect("a version");
        assert!(pause(b, paused).await);
        assert!(
            b.store.config_version().await.expect("a version") > before,
            "workers look"
        );
        assert!(!pause(b, paused).await, "the first one stays");
        let held = if scope == "org" { vec![theirs] } else { vec![] };
        assert_eq!(claimed(b).await, held, "{scope}");
        if scope != "org" {
            assert_eq!(
                b.store.next_due_at().await.expect("a look"),
                None,
                "nobody is woken for it"
            );
        }
        assert_eq!(b.state(a, mine).await, ActionState::Pending, "it waits as it was");
        for org in [None, Some(a)] {
            assert_eq!(b.store.list_pauses(org).await.expect("a list"), [pause_of(b, paused)]);
        }
        let of_other = b.store.list_pauses(Some(other)).await.expect("a list");
        assert_eq!(
            of_other.is_empty(),
            scope == "org",
            "an organisation sees what concerns it"
        );

        assert!(resume(b, paused).await);
        assert!(!resume(b, paused).await);
        let mut rest = vec![mine];
        rest.extend((scope != "org").then_some(theirs));
        rest.sort();
        assert_eq!(claimed(b).await, rest, "{scope}");
        let entries = b
            .store
            .list_audit(paused.org().unwrap_or(INSTALLATION), AuditFilter::default(), None, 20);
        let entries = entries.await.expect("entries");
        assert!(
            entries.iter().filter(|entry| entry.verb == "pause").count() >= 2,
            "{entries:?}"
        );
        for (org, id) in [(a, mine), (other, theirs)] {
            b.finish(org, id).await;
        }
    }
}

/// A rule's actions stand in the line of their organisation: they leave it, so that the others go
/// on, and come back.
pub async fn actions_of_a_paused_rule_are_held_and_released(b: &Bench) {
    let org = b.organisation().await;
    let rule = RuleId::generate();
    let paused = Paused::Rule(org, rule);
    assert!(pause(b, paused).await);
    let own = |key| {
        let action = PlannedAction { rule, ..action() };
        (action.id, event(org, key, vec![action]))
    };
    let ((first, one), (second, two)) = (own(100), own(101));
    let late = PlannedAction {
        rule,
        expires_at: b.now(),
        ..action()
    };
    let late_id = late.id;
    b.plan(vec![one, event(org, 102, vec![late]), two]).await;
    let other = b.due(org, 1).await[0];
    assert_eq!(
        claimed(b).await,
        [other],
        "behind the held ones, and not held up by them"
    );
    for id in [first, second] {
        let stored = b.action(org, id).await;
        assert_eq!((stored.state, stored.cause), (ActionState::Parked, Some(Cause::Paused)));
    }
    assert_eq!(
        b.state(org, late_id).await,
        ActionState::Dead,
        "a pause keeps nothing alive"
    );
    assert!(claimed(b).await.is_empty());

    let release = |max| b.store.release_held_by_rule(org, rule, max);
    assert!(resume(b, paused).await);
    assert_eq!(release(1).await.expect("released"), 1);
    assert_eq!(release(10).await.expect("released"), 1);
    assert_eq!(release(10).await.expect("released"), 0);
    let mut both = vec![first, second];
    both.sort();
    assert_eq!(claimed(b).await, both);
    for id in [first, second, other] {
        b.finish(org, id).await;
    }
}

/// An outcome that is open waits too: some look-ups send again under the same key.
pub async fn an_open_outcome_of_a_paused_rule_is_not_looked_up(b: &Bench) {
    let org = b.organisation().await;
    let rule = RuleId::generate();
    let planned = PlannedAction { rule, ..action() };
    let id = planned.id;
    b.plan(vec![event(org, 1, vec![planned])]).await;
    let claim = b.claim_one().await;
    let unknown = Record {
        due_at: Some(b.now()),
        ..record(&claim, ActionState::Unknown, b.now())
    };
    b.store.record(vec![unknown]).await.expect("recorded");
    assert!(pause(b, Paused::Rule(org, rule)).await);
    assert!(claimed(b).await.is_empty());
    assert_eq!(
        b.state(org, id).await,
        ActionState::Unknown,
        "it is not taken for unsent"
    );
    assert!(resume(b, Paused::Rule(org, rule)).await);
    b.clock.advance(Duration::from_mins(1));
    assert!(b.claim_one().await.is_look_up);
    b.finish(org, id).await;
}
