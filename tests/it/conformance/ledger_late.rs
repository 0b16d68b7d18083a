//! Answers that come after their lease has ended.

use super::*;

/// Planned in quiet hours: nothing is claimed before their end, and what is due goes on.
pub async fn an_action_that_is_planned_for_later_is_claimed_then(b: &Bench) {
    let org = b.organisation().await;
    let later = b.now() + SECOND * 3600;
    let put_off = PlannedAction {
        state: ActionState::Waiting,
        cause: Some(Cause::QuietHours),
        due_at: Some(later),
        expires_at: later + SECOND,
        ..action()
    };
    let (waits, now) = (put_off.id, action());
    b.plan(vec![event(org, 1, vec![put_off])]).await;
    assert_eq!(b.claim(10).await.len(), 0);
    b.plan(vec![event(org, 2, vec![now.clone()])]).await;
    let claim = b.claim_one().await;
    assert_eq!(claim.action, now.id);
    b.finish(org, claim.action).await;
    let stored = b.action(org, waits).await;
    assert_eq!(
        (stored.state, stored.cause, stored.due_at),
        (ActionState::Waiting, Some(Cause::QuietHours), later)
    );
    b.clock.advance(SECOND * 3599);
    assert_eq!(b.claim(10).await.len(), 0);
    b.clock.advance(SECOND);
    let claim = b.claim_one().await;
    assert_eq!((claim.action, claim.attempts, claim.is_look_up), (waits, 0, false));
    b.finish(org, waits).await;
}

/// A running action whose lease has ended: its claim.
async fn ended(b: &Bench) -> (OrgId, Claim) {
    let org = b.organisation().await;
    b.due(org, 1).await;
    let claim = b.claim_one().await;
    b.clock.advance(LEASE + SECOND);
    assert_eq!(
        b.store.expire_leases(b.now(), LOOK_UP_DELAY, 10).await.expect("ended"),
        1
    );
    assert_eq!(b.state(org, claim.action).await, ActionState::Unknown);
    (org, claim)
}

/// The database was away while the provider answered: nobody took over, so the answer stands.
pub async fn a_success_counts_after_its_lease_has_ended(b: &Bench) {
    let (org, claim) = ended(b).await;
    let late = Record {
        provider_ref: Some("SM-late".into()),
        ..record(&claim, ActionState::Succeeded, b.now())
    };
    assert_eq!(b.store.record(vec![late]).await.expect("recorded"), [Recorded::Done]);
    let stored = b.action(org, claim.action).await;
    assert_eq!(
        (stored.state, stored.provider_ref.as_deref()),
        (ActionState::Succeeded, Some("SM-late"))
    );
    b.clock.advance(LOOK_UP_DELAY);
    assert_eq!(b.claim(10).await.len(), 0, "nothing is looked up");
}

pub async fn a_success_that_was_overtaken_by_a_claim_changes_nothing(b: &Bench) {
    let (org, claim) = ended(b).await;
    b.clock.advance(LOOK_UP_DELAY);
    let look_up = b.claim_one().await;
    assert!(look_up.is_look_up && look_up.fence > claim.fence);
    let late = record(&claim, ActionState::Succeeded, b.now());
    assert_eq!(
        b.store.record(vec![late]).await.expect("answered"),
        [Recorded::Superseded]
    );
    assert_eq!(b.state(org, claim.action).await, ActionState::Running);
    b.finish(org, claim.action).await;
}
