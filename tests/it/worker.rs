//! The worker, from a delivery to what the provider saw.

mod budget;
mod changes;
mod held;
mod open;
mod poison;
mod quarantine;
mod quiet;
mod recovery;
mod retention;
mod wakes;

use crate::ledger::suite::audit;
use crate::support::{
    app::{
        TestApp,
        twilio::Mode,
        worker::{ACCOUNT, OTHER_ACCOUNT, report},
    },
    until,
};
use hookswitch::domain::*;
use hookswitch::{
    attempt::Leased,
    store::{history::StoredAction, ledger::Claim},
    telemetry::Standing,
};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_delivered_again_and_again_sends_one_sms_and_a_failing_rule_costs_itself_only() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule(
        "text the caller",
        Some("message.endedReason != 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    app.rule("fails", None, "{{ message.absent.number }}").await;
    app.rule(
        "not this one",
        Some("message.endedReason == 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    app.start_worker();
    let tags: Vec<u64> = (0..50)
        .map(|_| app.deliver(app.a, 1, &report("+15550001111")))
        .collect();
    let unknown = app.deliver(
        app.a,
        2,
        &json!({"message": {"type": "x", "endedReason": "customer-busy", "customer": {"number": "+15550002222"}}}),
    );
    for tag in tags {
        app.acked(tag).await;
    }
    app.acked(unknown).await;
    let sent = until("the first event's own rule", || async {
        app.actions()
            .await
            .into_iter()
            .find(|action| action.rule_name == "text the caller" && action.state == ActionState::Succeeded)
    })
    .await;
    assert_eq!((sent.attempts, sent.cause), (1, Some(Cause::Accepted)));
    let dead: Vec<StoredAction> = app
        .actions()
        .await
        .into_iter()
        .filter(|action| action.state == ActionState::Dead)
        .collect();
    assert_eq!(dead.len(), 2, "the failing rule, for each of the two events");
    assert!(dead.iter().all(|action| {
        action.cause == Some(Cause::TemplateFailed)
            && action
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains("message.absent"))
    }));
    until("the second event's own rule", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;
    let mut recipients: Vec<String> = app
        .twilio()
        .0
        .lock()
        .expect("lock")
        .messages
        .iter()
        .map(|message| message["to"].to_string())
        .collect();
    recipients.sort();
    assert_eq!(recipients, ["\"+15550001111\"", "\"+15550002222\""]);
    app.stop_worker().await;
}

/// Invariant 7: what a rule that cannot be read would have wanted is unknown. Its part of an event
/// waits until the rule is saved again, and every other rule runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_cannot_be_read_holds_its_own_part_until_it_is_saved_again() {
    let mut app = TestApp::texting().await;
    let damaged = app.rule("text the office", None, "+15550009999").await;
    // As a later release may have written it: an action of a kind that this one does not know.
    let spec = serde_json::to_string(&RuleSpec {
        name: "text the office".into(),
        ..app.spec_of(damaged).await
    })
    .expect("JSON")
    .replace("twilio.send_sms", "pigeon.send");
    app.overwrite_rule(damaged, &spec).await;
    app.start_worker();
    for (key, number) in [(1, "+15550001111"), (2, "+15550002222")] {
        let tag = app.deliver(app.a, key, &report(number));
        app.acked(tag).await;
        // A redelivery of the queue holds nothing twice.
        let tag = app.deliver(app.a, key, &report(number));
        app.acked(tag).await;
    }
    // Of another type: the rule is not about it.
    let tag = app.deliver_as(app.a, 3, "status-update", &report("+15550003333"));
    app.acked(tag).await;
    until("the rule that can be read", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;
    let held = app
        .store
        .list_held_parts(app.a, damaged.as_bytes(), 10)
        .await
        .expect("read");
    assert_eq!(held.len(), 4, "two events, each received twice");
    assert!(
        app.actions()
            .await
            .iter()
            .all(|action| action.rule_name == "text the caller")
    );

    app.save_rule(damaged, &spec.replace("pigeon.send", "twilio.send_sms"))
        .await;
    until("the part that waited", || async {
        (app.twilio().count() == (4, 4)).then_some(())
    })
    .await;
    until("nothing waits", || async {
        let rules = app.store.list_held_rules(10).await.expect("read");
        rules.is_empty().then_some(())
    })
    .await;
    let mut by_rule: Vec<String> = app.actions().await.into_iter().map(|action| action.rule_name).collect();
    by_rule.sort();
    assert_eq!(
        by_rule,
        [
            "text the caller",
            "text the caller",
            "text the office",
            "text the office"
        ],
        "each rule once for each event"
    );
    app.stop_worker().await;
}

/// Parts that wait for a deleted rule are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_damaged_rule_is_dropped_with_the_rule() {
    let mut app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let damaged = app.rule("text the office", None, "+15550009999").await;
    app.overwrite_rule(damaged, "{\"name\":").await;
    app.start_worker();
    // Nothing of the rule can be read: each type may be meant.
    let tag = app.deliver_as(app.a, 1, "status-update", &report("+15550001111"));
    app.acked(tag).await;
    assert_eq!(app.store.list_held_rules(10).await.expect("read").len(), 1);
    assert!(
        app.store
            .delete_rule(app.a, damaged, None, audit(app.a))
            .await
            .expect("deleted")
    );
    until("nothing waits", || async {
        let rules = app.store.list_held_rules(10).await.expect("read");
        rules.is_empty().then_some(())
    })
    .await;
    assert_eq!(app.twilio().count(), (0, 0));
    app.stop_worker().await;
}

/// Invariant 2: an SMS that Twilio took without an answer is found by a look-up, never sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_without_an_answer_is_looked_up_and_not_sent_again() {
    let mut app = TestApp::texting().await;
    app.twilio().set(Mode::AcceptAndHang);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    let found = app.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 1, 1)
    );
    assert_eq!(app.twilio().count(), (1, 1));
    app.stop_worker().await;
}

/// Invariant 2: the list of another account proves nothing about a message of the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sms_is_looked_up_at_the_account_that_sent_it_and_nowhere_else() {
    let mut app = TestApp::texting().await;
    app.twilio().set(Mode::AcceptAndHang);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("taken", || async { (app.twilio().count() == (1, 1)).then_some(()) }).await;
    app.connect_account(OTHER_ACCOUNT, &"t2".repeat(16)).await;
    app.twilio().set(Mode::Accept);
    let asked = until("a person is asked", || async {
        app.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::AccountReplaced))
    })
    .await;
    assert_eq!(asked.state, ActionState::Unknown);
    assert_eq!(app.twilio().count(), (1, 1), "sent once");
    // A new event goes out by the new account at once.
    app.deliver(app.a, 2, &report("+15550002222"));
    until("the second one", || async {
        (app.twilio().count() == (2, 2)).then_some(())
    })
    .await;

    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let now = app.clock.now();
    let until_then = now + Duration::from_hours(1);
    app.store
        .retry(app.a, asked.id, until_then, now, audit(app.a))
        .await
        .expect("answered");
    let found = until("found", || async {
        app.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::LookedUp))
    })
    .await;
    assert_eq!((found.id, found.attempts), (asked.id, 1));
    assert_eq!(app.twilio().count(), (2, 2), "never sent again");
    app.stop_worker().await;
}

/// Invariant 2: only a person can say that the first account did not send it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sms_goes_out_by_another_account_when_a_person_says_so() {
    let mut app = TestApp::texting().await;
    app.twilio().set(Mode::Hang);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("asked", || async { (app.twilio().count().0 == 1).then_some(()) }).await;
    app.connect_account(OTHER_ACCOUNT, &"t2".repeat(16)).await;
    app.twilio().set(Mode::Accept);
    let asked = until("a person is asked", || async {
        app.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::AccountReplaced))
    })
    .await;
    let resolved = app
        .store
        .resolve(app.a, asked.id, ActionState::Pending, app.clock.now(), audit(app.a))
        .await;
    resolved.expect("answered");
    app.action_in(ActionState::Succeeded).await;
    assert_eq!(app.twilio().count(), (2, 1));
    app.stop_worker().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_arrived_is_proved_absent_by_two_look_ups_and_sent_again() {
    let mut app = TestApp::texting().await;
    app.twilio().set(Mode::Hang);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    app.action_in(ActionState::Unknown).await;
    app.twilio().set(Mode::Accept);
    let sent = app.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (sent.cause, sent.attempts, sent.look_ups),
        (Some(Cause::Accepted), 2, 2)
    );
    assert_eq!(app.twilio().count(), (2, 1));
    app.stop_worker().await;
}

/// Invariant 6: a refused credential parks after one call, and a newer version resumes without a
/// used-up try. Without a credential the action parks, whatever the environment holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_refused_credential_parks_and_a_newer_one_resumes() {
    let mut app = TestApp::working().await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    assert_eq!(
        app.action_in(ActionState::Parked).await.cause,
        Some(Cause::NotConnected)
    );
    assert_eq!(app.twilio().count(), (0, 0));
    app.connect_account(ACCOUNT, &"bad0".repeat(8)).await;
    let refused = until("refused", || async {
        app.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::CredentialRefused))
    })
    .await;
    assert_eq!((refused.state, refused.attempts), (ActionState::Parked, 0));
    let health = app
        .store
        .find_credential(app.a, Provider::Twilio, "")
        .await
        .expect("read")
        .expect("there")
        .health;
    assert_eq!(health.state, IntegrationState::NeedsReconnecting);
    assert_eq!(app.twilio().count(), (1, 0));
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.action_in(ActionState::Succeeded).await;
    assert_eq!(app.twilio().count(), (2, 1));
    app.stop_worker().await;
}

/// Invariant 7: an organisation that is not known is waited for, and nobody waits behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_unknown_organisation_waits_and_stands_in_nobodys_way() {
    let mut app = TestApp::working().await;
    let late = OrgId::generate();
    app.start_worker();
    let first = app.deliver(late, 1, &report("+15550001111"));
    let second = app.deliver(app.a, 2, &report("+15550001111"));
    app.acked(second).await;
    assert!(!app.is_acked(first));
    app.store
        .create_organisation(late, "late", audit(late))
        .await
        .expect("created");
    app.acked(first).await;
    app.stop_worker().await;
}

/// An outage opens the breaker, and the actions that waited go out when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_behind_a_breaker() {
    let mut app = TestApp::working().await;
    app.settings.worker.breaker_failures = 3;
    app.settings.worker.breaker_seconds = Duration::from_millis(300);
    app.settings.worker.attempts_max = 50;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.twilio().set(Mode::Unavailable);
    app.start_worker();
    let count = 12;
    for key in 0..count {
        app.deliver(app.a, key, &report(&format!("+155500011{key:02}")));
    }
    until("a few failures", || async {
        (app.twilio().count().0 >= 3).then_some(())
    })
    .await;
    app.twilio().set(Mode::Accept);
    until("all went out", || async {
        app.actions()
            .await
            .iter()
            .all(|action| action.state == ActionState::Succeeded)
            .then_some(())
    })
    .await;
    assert_eq!(app.twilio().count().1, usize::from(count), "each once");
    app.stop_worker().await;
}

/// kill -9 between the claim and the record: found again at the next start, looked up, and not sent
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_after_the_send_leaves_no_second_sms() {
    let mut app = TestApp::texting().await;
    app.settings.worker.attempt_seconds_max = Duration::from_secs(10);
    app.twilio().set(Mode::AcceptAndHang);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("taken", || async { (app.twilio().count() == (1, 1)).then_some(()) }).await;
    assert_eq!(app.actions().await[0].state, ActionState::Running);
    // All at once, without a word: the worker's tasks are dropped where they stand.
    app.kill_worker().await;
    assert_eq!(
        app.actions().await[0].state,
        ActionState::Running,
        "nobody could say what became of it"
    );
    app.start_worker();
    let found = app.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 0, 1)
    );
    assert_eq!(app.twilio().count(), (1, 1));
    app.stop_worker().await;
}

/// Invariant 1: right before a send the lease has to cover the whole exchange. The wall clock
/// counts too, because a monotonic clock stands still while a virtual machine is suspended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_under_a_lease_that_does_not_cover_the_exchange() {
    let app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let engine = app.engine(Duration::from_secs(10), Duration::from_secs(2));
    let lease = Duration::from_mins(1);
    for (monotonic_left, wall_left, is_sent) in [
        (11, 60, false),
        (60, 11, false),
        (0, 60, false),
        (60, -5, false),
        (13, 13, true),
    ] {
        let claim = app.claimed(lease).await;
        let now = app.clock.now();
        let wall = Duration::from_secs(u64::try_from(wall_left).unwrap_or_default());
        let leased = Leased {
            claim: Claim {
                lease_until: if wall_left < 0 {
                    now - Duration::from_secs(5)
                } else {
                    now + wall
                },
                ..claim
            },
            lease_ends: std::time::Instant::now() + Duration::from_secs(monotonic_left),
            stop: CancellationToken::new(),
        };
        let before = app.twilio().count().0;
        let record = engine.run(&leased).await;
        let case = format!("{monotonic_left} s by the monotonic clock, {wall_left} s by the wall clock");
        assert_eq!(app.twilio().count().0 - before, usize::from(is_sent), "{case}");
        let expected = if is_sent {
            ActionState::Succeeded
        } else {
            ActionState::Pending
        };
        assert_eq!((record.to, record.counts), (expected, is_sent), "{case}");
        app.store.record(vec![record]).await.expect("recorded");
        if !is_sent {
            let cancelled = app
                .store
                .cancel(app.a, leased.claim.action, app.clock.now(), audit(app.a))
                .await;
            cancelled.expect("cancelled");
        }
    }
}

/// A deploy leaves nothing unknown: an attempt that has begun ends by itself, and an action that
/// was claimed and not sent is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_was_sent_and_gives_back_what_was_not() {
    let app = TestApp::working().await;
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let engine = app.engine(Duration::from_secs(10), Duration::from_secs(2));
    let stop = CancellationToken::new();
    stop.cancel();
    let claim = app.claimed(Duration::from_mins(1)).await;
    let leased = Leased {
        claim,
        lease_ends: std::time::Instant::now() + Duration::from_mins(1),
        stop,
    };
    let record = engine.run(&leased).await;
    assert_eq!((record.to, record.counts), (ActionState::Pending, false));
    assert!(record.is_unsent, "a later look-up does not look back to this claim");
    assert_eq!(app.twilio().count(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_slow_answer_records_the_answer() {
    let mut app = TestApp::working().await;
    app.settings.worker.attempt_seconds_max = Duration::from_secs(8);
    app.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    app.rule("text the caller", None, "{{ message.customer.number }}").await;
    app.twilio().set(Mode::AcceptWhenReleased);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("taken", || async { (app.twilio().count() == (1, 1)).then_some(()) }).await;
    app.ask_worker_to_stop();
    app.twilio().release();
    app.worker_ends().await;
    let action = app.actions().await.remove(0);
    assert_eq!(
        (action.state, action.cause, action.attempts),
        (ActionState::Succeeded, Some(Cause::Accepted), 1)
    );
}

/// When one half of the worker is gone, its work stops for good, while ingress goes on answering
/// 200 until the queue is full. So the process learns of it and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_breaks_says_so_and_its_other_half_goes_on() {
    let mut app = TestApp::texting().await;
    app.twilio().set(Mode::AcceptWhenReleased);
    app.start_worker();
    app.deliver(app.a, 1, &report("+15550001111"));
    until("taken", || async { (app.twilio().count() == (1, 1)).then_some(()) }).await;
    assert_eq!(app.failure().check().standing, Standing::Ok);
    app.break_queue();
    let reason = tokio::time::timeout(Duration::from_secs(10), app.failure().wait()).await;
    assert!(reason.expect("reported").contains("worker"));
    assert_eq!(app.failure().check().standing, Standing::Failed);
    app.twilio().release();
    app.action_in(ActionState::Succeeded).await;
    app.stop_worker().await;
}

/// Invariant 16: leases count by the database's clock, and beyond five seconds of offset nothing is
/// claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_count_by_the_databases_clock_and_far_from_it_nothing_is_claimed() {
    let mut app = TestApp::texting().await;
    let far = 6_000_000;
    app.set_clock_offset(far);
    app.start_worker();
    let tag = app.deliver(app.a, 1, &report("+15550001111"));
    app.acked(tag).await;
    // Planned, and left alone for longer than two looks for what is due.
    let begun = std::time::Instant::now();
    until("two looks", || async {
        (begun.elapsed() > Duration::from_millis(2_500)).then_some(())
    })
    .await;
    assert_eq!(app.actions().await[0].state, ActionState::Pending);
    assert_eq!(app.twilio().count(), (0, 0));

    let near = 4_000_000;
    app.set_clock_offset(near);
    app.twilio().set(Mode::AcceptWhenReleased);
    until("taken", || async { (app.twilio().count() == (1, 1)).then_some(()) }).await;
    let ahead = app.actions().await[0].updated_at.since(app.clock.now());
    assert!(
        ahead > Duration::from_secs(2) && ahead <= Duration::from_secs(4),
        "claimed by the database's clock: {ahead:?} ahead of ours"
    );
    app.twilio().release();
    app.action_in(ActionState::Succeeded).await;
    app.stop_worker().await;
}
