//! Sessions, links and keys of requests; part of the store's suite.

use super::store::{entry, org, sealed};
use hookswitch::{
    domain::{Clock, ManualClock, OrgId},
    store::{
        Store,
        callers::{KeyedRequest, SESSIONS_PER_ORG_MAX, Session},
    },
};
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_hours(1);

fn session(clock: &ManualClock, org: OrgId, number: u16, is_link: bool) -> Session {
    let mut token_hash = [7; 32];
    token_hash[..2].copy_from_slice(&number.to_be_bytes());
    Session {
        org,
        token_hash,
        is_link,
        subject: "user-7".into(),
        role: "admin".into(),
        created_at: clock.now(),
        expires_at: clock.now() + HOUR + Duration::from_secs(number.into()),
    }
}

pub async fn a_session_is_found_until_it_ends(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (kept, ended) = (session(clock, a, 1, false), session(clock, a, 2, false));
    for one in [&kept, &ended] {
        store
            .begin_session(one.clone(), entry(a, "create"))
            .await
            .expect("begun");
    }
    let find = |org, hash| store.find_session(org, hash);
    assert_eq!(find(a, kept.token_hash).await.expect("a look"), Some(kept.clone()));
    assert_eq!(
        find(b, kept.token_hash).await.expect("a look"),
        None,
        "of another organisation"
    );
    assert_eq!(find(a, [0; 32]).await.expect("a look"), None);
    assert!(!store.end_session(b, ended.token_hash).await.expect("nothing of b's"));
    assert!(store.end_session(a, ended.token_hash).await.expect("ended"));
    assert!(!store.end_session(a, ended.token_hash).await.expect("a second time"));
    assert_eq!(find(a, ended.token_hash).await.expect("a look"), None);
    clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(
        find(a, kept.token_hash).await.expect("a look"),
        None,
        "its time is over"
    );
}

pub async fn a_link_becomes_one_session(store: &Arc<dyn Store>, clock: &ManualClock) {
    let a = org(store).await;
    let link = session(clock, a, 1, true);
    store
        .begin_session(link.clone(), entry(a, "create"))
        .await
        .expect("a link");
    let found = store.find_session(a, link.token_hash).await.expect("a look");
    assert_eq!(found, None, "a link is no session");
    assert!(
        !store
            .end_session(a, link.token_hash)
            .await
            .expect("nor can it be ended as one")
    );
    let until = clock.now() + HOUR;
    let redeem = |number: u8| store.redeem_link(a, link.token_hash, [number; 32], until);
    let (one, two) = tokio::join!(redeem(1), redeem(2));
    let made: Vec<Session> = [one, two].into_iter().filter_map(|one| one.expect("a write")).collect();
    assert_eq!(made.len(), 1, "two uses at once make one session");
    assert_eq!((made[0].is_link, made[0].expires_at), (false, until));
    let found = store.find_session(a, made[0].token_hash).await.expect("a look");
    assert_eq!(found, Some(made[0].clone()));
    let late = session(clock, a, 3, true);
    store
        .begin_session(late.clone(), entry(a, "create"))
        .await
        .expect("a link");
    clock.advance(HOUR * 2);
    let redeemed = store.redeem_link(a, late.token_hash, [9; 32], clock.now() + HOUR).await;
    assert_eq!(redeemed.expect("a write"), None, "too late");
}

pub async fn sessions_are_limited(store: &Arc<dyn Store>, clock: &ManualClock) {
    let a = org(store).await;
    let count = u16::try_from(SESSIONS_PER_ORG_MAX).expect("some hundreds") + 1;
    for number in 1..=count {
        let one = session(clock, a, number, false);
        store.begin_session(one, entry(a, "create")).await.expect("begun");
    }
    let find = |number| store.find_session(a, session(clock, a, number, false).token_hash);
    assert_eq!(
        find(1).await.expect("a look"),
        None,
        "the one that would end first gave way"
    );
    for kept in [2, count] {
        assert!(find(kept).await.expect("a look").is_some(), "{kept}");
    }
}

pub async fn a_key_is_one_requests(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let take = |org: OrgId, key: u8, request: u8| {
        let (day, minute) = (Duration::from_hours(24), Duration::from_mins(1));
        let now = clock.now();
        store.take_request_key(org, [key; 32], [request; 32], now - day, now - minute)
    };
    let (one, two) = tokio::join!(take(a, 1, 1), take(a, 1, 1));
    let mut said = [one.expect("a write"), two.expect("a write")];
    said.sort_by_key(|one| *one != KeyedRequest::First);
    assert_eq!(said, [KeyedRequest::First, KeyedRequest::InProgress]);
    assert_eq!(take(a, 1, 2).await.expect("a look"), KeyedRequest::Other);
    assert_eq!(
        take(b, 1, 2).await.expect("a write"),
        KeyedRequest::First,
        "keys are an organisation's own"
    );

    let answer = sealed("the answer");
    store
        .answer_request_key(a, [1; 32], Some(answer.clone()))
        .await
        .expect("kept");
    assert_eq!(take(a, 1, 1).await.expect("a look"), KeyedRequest::Answered(answer));
    assert_eq!(take(a, 1, 2).await.expect("a look"), KeyedRequest::Other);
    store
        .answer_request_key(a, [1; 32], None)
        .await
        .expect("an answer is not taken back");
    assert!(matches!(
        take(a, 1, 1).await.expect("a look"),
        KeyedRequest::Answered(_)
    ));

    store.answer_request_key(b, [1; 32], None).await.expect("given back");
    assert_eq!(take(b, 1, 3).await.expect("a write"), KeyedRequest::First);
    // Cut off: the same request may begin again, another one may not.
    clock.advance(Duration::from_mins(2));
    assert_eq!(take(b, 1, 4).await.expect("a look"), KeyedRequest::Other);
    assert_eq!(take(b, 1, 3).await.expect("a write"), KeyedRequest::First);
    clock.advance(Duration::from_hours(24));
    assert_eq!(
        take(a, 1, 2).await.expect("a write"),
        KeyedRequest::First,
        "a day later nothing is known"
    );
}
