//! Endpoints and their signing secrets; part of the store's suite.

use super::store::{endpoint, entry, is_conflict, org, secret};
use hookswitch::{
    domain::{Clock, Endpoint, ManualClock, Source, Timestamp},
    store::{
        Store, StoreError,
        endpoints::{NewSecret, SECRETS_PER_OWNER_MAX, SecretUse},
    },
};
use std::{sync::Arc, time::Duration};

pub async fn endpoints_are_paged_and_deleted_once(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let all: Vec<_> = (0..5).map(|_| endpoint(org)).collect();
    for one in &all {
        store
            .create_endpoint(one.clone(), vec![secret(org, Some(one.id))], entry(org, "create"))
            .await
            .expect("created");
    }
    assert!(is_conflict(
        &store
            .create_endpoint(all[0].clone(), vec![], entry(org, "create"))
            .await
    ));
    assert_eq!(
        store.find_endpoint(org, all[2].id).await.expect("a look"),
        Some(all[2].clone())
    );
    assert!(
        store
            .delete_endpoint(org, all[2].id, None, entry(org, "delete"))
            .await
            .expect("deleted")
    );
    assert!(
        !store
            .delete_endpoint(org, all[2].id, None, entry(org, "delete"))
            .await
            .expect("deleted before")
    );
    assert_eq!(store.find_endpoint(org, all[2].id).await.expect("a look"), None);
    assert_eq!(
        store
            .list_secrets(org, Source::Vapi, Some(all[2].id))
            .await
            .expect("a list"),
        []
    );
    assert!(
        !store
            .add_secrets(vec![secret(org, Some(all[2].id))], None, None, entry(org, "rotate"))
            .await
            .expect("a deleted one takes no secret")
    );
    let first = store.list_endpoints(org, None, 2).await.expect("a page");
    let rest = store.list_endpoints(org, Some(first[1].id), 9).await.expect("a page");
    assert_eq!([first, rest].concat(), [&all[..2], &all[3..]].concat());
}

pub async fn secrets_overlap_while_one_is_rotated(store: &Arc<dyn Store>, clock: &ManualClock) {
    let org = org(store).await;
    let own = endpoint(org);
    store
        .create_endpoint(own.clone(), vec![secret(org, Some(own.id))], entry(org, "create"))
        .await
        .expect("created");
    let ends = |seconds| Some(Timestamp::from_micros(1) + Duration::from_secs(seconds));
    let now = 1_000_000;
    clock.set(Timestamp::from_seconds(now));
    let valid = async || {
        store
            .list_secrets(org, Source::Vapi, Some(own.id))
            .await
            .expect("a list")
            .iter()
            .map(|s| s.not_after)
            .collect::<Vec<_>>()
    };
    clock.advance(Duration::from_secs(1));
    assert!(
        store
            .add_secrets(
                vec![secret(org, Some(own.id))],
                None,
                ends(1_000_100),
                entry(org, "rotate")
            )
            .await
            .expect("added")
    );
    assert_eq!(
        valid().await,
        [None, ends(1_000_100)],
        "newest first, the other one ends"
    );
    clock.advance(Duration::from_secs(1));
    assert!(
        store
            .add_secrets(
                vec![secret(org, Some(own.id))],
                None,
                ends(1_000_200),
                entry(org, "rotate")
            )
            .await
            .expect("added")
    );
    assert_eq!(
        valid().await,
        [None, ends(1_000_200), ends(1_000_100)],
        "an end is never moved back"
    );
    clock.set(Timestamp::from_seconds(1_000_101));
    assert_eq!(valid().await, [None, ends(1_000_200)], "what has ended is not listed");
    assert!(
        store
            .add_secrets(vec![secret(org, Some(own.id))], None, None, entry(org, "rotate"))
            .await
            .expect("added")
    );
    assert_eq!(
        valid().await,
        [None, None, ends(1_000_200)],
        "without an end the others stay"
    );
    let version = async || {
        let found = store.find_endpoint(org, own.id).await.expect("a look");
        found.expect("it is there").version
    };
    assert_eq!(version().await, 4, "each rotation is a change of the endpoint");
    let former = Some(3);
    let added = store
        .add_secrets(vec![secret(org, Some(own.id))], former, None, entry(org, "rotate"))
        .await;
    assert!(!added.expect("another version stands"));
    let deleted = store.delete_endpoint(org, own.id, former, entry(org, "delete")).await;
    assert!(!deleted.expect("another version stands"));
    let renamed = Endpoint {
        name: "back office".into(),
        version: 3,
        ..own.clone()
    };
    assert!(
        !store
            .update_endpoint(renamed.clone(), entry(org, "update"))
            .await
            .expect("another version stands")
    );
    let renamed = Endpoint { version: 4, ..renamed };
    assert!(
        store
            .update_endpoint(renamed, entry(org, "update"))
            .await
            .expect("changed")
    );
    assert_eq!((valid().await.len(), version().await), (3, 5));
    let deleted = store.delete_endpoint(org, own.id, Some(5), entry(org, "delete")).await;
    assert!(deleted.expect("deleted"));
}

pub async fn secrets_are_limited_to_what_is_valid(store: &Arc<dyn Store>, clock: &ManualClock) {
    let org = org(store).await;
    let soon = clock.now() + Duration::from_secs(1_000);
    let add = async |end| {
        store
            .add_secrets(vec![secret(org, None)], None, end, entry(org, "rotate"))
            .await
    };
    let ids = async || {
        let all = store.list_secrets(org, Source::Vapi, None).await.expect("a list");
        all.into_iter().map(|secret| secret.id).collect::<Vec<_>>()
    };
    for _ in 0..SECRETS_PER_OWNER_MAX {
        clock.advance(Duration::from_secs(1));
        assert!(add(None).await.expect("within the limit"));
    }
    assert!(is_conflict(&add(None).await), "all of them last");
    let before = ids().await;
    assert_eq!(before.len(), SECRETS_PER_OWNER_MAX as usize);
    // The others become former ones, and the oldest of them gives way.
    clock.advance(Duration::from_secs(1));
    assert!(add(Some(soon)).await.expect("in the place of the oldest"));
    assert_eq!(ids().await[1..], before[..before.len() - 1]);
    clock.set(soon + Duration::from_secs(1));
    assert!(
        store
            .add_secrets(vec![secret(org, None)], None, None, entry(org, "rotate"))
            .await
            .expect("what has ended does not count")
    );
    assert_eq!(
        store.list_secrets(org, Source::Vapi, None).await.expect("a list").len(),
        2
    );
}

pub async fn the_organisations_own_secrets_are_replaced(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let own = endpoint(org);
    store
        .create_endpoint(own.clone(), vec![secret(org, Some(own.id))], entry(org, "create"))
        .await
        .expect("created");
    let replace = async |secrets, end| {
        store
            .replace_org_secrets(org, Source::Vapi, secrets, end, entry(org, "rotate"))
            .await
            .expect("replaced");
    };
    let ends = async || {
        store
            .list_secrets(org, Source::Vapi, None)
            .await
            .expect("a list")
            .iter()
            .map(|s| s.not_after)
            .collect::<Vec<_>>()
    };
    replace(vec![secret(org, None), secret(org, None)], None).await;
    assert_eq!(ends().await, [None, None]);
    let later = Some(Timestamp::from_seconds(2_000_000));
    replace(vec![secret(org, None)], later).await;
    assert_eq!(ends().await.iter().filter(|end| **end == later).count(), 2);
    replace(vec![secret(org, None)], None).await;
    assert_eq!(ends().await, [None], "without an overlap the former ones are erased");
    replace(vec![], later).await;
    assert_eq!(ends().await, [], "an empty list erases");
    assert_eq!(
        store
            .list_secrets(org, Source::Vapi, Some(own.id))
            .await
            .expect("a list")
            .len(),
        1,
        "an endpoint's own ones stay"
    );
    assert_eq!(store.list_secrets(org, Source::Twilio, None).await.expect("a list"), []);
}

pub async fn secrets_of_another_owner_are_refused(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (own, other) = (endpoint(a), endpoint(b));
    store
        .create_endpoint(other.clone(), vec![], entry(b, "create"))
        .await
        .expect("created");
    for foreign in [
        secret(b, Some(own.id)),
        secret(a, Some(other.id)),
        secret(a, None),
        NewSecret {
            source: Source::Twilio,
            ..secret(a, Some(own.id))
        },
    ] {
        let refused = store
            .create_endpoint(own.clone(), vec![foreign], entry(a, "create"))
            .await;
        assert!(matches!(refused, Err(StoreError::Data { .. })), "{refused:?}");
    }
    assert_eq!(
        store.find_endpoint(a, own.id).await.expect("a look"),
        None,
        "nothing was kept"
    );
    assert!(
        !store
            .add_secrets(vec![secret(a, Some(other.id))], None, None, entry(a, "rotate"))
            .await
            .expect("another's endpoint is not there")
    );
    let twilio = NewSecret {
        source: Source::Twilio,
        ..secret(b, Some(other.id))
    };
    assert!(
        !store
            .add_secrets(vec![twilio], None, None, entry(b, "rotate"))
            .await
            .expect("another source's endpoint is not there")
    );
    assert!(matches!(
        store
            .replace_org_secrets(a, Source::Vapi, vec![secret(b, None)], None, entry(a, "rotate"))
            .await,
        Err(StoreError::Data { .. })
    ));
    assert_eq!(store.list_secrets(b, Source::Vapi, None).await.expect("a list"), []);
}

pub async fn a_use_of_a_secret_is_its_last_one(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (mine, theirs) = (endpoint(a), endpoint(b));
    let (one, other) = (secret(a, Some(mine.id)), secret(b, Some(theirs.id)));
    for (of, new) in [(&mine, &one), (&theirs, &other)] {
        store
            .create_endpoint(of.clone(), vec![new.clone()], entry(of.org, "create"))
            .await
            .expect("created");
    }
    let version = store.config_version().await.expect("a version");
    let used = |org, secret, seconds| SecretUse {
        org,
        secret,
        at: Timestamp::from_seconds(seconds),
    };
    // The second is older, the third names a secret under an organisation that does not own it.
    for uses in [
        vec![used(a, one.id, 900)],
        vec![used(a, one.id, 800), used(a, other.id, 950)],
        vec![],
    ] {
        store.record_secret_uses(uses).await.expect("noted");
    }
    let last = async |org| store.list_endpoint_secrets(org).await.expect("a list")[0].last_used_at;
    assert_eq!(last(a).await, Some(Timestamp::from_seconds(900)));
    assert_eq!(last(b).await, None);
    assert_eq!(
        store.config_version().await.expect("a version"),
        version,
        "nothing in memory has changed"
    );
}
