//! Which account an action belongs to: the one that its first try went to (invariant 2).

use super::*;
use hookswitch::store::audit::AuditFilter;

/// Saves a Twilio credential of an account.
async fn connect(b: &Bench, org: OrgId, fingerprint: Option<&str>) {
    let new = NewCredential {
        org,
        provider: Provider::Twilio,
        name: String::new(),
        sealed: SealedBytes(Box::from(*b"sealed")),
        state: IntegrationState::Connected,
        missing: None,
        account_id: None,
        account_name: None,
        account_fingerprint: fingerprint.map(str::to_owned),
        last_four: None,
        verified_at: None,
        expects: hookswitch::store::credentials::Expects::Anything,
    };
    b.store.save_credential(new, audit(org)).await.expect("saved");
}

async fn claim_and_record(b: &Bench, to: ActionState, is_unsent: bool) -> Claim {
    b.clock.advance(SECOND);
    let claim = b.claim_one().await;
    let record = Record {
        due_at: Some(b.now()),
        is_unsent,
        ..record(&claim, to, b.now())
    };
    assert_eq!(b.store.record(vec![record]).await.expect("recorded"), [Recorded::Done]);
    claim
}

pub async fn an_action_belongs_to_the_account_of_its_first_try(b: &Bench) {
    let org = b.organisation().await;
    let id = b.due(org, 1).await[0];
    connect(b, org, Some("first")).await;
    let tried = claim_and_record(b, ActionState::Waiting, true).await;
    assert_eq!(tried.account.as_deref(), Some("first"));

    connect(b, org, Some("second")).await;
    let sent = claim_and_record(b, ActionState::Unknown, false).await;
    assert_eq!(
        sent.account.as_deref(),
        Some("second"),
        "the first try certainly did nothing, so that any account may go on"
    );

    connect(b, org, Some("third")).await;
    let look_up = claim_and_record(b, ActionState::Dead, false).await;
    assert_eq!((look_up.is_look_up, look_up.account.as_deref()), (true, Some("second")));

    let until = b.now() + SECOND * 1_000;
    b.store
        .retry(org, id, until, b.now(), audit(org))
        .await
        .expect("answered");
    let retried = claim_and_record(b, ActionState::Unknown, false).await;
    assert_eq!(
        (retried.is_look_up, retried.account.as_deref()),
        (false, Some("second")),
        "a person's retry may be a second send: it belongs to the first one's account"
    );

    b.store
        .resolve(org, id, ActionState::Pending, b.now(), audit(org))
        .await
        .expect("answered");
    let again = claim_and_record(b, ActionState::Succeeded, false).await;
    assert_eq!(
        again.account.as_deref(),
        Some("third"),
        "a person said that it did not go out"
    );
}

pub async fn an_account_without_a_name_is_one_for_each_saved_version(b: &Bench) {
    let org = b.organisation().await;
    b.due(org, 1).await;
    connect(b, org, None).await;
    let first = claim_and_record(b, ActionState::Unknown, false).await;
    assert_eq!(first.account.as_deref(), Some("version-1"));
    connect(b, org, None).await;
    let look_up = claim_and_record(b, ActionState::Succeeded, false).await;
    assert_eq!(look_up.account.as_deref(), Some("version-1"));
    b.plan(vec![event(org, 9, vec![action()])]).await;
    let other = claim_and_record(b, ActionState::Succeeded, false).await;
    assert_eq!(other.account.as_deref(), Some("version-2"));
}

/// The entry stands in the same transaction: an entry that cannot be written undoes the transition.
pub async fn a_manual_transition_and_its_entry_are_one(b: &Bench) {
    let org = b.organisation().await;
    let id = b.due(org, 1).await[0];
    let entries = async || {
        b.store
            .list_audit(org, AuditFilter::default(), None, 100)
            .await
            .expect("audit")
            .len()
    };
    let before = entries().await;
    let foreign = b.organisation().await;
    let refused = b.store.cancel(org, id, b.now(), audit(foreign)).await;
    assert!(refused.is_err(), "the entry names another organisation");
    let action = b.store.find_action(org, id).await.expect("read").expect("there");
    assert_eq!((action.state, entries().await), (ActionState::Pending, before));
    let done = b.store.cancel(org, id, b.now(), audit(org)).await.expect("answered");
    assert_eq!(
        (done, entries().await),
        (ManualTransition::Done(ActionState::Cancelled), before + 1)
    );
    let again = b.store.cancel(org, id, b.now(), audit(org)).await.expect("answered");
    assert_eq!(
        (again, entries().await),
        (ManualTransition::NotFrom(ActionState::Cancelled), before + 1)
    );
}
