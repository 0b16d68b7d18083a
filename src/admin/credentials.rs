//! The credential of an organisation, decrypted for one call to its provider.
//!
//! **Invariant:** a decrypted credential is dropped at the end of its request, and no answer shows
//! a secret of it.

use crate::{
    admin::{
        state::{AdminState, Answer},
        web::problem::{Code, Problem},
    },
    domain::{OrgId, Provider},
    provider::Credential,
    store::credentials::StoredCredential,
    vault::{Purpose, VaultError},
};

/// A stored credential, and the result of decrypting it.
pub struct Opened {
    pub row: StoredCredential,
    pub credential: Result<Credential, Undecryptable>,
}

/// Why this installation cannot decrypt a row: a key is missing, or the row was moved or changed.
/// It is never reported as "not connected".
pub struct Undecryptable {
    pub words: String,
}

/// Finds and decrypts an active credential. `None`: the organisation has none.
pub async fn find(state: &AdminState, org: OrgId, provider: Provider, name: &str) -> Answer<Option<Opened>> {
    match state.store.find_credential(org, provider, name).await? {
        Some(row) if row.is_active => open(state, row).await,
        _ => Ok(None),
    }
}

/// Decrypts a row. `None`: the row is erased.
pub async fn open(state: &AdminState, row: StoredCredential) -> Answer<Option<Opened>> {
    let Some(sealed) = row.sealed.as_ref().filter(|_| row.is_active) else {
        return Ok(None);
    };
    let provider = row.provider;
    let parsed = state
        .vault
        .open(row.org, Purpose::Credential(provider), sealed, |plain| {
            Credential::parse(provider, plain)
        })
        .await;
    let credential = match parsed {
        Ok(Ok(credential)) => Ok(credential),
        Ok(Err(error)) => Err(Undecryptable {
            words: format!("the stored credential is not in the form that this version reads ({error})"),
        }),
        Err(error @ (VaultError::Store { .. } | VaultError::NoRandomness)) => return Err(error.into()),
        Err(error) => Err(Undecryptable {
            words: error.to_string(),
        }),
    };
    Ok(Some(Opened { row, credential }))
}

impl Opened {
    /// # Errors
    /// It cannot be decrypted: 500. The status of the integration shows the reason.
    pub fn usable(self) -> Answer<(StoredCredential, Credential)> {
        match self.credential {
            Ok(credential) => Ok((self.row, credential)),
            Err(undecryptable) => {
                tracing::error!(
                    org.id = %self.row.org,
                    provider = %self.row.provider,
                    reason = undecryptable.words,
                    "A credential cannot be opened"
                );
                Err(Problem::new(Code::Undecryptable))
            }
        }
    }
}
