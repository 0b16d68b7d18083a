//! The store's events, actions and refused requests, and many organisations at once. Part of the
//! store's suite.

use super::store::{credential, entry, org, rule, sealed};
use crate::support::until;
use hookswitch::store::audit::AuditFilter;
use hookswitch::store::rejections::RejectionFilter;
use hookswitch::{
    domain::{
        ActionId, ActionKind, ActionState, AttemptOutcome, Cause, DedupeKey, Envelope, EventId, EventType, ManualClock,
        OrgId, Provider, RouteKey, RouteKind, RuleId, Source, Subject, Timestamp,
    },
    store::{
        Store, StoreError,
        credentials::Expects,
        history::{ActionFilter, EventFilter},
        ledger::{Claim, ClaimLimits, Occasion, PlannedAction, PlannedEvent, Record},
        rejections::Rejection,
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const FAR: Timestamp = Timestamp::from_seconds(9_000_000);

pub(super) fn planned(org: OrgId, subject: &str, kind: &str, actions: usize) -> PlannedEvent {
    let id = EventId::generate();
    let now = Timestamp::from_seconds(1_000_000);
    PlannedEvent {
        org,
        envelope: Envelope {
            id,
            source: Source::Vapi,
            event_type: EventType::new(Source::Vapi, kind),
            time: now,
            received_at: now,
            subject: Subject(subject.into()),
            org: Some(org),
            endpoint: None,
            secret: None,
            dedupe_key: DedupeKey(*id.as_bytes()),
            traceparent: None,
            content_type: "application/json".into(),
            path: "/webhooks/vapi".into(),
            query: "".into(),
            headers: vec![("x-note".into(), "ü".into())],
            hops: 0,
            body: "{}".into(),
        },
        body: sealed("body"),
        actions: (0..actions)
            .map(|n| PlannedAction {
                id: ActionId::generate(),
                rule: RuleId::generate(),
                rule_name: format!("rule {n}"),
                kind: ActionKind::TwilioSendSms,
                credential_name: String::new(),
                request: Some(sealed("request")),
                state: ActionState::Pending,
                cause: None,
                detail: None,
                due_at: None,
                expires_at: FAR,
            })
            .collect(),
        occasion: Occasion::Receipt,
    }
}

pub(super) async fn claim(store: &Arc<dyn Store>, now: i64, count_max: u32) -> Vec<Claim> {
    let limits = ClaimLimits {
        count_max,
        turn_max: count_max,
        allowances: vec![],
        deferred: Arc::default(),
        lease: Duration::from_mins(1),
    };
    store
        .claim(limits, Timestamp::from_seconds(now))
        .await
        .expect("a claim")
}

fn parked(claim: &Claim, credential_version: Option<i64>) -> Record {
    Record {
        action: claim.action,
        org: claim.org,
        fence: claim.fence,
        to: ActionState::Parked,
        cause: Cause::CredentialRefused,
        detail: "refused".into(),
        http_status: Some(401),
        provider_code: Some("20003".into()),
        provider_ref: None,
        due_at: None,
        counts: false,
        is_absence: false,
        is_unsent: true,
        is_look_up: false,
        outcome: AttemptOutcome::Parked,
        ended_at: Timestamp::from_seconds(1_000_000),
        credential_version,
    }
}

pub(super) async fn state(store: &Arc<dyn Store>, org: OrgId, id: ActionId) -> (ActionState, Option<Cause>) {
    let action = store.find_action(org, id).await.expect("a look").expect("there");
    (action.state, action.cause)
}

pub async fn a_newer_credential_makes_parked_actions_due(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    for one in [a, b] {
        store
            .save_credential(credential(one, Provider::Twilio, "", "one"), entry(one, "connect"))
            .await
            .expect("saved");
        store
            .plan(vec![planned(one, "call", "end-of-call-report", 3)].into())
            .await
            .expect("planned");
    }
    let claims = claim(store, 1_000_001, 6).await;
    assert_eq!(claims.len(), 6);
    // Of each organisation: two parked under the version that failed, one by an answer about a
    // version yet to come. (One without a version would go on at once: a credential stands.)
    let mut records = Vec::new();
    for one in [a, b] {
        records.extend(
            claims
                .iter()
                .filter(|claim| claim.org == one)
                .zip([Some(1), Some(1), Some(2)])
                .map(|(claim, version)| parked(claim, version)),
        );
    }
    store.record(records.clone()).await.expect("recorded");
    let ours: Vec<_> = records
        .iter()
        .filter(|record| record.org == a)
        .map(|record| record.action)
        .collect();
    assert_eq!(store.list_attempts(a, ours[1]).await.expect("attempts").len(), 1);
    assert_eq!(store.ledger_state().await.expect("a state").parked, 6);

    clock.set(Timestamp::from_seconds(1_000_100));
    let second = store
        .save_credential(credential(a, Provider::Twilio, "", "two"), entry(a, "connect"))
        .await
        .expect("saved");
    assert_eq!(second.version, 2);
    assert_eq!(state(store, a, ours[0]).await, (ActionState::Pending, None));
    assert_eq!(state(store, a, ours[1]).await, (ActionState::Pending, None));
    assert_eq!(
        state(store, a, ours[2]).await.0,
        ActionState::Parked,
        "parked under this very version: the save does not mend it"
    );
    for record in records.iter().filter(|record| record.org == b) {
        assert_eq!(
            state(store, b, record.action).await.0,
            ActionState::Parked,
            "another organisation's stay"
        );
    }
    assert_eq!(
        store
            .find_action(a, ours[0])
            .await
            .expect("a look")
            .expect("there")
            .due_at,
        Timestamp::from_seconds(1_000_100)
    );
    assert!(
        store
            .next_due_at()
            .await
            .expect("a look")
            .is_some_and(|due| due <= Timestamp::from_seconds(1_000_100)),
        "their turn has come"
    );
    let mut resumed: Vec<_> = claim(store, 1_000_100, 9)
        .await
        .iter()
        .map(|claim| claim.action)
        .collect();
    resumed.sort_unstable();
    assert_eq!(resumed, {
        let mut expected = ours[..2].to_vec();
        expected.sort_unstable();
        expected
    });
}

pub async fn an_erased_credential_parks_what_has_not_gone_out(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    for one in [a, b] {
        store
            .save_credential(credential(one, Provider::Twilio, "", "one"), entry(one, "connect"))
            .await
            .expect("saved");
    }
    let (ours, theirs) = (
        planned(a, "call", "end-of-call-report", 2),
        planned(b, "call", "end-of-call-report", 1),
    );
    let (ids, their_id) = (
        ours.actions.iter().map(|action| action.id).collect::<Vec<_>>(),
        theirs.actions[0].id,
    );
    store.plan(vec![ours].into()).await.expect("planned");
    let running = claim(store, 1_000_001, 1).await[0].action;
    let pending = *ids.iter().find(|id| **id != running).expect("the other one");
    store.plan(vec![theirs].into()).await.expect("planned");
    assert!(
        store
            .erase_credential(a, Provider::Twilio, "", Expects::Anything, entry(a, "erase"))
            .await
            .expect("erased")
    );
    assert_eq!(
        state(store, a, pending).await,
        (ActionState::Parked, Some(Cause::NotConnected))
    );
    assert_eq!(
        state(store, a, running).await.0,
        ActionState::Running,
        "what is under way ends by itself"
    );
    assert_eq!(state(store, b, their_id).await.0, ActionState::Pending);
    store
        .save_credential(credential(a, Provider::Twilio, "", "two"), entry(a, "connect"))
        .await
        .expect("saved");
    assert_eq!(
        state(store, a, pending).await.0,
        ActionState::Pending,
        "connecting again resumes"
    );
}

pub async fn history_is_paged_and_filtered(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let events: Vec<_> = (0..5)
        .map(|n| {
            planned(
                a,
                &format!("call-{}", n % 2),
                if n < 2 { "status-update" } else { "end-of-call-report" },
                2,
            )
        })
        .collect();
    store.plan(events.clone().into()).await.expect("planned");
    let ids = |filter: EventFilter, before, count_max| async move {
        store
            .list_events(a, filter, before, count_max)
            .await
            .expect("a page")
            .iter()
            .map(|event| event.id)
            .collect::<Vec<_>>()
    };
    let newest_first: Vec<_> = events.iter().rev().map(|event| event.envelope.id).collect();
    let first = ids(EventFilter::default(), None, 2).await;
    assert_eq!(
        [first.clone(), ids(EventFilter::default(), Some(first[1]), 9).await].concat(),
        newest_first
    );
    let subject = |text: &str| EventFilter {
        subject: Some(text.into()),
        ..EventFilter::default()
    };
    assert_eq!(
        ids(subject("call-1"), None, 9).await,
        [newest_first[1], newest_first[3]]
    );
    assert_eq!(
        ids(subject("call-1"), Some(newest_first[1]), 9).await,
        [newest_first[3]]
    );
    let of_type = EventFilter {
        event_type: Some("vapi.status-update".into()),
        source: Some(Source::Vapi),
        ..subject("call-0")
    };
    assert_eq!(ids(of_type, None, 9).await, [newest_first[4]]);
    assert_eq!(
        ids(
            EventFilter {
                source: Some(Source::Twilio),
                ..EventFilter::default()
            },
            None,
            9
        )
        .await,
        []
    );

    let found = store
        .find_event(a, newest_first[0])
        .await
        .expect("a look")
        .expect("there");
    assert_eq!(
        (found.headers, found.body, found.body_bytes),
        (vec![("x-note".to_owned(), "ü".to_owned())], Some(sealed("body")), 2)
    );
    assert_eq!(store.find_event(b, newest_first[0]).await.expect("a look"), None);
    assert_eq!(
        store
            .list_events(b, EventFilter::default(), None, 9)
            .await
            .expect("a page"),
        []
    );

    let all: Vec<_> = store
        .list_actions(a, ActionFilter::default(), None, 99)
        .await
        .expect("a page")
        .iter()
        .map(|action| action.id)
        .collect();
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by(|x, y| x > y), "newest first");
    let claimed = claim(store, 1_000_001, 3).await;
    store.record(vec![parked(&claimed[0], None)]).await.expect("recorded");
    let count = async |filter: ActionFilter| store.list_actions(a, filter, None, 99).await.expect("a page").len();
    for (wanted, there) in ActionState::ALL.iter().map(|wanted| {
        (
            *wanted,
            match wanted {
                ActionState::Pending => 7,
                ActionState::Running => 2,
                ActionState::Parked => 1,
                _ => 0,
            },
        )
    }) {
        let of_state = || ActionFilter {
            state: Some(wanted),
            ..ActionFilter::default()
        };
        assert_eq!(count(of_state()).await, there, "{wanted}");
        let page = store.list_actions(a, of_state(), None, 1).await.expect("a page");
        if let Some(first) = page.first() {
            let rest = store.list_actions(a, of_state(), Some(first.id), 99);
            let rest = rest.await.expect("a page");
            assert_eq!((first.state, rest.len()), (wanted, there - 1), "{wanted}");
        }
    }
    assert_eq!(
        count(ActionFilter {
            provider: Some(Provider::Http),
            ..ActionFilter::default()
        })
        .await,
        0
    );
    assert_eq!(
        count(ActionFilter {
            event: Some(newest_first[0]),
            ..ActionFilter::default()
        })
        .await,
        2
    );
    let one = &store
        .list_actions(a, ActionFilter::default(), None, 1)
        .await
        .expect("a page")[0];
    let of_rule = |rule| ActionFilter {
        rule: Some(rule),
        ..ActionFilter::default()
    };
    let own = store
        .list_actions(a, of_rule(one.rule), None, 99)
        .await
        .expect("a page");
    assert!(own.iter().any(|action| action.id == one.id) && own.iter().all(|action| action.rule == one.rule));
    assert!(own.len() < all.len(), "there are several rules");
    assert_eq!(count(of_rule(RuleId::generate())).await, 0);
    assert_eq!(
        store.list_actions(b, of_rule(one.rule), None, 9).await.expect("a page"),
        []
    );
    assert_eq!(
        store
            .list_actions(
                b,
                ActionFilter {
                    event: Some(newest_first[0]),
                    ..ActionFilter::default()
                },
                None,
                9
            )
            .await
            .expect("a page"),
        []
    );
    for wanted in ActionState::ALL {
        assert_eq!(
            store
                .list_actions(
                    b,
                    ActionFilter {
                        state: Some(*wanted),
                        ..ActionFilter::default()
                    },
                    None,
                    9
                )
                .await
                .expect("a page"),
            []
        );
    }
    assert_eq!(store.find_action(b, all[0]).await.expect("a look"), None);
    assert_eq!(store.list_attempts(b, claimed[0].action).await.expect("a page"), []);
    let attempt = &store.list_attempts(a, claimed[0].action).await.expect("a page")[0];
    assert_eq!(
        (
            attempt.number,
            attempt.is_look_up,
            attempt.http_status,
            attempt.outcome.as_deref()
        ),
        (1, false, Some(401), Some("parked"))
    );
    let gauges = store.ledger_state().await.expect("a state");
    assert_eq!(
        (gauges.parked, gauges.unknown, gauges.dead, gauges.oldest_due_at.len()),
        (1, 0, 0, 1)
    );
}

fn rejection(n: u32, org: Option<OrgId>, is_claimed: bool) -> Rejection {
    Rejection {
        id: Uuid::now_v7(),
        at: Timestamp::from_seconds(n.into()),
        source: Source::Vapi,
        endpoint: None,
        org,
        is_claimed,
        cause: "bad_signature".into(),
        status: 401,
        bytes: u64::from(n),
        ids: vec![RouteKey::new(RouteKind::VapiAssistant, "a\0ß")],
        head: "{\"m".into(),
        signed_url: n
            .is_multiple_of(2)
            .then(|| "https://hooks.example/webhooks/vapi".into()),
    }
}

async fn kept(store: &Arc<dyn Store>) -> Vec<u64> {
    store
        .list_rejections(None, RejectionFilter::default(), None, 9_999)
        .await
        .expect("a list")
        .iter()
        .map(|one| one.bytes)
        .collect()
}

pub async fn rejections_are_a_ring(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (OrgId::generate(), OrgId::generate());
    store.record_rejections(vec![], 4).await.expect("nothing");
    let batch: Vec<_> = (1..=4).map(|n| rejection(n, (n != 3).then_some(a), n == 4)).collect();
    store.record_rejections(batch.clone(), 4).await.expect("recorded");
    assert_eq!(kept(store).await, [4, 3, 2, 1], "at the limit");
    store.record_rejections(batch.clone(), 4).await.expect("recorded again");
    assert_eq!(
        kept(store).await,
        [4, 3, 2, 1],
        "a flush that is tried again adds nothing"
    );
    let mut expected: Vec<_> = batch.iter().rev().cloned().collect();
    assert_eq!(
        store
            .list_rejections(None, RejectionFilter::default(), None, 9)
            .await
            .expect("a list"),
        expected,
        "the operator sees all"
    );
    expected.remove(1);
    expected[0].head = String::new();
    expected[0].signed_url = None;
    assert_eq!(
        store
            .list_rejections(Some(a), RejectionFilter::default(), None, 9)
            .await
            .expect("a list"),
        expected,
        "the head of what was only claimed is withheld"
    );
    assert_eq!(
        store
            .list_rejections(Some(b), RejectionFilter::default(), None, 9)
            .await
            .expect("a list"),
        []
    );
    assert_eq!(
        store
            .list_rejections(Some(a), RejectionFilter::default(), Some(batch[1].id), 9)
            .await
            .expect("a page"),
        expected[2..]
    );
    store
        .record_rejections(vec![rejection(5, Some(b), false)], 4)
        .await
        .expect("recorded");
    assert_eq!(kept(store).await, [5, 4, 3, 2], "one above the limit drops the oldest");
    store
        .record_rejections((6..=20).map(|n| rejection(n, None, false)).collect(), 4)
        .await
        .expect("recorded");
    assert_eq!(kept(store).await, [20, 19, 18, 17], "a batch above the limit");
}

pub async fn a_lowered_limit_of_rejections_is_reached(store: &Arc<dyn Store>, _: &ManualClock) {
    store
        .record_rejections((0..2_500).map(|n| rejection(n, None, false)).collect(), 5_000)
        .await
        .expect("recorded");
    let mut sizes = Vec::new();
    for n in 0..3 {
        store
            .record_rejections(vec![rejection(9_000 + n, None, false)], 10)
            .await
            .expect("recorded");
        sizes.push(kept(store).await.len());
    }
    assert_eq!(
        sizes,
        [1_500, 500, 10],
        "at most 1,000 more than it appends are dropped at once"
    );
    store
        .record_rejections(vec![rejection(1, None, false)], 0)
        .await
        .expect("recorded");
    assert_eq!(kept(store).await, [] as [u64; 0]);
}

pub async fn writers_and_readers_never_meet_a_busy_database(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let writers = (0..50).map(|_| async {
        for n in 0..10 {
            store.create_rule(rule(org, "one"), entry(org, "create")).await?;
            store
                .plan(vec![planned(org, "call", "end-of-call-report", 1)].into())
                .await?;
            store.record_rejections(vec![rejection(n, None, false)], 50).await?;
        }
        Ok::<_, StoreError>(())
    });
    let readers = (0..20).map(|_| async {
        for _ in 0..20 {
            store.list_rules(org, None, 50).await?;
            store.list_events(org, EventFilter::default(), None, 50).await?;
            store.load_rule_changes(0).await?;
            store.config_version().await?;
        }
        Ok::<_, StoreError>(())
    });
    let (written, read) = futures_util::future::join(
        futures_util::future::join_all(writers),
        futures_util::future::join_all(readers),
    )
    .await;
    for end in written.into_iter().chain(read) {
        end.expect("no one meets a busy database");
    }
    assert_eq!(store.count_rules(org).await.expect("a count"), 500);
    assert_eq!(
        store
            .list_events(org, EventFilter::default(), None, 999)
            .await
            .expect("a list")
            .len(),
        500
    );
}

/// Polls for so long, then drops it. Whether it ended.
async fn polled_for<T>(time: Duration, work: impl Future<Output = T>) -> bool {
    let (mut work, begun) = (std::pin::pin!(work), std::time::Instant::now());
    while begun.elapsed() < time {
        if futures_util::poll!(&mut work).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

pub async fn aborted_writes_leave_a_store_that_writes(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let begun = std::time::Instant::now();
    store
        .create_rule(rule(org, "first"), entry(org, "create"))
        .await
        .expect("the first write");
    let (whole, mut answered) = (begun.elapsed().min(Duration::from_millis(5)), 1);
    for n in 0..1_000_u32 {
        let write = store.create_rule(rule(org, "one"), entry(org, "create"));
        // From "never polled" to "committed, not yet answered": a scatter over about twice a
        // command's life.
        answered += usize::from(polled_for(whole * (n * 7 % 200) / 100, write).await);
        polled_for(whole * (n * 3 % 100) / 100, store.load_rule_changes(0)).await;
    }
    let last = rule(org, "last");
    store
        .create_rule(last.clone(), entry(org, "create"))
        .await
        .expect("the next write works");
    assert_eq!(store.find_rule(org, last.id).await.expect("a look"), Some(last));
    // Writes whose callers went away may still be under way: they end by themselves.
    let rules = until("each that was written is whole, with its entry", || async {
        let rules = store.list_rules(org, None, 9_999).await.expect("a list");
        let entries = store
            .list_audit(org, AuditFilter::default(), None, 9_999)
            .await
            .expect("audit");
        let seen = store.load_rule_changes(0).await.expect("readers work, too");
        let version = store.config_version().await.expect("a version");
        (rules.len() + 1 == entries.len() && seen.rules.len() == rules.len() && seen.version == version)
            .then_some(rules)
    })
    .await;
    assert!(rules.len() > answered, "what was answered is there");
}
