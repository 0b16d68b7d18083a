//! Whether a credential opens the account that was connected before.

use crate::{
    admin::state::AdminState,
    domain::{Fingerprint, OrgId, Provider},
    store::credentials::StoredCredential,
};

/// Whether `account` is the account of the stored row. An erased credential keeps a fingerprint and
/// nothing else, which opens with the key that made it. A row without one is no other account.
pub fn is_same_account(
    state: &AdminState,
    existing: Option<&StoredCredential>,
    provider: Provider,
    org: OrgId,
    account: &str,
) -> bool {
    if existing.is_some_and(|row| row.account_id.as_deref() == Some(account)) {
        return true;
    }
    let before = existing
        .and_then(|row| row.account_fingerprint.clone())
        .map(|fingerprint| Fingerprint(fingerprint.into()));
    before.is_none_or(|before| {
        state
            .vault
            .is_fingerprint_of(&before, org, fingerprinted_text(provider, account).as_bytes())
    })
}

/// The fingerprint that a row keeps of its account: the former one for the same account. Actions
/// that were sent name their account by it, also after another key has become primary.
pub fn fingerprint_to_keep(
    state: &AdminState,
    existing: Option<&StoredCredential>,
    provider: Provider,
    org: OrgId,
    account: &str,
) -> String {
    existing
        .filter(|row| is_same_account(state, Some(row), provider, org, account))
        .and_then(|row| row.account_fingerprint.clone())
        .unwrap_or_else(|| fingerprint(state, org, provider, account))
}

fn fingerprint(state: &AdminState, org: OrgId, provider: Provider, account: &str) -> String {
    state
        .vault
        .fingerprint(org, fingerprinted_text(provider, account).as_bytes())
        .0
        .into()
}

fn fingerprinted_text(provider: Provider, account: &str) -> String {
    format!("account:{provider}:{account}")
}
