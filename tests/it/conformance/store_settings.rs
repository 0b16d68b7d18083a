//! Settings of organisations; part of the store's suite.

use super::store::{entry, org};
use hookswitch::{
    domain::{ManualClock, OpeningHours, OrgId, OrgSettings, QuietHours, Timestamp, Zone},
    store::{Store, StoreError, audit::AuditFilter, settings::StoredSettings},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

pub(super) fn settings() -> OrgSettings {
    let opening_hours = json!({
        "monday": [{ "from": "09:00", "until": "12:30" }, { "from": "13:30", "until": "18:00" }],
        "saturday": [{ "from": "22:00", "until": "24:00" }],
    });
    let quiet_hours = json!({ "from": "21:00", "until": "08:00" });
    OrgSettings {
        time_zone: Zone::find("Europe/Berlin"),
        opening_hours: OpeningHours::read("", &opening_hours).ok(),
        quiet_hours: QuietHours::read("", &quiet_hours).ok(),
        retention_days: Some(30),
    }
}

pub async fn settings_are_kept_whole_and_cleared(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (a, b) = (org(store).await, org(store).await);
    let find = |org: OrgId| store.find_settings(org);
    assert_eq!(find(a).await.expect("a look"), StoredSettings::default());
    let version = store.config_version().await.expect("a version");
    let all = settings();
    let saved = store.save_settings(a, 0, all.clone(), entry(a, "update")).await;
    let saved = saved.expect("saved");
    assert_eq!((&saved.settings, saved.version, saved.damaged.len()), (&all, 1, 0));
    assert_eq!(find(a).await.expect("a look"), saved);
    assert_eq!(
        find(b).await.expect("a look"),
        StoredSettings::default(),
        "of another organisation"
    );
    assert_eq!(
        store.config_version().await.expect("a version"),
        version + 1,
        "every instance is to see it"
    );
    clock.advance(Duration::from_mins(1));
    let cleared = store
        .save_settings(a, 1, OrgSettings::default(), entry(a, "update"))
        .await;
    assert!(cleared.expect("saved").updated_at > saved.updated_at);
    let found = find(a).await.expect("a look");
    assert_eq!((found.settings, found.version), (OrgSettings::default(), 2));
}

pub async fn of_writers_of_one_version_of_the_settings_one_wins(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let is_stale = |error: &StoreError| matches!(error, StoreError::Stale { .. });
    for version in [0, 1] {
        let saves = (1..=10).map(|days| {
            let settings = OrgSettings {
                retention_days: Some(days + u32::try_from(version * 10).expect("small")),
                ..settings()
            };
            store.save_settings(org, version, settings, entry(org, "update"))
        });
        let saved = futures_util::future::join_all(saves).await;
        let won: Vec<_> = saved.iter().filter_map(|one| one.as_ref().ok()).collect();
        assert_eq!(won.len(), 1);
        assert!(saved.iter().filter_map(|one| one.as_ref().err()).all(is_stale));
        assert_eq!(&store.find_settings(org).await.expect("a look"), won[0]);
    }
    let before = store.config_version().await.expect("a version");
    let late = store.save_settings(org, 7, settings(), entry(org, "update")).await;
    assert!(late.is_err_and(|error| is_stale(&error)));
    assert_eq!(
        store.config_version().await.expect("a version"),
        before,
        "nothing was changed"
    );
    let entries = store
        .list_audit(org, AuditFilter::default(), None, 50)
        .await
        .expect("a list");
    let updates = entries.iter().filter(|entry| entry.verb == "update").count();
    assert_eq!(updates, 2, "an entry for each change, and none for a refusal");
    // An entry of another organisation undoes its change.
    let other = OrgId::generate();
    store
        .save_settings(org, 2, OrgSettings::default(), entry(other, "update"))
        .await
        .expect_err("refused");
    assert_eq!(store.find_settings(org).await.expect("a look").version, 2);
    assert_ne!(
        store.find_settings(org).await.expect("a look").updated_at,
        Some(Timestamp::default())
    );
}
