//! A database that was put back from a backup (invariant 29).

use super::*;
use hookswitch::{
    domain::INSTALLATION,
    store::{
        audit::AuditFilter,
        held::HeldEvent,
        pauses::{Pause, Paused},
        recovery::Recovery,
    },
};

impl Bench {
    /// As a worker that was killed leaves it.
    pub async fn leave_one_running(&self) {
        let org = self.organisation().await;
        let expires_at = self.now() + Duration::from_hours(1);
        let planned = PlannedAction { expires_at, ..action() };
        self.plan(vec![event(org, 1, vec![planned])]).await;
        self.claim_one().await;
    }
}

fn entry_of(org: OrgId) -> AuditEntry {
    AuditEntry {
        verb: "recover",
        ..audit(org)
    }
}

async fn begin(b: &Bench) -> Recovery {
    let recovery = Recovery {
        restored_to: b.now() - LEASE,
        recovered_at: b.now(),
        actor: "operator:a person".into(),
    };
    let pause = Pause {
        paused: Paused::All,
        reason: "restored".into(),
        actor: recovery.actor.clone(),
        since: b.now(),
    };
    let begun = b
        .store
        .begin_recovery(recovery.clone(), pause, entry_of(INSTALLATION))
        .await;
    begun.expect("begun");
    recovery
}

async fn doubt(b: &Bench, org: OrgId, sent_from: Timestamp) -> u64 {
    let doubted = b.store.doubt_open_actions(org, sent_from, b.now(), 100, entry_of(org));
    doubted.await.expect("doubted")
}

async fn verbs(b: &Bench, org: OrgId) -> Vec<String> {
    let entries = b.store.list_audit(org, AuditFilter::default(), None, 20).await;
    entries.expect("entries").into_iter().map(|entry| entry.verb).collect()
}

pub async fn what_had_not_ended_at_the_backup_is_unknown_after_a_recovery(b: &Bench) {
    use ActionState::{Cancelled, Dead, Parked, Pending, Running, Succeeded, Suppressed, Unknown, Waiting};
    for state in [
        Pending, Waiting, Parked, Running, Unknown, Dead, Cancelled, Suppressed, Succeeded,
    ] {
        let (org, id, _) = b.in_state(state).await;
        let other = b.organisation().await;
        let theirs = b.due(other, 1).await[0];
        b.store.abandon_leases(b.now(), Duration::ZERO).await.expect("ended");
        let count = doubt(b, org, Timestamp::from_seconds(0)).await;
        let is_open = matches!(state, Pending | Waiting | Parked);
        assert_eq!(count, u64::from(is_open), "{state}");
        let after = b.action(org, id).await;
        let wanted = if is_open || state == Running { Unknown } else { state };
        assert_eq!(after.state, wanted, "{state}");
        if is_open {
            let why = after.detail.expect("a reason");
            assert!(why.contains("backup"), "{why}");
        }
        assert_eq!(verbs(b, org).await.contains(&"recover".to_owned()), is_open, "{state}");
        assert_eq!(b.state(other, theirs).await, Pending, "another organisation's");
        assert_eq!(
            doubt(b, org, Timestamp::from_seconds(0)).await,
            0,
            "again, it changes nothing"
        );
        for (org, id) in [(org, id), (other, theirs)] {
            b.finish(org, id).await;
        }
    }
}

pub async fn a_recovery_pauses_everything_and_then_looks_before_it_sends(b: &Bench) {
    let org = b.organisation().await;
    let ids = b.due(org, 2).await;
    let claim = b.claim_one().await;
    let facts = b.store.load_recovery_facts().await.expect("facts");
    assert!(facts.newest_event_at.is_some() && facts.running == 1, "{facts:?}");
    assert_eq!(b.store.find_recovery().await.expect("a look"), None);
    let before = b.store.config_version().await.expect("a version");
    let recovery = begin(b).await;
    assert_eq!(b.store.find_recovery().await.expect("a look"), Some(recovery));
    let version = b.store.config_version().await.expect("a version");
    assert!(version > before, "workers look");
    assert_eq!(verbs(b, INSTALLATION).await, ["recover"]);

    let planned_at = b.now();
    b.clock.advance(LEASE);
    b.store.abandon_leases(b.now(), Duration::ZERO).await.expect("ended");
    let sent_from = b.now() - SECOND;
    assert_eq!(doubt(b, org, sent_from).await, 1);
    assert!(b.claim(10).await.is_empty(), "everything is paused");
    b.store
        .resume(Paused::All, entry_of(INSTALLATION))
        .await
        .expect("resumed");
    let claims = b.claim(10).await;
    assert_eq!(claims.len(), ids.len());
    for one in claims {
        assert!(one.is_look_up, "nothing is sent without a look");
        let sent = one.first_sent_at.expect("it counts as sent");
        let wanted = if one.action == claim.action {
            planned_at
        } else {
            sent_from
        };
        assert_eq!(sent, wanted);
        b.finish(org, one.action).await;
    }
}

pub async fn an_action_that_may_have_gone_out_before_its_plan_is_looked_up(b: &Bench) {
    let org = b.organisation().await;
    let planned = PlannedAction {
        state: ActionState::Unknown,
        cause: Some(Cause::Ambiguous),
        ..action()
    };
    let id = planned.id;
    let event = event(org, 1, vec![planned]);
    let received_at = event.envelope.received_at;
    b.plan(vec![event]).await;
    let claim = b.claim_one().await;
    assert_eq!((claim.action, claim.is_look_up), (id, true));
    assert_eq!(claim.first_sent_at, Some(received_at));
    b.finish(org, id).await;
}

pub async fn a_replay_that_waits_is_dropped_and_other_events_wait_on(b: &Bench) {
    let org = b.organisation().await;
    let held = |replay| HeldEvent {
        org,
        event: EventId::generate(),
        cause: HeldCause::DataKey,
        received_at: b.now(),
        envelope: SealedBytes(Box::from(*b"sealed")),
        replay,
    };
    let wanted = Replay {
        series: 0,
        is_forced: false,
    };
    b.store.hold_events(vec![held(None)]).await.expect("held");
    b.store
        .replay_event(held(Some(wanted)), audit(org))
        .await
        .expect("asked for");
    assert_eq!(b.store.load_recovery_facts().await.expect("facts").waiting_replays, 1);
    assert_eq!(b.store.drop_waiting_replays().await.expect("dropped"), 1);
    let left = b.store.list_held_events(org, None, 10).await.expect("a list");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].replay, None);
    let rest = left.into_iter().map(|held| (held.org, held.event)).collect();
    b.store.drop_held_events(rest).await.expect("forgotten");
}
