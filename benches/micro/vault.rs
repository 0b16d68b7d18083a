//! The cost of a secret: sealing, opening cold, opening with its data key in memory.

use super::routing::{ORG, WORLD};
use divan::{Bencher, counter::BytesCount};
use futures_util::FutureExt;
use hookswitch::{
    domain::{Provider, SealedBytes, SecretBytes},
    store::keys::{DataKeyRow, DataKeys},
    vault::{Keyring, Purpose, Vault},
};
use std::sync::Arc;

const TOKEN: Purpose = Purpose::Credential(Provider::Twilio);

fn vault() -> Vault {
    let key = SecretBytes::from("a1".repeat(32));
    Vault::new(
        Keyring::from_hex(&[key]).expect("a key"),
        Arc::clone(&WORLD.store) as Arc<dyn DataKeys>,
    )
}

fn sealed(vault: &Vault, purpose: Purpose, plaintext: &[u8]) -> (SealedBytes, Vec<DataKeyRow>) {
    WORLD.runtime.block_on(async {
        let sealed = vault.seal(ORG, purpose, plaintext).await.expect("sealed");
        (sealed, WORLD.store.load_data_keys(ORG).await.expect("data keys"))
    })
}

#[divan::bench]
fn decrypt_cold(bencher: Bencher) {
    let (sealed, keys) = sealed(&vault(), TOKEN, &[7; 32]);
    bencher.with_inputs(vault).bench_refs(|vault| {
        vault
            .open_with(&keys, ORG, TOKEN, &sealed, SecretBytes::len)
            .expect("opens")
    });
}

#[divan::bench(threads = [1, 2])]
fn decrypt_cached(bencher: Bencher) {
    let vault = vault();
    let (sealed, keys) = sealed(&vault, TOKEN, &[7; 32]);
    bencher.bench(|| {
        vault
            .open_with(&keys, ORG, TOKEN, &sealed, SecretBytes::len)
            .expect("opens")
    });
}

#[divan::bench(args = [32, 2_048, 16_384])]
fn seal_cached(bencher: Bencher, bytes: usize) {
    let (vault, plaintext) = (vault(), vec![7; bytes]);
    sealed(&vault, Purpose::Payload, &plaintext);
    // Once in 16,384 seals a block is counted in the store: what waits for it is let go of, and the
    // next one asks again.
    bencher.counter(BytesCount::new(bytes)).bench(|| {
        match vault.seal(ORG, Purpose::Payload, &plaintext).now_or_never() {
            Some(sealed) => sealed.expect("sealed"),
            None => self::sealed(&vault, Purpose::Payload, &plaintext).0,
        }
    });
}
