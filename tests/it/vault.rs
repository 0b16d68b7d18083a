//! The vault on a real store: what survives a restart, what two processes' vaults agree on, what a
//! seal costs the database.

use crate::{
    conformance::store::entry,
    support::{db::Database, until},
};
use hookswitch::{
    config::VaultSettings,
    domain::{INSTALLATION, KeyId, OrgId, Provider, SecretBytes, Timestamp},
    store::{
        Base, SqliteStore, StoreError,
        keys::{DataKeyRow, DataKeys},
        rotation::{Instance, KeyRotation, Promotion},
    },
    vault::{Keyring, Purpose, RotationFinisher, Vault, VaultError},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TWILIO: Purpose = Purpose::Credential(Provider::Twilio);

fn vault(store: &Arc<SqliteStore>) -> Vault {
    let settings = VaultSettings {
        encryption_key: Some("a1".repeat(32).into()),
        ..VaultSettings::default()
    };
    Vault::new(
        Keyring::load(&settings).expect("a key"),
        Arc::clone(store) as Arc<dyn DataKeys>,
    )
}

fn plain(secret: &SecretBytes) -> Vec<u8> {
    secret.expose_secret().to_vec()
}

#[tokio::test]
async fn what_was_sealed_opens_after_a_restart() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let sealed = vault(&store).seal(org, TWILIO, b"auth token").await.unwrap();
    store.close().await;
    drop(store);
    let store = database.open().await;
    assert_eq!(
        vault(&store).open(org, TWILIO, &sealed, plain).await.unwrap(),
        b"auth token"
    );
    assert_eq!(store.load_data_keys(org).await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn vaults_that_race_for_the_first_key_agree() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let vaults: Vec<Vault> = (0..8).map(|_| vault(&store)).collect();
    let sealed = futures_util::future::join_all(vaults.iter().map(|vault| vault.seal(org, TWILIO, b"x"))).await;
    assert_eq!(store.load_data_keys(org).await.unwrap().len(), 1);
    for sealed in sealed {
        assert_eq!(
            vaults[0].open(org, TWILIO, &sealed.unwrap(), plain).await.unwrap(),
            b"x"
        );
    }
    store.close().await;
}

#[tokio::test]
async fn a_new_key_moves_the_configuration_and_seals_do_not() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let before = store.config_version().await.unwrap();
    let vault = vault(&store);
    vault.seal(org, TWILIO, b"x").await.unwrap();
    let made = store.config_version().await.unwrap();
    assert!(made > before, "snapshots would not learn of the key");
    let seals = store.load_data_keys(org).await.unwrap()[0].seals;
    assert!(seals > 0, "seals are counted before they are used");
    for _ in 0..500 {
        vault.seal(org, Purpose::Payload, b"y").await.unwrap();
    }
    assert_eq!(
        store.load_data_keys(org).await.unwrap()[0].seals,
        seals,
        "a seal went to the store"
    );
    assert_eq!(store.reserve_seals(org, 1, 7).await.unwrap(), seals + 7);
    assert_eq!(store.config_version().await.unwrap(), made);
    store.close().await;
}

#[tokio::test]
async fn the_store_says_what_stood_in_the_way() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let row = DataKeyRow {
        org,
        version: 1,
        kek: KeyId("0011223344556677".into()),
        wrapped: [7; 61].into(),
        seals: 3,
    };
    store.insert_data_key(row.clone()).await.unwrap();
    assert!(matches!(
        store.insert_data_key(row.clone()).await,
        Err(StoreError::Conflict { .. })
    ));
    store
        .insert_data_key(DataKeyRow {
            version: 2,
            ..row.clone()
        })
        .await
        .unwrap();
    let stored = store.load_data_keys(org).await.unwrap();
    assert_eq!(
        stored,
        [
            DataKeyRow {
                version: 2,
                ..row.clone()
            },
            row
        ]
    );
    assert!(matches!(
        store.reserve_seals(org, 9, 1).await,
        Err(StoreError::Conflict { .. })
    ));

    // An unknown organisation is neither a conflict, which would be tried again, nor unavailable.
    let nobody = OrgId::generate();
    assert!(store.load_data_keys(nobody).await.unwrap().is_empty());
    assert!(matches!(
        vault(&store).seal(nobody, TWILIO, b"x").await,
        Err(VaultError::Store {
            source: StoreError::Data { .. },
            ..
        })
    ));
    store.close().await;
    assert!(matches!(
        vault(&store).seal(org, TWILIO, b"x").await,
        Err(VaultError::Store {
            source: StoreError::Unavailable { .. },
            ..
        })
    ));
}

fn instance(name: &str, vault: &Vault, sealing: &KeyId) -> Instance {
    Instance {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        roles: "worker".to_owned(),
        ring: vault.key_ids(),
        sealing: sealing.clone(),
        started_at: Timestamp::from_seconds(1),
    }
}

/// An instance that seals with the former key may make a data key under it at any moment.
#[tokio::test]
async fn a_rotation_is_not_over_while_an_instance_seals_with_the_former_key() {
    let database = Database::new();
    let store = database.open().await;
    let org = database.organisation().await;
    let of = |keys: [&str; 2]| {
        let ring = Keyring::from_hex(&keys.map(|byte| SecretBytes::from(byte.repeat(32)))).expect("two keys");
        Arc::new(Vault::new(ring, Arc::clone(&store) as Arc<dyn DataKeys>))
    };
    let (own, other) = (of(["b2", "a1"]), of(["a1", "b2"]));
    let (fresh, former) = (own.key_ids()[0].clone(), other.key_ids()[0].clone());
    let theirs = instance("theirs", &other, &former);
    assert_eq!(store.report_instance(theirs.clone()).await.expect("reported"), former);
    store
        .report_instance(instance("own", &own, &fresh))
        .await
        .expect("reported");
    let promoted = store.promote_key(fresh.clone(), Duration::ZERO, entry(INSTALLATION, "promote"));
    let Promotion::Promoted(lease) = promoted.await.expect("decided") else {
        panic!("every instance holds it");
    };
    let stop = CancellationToken::new();
    let finisher = RotationFinisher::new(own, Arc::clone(&store) as Arc<dyn KeyRotation>);
    #[expect(clippy::disallowed_methods, reason = "ends with the token")]
    let running = tokio::spawn(finisher.run(stop.clone()));
    // It looks, wraps nothing, and gives the rotation back: each hold counts the fence up.
    let fence = AtomicI64::new(lease.fence);
    until("a look, after which the rotation is still under way", || async {
        store.report_instance(theirs.clone()).await.expect("it lives");
        let held = store.take_rotation(Duration::ZERO).await.expect("a look")?;
        (held.fence > fence.swap(held.fence, Ordering::SeqCst) + 1).then_some(())
    })
    .await;
    other.seal(org, TWILIO, b"auth token").await.expect("sealed");
    let wrapped_with = async || store.load_data_keys(org).await.expect("rows")[0].kek.clone();
    assert_eq!(wrapped_with().await, former);
    until("its data key is wrapped again", || async {
        store.report_instance(theirs.clone()).await.expect("it lives");
        (wrapped_with().await == fresh).then_some(())
    })
    .await;
    stop.cancel();
    running.await.expect("ends");
    store.close().await;
}
