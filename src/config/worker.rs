//! Settings of planning and executing.

use super::Fault;
use std::time::Duration;

section! {
    /// Planning and executing.
    WorkerSettings {
        /// Events planned in one transaction at most.
        plan_batch_max: usize = 256, "HOOKSWITCH_PLAN_BATCH_MAX";
        /// Actions attempted at once, over all organisations.
        attempts_concurrent_max: usize = 128, "HOOKSWITCH_ATTEMPTS_CONCURRENT_MAX";
        /// Actions attempted at once for one organisation and provider.
        attempts_concurrent_per_org_max: usize = 16, "HOOKSWITCH_ATTEMPTS_CONCURRENT_PER_ORG_MAX";
        /// Rows that one organisation and provider may have claimed in a turn.
        claim_turn_max: u32 = 16, "HOOKSWITCH_CLAIM_TURN_MAX";
        /// Tries at an action before it is dead.
        attempts_max: u32 = 10, "HOOKSWITCH_ATTEMPTS_MAX";
        /// Time for one whole exchange with a provider.
        attempt_seconds_max: Duration = Duration::from_secs(20), "HOOKSWITCH_ATTEMPT_SECONDS_MAX";
        /// Time that a claim holds. It should be longer than an exchange by 10 seconds or more. A
        /// lease that no exchange fits in is refused at the start.
        lease_seconds: Duration = Duration::from_mins(1), "HOOKSWITCH_LEASE_SECONDS";
        /// Wait before the first look-up of an unknown outcome, from the beginning of the attempt.
        settle_seconds: Duration = Duration::from_mins(1), "HOOKSWITCH_SETTLE_SECONDS";
        /// First wait after a failed try; doubles with each, with full jitter.
        backoff_seconds_min: Duration = Duration::from_secs(5), "HOOKSWITCH_BACKOFF_SECONDS_MIN";
        /// Longest wait after a failed try, and the most that a Retry-After is obeyed.
        backoff_seconds_max: Duration = Duration::from_hours(1), "HOOKSWITCH_BACKOFF_SECONDS_MAX";
        /// Actions planned for one organisation a day at most; more are dead with the cause.
        actions_per_day_max: u64 = 100_000, "HOOKSWITCH_ACTIONS_PER_DAY_MAX";
        /// Also record events that no rule wants, up to this many a second. 0: none.
        record_unwanted_per_second_max: u32 = 0, "HOOKSWITCH_RECORD_UNWANTED_PER_SECOND_MAX";
        /// Time that an event stays in the queue while it cannot be planned: its organisation is
        /// unknown, or its data key does not open. Then it waits in the database.
        held_seconds_max: Duration = Duration::from_mins(1), "HOOKSWITCH_HELD_SECONDS_MAX";
        /// Work that one event may cost over all rules of its organisation, in template
        /// instructions.
        template_fuel_max: u64 = 100_000, "HOOKSWITCH_TEMPLATE_FUEL_MAX";
        /// Consecutive failures of one organisation at one provider that open its breaker.
        breaker_failures: u32 = 5, "HOOKSWITCH_BREAKER_FAILURES";
        /// How long an open breaker keeps an organisation's actions back before one is tried.
        breaker_seconds: Duration = Duration::from_secs(30), "HOOKSWITCH_BREAKER_SECONDS";
        /// Days that events are kept with their actions and attempts, once these have ended, and
        /// jobs over many actions. An event with an open action stays. 0: for ever.
        events_kept_days: u32 = 90, "HOOKSWITCH_EVENTS_KEPT_DAYS";
        /// Days that dead events are kept. 0: for ever.
        dead_events_kept_days: u32 = 90, "HOOKSWITCH_DEAD_EVENTS_KEPT_DAYS";
        /// Days that audit entries are kept: six years by default. 0: for ever.
        audit_kept_days: u32 = 2_190, "HOOKSWITCH_AUDIT_KEPT_DAYS";
        /// Days that the keys are kept by which a redelivery is known. Longer than events and dead
        /// events, so that an old redelivery is never taken for a new event. 0: for ever.
        keys_kept_days: u32 = 180, "HOOKSWITCH_KEYS_KEPT_DAYS";
        /// Time for a stop, from SIGTERM to the exit. It must be longer than an exchange by 2
        /// seconds, so that attempts under way end by themselves. The supervisor has to wait longer
        /// before it kills.
        drain_seconds: Duration = Duration::from_secs(25), "HOOKSWITCH_DRAIN_SECONDS";
        /// Time before a stop in which ingress still takes requests. /readyz is 503 already, and
        /// each answer closes its connection, so that a balancer goes elsewhere. It comes before
        /// HOOKSWITCH_DRAIN_SECONDS, and the supervisor has to wait for both.
        leave_seconds: Duration = Duration::ZERO, "HOOKSWITCH_LEAVE_SECONDS";
    }
}

/// Days that keys outlive events at least.
const KEYS_MARGIN_DAYS: u32 = 1;

/// Time of a stop beyond an exchange, to write the record.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

impl WorkerSettings {
    /// Settings that contradict each other.
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        let drain_min = self.attempt_seconds_max + DRAIN_MARGIN;
        if self.drain_seconds < drain_min {
            faults.push(Fault {
                name: "HOOKSWITCH_DRAIN_SECONDS".into(),
                problem: format!(
                    "a stop would cut attempts off: give at least {} seconds, which is \
                    HOOKSWITCH_ATTEMPT_SECONDS_MAX and {} more",
                    drain_min.as_secs_f64(),
                    DRAIN_MARGIN.as_secs()
                ),
            });
        }
        let for_ever = |days: u32| if days == 0 { u32::MAX } else { days };
        let kept = for_ever(self.events_kept_days).max(for_ever(self.dead_events_kept_days));
        if for_ever(self.keys_kept_days) < kept.saturating_add(KEYS_MARGIN_DAYS) {
            faults.push(Fault {
                name: "HOOKSWITCH_KEYS_KEPT_DAYS".into(),
                problem: "an old redelivery would be a new event: give more days than HOOKSWITCH_EVENTS_KEPT_DAYS and \
                    HOOKSWITCH_DEAD_EVENTS_KEPT_DAYS have, or 0 for ever"
                    .into(),
            });
        }
    }
}
