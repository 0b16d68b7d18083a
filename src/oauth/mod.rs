//! Grants that people give and that expire: consent begun and taken back, tokens kept fresh.
//!
//! `attempt` (a token for a call), `admin` (consent, verifying) and `lifecycle` (the refresher)
//! enter. **Invariant:** one refresh of a credential at a time over all instances. It is a single
//! flight in the process, then it takes a lease with a fence in the store, then it reads the row
//! again. The result is written by compare-and-swap. No transaction is open during the request to
//! the provider.

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
