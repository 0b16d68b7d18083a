//! The fields of an integration before and after a change, for the audit.

use crate::{
    domain::{IntegrationState, SecretBytes},
    provider::Credential,
    store::{
        audit::{Changes, SecretChange},
        credentials::StoredCredential,
    },
};

/// The fields of the form that differ. Of a secret field the entry tells its fate alone.
pub fn of_fields(before: Option<&Credential>, after: Option<&Credential>) -> Changes {
    let settings = |credential: Option<&Credential>| -> Vec<(&'static str, String)> {
        let settings = credential.map(Credential::settings).unwrap_or_default();
        settings
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .collect()
    };
    let (old, new) = (settings(before), settings(after));
    let find = |all: &[(&'static str, String)], name: &str| {
        all.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    };
    let mut changes = Changes::default();
    for (name, _) in old.iter().chain(&new) {
        if !changes.fields().iter().any(|known| known == name) {
            changes = changes.value(*name, find(&old, name), find(&new, name));
        }
    }
    let (old, new) = (secrets(before), secrets(after));
    for name in ["auth_token", "api_key_secret", "api_key"] {
        let (was, is) = (find_secret(&old, name), find_secret(&new, name));
        if was.map(SecretBytes::expose_secret) != is.map(SecretBytes::expose_secret) {
            changes = changes.secret(name, SecretChange::between(was.is_some(), is.is_some()));
        }
    }
    changes
}

fn secrets(credential: Option<&Credential>) -> Vec<(&'static str, &SecretBytes)> {
    credential.map(Credential::secrets).unwrap_or_default()
}

fn find_secret<'s>(all: &[(&'static str, &'s SecretBytes)], name: &str) -> Option<&'s SecretBytes> {
    all.iter().find(|(known, _)| *known == name).map(|(_, secret)| *secret)
}

/// The state as the row has it.
pub fn state_of(row: Option<&StoredCredential>) -> IntegrationState {
    row.filter(|row| row.is_active)
        .map_or(IntegrationState::NotConnected, |row| row.health.state)
}
