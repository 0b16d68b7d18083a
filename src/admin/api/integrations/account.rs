//! Whether a credential opens the account that was connected before.

use crate::{
    admin::state::AdminState,
    domain::{Fingerprint, OrgId, Provider},
    store::credentials::StoredCredential,
};

/// Whether `account` is the account of the stored row. Fingerprints are compared, because an erased
/// credential keeps nothing else. A row without a fingerprint is no other account.
pub fn is_same_account(
    state: &AdminState,
    existing: Option<&StoredCredential>,
    provider: Provider,
    org: OrgId,
    account: &str,
) -> bool {
    let before = existing
        .and_then(|row| row.account_fingerprint.clone())
        .map(|fingerprint| Fingerprint(fingerprint.into()));
    before.is_none_or(|before| {
        state
            .vault
            .is_fingerprint_of(&before, org, fingerprinted_text(provider, account).as_bytes())
    })
}

/// The fingerprint that a row keeps of its account.
pub fn fingerprint(state: &AdminState, org: OrgId, provider: Provider, account: &str) -> String {
    state
        .vault
        .fingerprint(org, fingerprinted_text(provider, account).as_bytes())
        .0
        .into()
}

fn fingerprinted_text(provider: Provider, account: &str) -> String {
    format!("account:{provider}:{account}")
}
