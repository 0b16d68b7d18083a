//! The worker, from a delivery to what the provider saw.

mod budget;
mod changes;
mod held;
mod poison;
mod rig;

use crate::ledger::suite::audit;
use hookswitch::domain::*;
use hookswitch::{
    attempt::Leased,
    store::{history::StoredAction, ledger::Claim},
    telemetry::Standing,
};
use rig::{ACCOUNT, Mode, OTHER_ACCOUNT, Rig, report, until};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_delivered_again_and_again_sends_one_sms_and_a_failing_rule_costs_itself_only() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule(
        "text the caller",
        Some("message.endedReason != 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    rig.rule("fails", None, "{{ message.absent.number }}").await;
    rig.rule(
        "not this one",
        Some("message.endedReason == 'customer-busy'"),
        "{{ message.customer.number }}",
    )
    .await;
    rig.start();
    let tags: Vec<u64> = (0..50)
        .map(|_| rig.deliver(rig.org, 1, &report("+15550001111")))
        .collect();
    let unknown = rig.deliver(
        rig.org,
        2,
        &json!({"message": {"type": "x", "endedReason": "customer-busy", "customer": {"number": "+15550002222"}}}),
    );
    for tag in tags {
        rig.acked(tag).await;
    }
    rig.acked(unknown).await;
    let sent = until("the first event's own rule", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.rule_name == "text the caller" && action.state == ActionState::Succeeded)
    })
    .await;
    assert_eq!((sent.attempts, sent.cause), (1, Some(Cause::Accepted)));
    let dead: Vec<StoredAction> = rig
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
        (rig.twilio.count() == (2, 2)).then_some(())
    })
    .await;
    let mut recipients: Vec<String> = rig
        .twilio
        .0
        .lock()
        .expect("lock")
        .messages
        .iter()
        .map(|message| message["to"].to_string())
        .collect();
    recipients.sort();
    assert_eq!(recipients, ["\"+15550001111\"", "\"+15550002222\""]);
    rig.stop().await;
}

/// Invariant 7: what a rule that cannot be read would have wanted is unknown. Its part of an event
/// waits until the rule is saved again, and every other rule runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_cannot_be_read_holds_its_own_part_until_it_is_saved_again() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    let damaged = rig.rule("text the office", None, "+15550009999").await;
    // As a later release may have written it: an action of a kind that this one does not know.
    let spec = serde_json::to_string(&RuleSpec {
        name: "text the office".into(),
        ..rig.spec_of(damaged).await
    })
    .expect("JSON")
    .replace("twilio.send_sms", "pigeon.send");
    rig.overwrite_rule(damaged, &spec).await;
    rig.start();
    for (key, number) in [(1, "+15550001111"), (2, "+15550002222")] {
        let tag = rig.deliver(rig.org, key, &report(number));
        rig.acked(tag).await;
        // A redelivery of the queue holds nothing twice.
        let tag = rig.deliver(rig.org, key, &report(number));
        rig.acked(tag).await;
    }
    // Of another type: the rule is not about it.
    let tag = rig.deliver_as(rig.org, 3, "status-update", &report("+15550003333"));
    rig.acked(tag).await;
    until("the rule that can be read", || async {
        (rig.twilio.count() == (2, 2)).then_some(())
    })
    .await;
    let held = rig
        .store
        .list_held_parts(rig.org, damaged.as_bytes(), 10)
        .await
        .expect("read");
    assert_eq!(held.len(), 4, "two events, each received twice");
    assert!(
        rig.actions()
            .await
            .iter()
            .all(|action| action.rule_name == "text the caller")
    );

    rig.save_rule(damaged, &spec.replace("pigeon.send", "twilio.send_sms"))
        .await;
    until("the part that waited", || async {
        (rig.twilio.count() == (4, 4)).then_some(())
    })
    .await;
    until("nothing waits", || async {
        let rules = rig.store.list_held_rules(10).await.expect("read");
        rules.is_empty().then_some(())
    })
    .await;
    let mut by_rule: Vec<String> = rig.actions().await.into_iter().map(|action| action.rule_name).collect();
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
    rig.stop().await;
}

/// Parts that wait for a deleted rule are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_damaged_rule_is_dropped_with_the_rule() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    let damaged = rig.rule("text the office", None, "+15550009999").await;
    rig.overwrite_rule(damaged, "{\"name\":").await;
    rig.start();
    // Nothing of the rule can be read: each type may be meant.
    let tag = rig.deliver_as(rig.org, 1, "status-update", &report("+15550001111"));
    rig.acked(tag).await;
    assert_eq!(rig.store.list_held_rules(10).await.expect("read").len(), 1);
    assert!(
        rig.store
            .delete_rule(rig.org, damaged, None, audit(rig.org))
            .await
            .expect("deleted")
    );
    until("nothing waits", || async {
        let rules = rig.store.list_held_rules(10).await.expect("read");
        rules.is_empty().then_some(())
    })
    .await;
    assert_eq!(rig.twilio.count(), (0, 0));
    rig.stop().await;
}

/// Invariant 2: an SMS that Twilio took without an answer is found by a look-up, never sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_without_an_answer_is_looked_up_and_not_sent_again() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::AcceptAndHang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    let found = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 1, 1)
    );
    assert_eq!(rig.twilio.count(), (1, 1));
    rig.stop().await;
}

/// Invariant 2: the list of another account proves nothing about a message of the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sms_is_looked_up_at_the_account_that_sent_it_and_nowhere_else() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::AcceptAndHang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    rig.connect_account(OTHER_ACCOUNT, &"t2".repeat(16)).await;
    rig.twilio.set(Mode::Accept);
    let asked = until("a person is asked", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::AccountReplaced))
    })
    .await;
    assert_eq!(asked.state, ActionState::Unknown);
    assert_eq!(rig.twilio.count(), (1, 1), "sent once");
    // A new event goes out by the new account at once.
    rig.deliver(rig.org, 2, &report("+15550002222"));
    until("the second one", || async {
        (rig.twilio.count() == (2, 2)).then_some(())
    })
    .await;

    rig.connect_account(ACCOUNT, &"t1".repeat(16)).await;
    let now = rig.clock.now();
    let until_then = now + Duration::from_hours(1);
    rig.store
        .retry(rig.org, asked.id, until_then, now, audit(rig.org))
        .await
        .expect("answered");
    let found = until("found", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::LookedUp))
    })
    .await;
    assert_eq!((found.id, found.attempts), (asked.id, 1));
    assert_eq!(rig.twilio.count(), (2, 2), "never sent again");
    rig.stop().await;
}

/// Invariant 2: only a person can say that the first account did not send it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sms_goes_out_by_another_account_when_a_person_says_so() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::Hang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("asked", || async { (rig.twilio.count().0 == 1).then_some(()) }).await;
    rig.connect_account(OTHER_ACCOUNT, &"t2".repeat(16)).await;
    rig.twilio.set(Mode::Accept);
    let asked = until("a person is asked", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::AccountReplaced))
    })
    .await;
    let resolved = rig
        .store
        .resolve(rig.org, asked.id, ActionState::Pending, rig.clock.now(), audit(rig.org))
        .await;
    resolved.expect("answered");
    rig.action_in(ActionState::Succeeded).await;
    assert_eq!(rig.twilio.count(), (2, 1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_arrived_is_proved_absent_by_two_look_ups_and_sent_again() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::Hang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    rig.action_in(ActionState::Unknown).await;
    rig.twilio.set(Mode::Accept);
    let sent = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (sent.cause, sent.attempts, sent.look_ups),
        (Some(Cause::Accepted), 2, 2)
    );
    assert_eq!(rig.twilio.count(), (2, 1));
    rig.stop().await;
}

/// Invariant 6: a refused credential parks after one call, and a newer version resumes without a
/// used-up try. Without a credential the action parks, whatever the environment holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_refused_credential_parks_and_a_newer_one_resumes() {
    let mut rig = Rig::new().await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    assert_eq!(
        rig.action_in(ActionState::Parked).await.cause,
        Some(Cause::NotConnected)
    );
    assert_eq!(rig.twilio.count(), (0, 0));
    rig.connect_twilio(&"bad0".repeat(8)).await;
    let refused = until("refused", || async {
        rig.actions()
            .await
            .into_iter()
            .find(|action| action.cause == Some(Cause::CredentialRefused))
    })
    .await;
    assert_eq!((refused.state, refused.attempts), (ActionState::Parked, 0));
    let health = rig
        .store
        .find_credential(rig.org, Provider::Twilio, "")
        .await
        .expect("read")
        .expect("there")
        .health;
    assert_eq!(health.state, IntegrationState::NeedsReconnecting);
    assert_eq!(rig.twilio.count(), (1, 0));
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.action_in(ActionState::Succeeded).await;
    assert_eq!(rig.twilio.count(), (2, 1));
    rig.stop().await;
}

/// Invariant 7: an organisation that is not known is waited for, and nobody waits behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_unknown_organisation_waits_and_stands_in_nobodys_way() {
    let mut rig = Rig::new().await;
    let late = OrgId::generate();
    rig.start();
    let first = rig.deliver(late, 1, &report("+15550001111"));
    let second = rig.deliver(rig.org, 2, &report("+15550001111"));
    rig.acked(second).await;
    assert!(!rig.queue.acked.lock().expect("lock").contains(&first));
    rig.store
        .create_organisation(late, "late", audit(late))
        .await
        .expect("created");
    rig.acked(first).await;
    rig.stop().await;
}

/// An outage opens the breaker, and the actions that waited go out when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_behind_a_breaker() {
    let mut rig = Rig::new().await;
    rig.settings.breaker_failures = 3;
    rig.settings.breaker_seconds = Duration::from_millis(300);
    rig.settings.attempts_max = 50;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::Unavailable);
    rig.start();
    let count = 12;
    for key in 0..count {
        rig.deliver(rig.org, key, &report(&format!("+155500011{key:02}")));
    }
    until("a few failures", || async { (rig.twilio.count().0 >= 3).then_some(()) }).await;
    rig.twilio.set(Mode::Accept);
    until("all went out", || async {
        rig.actions()
            .await
            .iter()
            .all(|action| action.state == ActionState::Succeeded)
            .then_some(())
    })
    .await;
    assert_eq!(rig.twilio.count().1, usize::from(count), "each once");
    rig.stop().await;
}

/// kill -9 between the claim and the record: found again at the next start, looked up, and not sent
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_after_the_send_leaves_no_second_sms() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.settings.attempt_seconds_max = Duration::from_secs(10);
    rig.twilio.set(Mode::AcceptAndHang);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    assert_eq!(rig.actions().await[0].state, ActionState::Running);
    // All at once, without a word: the worker's tasks are dropped where they stand.
    rig.tasks.abort_all();
    while rig.tasks.join_next().await.is_some() {}
    assert_eq!(
        rig.actions().await[0].state,
        ActionState::Running,
        "nobody could say what became of it"
    );
    rig.start();
    let found = rig.action_in(ActionState::Succeeded).await;
    assert_eq!(
        (found.cause, found.attempts, found.look_ups),
        (Some(Cause::LookedUp), 0, 1)
    );
    assert_eq!(rig.twilio.count(), (1, 1));
    rig.stop().await;
}

/// Invariant 1: right before a send the lease has to cover the whole exchange. The wall clock
/// counts too, because a monotonic clock stands still while a virtual machine is suspended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_under_a_lease_that_does_not_cover_the_exchange() {
    let rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    let engine = rig.engine(Duration::from_secs(10), Duration::from_secs(2));
    let lease = Duration::from_mins(1);
    for (monotonic_left, wall_left, is_sent) in [
        (11, 60, false),
        (60, 11, false),
        (0, 60, false),
        (60, -5, false),
        (13, 13, true),
    ] {
        let claim = rig.claimed(lease).await;
        let now = rig.clock.now();
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
        let before = rig.twilio.count().0;
        let record = engine.run(&leased).await;
        let case = format!("{monotonic_left} s by the monotonic clock, {wall_left} s by the wall clock");
        assert_eq!(rig.twilio.count().0 - before, usize::from(is_sent), "{case}");
        let expected = if is_sent {
            ActionState::Succeeded
        } else {
            ActionState::Pending
        };
        assert_eq!((record.to, record.counts), (expected, is_sent), "{case}");
        rig.store.record(vec![record]).await.expect("recorded");
        if !is_sent {
            let cancelled = rig
                .store
                .cancel(rig.org, leased.claim.action, rig.clock.now(), audit(rig.org))
                .await;
            cancelled.expect("cancelled");
        }
    }
}

/// A deploy leaves nothing unknown: an attempt that has begun ends by itself, and an action that
/// was claimed and not sent is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_was_sent_and_gives_back_what_was_not() {
    let rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    let engine = rig.engine(Duration::from_secs(10), Duration::from_secs(2));
    let stop = CancellationToken::new();
    stop.cancel();
    let claim = rig.claimed(Duration::from_mins(1)).await;
    let leased = Leased {
        claim,
        lease_ends: std::time::Instant::now() + Duration::from_mins(1),
        stop,
    };
    let record = engine.run(&leased).await;
    assert_eq!((record.to, record.counts), (ActionState::Pending, false));
    assert!(record.is_unsent, "a later look-up does not look back to this claim");
    assert_eq!(rig.twilio.count(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_slow_answer_records_the_answer() {
    let mut rig = Rig::new().await;
    rig.settings.attempt_seconds_max = Duration::from_secs(8);
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::AcceptWhenReleased);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    rig.soft.cancel();
    rig.twilio.release();
    until("the worker's end", || {
        let ended = rig.tasks.try_join_next().is_some();
        async move { ended.then_some(()) }
    })
    .await;
    let action = rig.actions().await.remove(0);
    assert_eq!(
        (action.state, action.cause, action.attempts),
        (ActionState::Succeeded, Some(Cause::Accepted), 1)
    );
}

/// When one half of the worker is gone, its work stops for good, while ingress goes on answering
/// 200 until the queue is full. So the process learns of it and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_breaks_says_so_and_its_other_half_goes_on() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    rig.twilio.set(Mode::AcceptWhenReleased);
    rig.start();
    rig.deliver(rig.org, 1, &report("+15550001111"));
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    assert_eq!(rig.failure.check().standing, Standing::Ok);
    rig.queue.break_on_next(&rig.send);
    let reason = tokio::time::timeout(Duration::from_secs(10), rig.failure.wait()).await;
    assert!(reason.expect("reported").contains("worker"));
    assert_eq!(rig.failure.check().standing, Standing::Failed);
    rig.twilio.release();
    rig.action_in(ActionState::Succeeded).await;
    rig.stop().await;
}

/// Invariant 16: leases count by the database's clock, and beyond five seconds of offset nothing is
/// claimed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_count_by_the_databases_clock_and_far_from_it_nothing_is_claimed() {
    let mut rig = Rig::new().await;
    rig.connect_twilio(&"t1".repeat(16)).await;
    rig.rule("text the caller", None, "{{ message.customer.number }}").await;
    let far = 6_000_000;
    rig.clock_offset.store(far, std::sync::atomic::Ordering::Relaxed);
    rig.start();
    let tag = rig.deliver(rig.org, 1, &report("+15550001111"));
    rig.acked(tag).await;
    // Planned, and left alone for longer than two looks for what is due.
    let begun = std::time::Instant::now();
    until("two looks", || async {
        (begun.elapsed() > Duration::from_millis(2_500)).then_some(())
    })
    .await;
    assert_eq!(rig.actions().await[0].state, ActionState::Pending);
    assert_eq!(rig.twilio.count(), (0, 0));

    let near = 4_000_000;
    rig.clock_offset.store(near, std::sync::atomic::Ordering::Relaxed);
    rig.twilio.set(Mode::AcceptWhenReleased);
    until("taken", || async { (rig.twilio.count() == (1, 1)).then_some(()) }).await;
    let ahead = rig.actions().await[0].updated_at.since(rig.clock.now());
    assert!(
        ahead > Duration::from_secs(2) && ahead <= Duration::from_secs(4),
        "claimed by the database's clock: {ahead:?} ahead of ours"
    );
    rig.twilio.release();
    rig.action_in(ActionState::Succeeded).await;
    rig.stop().await;
}
