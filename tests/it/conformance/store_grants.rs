//! Connections, leases, refreshes, consents and managed assistants; part of the store's suite.

use super::{
    store::{credential, entry, org, sealed, secret},
    store_ledger::{planned, state},
};
use hookswitch::store::audit::AuditFilter;
use hookswitch::{
    domain::{
        ActionState, AssistantRole, Cause, EndpointId, IntegrationState, ManagedAssistantState, ManualClock, OrgId,
        Provider, RouteState, Source, Timestamp,
    },
    store::{
        Store,
        credentials::{CredentialHealth, Expects, StoredCredential},
        grants::{CONSENTS_PER_ORG_MAX, Consent, IntegrationChange, Lease, Refresh, SecretsChange},
        managed::ManagedAssistant,
        routes::{AssistantClaim, Proof},
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const MINUTE: Duration = Duration::from_mins(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn connection(owner: OrgId, secrets_of: Option<OrgId>) -> IntegrationChange {
    let change = secrets_of.map(|org| SecretsChange {
        source: Source::Vapi,
        secrets: vec![secret(org, None), secret(org, None)],
        others_not_after: None,
        audit: entry(owner, "rotate"),
    });
    IntegrationChange {
        credential: credential(owner, Provider::Vapi, "", "one"),
        refresh_at: None,
        is_new_secret: true,
        secrets: change,
        audit: entry(owner, "connect"),
    }
}

async fn found(store: &Arc<dyn Store>, org: OrgId, provider: Provider) -> StoredCredential {
    store
        .find_credential(org, provider, "")
        .await
        .expect("a look")
        .expect("it is there")
}

pub async fn a_connection_is_written_whole_or_not_at_all(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let version = store.config_version().await.expect("a version");
    // A secret of another owner breaks the change: the credential is not written either, nor an
    // entry.
    assert!(store.save_integration(connection(a, Some(b))).await.is_err());
    assert_eq!(
        store.find_credential(a, Provider::Vapi, "").await.expect("a look"),
        None
    );
    assert_eq!(
        store
            .list_audit(a, AuditFilter::default(), None, 10)
            .await
            .expect("a list")
            .len(),
        1,
        "the organisation's own"
    );
    assert_eq!(store.config_version().await.expect("a version"), version);

    let saved = store.save_integration(connection(a, Some(a))).await.expect("connected");
    assert_eq!((saved.version, saved.refresh_at), (1, None));
    assert_eq!(
        store.list_secrets(a, Source::Vapi, None).await.expect("a list").len(),
        2
    );
    assert_eq!(
        store.config_version().await.expect("a version"),
        version + 1,
        "one change"
    );
    let erase = |audit| SecretsChange {
        source: Source::Vapi,
        secrets: vec![],
        others_not_after: None,
        audit,
    };
    assert!(
        store
            .erase_integration(
                a,
                Provider::Vapi,
                "",
                Expects::Anything,
                Some(erase(entry(b, "erase"))),
                entry(a, "erase")
            )
            .await
            .is_err()
    );
    assert!(found(store, a, Provider::Vapi).await.is_active, "neither");
    assert!(
        store
            .erase_integration(
                a,
                Provider::Vapi,
                "",
                Expects::Anything,
                Some(erase(entry(a, "erase"))),
                entry(a, "erase")
            )
            .await
            .expect("erased")
    );
    let row = found(store, a, Provider::Vapi).await;
    assert_eq!(
        (
            row.is_active,
            row.sealed,
            row.last_four,
            row.account_id,
            row.account_name
        ),
        (false, None, None, None, None),
        "nothing readable stays"
    );
    assert_eq!(
        (row.id, row.account_fingerprint),
        (saved.id, saved.account_fingerprint),
        "but the id and the account's fingerprint"
    );
    assert!(
        store
            .list_secrets(a, Source::Vapi, None)
            .await
            .expect("a list")
            .is_empty()
    );
    assert!(
        !store
            .erase_integration(a, Provider::Vapi, "", Expects::Anything, None, entry(a, "erase"))
            .await
            .expect("a second time")
    );
}

pub async fn a_lease_has_one_holder_and_a_fence_that_counts_up(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let take = async |org, name| store.take_lease(org, name, MINUTE).await.expect("a look");
    let first = take(a, "x").await.expect("free");
    assert_eq!(take(a, "x").await, None);
    assert!(
        take(b, "x").await.is_some() && take(a, "y").await.is_some(),
        "other organisations and names have their own"
    );
    clock.advance(MINUTE);
    let second = take(a, "x").await.expect("it ended");
    assert_eq!(second.fence, first.fence + 1);
    store.release_lease(&first).await.expect("released");
    assert_eq!(take(a, "x").await, None, "an old holder releases nothing");
    store.release_lease(&second).await.expect("released");
    assert_eq!(take(a, "x").await.map(|lease| lease.fence), Some(first.fence + 2));
    let tries = (0..50).map(|_| store.take_lease(a, "crowd", MINUTE));
    let taken = futures_util::future::join_all(tries).await;
    assert_eq!(
        taken.into_iter().filter(|taken| matches!(taken, Ok(Some(_)))).count(),
        1
    );
}

/// A credential that expires. The store knows no provider's habits: any will do.
const EXPIRING: Provider = Provider::Twilio;

async fn expiring(store: &Arc<dyn Store>, owner: OrgId) -> StoredCredential {
    let credential = credential(owner, EXPIRING, "", "tokens");
    store
        .save_integration(IntegrationChange {
            credential,
            refresh_at: Some(at(2_000_000)),
            is_new_secret: true,
            secrets: None,
            audit: entry(owner, "connect"),
        })
        .await
        .expect("connected")
}

fn refresh(lease: Lease, row: &StoredCredential, tokens: Option<&str>, next: Option<Timestamp>) -> Refresh {
    let state = match (tokens, next) {
        (Some(_), _) => IntegrationState::Connected,
        (None, Some(_)) => IntegrationState::Failing,
        (None, None) => IntegrationState::NeedsReconnecting,
    };
    let health = CredentialHealth {
        first_failed_at: tokens.is_none().then_some(at(9)),
        ..CredentialHealth::of(state)
    };
    Refresh {
        lease,
        id: row.id,
        version: row.version,
        health,
        refresh_at: next,
        sealed: tokens.map(sealed),
    }
}

pub async fn a_refresh_is_compare_and_swap_under_its_lease(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let row = expiring(store, a).await;
    assert_eq!(row.refresh_at, Some(at(2_000_000)));
    let lease = store
        .take_lease(a, "refresh", MINUTE)
        .await
        .expect("a look")
        .expect("free");
    clock.advance(MINUTE);
    let taken_over = store
        .take_lease(a, "refresh", MINUTE)
        .await
        .expect("a look")
        .expect("ended");
    let late = store
        .record_refresh(refresh(lease, &row, Some("late"), Some(at(3_000_000))))
        .await
        .expect("a try");
    assert_eq!(late, None, "whoever lost the lease writes nothing");
    let of_b = Lease {
        org: b,
        ..taken_over.clone()
    };
    assert_eq!(
        store
            .record_refresh(refresh(of_b, &row, Some("theirs"), None))
            .await
            .expect("a try"),
        None,
        "nor another organisation"
    );

    let version = store.config_version().await.expect("a version");
    assert_eq!(
        store
            .record_refresh(refresh(taken_over, &row, Some("new"), Some(at(3_000_000))))
            .await
            .expect("written"),
        Some(2)
    );
    let stands = found(store, a, EXPIRING).await;
    assert_eq!(
        (stands.sealed, stands.version, stands.refresh_at),
        (Some(sealed("new")), 2, Some(at(3_000_000)))
    );
    assert_eq!(
        store.config_version().await.expect("a version"),
        version,
        "a new access token is no change of configuration"
    );
    let lease = store
        .take_lease(a, "refresh", MINUTE)
        .await
        .expect("a look")
        .expect("the write let it go");
    assert_eq!(
        store
            .record_refresh(refresh(lease, &row, Some("older"), None))
            .await
            .expect("a try"),
        None,
        "version 1 stands no more"
    );
    assert_eq!(found(store, a, EXPIRING).await.sealed, Some(sealed("new")));
    store
        .erase_integration(a, EXPIRING, "", Expects::Anything, None, entry(a, "erase"))
        .await
        .expect("erased");
    let lease = store
        .take_lease(a, "refresh", MINUTE)
        .await
        .expect("a look")
        .expect("a refused write lets it go, too");
    let row = StoredCredential { version: 2, ..row };
    assert_eq!(
        store
            .record_refresh(refresh(lease, &row, Some("undead"), None))
            .await
            .expect("a try"),
        None,
        "nothing comes back after a disconnect"
    );
}

pub async fn a_refresh_that_cannot_recover_parks_and_a_new_token_resumes(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let row = expiring(store, a).await;
    let mut ids = Vec::new();
    for owner in [a, b] {
        let event = planned(owner, "call", "hang", 1);
        ids.push(event.actions[0].id);
        store.plan(vec![event].into()).await.expect("planned");
    }
    let take = async || {
        store
            .take_lease(a, "refresh", MINUTE)
            .await
            .expect("a look")
            .expect("free")
    };
    assert_eq!(
        store
            .record_refresh(refresh(take().await, &row, None, Some(at(7))))
            .await
            .expect("written"),
        Some(1)
    );
    assert_eq!(
        state(store, a, ids[0]).await,
        (ActionState::Pending, None),
        "what may recover parks nothing"
    );
    let before = store.config_version().await.expect("a version");
    assert_eq!(
        store
            .record_refresh(refresh(take().await, &row, None, None))
            .await
            .expect("written"),
        Some(1)
    );
    assert_eq!(
        state(store, a, ids[0]).await,
        (ActionState::Parked, Some(Cause::CredentialRefused))
    );
    assert_eq!(
        state(store, b, ids[1]).await.0,
        ActionState::Pending,
        "another organisation's go on"
    );
    assert!(
        store.config_version().await.expect("a version") > before,
        "every instance hears of the change of state"
    );
    assert_eq!(
        found(store, a, EXPIRING).await.health.state,
        IntegrationState::NeedsReconnecting
    );
    assert_eq!(
        store
            .record_refresh(refresh(take().await, &row, Some("new"), Some(at(8))))
            .await
            .expect("written"),
        Some(2)
    );
    assert_eq!(state(store, a, ids[0]).await, (ActionState::Pending, None));
}

pub async fn refreshes_come_due_in_order(store: &Arc<dyn Store>, _: &ManualClock) {
    let mut owners = Vec::new();
    for n in 0..4 {
        let owner = org(store).await;
        let credential = credential(owner, Provider::GoogleCalendar, "", "tokens");
        let refresh_at = (n < 3).then_some(at(3_000_000 - n));
        store
            .save_integration(IntegrationChange {
                credential,
                refresh_at,
                is_new_secret: true,
                secrets: None,
                audit: entry(owner, "connect"),
            })
            .await
            .expect("connected");
        owners.push(owner);
    }
    let due = async |until, count| {
        store
            .list_refreshes_due(at(until), count)
            .await
            .expect("a list")
            .iter()
            .map(|due| due.org)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(2_999_997, 9).await, []);
    assert_eq!(due(2_999_999, 9).await, [owners[2], owners[1]]);
    assert_eq!(due(3_000_000, 2).await, [owners[2], owners[1]]);
    store
        .erase_integration(
            owners[2],
            Provider::GoogleCalendar,
            "",
            Expects::Anything,
            None,
            entry(owners[2], "erase"),
        )
        .await
        .expect("erased");
    assert_eq!(due(3_000_000, 9).await, [owners[1], owners[0]]);
}

fn consent(org: OrgId, expires_at: Timestamp) -> Consent {
    Consent {
        id: Uuid::now_v7(),
        org,
        provider: Provider::GoogleCalendar,
        subject: "user-7".into(),
        verifier: sealed("verifier"),
        return_to: Some("/settings".into()),
        may_replace: true,
        expires_at,
    }
}

pub async fn a_consent_is_taken_once(store: &Arc<dyn Store>, _: &ManualClock) {
    let begun = consent(org(store).await, at(1_000_600));
    store.begin_consent(begun.clone()).await.expect("kept");
    let taken = futures_util::future::join_all((0..20).map(|_| store.take_consent(begun.id))).await;
    let taken: Vec<_> = taken.into_iter().filter_map(|taken| taken.expect("a look")).collect();
    assert_eq!(taken, [begun]);
    assert_eq!(store.take_consent(Uuid::now_v7()).await.expect("a look"), None);
}

pub async fn consents_end_and_are_limited(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let short = consent(a, at(1_000_600));
    store.begin_consent(short.clone()).await.expect("kept");
    clock.set(at(1_000_600));
    assert_eq!(
        store.take_consent(short.id).await.expect("a look"),
        None,
        "at its end it is over"
    );
    let others = consent(b, at(1_001_000));
    store.begin_consent(others.clone()).await.expect("kept");
    let mut all = Vec::new();
    for n in 0..=i64::from(CONSENTS_PER_ORG_MAX) {
        all.push(consent(a, at(1_001_000 + n)));
        store.begin_consent(all[all.len() - 1].clone()).await.expect("kept");
    }
    assert_eq!(
        store.take_consent(all[0].id).await.expect("a look"),
        None,
        "the oldest gave way"
    );
    assert!(store.take_consent(all[1].id).await.expect("a look").is_some());
    assert!(
        store.take_consent(others.id).await.expect("a look").is_some(),
        "another organisation's are not counted"
    );
}

pub async fn a_managed_assistant_is_written_under_its_lease(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let lease = store
        .take_lease(a, "assistant:inbound", MINUTE)
        .await
        .expect("a look")
        .expect("free");
    let row = ManagedAssistant {
        org: a,
        role: AssistantRole::Inbound,
        marker: "m".into(),
        assistant_id: None,
        endpoint: EndpointId::generate(),
        sealed: sealed("wanted"),
        state: ManagedAssistantState::Making,
        drift: vec![],
        error: None,
        checked_at: Some(at(1_000_000)),
        version: 0,
        created_at: at(0),
        updated_at: at(0),
    };
    let saved = store
        .save_managed_assistant(row.clone(), None, &lease, None)
        .await
        .expect("a try")
        .expect("written");
    assert_eq!((saved.version, saved.created_at), (1, at(1_000_000)));
    assert_eq!(
        store
            .save_managed_assistant(row, None, &lease, None)
            .await
            .expect("a try"),
        None,
        "version 0 is over"
    );
    let claim = |id: &str| AssistantClaim {
        org: a,
        assistant_id: id.into(),
        role: Some(AssistantRole::Inbound),
        name: None,
        state: RouteState::Live,
        proof: Some(Proof::MadeByUs),
        proven_at: None,
        is_platform_managed: false,
        version: 0,
        created_at: at(1_000_000),
    };
    let made = ManagedAssistant {
        assistant_id: Some("one".into()),
        state: ManagedAssistantState::InStep,
        drift: vec!["name".into()],
        ..saved
    };
    let made = store
        .save_managed_assistant(made, Some(claim("one")), &lease, Some(entry(a, "create")))
        .await
        .expect("a try")
        .expect("written");
    assert_eq!(
        store
            .find_managed_assistant(a, AssistantRole::Inbound)
            .await
            .expect("a look"),
        Some(made.clone())
    );
    assert_eq!(store.find_assistant_holder("one").await.expect("a look"), Some(a));
    let mended = ManagedAssistant {
        assistant_id: Some("two".into()),
        ..made
    };
    let mended = store
        .save_managed_assistant(mended, Some(claim("two")), &lease, Some(entry(a, "create")))
        .await
        .expect("a try")
        .expect("written");
    assert_eq!(
        store.find_assistant_holder("one").await.expect("a look"),
        None,
        "one id a role"
    );
    assert_eq!(
        store.list_assistants_to_check(at(1_000_000), 9).await.expect("a list"),
        [(a, AssistantRole::Inbound)]
    );
    assert_eq!(
        store.list_assistants_to_check(at(999_999), 9).await.expect("a list"),
        []
    );
    assert_eq!(store.list_managed_assistants(b).await.expect("a list"), []);
    clock.advance(MINUTE);
    let other = store
        .take_lease(a, "assistant:inbound", MINUTE)
        .await
        .expect("a look")
        .expect("ended");
    assert_eq!(
        store
            .save_managed_assistant(mended, None, &lease, None)
            .await
            .expect("a try"),
        None,
        "the lease was lost"
    );
    assert!(
        !store
            .delete_managed_assistant(a, AssistantRole::Inbound, &lease, entry(a, "delete"))
            .await
            .expect("a try")
    );
    assert!(
        store
            .delete_managed_assistant(a, AssistantRole::Inbound, &other, entry(a, "delete"))
            .await
            .expect("a try")
    );
    assert_eq!(store.find_assistant_holder("two").await.expect("a look"), None);
}
