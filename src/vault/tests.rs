//! The vault against moved, changed, cut and foreign values, with a store that is a map.

use super::*;
use crate::domain::{Provider, Source};
use async_trait::async_trait;
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Mutex};

/// The contract of `DataKeys` in memory, with a count of calls and a switch for "the database is
/// away".
#[derive(Default)]
struct MemoryKeys {
    rows: Mutex<BTreeMap<(OrgId, u32), DataKeyRow>>,
    calls: AtomicU64,
    away: std::sync::atomic::AtomicBool,
}

impl MemoryKeys {
    fn rows(&self, org: OrgId) -> Vec<DataKeyRow> {
        self.rows
            .lock()
            .unwrap()
            .range((org, 0)..=(org, u32::MAX))
            .rev()
            .map(|(_, row)| row.clone())
            .collect()
    }

    fn call(&self) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable { doing: "answer" })
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl DataKeys for MemoryKeys {
    async fn load_data_keys(&self, org: OrgId) -> Result<Vec<DataKeyRow>, StoreError> {
        self.call()?;
        // Others get to run between the steps, as they would with a database.
        tokio::task::yield_now().await;
        Ok(self.rows(org))
    }
    async fn insert_data_key(&self, key: DataKeyRow) -> Result<(), StoreError> {
        self.call()?;
        tokio::task::yield_now().await;
        match self.rows.lock().unwrap().entry((key.org, key.version)) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(key);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(_) => Err(StoreError::Conflict { what: "data key" }),
        }
    }
    async fn reserve_seals(&self, org: OrgId, version: u32, block: u64) -> Result<u64, StoreError> {
        self.call()?;
        tokio::task::yield_now().await;
        let mut rows = self.rows.lock().unwrap();
        let row = rows
            .get_mut(&(org, version))
            .ok_or(StoreError::Conflict { what: "data key" })?;
        row.seals += block;
        Ok(row.seals)
    }
}

const OLD: u8 = 0xa1;
const NEW: u8 = 0xb2;
const TWILIO: Purpose = Purpose::Credential(Provider::Twilio);

fn ring(keys: &[u8]) -> Keyring {
    let texts: Vec<SecretBytes> = keys.iter().map(|byte| hex::encode([*byte; 32]).into()).collect();
    Keyring::from_hex(&texts).unwrap()
}

fn vault(keys: &[u8], store: &Arc<MemoryKeys>) -> Vault {
    Vault::new(ring(keys), Arc::clone(store) as Arc<dyn DataKeys>)
}

fn plain(secret: &SecretBytes) -> Vec<u8> {
    secret.expose_secret().to_vec()
}

async fn open(vault: &Vault, org: OrgId, purpose: Purpose, sealed: &SealedBytes) -> Result<Vec<u8>, VaultError> {
    vault.open(org, purpose, sealed, plain).await
}

#[tokio::test]
async fn opens_what_it_sealed_and_only_there() {
    let store = Arc::<MemoryKeys>::default();
    let vault = vault(&[NEW], &store);
    let (a, b) = (OrgId::generate(), OrgId::generate());
    let sealed = vault.seal(a, TWILIO, b"auth token").await.unwrap();
    vault.seal(b, TWILIO, b"another").await.unwrap();
    assert_eq!(open(&vault, a, TWILIO, &sealed).await.unwrap(), b"auth token");
    assert!(!sealed.0.windows(10).any(|w| w == b"auth token"));
    assert_ne!(
        vault.seal(a, TWILIO, b"auth token").await.unwrap(),
        sealed,
        "a nonce was used twice"
    );

    // Moved to another organisation, provider, source or kind.
    assert!(
        matches!(open(&vault, b, TWILIO, &sealed).await, Err(VaultError::Tampered { org, version: 1 }) if org == b)
    );
    for moved in [
        Purpose::Credential(Provider::Vapi),
        Purpose::SigningSecret(Source::Twilio),
        Purpose::SigningSecret(Source::Vapi),
        Purpose::Payload,
    ] {
        assert!(
            matches!(open(&vault, a, moved, &sealed).await, Err(VaultError::Tampered { .. })),
            "{moved:?}"
        );
    }
    // To another version: one that is there, and one that is not.
    let mut row = store.rows(a)[0].clone();
    row.version = 2;
    store.rows.lock().unwrap().insert((a, 2), row.clone());
    let mut renumbered = sealed.clone();
    renumbered.0[4] = 2;
    assert!(
        matches!(
            open(&vault, a, TWILIO, &renumbered).await,
            Err(VaultError::Tampered { version: 2, .. })
        ),
        "a wrapped key was moved to another version"
    );
    renumbered.0[4] = 3;
    assert!(matches!(
        open(&vault, a, TWILIO, &renumbered).await,
        Err(VaultError::NoDataKey { version: 3, .. })
    ));
    assert!(matches!(
        open(&vault, OrgId::generate(), TWILIO, &sealed).await,
        Err(VaultError::NoDataKey { version: 1, .. })
    ));
    // A wrapped key that was moved to another organisation does not unwrap.
    row = store.rows(a).pop().unwrap();
    let c = OrgId::generate();
    row.org = c;
    store.rows.lock().unwrap().insert((c, 1), row);
    assert!(matches!(
        open(&vault, c, TWILIO, &sealed).await,
        Err(VaultError::Tampered { .. })
    ));
    // A failure is not cached, and the sound value still opens.
    assert_eq!(open(&vault, a, TWILIO, &sealed).await.unwrap(), b"auth token");
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_refused() {
    let store = Arc::<MemoryKeys>::default();
    let vault = vault(&[NEW], &store);
    let org = OrgId::generate();
    for plaintext in [b"".as_slice(), b"secret"] {
        let sealed = vault.seal(org, Purpose::Payload, plaintext).await.unwrap();
        let keys = store.rows(org);
        for index in 0..sealed.0.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed.0[index] ^= 1 << bit;
                let result = vault.open_with(&keys, org, Purpose::Payload, &changed, plain);
                match index {
                    0 => assert!(matches!(result, Err(VaultError::Malformed { .. }))),
                    1..=4 => assert!(matches!(result, Err(VaultError::NoDataKey { .. }))),
                    _ => assert!(
                        matches!(result, Err(VaultError::Tampered { .. })),
                        "byte {index}, bit {bit}"
                    ),
                }
            }
        }
        for length in 0..sealed.0.len() {
            let cut = SealedBytes(sealed.0[..length].into());
            let result = vault.open_with(&keys, org, Purpose::Payload, &cut, plain);
            assert!(
                matches!(result, Err(VaultError::Malformed { .. } | VaultError::Tampered { .. })),
                "cut to {length}"
            );
        }
        let longer = SealedBytes([&*sealed.0, b"x"].concat().into());
        assert!(vault.open_with(&keys, org, Purpose::Payload, &longer, plain).is_err());
    }
}

#[tokio::test]
async fn a_changed_wrapped_key_is_refused() {
    let store = Arc::<MemoryKeys>::default();
    let org = OrgId::generate();
    let sealed = vault(&[NEW], &store).seal(org, TWILIO, b"x").await.unwrap();
    let good = store.rows(org)[0].clone();
    for index in 0..=good.wrapped.len() {
        let mut row = good.clone();
        match row.wrapped.get_mut(index) {
            Some(byte) => *byte ^= 1,
            None => row.wrapped = row.wrapped[1..].into(),
        }
        // A vault of its own each, so that no cache holds the sound key.
        let result = vault(&[NEW], &store).open_with(&[row], org, TWILIO, &sealed, plain);
        assert!(
            matches!(result, Err(VaultError::Tampered { .. } | VaultError::Malformed { .. })),
            "byte {index}"
        );
    }
}

#[tokio::test]
async fn a_ring_of_two_opens_the_old_and_seals_with_the_primary() {
    let store = Arc::<MemoryKeys>::default();
    let org = OrgId::generate();
    let before = vault(&[OLD], &store);
    let old = before.seal(org, TWILIO, b"old").await.unwrap();

    // A key that stands first in one ring makes no further data key: not every instance has it.
    let both = vault(&[NEW, OLD], &store);
    assert_eq!(open(&both, org, TWILIO, &old).await.unwrap(), b"old");
    let new = both.seal(org, TWILIO, b"new").await.unwrap();
    assert_eq!(store.rows(org).len(), 1);
    assert_eq!(open(&before, org, TWILIO, &new).await.unwrap(), b"new");

    // The primary key makes the data keys of others.
    let (mine, theirs) = (both.key_ids()[0].clone(), both.key_ids()[1].clone());
    let other = OrgId::generate();
    assert!(both.seal_with(&theirs) && both.primary_key() == theirs);
    both.seal(other, TWILIO, b"x").await.unwrap();
    assert_eq!(store.rows(other)[0].kek, theirs);
    assert!(
        !before.seal_with(&mine) && before.primary_key() == theirs,
        "its ring lacks it"
    );
    assert!(both.seal_with(&mine));

    // Rewrapped, everything opens without the old key; the error without it names the remedy.
    let row = store.rows(org)[0].clone();
    let rewrapped = both.rewrap(&row).unwrap().unwrap();
    assert_eq!((&rewrapped.kek, both.rewrap(&rewrapped).unwrap()), (&mine, None));
    assert!(matches!(
        vault(&[NEW], &store).rewrap(&row),
        Err(VaultError::KeyMissing { .. })
    ));
    let without = open(&vault(&[NEW], &store), org, TWILIO, &old).await.unwrap_err();
    assert!(matches!(&without, VaultError::KeyMissing { version: 1, kek, .. } if *kek == theirs));
    assert!(without.to_string().contains("HOOKSWITCH_KEYRING"));
    store.rows.lock().unwrap().insert((org, 1), rewrapped);
    for sealed in [&old, &new] {
        open(&vault(&[NEW], &store), org, TWILIO, sealed).await.unwrap();
    }

    // An instance that lacks the key of the newest version goes on with one of its own.
    let late = vault(&[OLD], &store).seal(org, TWILIO, b"late").await.unwrap();
    assert_eq!(store.rows(org).len(), 2);
    assert_eq!(open(&both, org, TWILIO, &late).await.unwrap(), b"late");
}

#[tokio::test]
async fn the_first_key_is_made_once_however_many_want_it() {
    let store = Arc::<MemoryKeys>::default();
    let org = OrgId::generate();
    // Two instances, so that they race in the store too.
    let (one, two) = (vault(&[NEW], &store), vault(&[NEW], &store));
    let seals = (0..64).map(|i| if i % 2 == 0 { &one } else { &two }.seal(org, Purpose::Payload, b"x"));
    let sealed = futures_util::future::join_all(seals).await;
    assert_eq!(store.rows(org).len(), 1);
    for value in sealed {
        assert_eq!(open(&one, org, Purpose::Payload, &value.unwrap()).await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn seals_are_counted_before_they_are_used_and_a_new_version_is_begun_at_the_limit() {
    let store = Arc::<MemoryKeys>::default();
    let org = OrgId::generate();
    let limits = SealLimits {
        count_max: 10,
        block: 4,
    };
    let keys = Arc::clone(&store) as Arc<dyn DataKeys>;
    let (one, two) = (
        Vault::with_limits(ring(&[NEW]), Arc::clone(&keys), limits),
        Vault::with_limits(ring(&[NEW]), keys, limits),
    );
    let mut by_version = BTreeMap::<u32, u64>::new();
    for round in 0..100 {
        let vault = if round % 3 == 0 { &one } else { &two };
        let sealed = futures_util::future::join_all((0..3).map(|_| vault.seal(org, Purpose::Payload, b"x"))).await;
        for value in sealed {
            let value = value.unwrap();
            let version = Sealed::parse(org, &value).ok().unwrap().version;
            *by_version.entry(version).or_default() += 1;
            assert_eq!(open(&one, org, Purpose::Payload, &value).await.unwrap(), b"x");
        }
        for row in store.rows(org) {
            assert!(
                by_version.get(&row.version).copied().unwrap_or(0) <= row.seals,
                "used before it was counted"
            );
        }
    }
    assert_eq!(by_version.values().sum::<u64>(), 300);
    assert!(
        by_version.values().all(|seals| *seals <= limits.count_max),
        "{by_version:?}"
    );
}

#[tokio::test]
async fn sealing_and_opening_go_on_without_the_store_once_the_key_is_known() {
    let store = Arc::<MemoryKeys>::default();
    let vault = vault(&[NEW], &store);
    let org = OrgId::generate();
    let sealed = vault.seal(org, TWILIO, b"x").await.unwrap();
    let calls = store.calls.load(Ordering::SeqCst);
    store.away.store(true, Ordering::SeqCst);
    for _ in 0..1000 {
        vault.seal(org, TWILIO, b"y").await.unwrap();
        open(&vault, org, TWILIO, &sealed).await.unwrap();
    }
    assert_eq!(
        store.calls.load(Ordering::SeqCst),
        calls,
        "the batch path went to the store"
    );
    // Another organisation's value cannot be opened while the store is away. The error names the
    // store.
    assert!(matches!(
        vault.seal(OrgId::generate(), TWILIO, b"y").await,
        Err(VaultError::Store {
            source: StoreError::Unavailable { .. },
            ..
        })
    ));
    // A fresh instance opens from rows that it holds.
    let fresh = self::vault(&[NEW], &store);
    assert!(matches!(
        open(&fresh, org, TWILIO, &sealed).await,
        Err(VaultError::Store { .. })
    ));
    assert_eq!(
        fresh.open_with(&store.rows(org), org, TWILIO, &sealed, plain).unwrap(),
        b"x"
    );
    assert!(matches!(
        fresh.open_with(&[], OrgId::generate(), TWILIO, &sealed, plain),
        Err(VaultError::NoDataKey { .. })
    ));
}

#[tokio::test]
async fn rows_of_another_organisation_are_not_taken_for_ones_own() {
    let store = Arc::<MemoryKeys>::default();
    let vault = vault(&[NEW], &store);
    let (a, b) = (OrgId::generate(), OrgId::generate());
    let sealed = vault.seal(a, TWILIO, b"x").await.unwrap();
    assert!(matches!(
        vault.open_with(&store.rows(a), b, TWILIO, &sealed, plain),
        Err(VaultError::NoDataKey { .. })
    ));
}

#[test]
fn fingerprints_tell_the_same_from_another_and_survive_a_new_key() {
    let store = Arc::<MemoryKeys>::default();
    let (old, both, new) = (vault(&[OLD], &store), vault(&[NEW, OLD], &store), vault(&[NEW], &store));
    let (a, b) = (OrgId::generate(), OrgId::generate());
    let kept = old.fingerprint(a, b"AC1");
    assert_eq!(kept.0.len(), 32);
    assert_eq!(old.fingerprint(a, b"AC1"), kept);
    assert_ne!(old.fingerprint(b, b"AC1"), kept);
    assert_ne!(old.fingerprint(a, b"AC2"), kept);
    assert_ne!(both.fingerprint(a, b"AC1"), kept);
    assert!(both.is_fingerprint_of(&kept, a, b"AC1"));
    assert!(!both.is_fingerprint_of(&kept, b, b"AC1") && !new.is_fingerprint_of(&kept, a, b"AC1"));
}

#[test]
fn nothing_of_it_prints_a_key() {
    let store = Arc::<MemoryKeys>::default();
    let shown = format!(
        "{:?} {:?}",
        vault(&[OLD], &store),
        SecretCache::<u8, u8>::new("data_keys", 1, Duration::ZERO)
    );
    assert!(!shown.contains("a1a1") && !shown.contains("161"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn malformed_values_and_keys_never_panic(
        value in proptest::collection::vec(any::<u8>(), 0..80),
        wrapped in proptest::collection::vec(any::<u8>(), 0..80),
        good_head in any::<bool>(),
    ) {
        let store = Arc::<MemoryKeys>::default();
        let vault = vault(&[NEW], &store);
        let org = OrgId::generate();
        let mut value = value;
        if good_head && value.len() > 4 {
            value[..5].copy_from_slice(&[1, 0, 0, 0, 1]);
        }
        let row = DataKeyRow { org, version: 1, kek: vault.key_ids()[0].clone(), wrapped: wrapped.into(), seals: 0 };
        let opened = vault.open_with(std::slice::from_ref(&row), org, TWILIO, &SealedBytes(value.into()), plain);
        prop_assert!(opened.is_err());
        prop_assert!(vault.rewrap(&row).is_ok(), "wrapped with the newest key: nothing to do");
    }

    #[test]
    fn any_value_comes_back(value in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let store = Arc::<MemoryKeys>::default();
        let vault = vault(&[NEW], &store);
        let org = OrgId::generate();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sealed = runtime.block_on(vault.seal(org, Purpose::Payload, &value)).unwrap();
        prop_assert_eq!(vault.open_with(&store.rows(org), org, Purpose::Payload, &sealed, plain).unwrap(), value);
    }
}
