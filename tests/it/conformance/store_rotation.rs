//! Instances, the primary key and the wrappings of data keys; part of the store's suite.

use super::store::{entry, org, sealed};
use hookswitch::{
    domain::{Clock, EventId, HeldCause, INSTALLATION, KeyId, ManualClock, OrgId},
    store::{
        Store,
        audit::AuditFilter,
        held::HeldEvent,
        keys::DataKeyRow,
        ledger::DeadEvent,
        rotation::{Instance, KeyUse, Promotion, Rewrapped, RotationLease, Stored},
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const OLD: &str = "0101010101010101";
const NEW: &str = "0202020202020202";
/// Longer than any test.
const LEASE: Duration = Duration::from_hours(1);

fn key(name: &str) -> KeyId {
    KeyId(name.into())
}

fn instance(clock: &ManualClock, name: &str, ring: &[&str]) -> Instance {
    Instance {
        id: Uuid::now_v7(),
        name: name.into(),
        roles: "worker".into(),
        ring: ring.iter().map(|name| key(name)).collect(),
        sealing: key(ring[0]),
        started_at: clock.now(),
    }
}

fn data_key(org: OrgId, version: u32, kek: &str) -> DataKeyRow {
    DataKeyRow {
        org,
        version,
        kek: key(kek),
        wrapped: [7; 61].into(),
        seals: 16_384,
    }
}

pub async fn a_key_becomes_primary_when_every_live_instance_holds_it(store: &Arc<dyn Store>, clock: &ManualClock) {
    let a = org(store).await;
    let promote = || store.promote_key(key(NEW), LEASE, entry(INSTALLATION, "promote"));
    store.insert_data_key(data_key(a, 1, OLD)).await.expect("a data key");
    assert_eq!(store.load_primary_key().await.expect("a look"), None);
    // The newest key of one ring is no reason to seal with it: the data says which key was primary.
    let ready = instance(clock, "ready", &[NEW, OLD]);
    let late = instance(clock, "late", &[OLD]);
    for one in [&ready, &late] {
        assert_eq!(store.report_instance(one.clone()).await.expect("reported"), key(OLD));
    }
    let seen = store.load_instances().await.expect("instances");
    assert_eq!(
        seen.into_iter().map(|seen| seen.instance).collect::<Vec<_>>(),
        [late.clone(), ready.clone()]
    );
    let version = store.config_version().await.expect("a version");
    assert_eq!(
        promote().await.expect("decided"),
        Promotion::NotEverywhere(vec![late.clone()])
    );
    assert_eq!(
        store.load_primary_key().await.expect("a look").expect("one").key,
        key(OLD)
    );
    assert_eq!(store.config_version().await.expect("a version"), version);
    let audit = || store.list_audit(INSTALLATION, AuditFilter::default(), None, 10);
    assert!(audit().await.expect("a look").is_empty(), "nothing was changed");

    // The same instance with the new key, or one that has ended, holds nothing up.
    let restarted = Instance {
        ring: vec![key(OLD), key(NEW)],
        ..late.clone()
    };
    store.report_instance(restarted.clone()).await.expect("reported");
    let ended = instance(clock, "ended", &[OLD]);
    store.report_instance(ended.clone()).await.expect("reported");
    store.forget_instance(ended.id).await.expect("forgotten");
    let promoted = promote().await.expect("decided");
    assert!(
        matches!(&promoted, Promotion::Promoted(lease) if lease.key == key(NEW)),
        "{promoted:?}"
    );
    let again = promote().await.expect("decided");
    assert!(matches!(again, Promotion::AlreadyPrimary(_)), "{again:?}");
    assert!(
        store.config_version().await.expect("a version") > version,
        "instances look"
    );
    assert_eq!(audit().await.expect("a look").len(), 1);
    assert_eq!(store.report_instance(restarted).await.expect("reported"), key(NEW));
    assert_eq!(
        store.report_instance(late).await.expect("reported"),
        key(NEW),
        "and a ring that lacks it learns so"
    );
}

pub async fn a_database_that_sealed_nothing_begins_with_any_ring(store: &Arc<dyn Store>, clock: &ManualClock) {
    let one = instance(clock, "one", &[OLD]);
    let report = |ring: &[&str]| {
        store.report_instance(Instance {
            id: one.id,
            ..instance(clock, "one", ring)
        })
    };
    assert_eq!(report(&[OLD]).await.expect("reported"), key(OLD));
    assert_eq!(report(&[NEW, OLD]).await.expect("reported"), key(OLD));
    let other = instance(clock, "other", &[NEW]);
    assert_eq!(
        store.report_instance(other.clone()).await.expect("reported"),
        key(OLD),
        "another one lives, and may seal at any moment"
    );
    store.forget_instance(other.id).await.expect("forgotten");
    assert_eq!(report(&[NEW]).await.expect("reported"), key(NEW));
    let a = org(store).await;
    store.insert_data_key(data_key(a, 1, NEW)).await.expect("a data key");
    assert_eq!(report(&[OLD]).await.expect("reported"), key(NEW));
}

/// The rotation to the new key, as a person's.
async fn rotation(store: &Arc<dyn Store>, clock: &ManualClock, length: Duration) -> RotationLease {
    let one = instance(clock, "one", &[NEW, OLD]);
    store.report_instance(one.clone()).await.expect("reported");
    let promoted = store
        .promote_key(key(NEW), length, entry(INSTALLATION, "promote"))
        .await
        .expect("decided");
    match promoted {
        Promotion::Promoted(lease) | Promotion::AlreadyPrimary(lease) => lease,
        Promotion::NotEverywhere(_) => panic!("{promoted:?}"),
    }
}

pub async fn a_rotation_has_one_holder_at_a_time_and_a_former_one_changes_nothing(
    store: &Arc<dyn Store>,
    clock: &ManualClock,
) {
    let a = org(store).await;
    let row = data_key(a, 1, OLD);
    store.insert_data_key(row.clone()).await.expect("a data key");
    let take = async |length| store.take_rotation(length).await.expect("a look");
    assert_eq!(take(LEASE).await, None, "no key is primary, so there is no rotation");
    let wrapped = || Rewrapped {
        from: key(OLD),
        row: DataKeyRow {
            kek: key(NEW),
            wrapped: [9; 61].into(),
            ..row.clone()
        },
    };
    let first = rotation(store, clock, LEASE).await;
    assert_eq!(take(LEASE).await, None, "the person's process holds it");
    // Its last lease has ended at once: another process goes on.
    let ended = rotation(store, clock, Duration::ZERO).await;
    let second = take(LEASE).await.expect("its lease has ended");
    assert_eq!(take(LEASE).await, None);
    for former in [first, ended] {
        let stored = store.rewrap_data_keys(&former, LEASE, vec![wrapped()]).await;
        assert_eq!(stored.expect("a look"), Stored::TakenOver);
        for again_after in [None, Some(Duration::ZERO)] {
            let left = store.leave_rotation(&former, again_after).await;
            left.expect("nothing of its own");
            assert_eq!(take(LEASE).await, None, "the second one still holds it");
        }
    }
    assert_eq!(
        *store.load_data_keys(a).await.expect("rows")[0].wrapped,
        [7; 61],
        "nothing was changed"
    );
    store
        .leave_rotation(&second, Some(Duration::ZERO))
        .await
        .expect("given back");
    let third = take(Duration::ZERO).await.expect("given back");
    let stored = store.rewrap_data_keys(&third, LEASE, vec![wrapped()]).await;
    assert_eq!(stored.expect("stored"), Stored::Rewrapped(1));
    assert_eq!(take(LEASE).await, None, "a step renews the lease");
    store.leave_rotation(&third, None).await.expect("finished");
    assert_eq!(take(LEASE).await, None, "it is over");
    rotation(store, clock, Duration::ZERO).await;
    assert!(take(LEASE).await.is_some(), "a person has asked for it again");
}

pub async fn data_keys_are_wrapped_again_page_by_page(store: &Arc<dyn Store>, clock: &ManualClock) {
    let mut orgs = vec![org(store).await, org(store).await, org(store).await];
    orgs.sort();
    for org in &orgs {
        for version in [1, 2] {
            store
                .insert_data_key(data_key(*org, version, OLD))
                .await
                .expect("a data key");
        }
    }
    store
        .insert_data_key(data_key(orgs[1], 3, NEW))
        .await
        .expect("a data key");
    let page = |after| async move { store.list_data_keys_under_others(&key(NEW), after, 4).await };
    let first = page(None).await.expect("a page");
    let places: Vec<_> = first.iter().map(|row| (row.org, row.version)).collect();
    assert_eq!(
        places,
        [(orgs[0], 1), (orgs[0], 2), (orgs[1], 1), (orgs[1], 2)],
        "by place, without what is under the key"
    );
    let rest = page(places.last().copied()).await.expect("a page");
    assert_eq!(rest.len(), 2);

    let wrapped_as = |row: &DataKeyRow, from: &str| Rewrapped {
        from: key(from),
        row: DataKeyRow {
            kek: key(NEW),
            wrapped: [9; 61].into(),
            ..row.clone()
        },
    };
    let lease = rotation(store, clock, LEASE).await;
    let version = store.config_version().await.expect("a version");
    // One of them was wrapped again by somebody else meanwhile.
    let mut step: Vec<_> = first.iter().map(|row| wrapped_as(row, OLD)).collect();
    step[3] = wrapped_as(&first[3], NEW);
    let stored = store.rewrap_data_keys(&lease, LEASE, step).await;
    assert_eq!(stored.expect("stored"), Stored::Rewrapped(3));
    assert!(
        store.config_version().await.expect("a version") > version,
        "snapshots carry them"
    );
    let loaded = store.load_data_keys(orgs[0]).await.expect("rows");
    assert!(
        loaded
            .iter()
            .all(|row| row.kek == key(NEW) && *row.wrapped == [9; 61] && row.seals == 16_384),
        "{loaded:?}"
    );
    let left = page(None).await.expect("a page");
    assert_eq!(left.first().map(|row| (row.org, row.version)), Some((orgs[1], 2)));
    assert_eq!(left.len(), 3, "a pass that was cut off goes on where it stopped");
    let version = store.config_version().await.expect("a version");
    let stored = store.rewrap_data_keys(&lease, LEASE, vec![]).await;
    assert_eq!(stored.expect("nothing"), Stored::Rewrapped(0));
    assert_eq!(store.config_version().await.expect("a version"), version);
}

pub async fn what_stands_under_a_key_is_counted(store: &Arc<dyn Store>, clock: &ManualClock) {
    let a = org(store).await;
    store.insert_data_key(data_key(a, 1, OLD)).await.expect("a data key");
    store.insert_data_key(data_key(a, 2, NEW)).await.expect("a data key");
    store.reserve_seals(a, 2, 100).await.expect("counted");
    let under = |kek: &str| {
        let mut bytes = vec![2];
        bytes.extend(hex::decode(kek).expect("hex"));
        bytes.extend([5; 40]);
        bytes
    };
    let held = |envelope: Vec<u8>| HeldEvent {
        org: a,
        event: EventId::generate(),
        cause: HeldCause::DataKey,
        received_at: clock.now(),
        envelope: hookswitch::domain::SealedBytes(envelope.into()),
        replay: None,
    };
    store
        .hold_events(vec![held(under(OLD)), held(under(OLD)), held(under(NEW))])
        .await
        .expect("held");
    // Under the organisation's data key, or nothing kept: no key of the ring is needed for itself.
    store
        .hold_events(vec![held(sealed("\u{1}abcdefghijk").0.into())])
        .await
        .expect("held");
    for (org, envelope) in [(None, under(OLD)), (Some(a), vec![])] {
        let dead = DeadEvent {
            id: EventId::generate(),
            org,
            source: None,
            event_type: None,
            received_at: clock.now(),
            reason: "it does not decode".into(),
            envelope,
        };
        store.store_dead_event(dead).await.expect("stored");
    }
    let uses = store.load_key_uses().await.expect("counts");
    let used = |data_keys, seals_max, events| KeyUse {
        data_keys,
        seals_max,
        events,
    };
    assert_eq!(uses, [(key(OLD), used(1, 16_384, 3)), (key(NEW), used(1, 16_484, 1))]);
}
