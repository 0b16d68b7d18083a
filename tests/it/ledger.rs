//! The ledger's conformance suite over SQLite.

#[path = "conformance/ledger.rs"]
pub mod suite;

use hookswitch::{domain::*, store};
use std::{path::PathBuf, sync::Arc};
use suite::Bench;

pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hookswitch-it-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            let directory = Directory::new();
            let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
            let url = format!("sqlite:{}", directory.0.join("store.db").display());
            let store = store::create(&url, clock.clone()).await.expect("opens");
            suite::$case(&Bench { store: store.clone(), clock }).await;
            store.close().await;
        }
    )+};
}

/// Hands the names of the suite's cases to a macro of the caller's, so that every backend has them
/// all.
#[macro_export]
macro_rules! ledger_cases {
    ($cases:ident) => {
        $cases!(
            the_same_event_fifty_times_is_planned_once,
            a_dedupe_key_is_its_owners,
            a_plan_that_fails_marks_nothing,
            what_is_planned_is_what_is_claimed,
            claims_rotate_over_organisations,
            what_has_expired_is_dead_without_an_attempt,
            an_ended_lease_is_unknown_and_its_worker_is_overtaken,
            an_id_that_another_action_holds_is_ambiguous,
            parked_actions_go_on_with_a_newer_credential_whichever_comes_first,
            records_count_what_they_say,
            every_state_meets_every_operation,
            an_action_without_a_request_cannot_be_retried,
            many_at_once_are_never_busy,
            a_delivery_stands_beside_the_state_and_only_rises,
            parts_are_held_once_for_each_rule_and_event_until_they_are_forgotten,
            tries_are_counted_until_they_end,
            held_events_are_read_by_organisation_in_their_order,
            a_dead_event_is_put_back_once_with_its_audit_entry,
            a_replay_plans_what_has_not_succeeded,
            a_replay_waits_once_with_its_audit_entry,
            a_retry_is_refused_while_another_run_of_the_rule_stands,
            what_has_ended_is_deleted_by_age_and_nothing_else,
            a_retention_of_its_own_deletes_what_is_its_own,
            old_keys_dead_events_and_audit_entries_are_deleted_in_steps,
            jobs_that_have_ended_are_deleted_by_age,
            the_actions_of_a_day_are_counted_with_their_plan,
            a_part_is_planned_beside_what_its_event_has,
            a_job_goes_step_by_step_and_can_be_stopped,
            a_job_has_one_holder_at_a_time_and_a_former_one_changes_nothing,
            jobs_that_nobody_holds_are_listed_by_the_time_that_they_wait,
            a_retry_has_a_fresh_key_where_nothing_has_gone_out,
            what_is_paused_is_not_claimed_until_it_is_resumed,
            actions_of_a_paused_rule_are_held_and_released,
            an_open_outcome_of_a_paused_rule_is_not_looked_up,
            what_had_not_ended_at_the_backup_is_unknown_after_a_recovery,
            a_recovery_pauses_everything_and_then_looks_before_it_sends,
            an_action_that_may_have_gone_out_before_its_plan_is_looked_up,
            a_replay_that_waits_is_dropped_and_other_events_wait_on,
            an_action_that_is_planned_for_later_is_claimed_then,
            a_success_counts_after_its_lease_has_ended,
            a_success_that_was_overtaken_by_a_claim_changes_nothing,
            an_action_belongs_to_the_account_of_its_first_try,
            a_manual_transition_and_its_entry_are_one,
            an_account_without_a_name_is_one_for_each_saved_version,
        );
    };
}

ledger_cases!(cases);
