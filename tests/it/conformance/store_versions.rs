//! Changes that name the version which their author has read; part of the store's suite.

use super::store::{credential, entry, org};
use hookswitch::{
    domain::{ManualClock, Provider},
    store::{
        Store, StoreError,
        credentials::{Expects, NewCredential},
    },
};
use std::sync::Arc;

/// The author of a change has read a version, and others write meanwhile.
pub async fn a_change_is_made_to_what_was_read_only(store: &Arc<dyn Store>, _: &ManualClock) {
    let org = org(store).await;
    let save = |expects| {
        let new = NewCredential {
            expects,
            ..credential(org, Provider::Vapi, "", "s")
        };
        store.save_credential(new, entry(org, "connect"))
    };
    let erase = |expects| store.erase_credential(org, Provider::Vapi, "", expects, entry(org, "erase"));
    let is_stale = |error: &StoreError| matches!(error, StoreError::Stale { .. });
    assert!(is_stale(&save(Expects::Version(1)).await.expect_err("there is none")));
    let saved = save(Expects::Nothing).await.expect("there is none");
    assert!(is_stale(&save(Expects::Nothing).await.expect_err("there is one")));
    let at_once = futures_util::future::join_all((0..10).map(|_| save(Expects::Version(saved.version)))).await;
    assert_eq!(at_once.iter().filter(|done| done.is_ok()).count(), 1);
    assert!(at_once.iter().filter_map(|done| done.as_ref().err()).all(is_stale));
    let version = store.config_version().await.expect("a version");
    assert!(is_stale(
        &erase(Expects::Version(saved.version))
            .await
            .expect_err("a newer one stands")
    ));
    assert_eq!(
        store.config_version().await.expect("a version"),
        version,
        "nothing was changed"
    );
    assert!(erase(Expects::Version(saved.version + 1)).await.expect("erased"));
    // The row keeps its version, and is not what was read.
    assert!(is_stale(
        &save(Expects::Version(saved.version + 1)).await.expect_err("erased")
    ));
    save(Expects::Nothing).await.expect("there is none");
}
