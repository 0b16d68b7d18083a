//! The audit; part of the store's suite.

use super::store::{credential, endpoint, entry, org, rule};
use hookswitch::{
    domain::{ManualClock, OrgId, Provider, Timestamp},
    store::{
        Store, StoreError,
        audit::{AuditEntry, AuditFilter, Changes, SecretChange},
    },
};
use std::sync::Arc;

pub async fn a_change_and_its_entry_are_one(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let version = store.config_version().await.expect("a version");
    let made = rule(a, "one");
    assert!(
        matches!(
            store.create_rule(made.clone(), entry(b, "create")).await,
            Err(StoreError::Data { .. })
        ),
        "the entry is another organisation's"
    );
    assert!(
        store
            .save_credential(credential(a, Provider::Vapi, "", "s"), entry(b, "connect"))
            .await
            .is_err()
    );
    assert!(
        store
            .create_endpoint(endpoint(a), vec![], entry(b, "create"))
            .await
            .is_err()
    );
    assert!(
        store
            .create_organisation(OrgId::generate(), "c", entry(b, "create"))
            .await
            .is_err()
    );
    assert_eq!(store.find_rule(a, made.id).await.expect("a look"), None);
    assert_eq!(store.list_credentials(a).await.expect("a list"), []);
    assert_eq!(store.list_organisations(None, 9).await.expect("a list").len(), 2);
    assert_eq!(
        store.config_version().await.expect("a version"),
        version,
        "what was undone has not counted"
    );
    assert_eq!(
        store
            .list_audit(b, AuditFilter::default(), None, 9)
            .await
            .expect("audit")
            .len(),
        1
    );
    for n in 0..4 {
        store
            .record_audit(AuditEntry {
                target_id: format!("t{n}"),
                ..entry(a, "retry")
            })
            .await
            .expect("recorded");
    }
    let first = store
        .list_audit(a, AuditFilter::default(), None, 2)
        .await
        .expect("a page");
    let rest = store
        .list_audit(a, AuditFilter::default(), Some(first[1].id), 9)
        .await
        .expect("a page");
    assert_eq!(
        first
            .iter()
            .chain(&rest)
            .map(|e| e.target_id.as_str())
            .collect::<Vec<_>>(),
        ["t3", "t2", "t1", "t0", "x"]
    );
    assert_eq!(
        (first[0].actor.as_str(), &first[0].fields[..], first[0].at),
        ("user-7", &["name".to_owned()][..], Timestamp::from_seconds(5))
    );
}

/// Entries of earlier releases have neither an address nor values.
pub async fn an_entry_has_values_or_stays_readable_without_them(store: &Arc<dyn Store>, _: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let made = AuditEntry {
        address: Some("2001:db8::7".parse().expect("an address")),
        changes: Changes::default()
            .value("from", "é\u{0}", None::<&str>)
            .secret("api_key", SecretChange::between(false, true)),
        target_id: "resend".into(),
        ..entry(a, "connect")
    };
    store.record_audit(made.clone()).await.expect("recorded");
    let of = |integration: &str| AuditFilter {
        integration: Some(integration.to_owned()),
        ..AuditFilter::default()
    };
    let found = store.list_audit(a, of("resend"), None, 9).await.expect("a list");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address.as_deref(), Some("2001:db8::7"));
    assert_eq!(found[0].changes, made.changes.values());
    assert_eq!(found[0].fields, made.changes.fields());
    assert_eq!(store.list_audit(b, of("resend"), None, 9).await.expect("a list"), []);
    let by_verb = |integration: Option<&str>, verb: &str| AuditFilter {
        integration: integration.map(str::to_owned),
        verb: Some(verb.to_owned()),
        ..AuditFilter::default()
    };
    for (integration, verb, count) in [
        (Some("resend"), "connect", 1),
        (None, "connect", 1),
        (Some("resend"), "erase", 0),
        (None, "conn", 0),
    ] {
        let found = store
            .list_audit(a, by_verb(integration, verb), None, 9)
            .await
            .expect("a list");
        assert_eq!(found.len(), count, "{integration:?} {verb}");
    }
    let theirs = store.list_audit(b, by_verb(None, "connect"), None, 9).await;
    assert_eq!(theirs.expect("a list"), []);
    let old = store.list_audit(a, of("x"), None, 9).await.expect("a list");
    assert_eq!((old[0].address.as_deref(), old[0].changes.len()), (None, 0));
}
