//! The change that an outcome makes to the row. Pure: the table of `attempt`, as code.

use super::Backoff;
use crate::{
    action::{Detail, LookUp, OnUnknown},
    domain::{ActionState, AttemptOutcome, Cause, Outcome, Timestamp},
    store::ledger::{Claim, Record},
};
use std::time::Duration;

/// The settings that decide.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub backoff: Backoff,
    pub attempts_max: u32,
    /// Wait before the first look-up of an unknown outcome. An action's own delay is used where it
    /// is shorter.
    pub look_up_delay: Duration,
}

/// How an attempt came to its end.
pub(super) enum Conclusion {
    /// A send, and the provider's answer to it.
    Sent(Outcome, Detail),
    /// A look-up of an earlier send, with only the ids that no other action holds (invariant 2).
    LookedUp(LookUp, Detail),
    /// Nothing was begun: the request or the credential cannot be used.
    Park { cause: Cause, detail: String },
    /// Nothing was begun: again after the pause. Uses up no try.
    NotBegun { pause: Duration, why: String },
    /// An earlier send has an outcome that only a person can find out (invariant 4).
    AskPerson { cause: Cause, why: &'static str },
}

/// An attempt that has ended, and the circumstances that its record depends on.
pub(super) struct Ended<'a> {
    pub claim: &'a Claim,
    pub on_unknown: OnUnknown,
    pub credential_version: Option<i64>,
    pub now: Timestamp,
    /// Uniform in `[0, 1)`.
    pub random: f64,
}

impl Policy {
    fn look_up_delay(&self, on_unknown: OnUnknown) -> Duration {
        match on_unknown {
            OnUnknown::LookUp { delay, .. } => delay.min(self.look_up_delay),
            OnUnknown::SameKeyAgain { .. } => Duration::ZERO,
        }
    }

    pub(super) fn record(&self, ended: &Ended<'_>, conclusion: Conclusion) -> Record {
        match conclusion {
            Conclusion::Sent(outcome, detail) => self.sent(ended, outcome, detail),
            Conclusion::LookedUp(seen, detail) => self.looked_up(ended, seen, detail),
            Conclusion::Park { cause, detail } => self.sent(ended, Outcome::Park { cause }, Detail::in_words(detail)),
            Conclusion::NotBegun { pause, why } => Self::interrupted(ended, pause, &why),
            Conclusion::AskPerson { cause, why } => self.left_to_a_person(ended, cause, why),
        }
    }

    /// The record of a send: a first one, a later one, or the same key again after an unknown
    /// outcome.
    #[expect(clippy::needless_pass_by_value, reason = "an outcome is used up by its record")]
    pub(super) fn sent(&self, ended: &Ended<'_>, outcome: Outcome, detail: Detail) -> Record {
        let Ended { claim, now, random, .. } = *ended;
        let label = outcome.attempt_outcome();
        let cause = outcome.cause();
        let again_at = |not_before| self.backoff.due_at(now, claim.attempts, not_before, random);
        // A try that certainly did nothing says nothing about an earlier try of unknown outcome.
        let was_unknown = claim.is_look_up;
        let is_last = claim.attempts + 1 >= self.attempts_max;
        let is_over = is_last && (was_unknown || !needs_look_up(ended, &outcome));
        let record = |to| record(ended, to, cause, label, detail.clone());
        match outcome {
            Outcome::Succeeded { provider_ref, .. } => Record {
                provider_ref: provider_ref.map(String::from),
                ..record(ActionState::Succeeded)
            },
            Outcome::Retry { .. } | Outcome::Unknown { .. } if is_over => Record {
                cause: Cause::AttemptsUsedUp,
                detail: used_up(&outcome, was_unknown, &detail),
                ..record(ActionState::Dead)
            },
            Outcome::Retry { not_before, .. } if was_unknown => Record {
                due_at: Some(again_at(not_before)),
                ..record(ActionState::Unknown)
            },
            Outcome::Retry { not_before, .. } => Record {
                due_at: Some(again_at(not_before)),
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Waiting)
            },
            Outcome::Unknown { .. } => Record {
                due_at: Some(match ended.on_unknown {
                    OnUnknown::SameKeyAgain { .. } => again_at(None),
                    OnUnknown::LookUp { .. } => now.max(claim.claimed_at + self.look_up_delay(ended.on_unknown)),
                }),
                ..record(ActionState::Unknown)
            },
            Outcome::Park { .. } if was_unknown => Record {
                due_at: Some(self.next_look_up(ended)),
                counts: false,
                ..record(ActionState::Unknown)
            },
            Outcome::Park { .. } => Record {
                counts: false,
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Parked)
            },
            Outcome::Suppressed { .. } => record(ActionState::Suppressed),
            Outcome::Dead { .. } if was_unknown => Record {
                detail: format!("{MAYBE_SENT}: the last try was refused: {}", detail.text),
                ..record(ActionState::Dead)
            },
            Outcome::Dead { .. } => Record {
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Dead)
            },
            Outcome::Interrupted | Outcome::ProvedAbsent => Self::interrupted(ended, Duration::ZERO, &detail.text),
        }
    }

    /// The attempt was cut off before the first byte. It uses up no try, and an unknown outcome
    /// stays unknown. An action that fails to begin waits longer each time, because each claim
    /// costs a transaction.
    pub(super) fn interrupted(ended: &Ended<'_>, pause: Duration, why: &str) -> Record {
        let pause = match claims_in_vain(ended.claim) {
            0 => pause,
            times => pause.max(NOT_BEGUN.wait(times, 1.0)),
        };
        let to = if ended.claim.is_look_up {
            ActionState::Unknown
        } else {
            ActionState::Pending
        };
        let detail = Detail::in_words(why);
        Record {
            due_at: Some(ended.now + pause),
            counts: false,
            is_unsent: Self::is_unsent(ended),
            ..record(ended, to, Cause::Interrupted, AttemptOutcome::Interrupted, detail)
        }
    }

    /// The record of a look-up. `seen` has only what no other action holds (invariant 2).
    pub(super) fn looked_up(&self, ended: &Ended<'_>, seen: LookUp, detail: Detail) -> Record {
        let Ended { claim, now, random, .. } = *ended;
        let stays = |cause, due_at, label| Record {
            due_at: Some(due_at),
            counts: false,
            ..record(ended, ActionState::Unknown, cause, label, detail.clone())
        };
        match seen {
            LookUp::Matches(mut matches) if matches.len() == 1 => Record {
                provider_ref: matches.pop().map(String::from),
                counts: false,
                ..record(
                    ended,
                    ActionState::Succeeded,
                    Cause::LookedUp,
                    AttemptOutcome::Succeeded,
                    detail,
                )
            },
            LookUp::Matches(matches) if matches.is_empty() => self.absent(ended, detail),
            LookUp::Matches(_) => stays(Cause::Ambiguous, now + self.backoff.max, AttemptOutcome::Ambiguous),
            LookUp::Failed(outcome) => {
                let due_at = match &outcome {
                    Outcome::Retry { not_before, .. } => self.backoff.due_at(now, claim.look_ups, *not_before, random),
                    Outcome::Unknown { cause } if *cause != Cause::LookUpForbidden => self.next_look_up(ended),
                    Outcome::Interrupted => now,
                    _ => now + self.backoff.max,
                };
                stays(outcome.cause(), due_at, AttemptOutcome::Failed)
            }
        }
    }

    /// The provider's list has no match for the action. After enough look-ups the action may go out
    /// again, as often as it has tries left.
    fn absent(&self, ended: &Ended<'_>, detail: Detail) -> Record {
        let Ended { claim, now, .. } = *ended;
        let (times, delay) = match ended.on_unknown {
            OnUnknown::LookUp { times, .. } => (u32::from(times), self.look_up_delay(ended.on_unknown)),
            OnUnknown::SameKeyAgain { .. } => (u32::MAX, Duration::ZERO),
        };
        let is_late_enough = claim.first_sent_at.is_none_or(|sent| now >= sent + delay);
        if claim.absences + 1 < times || !is_late_enough {
            let again_at = now + delay.max(self.backoff.min);
            return Record {
                due_at: Some(again_at),
                counts: false,
                is_absence: true,
                ..record(
                    ended,
                    ActionState::Unknown,
                    Cause::NoAnswer,
                    AttemptOutcome::Absent,
                    detail,
                )
            };
        }
        let (to, cause) = if claim.attempts >= self.attempts_max {
            (ActionState::Dead, Cause::AttemptsUsedUp)
        } else {
            (ActionState::Pending, Cause::LookedUp)
        };
        Record {
            due_at: Some(now),
            counts: false,
            is_unsent: true,
            ..record(ended, to, cause, AttemptOutcome::ProvedAbsent, detail)
        }
    }

    /// An unknown outcome that no look-up and no key can find out any more: a person decides
    /// (invariant 4).
    pub(super) fn left_to_a_person(&self, ended: &Ended<'_>, cause: Cause, why: &str) -> Record {
        let detail = Detail::in_words(why);
        Record {
            due_at: Some(ended.now + self.backoff.max),
            counts: false,
            ..record(ended, ActionState::Unknown, cause, AttemptOutcome::Ambiguous, detail)
        }
    }

    fn next_look_up(&self, ended: &Ended<'_>) -> Timestamp {
        ended.now
            + self
                .backoff
                .wait(ended.claim.look_ups, ended.random)
                .max(self.backoff.min)
    }

    /// Whether certainly no try of this action has gone out. The window of an idempotency key
    /// counts from the first try that may have.
    fn is_unsent(ended: &Ended<'_>) -> bool {
        let claim = ended.claim;
        !claim.is_look_up
            && (matches!(ended.on_unknown, OnUnknown::LookUp { .. }) || claim.first_sent_at == Some(claim.claimed_at))
    }
}

/// The waits of an action whose earlier claims began no exchange.
const NOT_BEGUN: Backoff = Backoff {
    min: Duration::from_millis(100),
    max: Duration::from_mins(1),
};

/// Earlier claims that used up no try. Each claim counts the fence up.
fn claims_in_vain(claim: &Claim) -> u32 {
    let counted = i64::from(claim.attempts) + i64::from(claim.look_ups);
    u32::try_from(claim.fence - 1 - counted).unwrap_or(0)
}

/// An action that was sent without an answer is never dead where the provider can be asked.
fn needs_look_up(ended: &Ended<'_>, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown { .. }) && matches!(ended.on_unknown, OnUnknown::LookUp { .. })
}

/// The beginning of a dead action's detail, where a person has to know before a retry that it may
/// have gone out.
const MAYBE_SENT: &str = "it may have gone out";

fn used_up(outcome: &Outcome, was_unknown: bool, detail: &Detail) -> String {
    let cause = outcome.cause();
    let begin = if was_unknown || matches!(outcome, Outcome::Unknown { .. }) {
        format!("{MAYBE_SENT}: ")
    } else {
        String::new()
    };
    if detail.text.is_empty() {
        format!("{begin}the last try ended {cause}")
    } else {
        format!("{begin}the last try ended {cause}: {}", detail.text)
    }
}

fn record(ended: &Ended<'_>, to: ActionState, cause: Cause, outcome: AttemptOutcome, detail: Detail) -> Record {
    Record {
        action: ended.claim.action,
        org: ended.claim.org,
        fence: ended.claim.fence,
        to,
        cause,
        detail: detail.text.into(),
        http_status: detail.http_status,
        provider_code: detail.provider_code.map(String::from),
        provider_ref: None,
        due_at: None,
        counts: true,
        is_absence: false,
        is_unsent: false,
        is_look_up: ended.claim.is_look_up,
        outcome,
        ended_at: ended.now,
        credential_version: ended.credential_version,
    }
}
