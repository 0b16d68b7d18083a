//! The change of each outcome to a row, as a table.

use super::{
    Backoff, Policy,
    outcome::{Conclusion, Ended},
};
use crate::{
    action::{Detail, LookUp, OnUnknown},
    domain::{
        ActionId, ActionKind,
        ActionState::{self, *},
        AttemptOutcome, Cause, EventId, OrgId, Outcome, Provider, SealedBytes, Timestamp,
    },
    store::ledger::{Claim, Record},
};
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_seconds(10_000);
const SECOND: Duration = Duration::from_secs(1);
const LIST: OnUnknown = OnUnknown::LookUp {
    delay: Duration::from_mins(1),
    times: 2,
    is_by_own_id: false,
};
const KEY: OnUnknown = OnUnknown::SameKeyAgain {
    window: Duration::from_hours(24),
};
const POLICY: Policy = Policy {
    backoff: Backoff {
        min: Duration::from_secs(4),
        max: Duration::from_hours(1),
    },
    attempts_max: 3,
    look_up_delay: Duration::from_mins(1),
};

fn claim(is_look_up: bool, attempts: u32) -> Claim {
    Claim {
        action: ActionId::generate(),
        org: OrgId::generate(),
        event: EventId::generate(),
        subject: None,
        kind: ActionKind::TwilioSendSms,
        provider: Provider::Twilio,
        credential_name: String::new(),
        request: SealedBytes(Box::default()),
        idempotency_key: String::new(),
        is_look_up,
        fence: 7,
        lease_until: NOW + SECOND * 60,
        attempts,
        look_ups: 0,
        absences: 0,
        first_sent_at: Some(NOW - SECOND),
        account: None,
        expires_at: NOW + SECOND * 1_000,
        planned_at: NOW - SECOND,
        claimed_at: NOW - SECOND,
        hops: 0,
    }
}

/// Each claim of an action that cannot begin costs a transaction. The action waits longer each
/// time, and uses up no try.
#[test]
fn an_action_that_is_claimed_in_vain_waits_longer_each_time() {
    let due_in = |fence, pause| {
        let claim = Claim {
            fence,
            ..claim(false, 2)
        };
        let ended = Ended {
            claim: &claim,
            on_unknown: LIST,
            credential_version: None,
            now: NOW,
            random: 0.5,
        };
        let why = "the lease was too short for a whole exchange".to_owned();
        let record = POLICY.record(&ended, Conclusion::NotBegun { pause, why });
        assert_eq!((record.to, record.counts), (ActionState::Pending, false));
        record.due_at.expect("it is due").since(NOW).as_millis()
    };
    // Two tries were made before: the third claim is the first one in vain.
    let waits = [3, 4, 5, 6, 10, 20, 100].map(|fence| due_in(fence, Duration::ZERO));
    assert_eq!(waits, [0, 200, 400, 800, 12_800, 60_000, 60_000]);
    assert_eq!(due_in(4, SECOND * 2), 2_000, "a pause that was asked for is kept");
}

fn sent(on_unknown: OnUnknown, is_look_up: bool, attempts: u32, outcome: Outcome) -> Record {
    let claim = claim(is_look_up, attempts);
    let ended = Ended {
        claim: &claim,
        on_unknown,
        credential_version: Some(4),
        now: NOW,
        random: 0.5,
    };
    let record = POLICY.sent(&ended, outcome, Detail::default());
    assert_eq!(
        (record.action, record.org, record.fence, record.credential_version),
        (claim.action, claim.org, 7, Some(4))
    );
    record
}

fn retry() -> Outcome {
    Outcome::Retry {
        cause: Cause::ProviderUnavailable,
        not_before: None,
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown { cause: Cause::NoAnswer }
}

#[test]
fn every_outcome_of_a_send_has_its_state() {
    let park = || Outcome::Park {
        cause: Cause::CredentialRefused,
    };
    let cases: Vec<(OnUnknown, bool, u32, Outcome, ActionState, Cause, bool)> = vec![
        (
            LIST,
            false,
            0,
            Outcome::Succeeded {
                cause: Cause::Accepted,
                provider_ref: Some("SM".into()),
            },
            Succeeded,
            Cause::Accepted,
            true,
        ),
        (LIST, false, 0, retry(), Waiting, Cause::ProviderUnavailable, true),
        (LIST, false, 2, retry(), Dead, Cause::AttemptsUsedUp, true),
        (LIST, false, 0, unknown(), Unknown, Cause::NoAnswer, true),
        // An action that may have gone out is looked up, however many tries it had (invariant 2).
        (LIST, false, 2, unknown(), Unknown, Cause::NoAnswer, true),
        (LIST, false, 0, park(), Parked, Cause::CredentialRefused, false),
        (
            LIST,
            false,
            0,
            Outcome::Suppressed { cause: Cause::OptedOut },
            Suppressed,
            Cause::OptedOut,
            true,
        ),
        (
            LIST,
            false,
            0,
            Outcome::Dead {
                cause: Cause::InvalidRecipient,
            },
            Dead,
            Cause::InvalidRecipient,
            true,
        ),
        (LIST, false, 2, Outcome::Interrupted, Pending, Cause::Interrupted, false),
        (KEY, false, 0, unknown(), Unknown, Cause::NoAnswer, true),
        (KEY, false, 2, unknown(), Dead, Cause::AttemptsUsedUp, true),
        // The same key again: an answer that says nothing of the first try leaves it unknown.
        (KEY, true, 0, retry(), Unknown, Cause::ProviderUnavailable, true),
        (KEY, true, 0, park(), Unknown, Cause::CredentialRefused, false),
        (KEY, true, 0, Outcome::Interrupted, Unknown, Cause::Interrupted, false),
        (KEY, true, 2, unknown(), Dead, Cause::AttemptsUsedUp, true),
        // A look-up that could not be made, because there is no credential.
        (LIST, true, 9, park(), Unknown, Cause::CredentialRefused, false),
    ];
    for (on_unknown, is_look_up, attempts, outcome, to, cause, counts) in cases {
        let case = format!("{on_unknown:?}, look-up {is_look_up}, {attempts} tries, {outcome:?}");
        let record = sent(on_unknown, is_look_up, attempts, outcome);
        assert_eq!((record.to, record.cause, record.counts), (to, cause, counts), "{case}");
        assert_eq!(
            record.due_at.is_some(),
            matches!(record.to, Pending | Waiting | Unknown),
            "{case}"
        );
    }
}

/// A person who retries a dead action has to know that it may have gone out (invariant 4).
#[test]
fn a_dead_action_says_that_it_may_have_gone_out() {
    let dead = || Outcome::Dead {
        cause: Cause::InvalidRequest,
    };
    for (is_look_up, outcome, is_maybe_sent) in [
        (false, unknown(), true),
        (true, unknown(), true),
        (true, retry(), true),
        (true, dead(), true),
        (false, retry(), false),
        (false, dead(), false),
    ] {
        let case = format!("look-up {is_look_up}, {outcome:?}");
        let record = sent(KEY, is_look_up, 2, outcome);
        assert_eq!(record.to, Dead, "{case}");
        assert_eq!(
            record.detail.starts_with("it may have gone out"),
            is_maybe_sent,
            "{case}"
        );
        assert!(!(record.is_unsent && is_maybe_sent), "{case}");
    }
}

#[test]
fn an_unknown_outcome_is_looked_up_after_its_delay() {
    assert_eq!(sent(LIST, false, 0, unknown()).due_at, Some(NOW - SECOND + SECOND * 60));
    assert_eq!(
        sent(KEY, false, 1, unknown()).due_at,
        Some(NOW + SECOND * 4),
        "half of 8 s: the key absorbs a second one"
    );
}

fn looked_up(on: OnUnknown, change: impl FnOnce(&mut Claim), seen: LookUp) -> Record {
    let mut claim = claim(true, 1);
    change(&mut claim);
    let ended = Ended {
        claim: &claim,
        on_unknown: on,
        credential_version: None,
        now: NOW,
        random: 0.5,
    };
    let record = POLICY.looked_up(&ended, seen, Detail::default());
    assert!(!record.counts, "a look-up uses up no try");
    record
}

#[test]
fn a_look_up_ends_only_what_it_proves() {
    let matches = |ids: &[&str]| LookUp::Matches(ids.iter().map(|id| Box::from(*id)).collect());
    let found = looked_up(LIST, |_| {}, matches(&["SM1"]));
    assert_eq!(
        (found.to, found.cause, found.provider_ref.as_deref()),
        (Succeeded, Cause::LookedUp, Some("SM1"))
    );
    let several = looked_up(LIST, |_| {}, matches(&["SM1", "SM2"]));
    assert_eq!(
        (several.to, several.cause, several.provider_ref),
        (Unknown, Cause::Ambiguous, None)
    );
    let sent_long_ago = |claim: &mut Claim, absences| {
        claim.first_sent_at = Some(NOW - SECOND * 60);
        claim.absences = absences;
    };
    let once = looked_up(LIST, |claim| sent_long_ago(claim, 0), matches(&[]));
    assert_eq!(
        (once.to, once.is_absence, once.due_at),
        (Unknown, true, Some(NOW + SECOND * 60))
    );
    let twice = looked_up(LIST, |claim| sent_long_ago(claim, 1), matches(&[]));
    assert_eq!(
        (twice.to, twice.is_unsent, twice.due_at, twice.outcome),
        (Pending, true, Some(NOW), AttemptOutcome::ProvedAbsent)
    );
    let too_early = looked_up(LIST, |claim| claim.absences = 5, matches(&[]));
    assert_eq!(
        too_early.to, Unknown,
        "not before its delay is over, however often it was looked for"
    );
    let used_up = looked_up(
        LIST,
        |claim| (sent_long_ago(claim, 1), claim.attempts = 3).1,
        matches(&[]),
    );
    assert_eq!((used_up.to, used_up.cause), (Dead, Cause::AttemptsUsedUp));
    for outcome in [
        unknown(),
        retry(),
        Outcome::Park {
            cause: Cause::CredentialRefused,
        },
        Outcome::Unknown {
            cause: Cause::LookUpForbidden,
        },
        Outcome::Interrupted,
    ] {
        let failed = looked_up(LIST, |claim| sent_long_ago(claim, 1), LookUp::Failed(outcome.clone()));
        assert_eq!(
            (failed.to, failed.cause, failed.is_unsent),
            (Unknown, outcome.cause(), false),
            "{outcome:?}"
        );
    }
}
