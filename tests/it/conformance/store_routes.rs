//! The contract of claims to external ids (invariant 18), part of the store's suite.

use super::store::{entry, org};
use hookswitch::store::audit::AuditFilter;
use hookswitch::{
    domain::{AssistantRole, ManualClock, OrgId, Provider, RouteState, SmsAtVapi, Timestamp},
    store::{
        Store, StoreError,
        audit::ACTOR_SYSTEM,
        routes::{AssistantClaim, Displaces, NumberClaim, Proof},
    },
};
use std::sync::Arc;

fn assistant(org: OrgId, id: &str) -> AssistantClaim {
    AssistantClaim {
        org,
        assistant_id: id.into(),
        role: Some(AssistantRole::Inbound),
        name: Some("Front desk".into()),
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(Timestamp::from_seconds(8)),
        is_platform_managed: false,
        version: 1,
        created_at: Timestamp::from_seconds(6),
    }
}

fn number(org: OrgId, provider: Provider, number: &str, account: Option<&str>, id: &str) -> NumberClaim {
    NumberClaim {
        org,
        number: number.into(),
        provider,
        account_id: account.map(Into::into),
        provider_number_id: Some(id.into()),
        state: RouteState::Live,
        proof: Some(Proof::MadeByUs),
        proven_at: Some(Timestamp::from_seconds(8)),
        is_platform_managed: false,
        sms_at_vapi: None,
        version: 1,
        created_at: Timestamp::from_seconds(6),
    }
}

async fn prove(store: &Arc<dyn Store>, claim: NumberClaim) -> Option<OrgId> {
    let org = claim.org;
    store
        .prove_number(claim, Displaces::Anyone, entry(org, "prove"))
        .await
        .expect("proven")
}

async fn numbers(store: &Arc<dyn Store>, org: OrgId) -> Vec<(String, Option<String>)> {
    store
        .list_numbers(org, None, 10)
        .await
        .expect("a list")
        .into_iter()
        .map(|claim| (claim.number, claim.account_id))
        .collect()
}

pub async fn proof_moves_a_stale_claim(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    assert_eq!(
        store
            .prove_assistant(assistant(a, "asst"), Displaces::Anyone, entry(a, "prove"))
            .await
            .expect("proven"),
        None
    );
    assert_eq!(
        store.find_assistant(a, "asst").await.expect("a look"),
        Some(assistant(a, "asst"))
    );
    assert_eq!(store.find_assistant(b, "asst").await.expect("a look"), None);
    assert!(
        !store
            .release_assistant(b, "asst", None, entry(b, "release"))
            .await
            .expect("not b's")
    );
    assert_eq!(store.find_assistant_holder("asst").await.expect("a look"), Some(a));
    assert_eq!(
        store
            .prove_assistant(assistant(a, "asst"), Displaces::Anyone, entry(a, "prove"))
            .await
            .expect("proven again"),
        None
    );
    assert_eq!(
        store
            .find_assistant(a, "asst")
            .await
            .expect("a look")
            .expect("there")
            .version,
        2
    );

    let version = store.config_version().await.expect("a version");
    assert_eq!(
        store
            .prove_assistant(assistant(b, "asst"), Displaces::Anyone, entry(b, "prove"))
            .await
            .expect("proven"),
        Some(a)
    );
    assert_eq!(
        store.config_version().await.expect("a version"),
        version + 1,
        "both sides are one change"
    );
    assert_eq!(store.find_assistant_holder("asst").await.expect("a look"), Some(b));
    assert_eq!(store.find_assistant(a, "asst").await.expect("a look"), None);
    assert_eq!(store.list_assistants(a, None, 9).await.expect("a list"), []);

    let stored = &store
        .list_audit(a, AuditFilter::default(), None, 1)
        .await
        .expect("audit")[0];
    assert_eq!(
        (stored.verb.as_str(), stored.actor.as_str(), stored.target_id.as_str()),
        ("release", ACTOR_SYSTEM, "asst"),
        "the new holder is not named"
    );
    let proven = &store
        .list_audit(b, AuditFilter::default(), None, 1)
        .await
        .expect("audit")[0];
    assert_eq!((proven.verb.as_str(), proven.actor.as_str()), ("prove", "user-7"));

    assert_eq!(
        store
            .prove_assistant(assistant(a, "asst"), Displaces::Anyone, entry(a, "prove"))
            .await
            .expect("back again"),
        Some(b)
    );
    assert_eq!(store.find_assistant_holder("asst").await.expect("a look"), Some(a));
}

pub async fn released_claims_are_gone(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    store
        .prove_assistant(assistant(a, "asst"), Displaces::Anyone, entry(a, "prove"))
        .await
        .expect("proven");
    let read = store
        .find_assistant(a, "asst")
        .await
        .expect("a look")
        .expect("its claim");
    store
        .prove_assistant(assistant(a, "asst"), Displaces::Anyone, entry(a, "prove"))
        .await
        .expect("proven again");
    let stale = store
        .release_assistant(a, "asst", Some(read.version), entry(a, "release"))
        .await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })), "{stale:?}");
    assert!(
        store
            .release_assistant(a, "asst", Some(read.version + 1), entry(a, "release"))
            .await
            .expect("released")
    );
    assert!(
        !store
            .release_assistant(a, "asst", None, entry(a, "release"))
            .await
            .expect("released before")
    );
    assert_eq!(store.find_assistant_holder("asst").await.expect("a look"), None);
    assert_eq!(
        store
            .prove_assistant(assistant(b, "asst"), Displaces::Anyone, entry(b, "prove"))
            .await
            .expect("free"),
        None
    );

    prove(store, number(a, Provider::Twilio, "+4930", Some("AC1"), "PN1")).await;
    prove(store, number(a, Provider::Vapi, "+4930", None, "v1")).await;
    assert_eq!(
        store
            .find_number(a, "+4930", None)
            .await
            .expect("a look")
            .map(|claim| claim.provider),
        Some(Provider::Twilio)
    );
    assert_eq!(store.find_number(b, "+4930", None).await.expect("a look"), None);
    assert!(
        !store
            .release_number(b, ("+4930", None), None, entry(b, "release"))
            .await
            .expect("not b's")
    );
    let at = async |provider| {
        let found = store.find_number(a, "+4930", Some(provider)).await.expect("a look");
        found.map(|claim| (claim.provider, claim.version))
    };
    for provider in [Provider::Twilio, Provider::Vapi] {
        assert_eq!(at(provider).await, Some((provider, 1)));
    }
    let released = store
        .release_number(a, ("+4930", Some(Provider::Vapi)), Some(1), entry(a, "release"))
        .await;
    assert!(released.expect("released"), "at Vapi alone");
    assert_eq!(at(Provider::Vapi).await, None);
    assert_eq!(at(Provider::Twilio).await, Some((Provider::Twilio, 1)));
    prove(store, number(a, Provider::Vapi, "+4930", None, "v1")).await;
    let read = store
        .find_number(a, "+4930", None)
        .await
        .expect("a look")
        .expect("its claim");
    prove(store, number(a, Provider::Twilio, "+4930", Some("AC1"), "PN1")).await;
    let stale = store
        .release_number(a, ("+4930", None), Some(read.version), entry(a, "release"))
        .await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })), "{stale:?}");
    assert!(
        store
            .release_number(a, ("+4930", None), Some(read.version + 1), entry(a, "release"))
            .await
            .expect("released"),
        "at every provider"
    );
    assert!(
        !store
            .release_number(a, ("+4930", None), None, entry(a, "release"))
            .await
            .expect("released before")
    );
    assert_eq!(numbers(store, a).await, []);
}

pub async fn a_twilio_number_belongs_to_its_account(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    assert_eq!(
        prove(store, number(a, Provider::Twilio, "+1", Some("AC1"), "PN1")).await,
        None
    );
    assert_eq!(
        prove(store, number(b, Provider::Twilio, "+1", Some("AC2"), "PN2")).await,
        None,
        "another account is another route"
    );
    assert_eq!(
        prove(store, number(b, Provider::Twilio, "+1", Some("AC1"), "PN1")).await,
        Some(a),
        "the same account is the same route"
    );
    assert_eq!(numbers(store, a).await, []);
    assert_eq!(
        numbers(store, b).await,
        [("+1".into(), Some("AC1".into()))],
        "its own claim under the account it has left goes"
    );
    assert_eq!(
        store
            .list_audit(a, AuditFilter::default(), None, 1)
            .await
            .expect("audit")[0]
            .verb,
        "release"
    );
    assert_eq!(prove(store, number(a, Provider::Twilio, "+1", None, "PN3")).await, None);
    assert_eq!(
        prove(store, number(b, Provider::Twilio, "+1", None, "PN3")).await,
        Some(a),
        "no account is an account, too"
    );
}

pub async fn a_vapi_number_is_one_by_itself_and_by_its_id(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    prove(store, number(a, Provider::Vapi, "+1", Some("acc-a"), "v1")).await;
    assert_eq!(
        prove(store, number(b, Provider::Vapi, "+1", Some("acc-b"), "v2")).await,
        Some(a),
        "whatever the account"
    );
    assert_eq!(
        prove(store, number(a, Provider::Vapi, "+2", None, "v2")).await,
        Some(b),
        "the id leads to one organisation"
    );
    assert_eq!(
        (numbers(store, a).await, numbers(store, b).await),
        (vec![("+2".into(), None)], vec![])
    );
    prove(store, number(a, Provider::Vapi, "+2", Some("acc-a"), "v9")).await;
    let claim = store.find_number(a, "+2", None).await.expect("a look").expect("there");
    assert_eq!(
        (claim.version, claim.provider_number_id.as_deref()),
        (2, Some("v9")),
        "a number imported again stays one claim"
    );
    assert_eq!(
        prove(store, number(b, Provider::Twilio, "+2", Some("AC"), "v9")).await,
        None,
        "Twilio's numbers are routes of their own"
    );
}

/// Between the check of a holder and the proof another organisation may have proven the same id.
pub async fn a_proof_takes_the_place_of_the_checked_holder_only(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b, c) = (org(store).await, org(store).await, org(store).await);
    let assistant_of = async |org, displaces| {
        store
            .prove_assistant(assistant(org, "asst"), displaces, entry(org, "prove"))
            .await
    };
    let number_of = async |org, displaces| {
        let claim = number(org, Provider::Vapi, "+1", None, "v1");
        store.prove_number(claim, displaces, entry(org, "prove")).await
    };
    assert_eq!(assistant_of(a, Displaces::Checked(None)).await.expect("free"), None);
    assert_eq!(number_of(a, Displaces::Checked(None)).await.expect("free"), None);
    for late in [Displaces::Checked(None), Displaces::Checked(Some(c))] {
        let version = store.config_version().await.expect("a version");
        assert!(
            matches!(assistant_of(b, late).await, Err(StoreError::Conflict { .. })),
            "{late:?}"
        );
        assert!(
            matches!(number_of(b, late).await, Err(StoreError::Conflict { .. })),
            "{late:?}"
        );
        assert_eq!(
            store.config_version().await.expect("a version"),
            version,
            "nothing changed"
        );
        assert_eq!(store.find_assistant_holder("asst").await.expect("a look"), Some(a));
        assert_eq!(store.list_numbers(a, None, 9).await.expect("a list").len(), 1);
    }
    assert_eq!(
        assistant_of(b, Displaces::Checked(Some(a))).await.expect("checked"),
        Some(a)
    );
    assert_eq!(
        number_of(b, Displaces::Checked(Some(a))).await.expect("checked"),
        Some(a)
    );
    // One's own claim is proven again whoever was checked.
    assert_eq!(assistant_of(b, Displaces::Checked(None)).await.expect("own"), None);
}

pub async fn fifty_proofs_at_once_leave_one_holder(store: &Arc<dyn Store>, _: &ManualClock) {
    let mut all = Vec::new();
    for _ in 0..50 {
        all.push(org(store).await);
    }
    let proofs = all.iter().map(|org| async {
        let assistant = store
            .prove_assistant(assistant(*org, "hot"), Displaces::Anyone, entry(*org, "prove"))
            .await
            .expect("a proof never meets the unique index");
        (
            assistant,
            prove(store, number(*org, Provider::Twilio, "+1", Some("AC"), "PN")).await,
        )
    });
    let displaced = futures_util::future::join_all(proofs).await;
    assert_eq!(
        displaced.iter().filter(|(assistant, _)| assistant.is_none()).count(),
        1,
        "each but the first displaced one"
    );
    assert_eq!(displaced.iter().filter(|(_, number)| number.is_none()).count(), 1);
    let holder = store.find_assistant_holder("hot").await.expect("a look").expect("held");
    let mut live = Vec::new();
    for org in &all {
        if store.find_assistant(*org, "hot").await.expect("a look").is_some() {
            live.push(*org);
        }
    }
    assert_eq!(live, [holder]);
}

pub async fn claims_are_paged(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    for n in [3, 1, 2, 5, 4] {
        store
            .prove_assistant(assistant(org, &format!("a{n}")), Displaces::Anyone, entry(org, "prove"))
            .await
            .expect("proven");
        prove(
            store,
            number(org, Provider::Twilio, &format!("+{n}"), Some("AC"), &format!("PN{n}")),
        )
        .await;
    }
    let first = store.list_assistants(org, None, 2).await.expect("a page");
    let rest = store
        .list_assistants(org, Some(&first[1].assistant_id), 9)
        .await
        .expect("a page");
    assert_eq!(
        first
            .iter()
            .chain(&rest)
            .map(|c| c.assistant_id.as_str())
            .collect::<Vec<_>>(),
        ["a1", "a2", "a3", "a4", "a5"]
    );
    let first = store.list_numbers(org, None, 2).await.expect("a page");
    let rest = store
        .list_numbers(org, Some(&first[1].number), 9)
        .await
        .expect("a page");
    assert_eq!(
        first.iter().chain(&rest).map(|c| c.number.as_str()).collect::<Vec<_>>(),
        ["+1", "+2", "+3", "+4", "+5"]
    );
}

pub async fn what_vapi_said_of_texts_stays_with_a_proof_that_did_not_ask(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let claim = |sms: Option<(SmsAtVapi, i64)>| NumberClaim {
        sms_at_vapi: sms.map(|(sms, at)| (sms, Timestamp::from_seconds(at))),
        ..number(org, Provider::Twilio, "+12025550108", Some("AC"), "PN8")
    };
    let shown = async || {
        let found = store.find_number(org, "+12025550108", None).await.expect("a look");
        let listed = store.list_numbers(org, None, 2).await.expect("a list").remove(0);
        let sms = listed.sms_at_vapi;
        assert_eq!(found, Some(listed));
        sms.map(|(sms, at)| (sms, at.as_seconds()))
    };
    for (said, kept) in [
        (None, None),
        (Some((SmsAtVapi::Enabled, 9)), Some((SmsAtVapi::Enabled, 9))),
        (None, Some((SmsAtVapi::Enabled, 9))),
        (Some((SmsAtVapi::Disabled, 10)), Some((SmsAtVapi::Disabled, 10))),
        (Some((SmsAtVapi::Absent, 11)), Some((SmsAtVapi::Absent, 11))),
    ] {
        prove(store, claim(said)).await;
        assert_eq!(shown().await, kept);
    }
}

/// In the whole load and in the load of changes; another claim takes it away.
pub async fn a_route_of_the_platform_is_told_in_every_snapshot(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let before = store.config_version().await.expect("a version");
    let managed = AssistantClaim {
        is_platform_managed: true,
        ..assistant(org, "asst-of-the-platform")
    };
    for claim in [managed.clone(), assistant(org, "asst-of-its-own")] {
        let proven = store
            .prove_assistant(claim, Displaces::Anyone, entry(org, "prove"))
            .await;
        proven.expect("proven");
    }
    let managed_number = NumberClaim {
        is_platform_managed: true,
        ..number(org, Provider::Vapi, "+12025550107", None, "pn-7")
    };
    prove(store, managed_number).await;
    let found = store.find_assistant(org, "asst-of-the-platform").await.expect("a look");
    assert_eq!(found, Some(managed));
    let managed_at = async |above| {
        let changes = store.load_changes(above).await.expect("routes");
        let managed = changes
            .routes
            .into_iter()
            .filter(|row| row.is_live && row.is_platform_managed);
        let mut values: Vec<String> = managed.map(|row| row.key.value.into()).collect();
        values.sort();
        values
    };
    let all = ["+12025550107", "asst-of-the-platform", "pn-7"];
    assert_eq!(managed_at(0).await, all);
    assert_eq!(managed_at(before).await, all);
    let own = assistant(org, "asst-of-the-platform");
    let proven = store.prove_assistant(own, Displaces::Anyone, entry(org, "prove")).await;
    proven.expect("proven");
    assert_eq!(managed_at(0).await, ["+12025550107", "pn-7"]);
}
