//! What an outcome does to the row. Pure: the table in the room's page, as code.

use super::Backoff;
use crate::{
    action::{Detail, LookUp, OnUnknown},
    domain::{ActionState, Cause, Outcome, Timestamp},
    store::ledger::{Claim, Record},
};
use std::time::Duration;

/// The settings that decide.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub backoff: Backoff,
    pub attempts_max: u32,
    /// Wait before the first look at an unknown outcome; an action's own is used where it is
    /// shorter.
    pub settle: Duration,
}

/// What is known when an exchange has ended.
pub(super) struct Ended<'a> {
    pub claim: &'a Claim,
    pub on_unknown: OnUnknown,
    pub credential_version: Option<i64>,
    pub now: Timestamp,
    /// Uniform in `[0, 1)`.
    pub random: f64,
}

impl Policy {
    fn settle(&self, on_unknown: OnUnknown) -> Duration {
        match on_unknown {
            OnUnknown::LookUp { settle, .. } => settle.min(self.settle),
            OnUnknown::SameKeyAgain { .. } => Duration::ZERO,
        }
    }

    /// The record of a send: a first one, a later one, or the same key again after an unknown
    /// outcome.
    #[expect(clippy::needless_pass_by_value, reason = "an outcome is used up by its record")]
    pub(super) fn sent(&self, ended: &Ended<'_>, outcome: Outcome, detail: Detail) -> Record {
        let Ended { claim, now, random, .. } = *ended;
        let label = outcome.label();
        let cause = outcome.cause();
        let is_last = claim.attempts + 1 >= self.attempts_max;
        let again_at = |not_before| self.backoff.due_at(now, claim.attempts, not_before, random);
        // A try that certainly did nothing says nothing about one before it whose outcome nobody
        // knows.
        let was_unknown = claim.is_look_up;
        let record = |to| record(ended, to, cause, label, detail.clone());
        match outcome {
            Outcome::Succeeded { provider_ref, .. } => Record {
                provider_ref: provider_ref.map(String::from),
                ..record(ActionState::Succeeded)
            },
            Outcome::Retry { .. } | Outcome::Unknown { .. }
                if is_last && (was_unknown || !needs_look_up(ended, &outcome)) =>
            {
                Record {
                    cause: Cause::AttemptsUsedUp,
                    detail: used_up(&detail, cause),
                    ..record(ActionState::Dead)
                }
            }
            Outcome::Retry { not_before, .. } if was_unknown => Record {
                due_at: Some(again_at(not_before)),
                ..record(ActionState::Unknown)
            },
            Outcome::Retry { not_before, .. } => Record {
                due_at: Some(again_at(not_before)),
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Waiting)
            },
            Outcome::Unknown { .. } => {
                let due_at = match ended.on_unknown {
                    OnUnknown::SameKeyAgain { .. } => again_at(None),
                    OnUnknown::LookUp { .. } => now.max(claim.claimed_at + self.settle(ended.on_unknown)),
                };
                Record {
                    due_at: Some(due_at),
                    ..record(ActionState::Unknown)
                }
            }
            Outcome::Park { .. } if was_unknown => Record {
                due_at: Some(self.look_later(ended)),
                counts: false,
                ..record(ActionState::Unknown)
            },
            Outcome::Park { .. } => Record {
                counts: false,
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Parked)
            },
            Outcome::Suppressed { .. } => record(ActionState::Suppressed),
            Outcome::Dead { .. } => Record {
                is_unsent: Self::is_unsent(ended),
                ..record(ActionState::Dead)
            },
            Outcome::Interrupted | Outcome::ProvedAbsent => Self::interrupted(ended, Duration::ZERO, &detail.text),
        }
    }

    /// Cut off before the first byte: uses up no try, and an unknown outcome stays one.
    pub(super) fn interrupted(ended: &Ended<'_>, pause: Duration, why: &str) -> Record {
        let to = if ended.claim.is_look_up {
            ActionState::Unknown
        } else {
            ActionState::Pending
        };
        let detail = Detail {
            text: why.into(),
            ..Detail::default()
        };
        Record {
            due_at: Some(ended.now + pause),
            counts: false,
            is_unsent: Self::is_unsent(ended),
            ..record(ended, to, Cause::Interrupted, Outcome::Interrupted.label(), detail)
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
                ..record(ended, ActionState::Succeeded, Cause::LookedUp, "succeeded", detail)
            },
            LookUp::Matches(matches) if matches.is_empty() => {
                let (times, settle) = match ended.on_unknown {
                    OnUnknown::LookUp { times, .. } => (u32::from(times), self.settle(ended.on_unknown)),
                    OnUnknown::SameKeyAgain { .. } => (u32::MAX, Duration::ZERO),
                };
                let is_settled = claim.first_sent_at.is_none_or(|sent| now >= sent + settle);
                if claim.absences + 1 >= times && is_settled {
                    // Not in the provider's list after all this time: it may go out again, as often
                    // as it had tries left.
                    let to = if claim.attempts >= self.attempts_max {
                        ActionState::Dead
                    } else {
                        ActionState::Pending
                    };
                    let cause = if to == ActionState::Dead {
                        Cause::AttemptsUsedUp
                    } else {
                        Cause::LookedUp
                    };
                    let label = Outcome::ProvedAbsent.label();
                    return Record {
                        due_at: Some(now),
                        counts: false,
                        is_unsent: true,
                        ..record(ended, to, cause, label, detail)
                    };
                }
                Record {
                    is_absence: true,
                    ..stays(Cause::NoAnswer, now + settle.max(self.backoff.min), "absent")
                }
            }
            LookUp::Matches(_) => stays(Cause::Ambiguous, now + self.backoff.max, "ambiguous"),
            LookUp::Failed(outcome) => {
                let due_at = match &outcome {
                    Outcome::Retry { not_before, .. } => self.backoff.due_at(now, claim.look_ups, *not_before, random),
                    Outcome::Unknown { cause } if *cause != Cause::LookUpForbidden => self.look_later(ended),
                    Outcome::Interrupted => now,
                    _ => now + self.backoff.max,
                };
                stays(outcome.cause(), due_at, "failed")
            }
        }
    }

    /// An unknown outcome whose way to be settled is over: a person decides (invariant 4).
    pub(super) fn for_a_person(&self, ended: &Ended<'_>, why: &str) -> Record {
        let detail = Detail {
            text: why.into(),
            ..Detail::default()
        };
        Record {
            due_at: Some(ended.now + self.backoff.max),
            counts: false,
            ..record(ended, ActionState::Unknown, Cause::Ambiguous, "ambiguous", detail)
        }
    }

    fn look_later(&self, ended: &Ended<'_>) -> Timestamp {
        ended.now
            + self
                .backoff
                .wait(ended.claim.look_ups, ended.random)
                .max(self.backoff.min)
    }

    /// Whether nothing of this action has ever gone out for sure. A key's window counts from the
    /// first try, so that it is kept for those.
    fn is_unsent(ended: &Ended<'_>) -> bool {
        let claim = ended.claim;
        !claim.is_look_up
            && (matches!(ended.on_unknown, OnUnknown::LookUp { .. }) || claim.first_sent_at == Some(claim.claimed_at))
    }
}

/// What was sent without an answer is never dead where the provider can be asked.
fn needs_look_up(ended: &Ended<'_>, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown { .. }) && matches!(ended.on_unknown, OnUnknown::LookUp { .. })
}

fn used_up(detail: &Detail, cause: Cause) -> String {
    if detail.text.is_empty() {
        format!("the last try ended {cause}")
    } else {
        format!("the last try ended {cause}: {}", detail.text)
    }
}

fn record(ended: &Ended<'_>, to: ActionState, cause: Cause, outcome: &'static str, detail: Detail) -> Record {
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
