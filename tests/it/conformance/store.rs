//! The contract of `store::Store`: each test takes an empty store and its clock, and uses public
//! API only. `store_suite!` hands them to a dialect.

use hookswitch::store::audit::AuditFilter;
use hookswitch::{
    domain::{
        Endpoint, EndpointId, IntegrationState, ManualClock, OrgId, Provider, Rule, RuleId, RuleSpec, SealedBytes,
        SecretId, Source, Timestamp,
    },
    store::{
        Store, StoreError,
        audit::{AuditEntry, Changes},
        credentials::{CREDENTIALS_PER_ORG_MAX, CredentialError, CredentialHealth, Expects, NewCredential},
        endpoints::NewSecret,
    },
};
use std::{sync::Arc, time::Duration};

/// Makes one test of each contract test, over `$open`. `$open` is an async function that returns
/// `(Opened, Arc<dyn Store>, Arc<ManualClock>)`. It returns `None` after it has reported that the
/// backend's server is missing.
#[macro_export]
macro_rules! store_suite {
    ($open:path) => {
        $crate::store_suite!($open, store:
            organisations_are_created_once_and_paged, a_save_keeps_the_integration_and_counts_up,
            an_erased_credential_keeps_its_row_only, changed_credentials_name_their_organisation,
            health_is_compare_and_swap_on_the_version, a_use_is_noted_once_a_minute, credentials_are_limited,
            rules_are_compare_and_swap, of_fifty_updates_of_one_version_one_wins,
            rules_are_loaded_by_change, the_version_counts_changes_only,
            another_organisation_sees_nothing, text_comes_back_whole_or_is_refused);
        $crate::store_suite!($open, store_audit:
            a_change_and_its_entry_are_one, an_entry_has_values_or_stays_readable_without_them);
        $crate::store_suite!($open, store_endpoints:
            endpoints_are_paged_and_deleted_once, secrets_overlap_while_one_is_rotated,
            secrets_are_limited_to_what_is_valid, the_organisations_own_secrets_are_replaced,
            secrets_of_another_owner_are_refused, a_use_of_a_secret_is_its_last_one);
        $crate::store_suite!($open, store_routes:
            proof_moves_a_stale_claim, released_claims_are_gone, a_twilio_number_belongs_to_its_account,
            a_vapi_number_is_one_by_itself_and_by_its_id,
            fifty_proofs_at_once_leave_one_holder, a_proof_takes_the_place_of_the_checked_holder_only,
            claims_are_paged, what_vapi_said_of_texts_stays_with_a_proof_that_did_not_ask,
            a_route_of_the_platform_is_told_in_every_snapshot);
        $crate::store_suite!($open, store_marks:
            a_change_marks_its_lists_and_those_of_its_organisation_only, work_on_an_old_action_marks_the_list);
        $crate::store_suite!($open, store_quarantine:
            a_quarantined_event_is_given_to_one_organisation_once, old_quarantined_events_are_deleted_by_age);
        $crate::store_suite!($open, store_statistics:
            history_is_counted_in_parts_of_its_time, history_has_what_was_planned_before_and_ended_in_its_time);
        $crate::store_suite!($open, store_versions: a_change_is_made_to_what_was_read_only);
        $crate::store_suite!($open, store_settings:
            settings_are_kept_whole_and_cleared, of_writers_of_one_version_of_the_settings_one_wins);
        $crate::store_suite!($open, store_grants:
            a_connection_is_written_whole_or_not_at_all, a_lease_has_one_holder_and_a_fence_that_counts_up,
            a_refresh_is_compare_and_swap_under_its_lease,
            a_refresh_that_cannot_recover_parks_and_a_new_token_resumes, refreshes_come_due_in_order,
            a_consent_is_taken_once,
            consents_end_and_are_limited, a_managed_assistant_is_written_under_its_lease);
        $crate::store_suite!($open, store_callers:
            a_session_is_found_until_it_ends, a_link_becomes_one_session, sessions_are_limited,
            a_key_is_one_requests);
        $crate::store_suite!($open, store_rotation:
            a_key_becomes_primary_when_every_live_instance_holds_it,
            a_database_that_sealed_nothing_begins_with_any_ring,
            data_keys_are_wrapped_again_page_by_page,
            a_rotation_has_one_holder_at_a_time_and_a_former_one_changes_nothing, what_stands_under_a_key_is_counted);
        $crate::store_suite!($open, store_ledger:
            a_newer_credential_makes_parked_actions_due, an_erased_credential_parks_what_has_not_gone_out,
            history_is_paged_and_filtered,
            rejections_are_a_ring, a_lowered_limit_of_rejections_is_reached,
            writers_and_readers_never_meet_a_busy_database,
            aborted_writes_leave_a_store_that_writes);
    };
    ($open:path, $file:ident: $($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let Some((opened, store, clock)) = $open().await else { return };
                $crate::conformance::$file::$test(&store, &clock).await;
                store.close().await;
                drop(opened);
            }
        )+
    };
}

pub fn entry(org: OrgId, verb: &'static str) -> AuditEntry {
    AuditEntry {
        org,
        at: Timestamp::from_seconds(5),
        actor: "user-7".into(),
        verb,
        target_kind: "credential",
        target_id: "x".into(),
        changes: Changes::from(&["name"]),
        address: None,
    }
}

pub async fn org(store: &Arc<dyn Store>) -> OrgId {
    let id = OrgId::generate();
    store
        .create_organisation(id, "Ærø ☎", entry(id, "create"))
        .await
        .expect("an organisation");
    id
}

pub fn sealed(text: &str) -> SealedBytes {
    SealedBytes(text.as_bytes().into())
}

pub fn credential(org: OrgId, provider: Provider, name: &str, sealed_text: &str) -> NewCredential {
    NewCredential {
        org,
        provider,
        name: name.into(),
        sealed: sealed(sealed_text),
        state: IntegrationState::Connected,
        missing: None,
        account_id: Some("AC1".into()),
        account_name: Some("Büro".into()),
        account_fingerprint: Some("f00d".into()),
        last_four: Some("1234".into()),
        verified_at: Some(Timestamp::from_seconds(7)),
        expects: Expects::Anything,
    }
}

pub(super) fn secret(org: OrgId, endpoint: Option<EndpointId>) -> NewSecret {
    NewSecret {
        id: SecretId::generate(),
        org,
        endpoint,
        source: Source::Vapi,
        plan: "{}".into(),
        sealed: sealed("s"),
        last_four: Some("abcd".into()),
    }
}

pub(super) fn endpoint(org: OrgId) -> Endpoint {
    Endpoint {
        id: EndpointId::generate(),
        org,
        source: Source::Vapi,
        name: "front desk".into(),
        is_active: true,
        ignored_types: vec!["speech-update".into()],
        version: 1,
        created_at: Timestamp::from_seconds(3),
    }
}

pub fn spec(name: &str) -> RuleSpec {
    serde_json::from_value(serde_json::json!({
        "name": name, "source": "vapi", "event_type": "end-of-call-report", "action": "http.post",
        "parameters": {"destination": "crm"}
    }))
    .expect("a rule")
}

pub fn rule(org: OrgId, name: &str) -> Rule {
    let at = Timestamp::from_seconds(4);
    Rule {
        id: RuleId::generate(),
        org,
        spec: spec(name),
        version: 1,
        created_at: at,
        updated_at: at,
    }
}

pub(super) fn is_conflict<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict { .. }))
}

pub async fn organisations_are_created_once_and_paged(store: &Arc<dyn Store>, _: &ManualClock) {
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(org(store).await);
    }
    assert!(is_conflict(
        &store
            .create_organisation(all[0], "again", entry(all[0], "create"))
            .await
    ));
    let found = store
        .find_organisation(all[0])
        .await
        .expect("a look")
        .expect("it is there");
    assert_eq!((found.name.as_str(), found.is_active), ("Ærø ☎", true));
    assert_eq!(store.find_organisation(OrgId::generate()).await.expect("a look"), None);
    let first: Vec<_> = store
        .list_organisations(None, 3)
        .await
        .expect("a page")
        .iter()
        .map(|o| o.id)
        .collect();
    let rest: Vec<_> = store
        .list_organisations(first.last().copied(), 3)
        .await
        .expect("a page")
        .iter()
        .map(|o| o.id)
        .collect();
    assert_eq!([first, rest].concat(), all);
    assert_eq!(store.list_organisations(None, 0).await.expect("a page"), []);
}

pub async fn a_save_keeps_the_integration_and_counts_up(store: &Arc<dyn Store>, clock: &ManualClock) {
    let org = org(store).await;
    let first = store
        .save_credential(credential(org, Provider::Twilio, "", "one"), entry(org, "connect"))
        .await
        .expect("saved");
    assert_eq!((first.version, first.is_active, first.last_used_at), (1, true, None));
    let used = Timestamp::from_seconds(9);
    store.touch_credential(org, first.id, used).await.expect("noted");
    let failing = CredentialHealth {
        cause: Some("credential_refused".into()),
        first_failed_at: Some(used),
        ..CredentialHealth::of(IntegrationState::Failing)
    };
    assert!(
        store
            .record_credential_health(org, first.id, 1, failing, None, None)
            .await
            .expect("recorded")
    );
    clock.advance(Duration::from_mins(1));
    let second = store.save_credential(
        NewCredential {
            verified_at: None,
            ..credential(org, Provider::Twilio, "", "two")
        },
        entry(org, "connect"),
    );
    let second = second.await.expect("saved");
    assert_eq!(
        (second.id, second.created_at, second.version),
        (first.id, first.created_at, 2)
    );
    assert_eq!(
        (second.sealed.clone(), second.last_used_at, second.last_verified_at),
        (Some(sealed("two")), Some(used), None)
    );
    assert_eq!(second.health, CredentialHealth::of(IntegrationState::Connected));
    assert!(second.updated_at > first.updated_at);
    assert_eq!(
        store.find_credential(org, Provider::Twilio, "").await.expect("a look"),
        Some(second)
    );
    assert_eq!(
        store
            .find_credential(org, Provider::Twilio, "other")
            .await
            .expect("a look"),
        None
    );
    assert_eq!(
        store.find_credential(org, Provider::Vapi, "").await.expect("a look"),
        None
    );
}

pub async fn an_erased_credential_keeps_its_row_only(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    assert!(
        !store
            .erase_credential(org, Provider::Vapi, "", Expects::Anything, entry(org, "erase"))
            .await
            .expect("nothing to erase")
    );
    let saved = store
        .save_credential(credential(org, Provider::Vapi, "", "one"), entry(org, "connect"))
        .await
        .expect("saved");
    assert!(
        store
            .erase_credential(org, Provider::Vapi, "", Expects::Anything, entry(org, "erase"))
            .await
            .expect("erased")
    );
    assert!(
        !store
            .erase_credential(org, Provider::Vapi, "", Expects::Anything, entry(org, "erase"))
            .await
            .expect("erased before")
    );
    let row = &store.list_credentials(org).await.expect("a list")[0];
    assert_eq!(
        (row.id, row.is_active, &row.sealed, &row.last_four),
        (saved.id, false, &None, &None)
    );
    assert_eq!(
        (row.health.state, row.account_fingerprint.as_deref()),
        (IntegrationState::NotConnected, Some("f00d"))
    );
    let late = CredentialHealth::of(IntegrationState::Failing);
    assert!(
        !store
            .record_credential_health(org, saved.id, saved.version, late, None, None)
            .await
            .expect("a late answer"),
        "an erased one cannot fail"
    );
    let again = store
        .save_credential(credential(org, Provider::Vapi, "", "two"), entry(org, "connect"))
        .await
        .expect("saved");
    assert_eq!(
        (again.id, again.version, again.is_active),
        (saved.id, saved.version + 1, true)
    );
    assert_eq!(
        store
            .list_audit(org, AuditFilter::default(), None, 10)
            .await
            .expect("audit")
            .iter()
            .map(|e| e.verb.as_str())
            .collect::<Vec<_>>(),
        ["connect", "erase", "connect", "create"]
    );
}

pub async fn health_is_compare_and_swap_on_the_version(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let one = store
        .save_credential(credential(org, Provider::Twilio, "", "one"), entry(org, "connect"))
        .await
        .expect("saved");
    let two = store
        .save_credential(credential(org, Provider::Twilio, "", "two"), entry(org, "connect"))
        .await
        .expect("saved");
    let at = Some(Timestamp::from_seconds(50));
    let failing = CredentialHealth {
        state: IntegrationState::NeedsReconnecting,
        cause: Some("credential_refused".into()),
        error: Some(CredentialError::in_words("Authenticate")),
        missing: None,
        checked_at: at,
        first_failed_at: at,
    };
    assert!(
        !store
            .record_credential_health(org, one.id, one.version, failing.clone(), None, None)
            .await
            .expect("an old answer"),
        "a 401 of the old key"
    );
    assert_eq!(
        store
            .find_credential(org, Provider::Twilio, "")
            .await
            .expect("a look")
            .expect("there")
            .health
            .state,
        IntegrationState::Connected
    );
    assert!(
        store
            .record_credential_health(org, two.id, two.version, failing.clone(), None, None)
            .await
            .expect("recorded")
    );
    let row = store
        .find_credential(org, Provider::Twilio, "")
        .await
        .expect("a look")
        .expect("there");
    assert_eq!(
        (row.health, row.last_verified_at),
        (failing, Some(Timestamp::from_seconds(7)))
    );
    let good = CredentialHealth {
        checked_at: at,
        ..CredentialHealth::of(IntegrationState::Connected)
    };
    assert!(
        store
            .record_credential_health(org, two.id, two.version, good.clone(), at, None)
            .await
            .expect("recorded")
    );
    let row = store
        .find_credential(org, Provider::Twilio, "")
        .await
        .expect("a look")
        .expect("there");
    assert_eq!((row.health, row.last_verified_at, row.version), (good, at, two.version));
}

pub async fn a_use_is_noted_once_a_minute(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let saved = store
        .save_credential(credential(org, Provider::Twilio, "", "one"), entry(org, "connect"))
        .await
        .expect("saved");
    for (used, noted) in [(100, 100), (159, 100), (100, 100), (160, 160), (30, 160)] {
        store
            .touch_credential(org, saved.id, Timestamp::from_seconds(used))
            .await
            .expect("noted");
        let row = store
            .find_credential(org, Provider::Twilio, "")
            .await
            .expect("a look")
            .expect("there");
        assert_eq!(row.last_used_at, Some(Timestamp::from_seconds(noted)), "used at {used}");
    }
}

pub async fn credentials_are_limited(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    for n in 0..CREDENTIALS_PER_ORG_MAX {
        store
            .save_credential(
                credential(org, Provider::Http, &format!("d{n}"), "s"),
                entry(org, "connect"),
            )
            .await
            .expect("within the limit");
    }
    let above = store
        .save_credential(credential(org, Provider::Http, "above", "s"), entry(org, "connect"))
        .await;
    assert!(is_conflict(&above), "{above:?}");
    assert_eq!(
        store
            .find_credential(org, Provider::Http, "above")
            .await
            .expect("a look"),
        None
    );
    store
        .save_credential(credential(org, Provider::Http, "d0", "t"), entry(org, "connect"))
        .await
        .expect("replacing stays possible");
    assert_eq!(
        store.list_credentials(org).await.expect("a list").len(),
        CREDENTIALS_PER_ORG_MAX as usize
    );
}

pub async fn changed_credentials_name_their_organisation(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let changed = async |version| {
        let mut changed = store.load_changed_orgs(version).await.expect("a list");
        changed.orgs.sort_unstable();
        (changed.version, changed.orgs)
    };
    let begun = store.config_version().await.expect("a version");
    assert_eq!(changed(begun).await, (begun, vec![]));
    store
        .save_credential(credential(a, Provider::Vapi, "", "one"), entry(a, "connect"))
        .await
        .expect("saved");
    // A change that is no credential's clears no cached credential.
    let rule = rule(b, "a rule");
    store.create_rule(rule, entry(b, "create")).await.expect("created");
    let (version, orgs) = changed(begun).await;
    assert_eq!((version, orgs), (begun + 2, vec![a]));
    store.stamp_credentials(a).await.expect("stamped");
    assert_eq!(changed(version).await, (begun + 3, vec![a]));
    store.stamp_credentials(b).await.expect("it has none");
    assert_eq!(changed(begun + 3).await, (begun + 4, vec![]));
}

pub async fn rules_are_compare_and_swap(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let made = rule(org, "one");
    store
        .create_rule(made.clone(), entry(org, "create"))
        .await
        .expect("created");
    assert!(is_conflict(
        &store.create_rule(made.clone(), entry(org, "create")).await
    ));
    assert_eq!(store.find_rule(org, made.id).await.expect("a look"), Some(made.clone()));
    assert_eq!(
        store
            .update_rule(org, made.id, 1, spec("two"), entry(org, "update"))
            .await
            .expect("updated"),
        Some(2)
    );
    assert!(
        is_conflict(
            &store
                .update_rule(org, made.id, 1, spec("lost"), entry(org, "update"))
                .await
        ),
        "the old version has lost"
    );
    assert_eq!(
        store
            .update_rule(org, RuleId::generate(), 1, spec("none"), entry(org, "update"))
            .await
            .expect("a look"),
        None
    );
    assert_eq!(
        store
            .find_rule(org, made.id)
            .await
            .expect("a look")
            .expect("there")
            .spec
            .name,
        "two"
    );
    assert_eq!(store.count_rules(org).await.expect("a count"), 1);
    assert!(
        store
            .delete_rule(org, made.id, None, entry(org, "delete"))
            .await
            .expect("deleted")
    );
    assert!(
        !store
            .delete_rule(org, made.id, None, entry(org, "delete"))
            .await
            .expect("deleted before")
    );
    assert_eq!(
        store
            .update_rule(org, made.id, 3, spec("dead"), entry(org, "update"))
            .await
            .expect("a look"),
        None
    );
    assert_eq!(store.find_rule(org, made.id).await.expect("a look"), None);
    assert_eq!(store.count_rules(org).await.expect("a count"), 0);
    assert_eq!(store.list_rules(org, None, 10).await.expect("a page"), []);
}

pub async fn of_fifty_updates_of_one_version_one_wins(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let made = rule(org, "one");
    store
        .create_rule(made.clone(), entry(org, "create"))
        .await
        .expect("created");
    let updates = (0..50).map(|n| store.update_rule(org, made.id, 1, spec(&format!("by {n}")), entry(org, "update")));
    let ended = futures_util::future::join_all(updates).await;
    assert_eq!(ended.iter().filter(|end| matches!(end, Ok(Some(2)))).count(), 1);
    assert_eq!(ended.iter().filter(|end| is_conflict(end)).count(), 49);
    assert_eq!(
        store
            .list_audit(org, AuditFilter::default(), None, 100)
            .await
            .expect("audit")
            .iter()
            .filter(|e| e.verb == "update")
            .count(),
        1
    );
}

pub async fn rules_are_loaded_by_change(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (kept, dropped) = (rule(a, "kept"), rule(b, "dropped"));
    store
        .create_rule(kept.clone(), entry(a, "create"))
        .await
        .expect("created");
    store
        .create_rule(dropped.clone(), entry(b, "create"))
        .await
        .expect("created");
    let all = store.load_rule_changes(0).await.expect("all");
    assert_eq!((all.rules.len(), all.organisations.len()), (2, 2));
    assert_eq!(all.version, store.config_version().await.expect("a version"));
    assert!(
        store
            .delete_rule(b, dropped.id, None, entry(b, "delete"))
            .await
            .expect("deleted")
    );
    let changed = store.load_rule_changes(all.version).await.expect("changes");
    assert_eq!(
        changed
            .rules
            .iter()
            .map(|(rule, is_deleted)| (rule.id, *is_deleted))
            .collect::<Vec<_>>(),
        [(dropped.id, true)]
    );
    assert_eq!((changed.organisations, changed.version), (vec![], all.version + 1));
    let fresh = store.load_rule_changes(0).await.expect("all");
    assert_eq!(fresh.rules, [(kept, false)], "who asks for all has nothing to take out");
    assert_eq!(store.load_rule_changes(fresh.version).await.expect("none").rules, []);
}

pub async fn the_version_counts_changes_only(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let mut hint = store.config_changes();
    let version = store.config_version().await.expect("a version");
    assert_eq!(*hint.borrow_and_update(), version);
    store
        .delete_rule(org, RuleId::generate(), None, entry(org, "delete"))
        .await
        .expect("a look");
    store
        .delete_endpoint(org, EndpointId::generate(), None, entry(org, "delete"))
        .await
        .expect("a look");
    store
        .release_assistant(org, "none", None, entry(org, "release"))
        .await
        .expect("a look");
    store
        .erase_credential(org, Provider::Vapi, "", Expects::Anything, entry(org, "erase"))
        .await
        .expect("a look");
    assert_eq!(store.config_version().await.expect("a version"), version);
    assert!(!hint.has_changed().expect("open"));
    store
        .create_rule(rule(org, "one"), entry(org, "create"))
        .await
        .expect("created");
    assert_eq!(store.config_version().await.expect("a version"), version + 1);
    tokio::time::timeout(Duration::from_secs(5), hint.wait_for(|known| *known == version + 1))
        .await
        .expect("in time")
        .expect("open");
    store.ping().await.expect("it answers");
}

pub async fn another_organisation_sees_nothing(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let (own, made) = (endpoint(a), rule(a, "one"));
    let saved = store
        .save_credential(credential(a, Provider::Http, "crm", "s"), entry(a, "connect"))
        .await
        .expect("saved");
    store
        .create_endpoint(own.clone(), vec![secret(a, Some(own.id))], entry(a, "create"))
        .await
        .expect("created");
    store
        .create_rule(made.clone(), entry(a, "create"))
        .await
        .expect("created");
    let version = store.config_version().await.expect("a version");

    assert_eq!(
        store.find_credential(b, Provider::Http, "crm").await.expect("a look"),
        None
    );
    assert_eq!(store.list_credentials(b).await.expect("a list"), []);
    assert!(
        !store
            .erase_credential(b, Provider::Http, "crm", Expects::Anything, entry(b, "erase"))
            .await
            .expect("a look")
    );
    assert!(
        !store
            .record_credential_health(
                b,
                saved.id,
                1,
                CredentialHealth::of(IntegrationState::Connected),
                None,
                None
            )
            .await
            .expect("a look")
    );
    store
        .touch_credential(b, saved.id, Timestamp::from_seconds(1))
        .await
        .expect("a look");
    assert_eq!(store.find_endpoint(b, own.id).await.expect("a look"), None);
    assert_eq!(store.list_endpoints(b, None, 9).await.expect("a list"), []);
    assert_eq!(
        store.list_secrets(b, Source::Vapi, Some(own.id)).await.expect("a list"),
        []
    );
    assert!(
        !store
            .delete_endpoint(b, own.id, None, entry(b, "delete"))
            .await
            .expect("a look")
    );
    assert_eq!(store.find_rule(b, made.id).await.expect("a look"), None);
    assert_eq!(store.list_rules(b, None, 9).await.expect("a list"), []);
    assert_eq!(store.count_rules(b).await.expect("a count"), 0);
    assert_eq!(
        store
            .update_rule(b, made.id, 1, spec("theirs"), entry(b, "update"))
            .await
            .expect("a look"),
        None
    );
    assert!(
        !store
            .delete_rule(b, made.id, None, entry(b, "delete"))
            .await
            .expect("a look")
    );
    assert_eq!(
        store
            .list_audit(b, AuditFilter::default(), None, 9)
            .await
            .expect("audit")
            .len(),
        1,
        "its own creation only"
    );

    assert_eq!(store.config_version().await.expect("a version"), version);
    assert_eq!(
        store.find_credential(a, Provider::Http, "crm").await.expect("a look"),
        Some(saved)
    );
    assert_eq!(store.find_rule(a, made.id).await.expect("a look"), Some(made));
    assert_eq!(
        store
            .list_secrets(a, Source::Vapi, Some(own.id))
            .await
            .expect("a list")
            .len(),
        1
    );
}

pub async fn text_comes_back_whole_or_is_refused(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    for (n, text) in [
        "a\0b",
        "🎷\u{202e}ı̇ ﷽",
        "'; DROP TABLE rules; --",
        "\\u0000 \" %s ?1",
        &"é".repeat(100_000),
    ]
    .into_iter()
    .enumerate()
    {
        let named = Endpoint {
            name: text.into(),
            ignored_types: vec![text.into()],
            ..endpoint(org)
        };
        match store.create_endpoint(named.clone(), vec![], entry(org, "create")).await {
            Ok(()) => assert_eq!(
                store.find_endpoint(org, named.id).await.expect("a look"),
                Some(named),
                "text {n}"
            ),
            Err(error) => assert!(matches!(error, StoreError::Data { .. }), "text {n}: {error:?}"),
        }
        let mut odd = rule(org, "odd");
        odd.spec.when = Some(text.into());
        match store.create_rule(odd.clone(), entry(org, "create")).await {
            Ok(()) => assert_eq!(
                store.find_rule(org, odd.id).await.expect("a look"),
                Some(odd),
                "text {n}"
            ),
            Err(error) => assert!(matches!(error, StoreError::Data { .. }), "text {n}: {error:?}"),
        }
    }
    assert_eq!(
        store
            .find_credential(org, Provider::Http, "a\0b")
            .await
            .expect("a look"),
        None
    );
    assert_eq!(store.find_assistant_holder("a\0").await.expect("a look"), None);
    store
        .create_rule(rule(org, "still writes"), entry(org, "create"))
        .await
        .expect("created");
}
