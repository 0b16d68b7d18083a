//! Grants that people give and that expire: consent begun and taken back, tokens kept fresh.
//!
//! `attempt` (a token for a call), `admin` (consent, verifying) and `lifecycle` (the refresher)
//! enter. **Invariant:** one refresh of a credential at a time over all instances: single flight in
//! the process, then a lease with a fence in the store, then the row read again; what comes back is
//! written by compare-and-swap, and nothing of the store is held while the provider is asked.

mod consent;
mod refresh;

pub use consent::{Consents, ExchangeError, Exchanged, StartedConsent};
pub use refresh::{NotFresh, Refresher, Want};

use crate::{
    domain::{OrgId, Provider, SealedBytes},
    provider::{Credential, GoogleCredential},
    vault::{Purpose, Vault, VaultError},
};

/// Opens a stored grant. `Ok(None)`: it is not one that this version reads.
async fn open(
    vault: &Vault,
    org: OrgId,
    provider: Provider,
    sealed: &SealedBytes,
) -> Result<Option<GoogleCredential>, VaultError> {
    let parsed = vault
        .open(org, Purpose::Credential(provider), sealed, |plain| {
            Credential::parse(provider, plain)
        })
        .await?;
    Ok(match parsed {
        Ok(Credential::Google(google)) => Some(google),
        _ => None,
    })
}
