//! How an integration looks in answers.

use crate::{
    admin::{
        credentials::{self, Opened},
        state::{AdminState, Answer},
        web::view::Time,
    },
    domain::{IntegrationState, Provider},
    store::credentials::StoredCredential,
};
use serde::Serialize;

#[derive(Serialize)]
pub struct AccountView {
    pub id: String,
    pub name: Option<String>,
}

#[derive(Serialize)]
pub struct IntegrationView {
    /// Stays the same through reconnects; `null` before the first.
    id: Option<String>,
    provider: Provider,
    /// It works, or may work again by itself: `connected`, `limited` or `failing`.
    connected: bool,
    state: IntegrationState,
    cause: Option<String>,
    /// The provider's words, or which key of the installation is missing.
    error: Option<String>,
    /// What a limited credential cannot do.
    missing: Option<String>,
    checked_at: Option<Time>,
    first_failed_at: Option<Time>,
    /// When Hookswitch tries again by itself, while the state is `failing`.
    next_try_at: Option<Time>,
    last_used_at: Option<Time>,
    /// `null` for a credential that was saved while the provider could not be reached.
    last_verified_at: Option<Time>,
    account: Option<AccountView>,
    last_four: Option<String>,
    version: Option<i64>,
}

impl IntegrationView {
    const fn absent(provider: Provider) -> Self {
        Self {
            id: None,
            provider,
            connected: false,
            state: IntegrationState::NotConnected,
            cause: None,
            error: None,
            missing: None,
            checked_at: None,
            first_failed_at: None,
            next_try_at: None,
            last_used_at: None,
            last_verified_at: None,
            account: None,
            last_four: None,
            version: None,
        }
    }

    /// `undecryptable` says why the row does not open: that is found now and never stored.
    pub fn new(provider: Provider, row: Option<StoredCredential>, undecryptable: Option<String>) -> Self {
        let Some(row) = row else {
            return Self::absent(provider);
        };
        let id = Some(row.id.to_string());
        if !row.is_active {
            return Self {
                id,
                ..Self::absent(provider)
            };
        }
        let health = row.health;
        let (state, cause, error) = match undecryptable {
            Some(words) => (
                IntegrationState::Undecryptable,
                Some("undecryptable".to_owned()),
                Some(words),
            ),
            None => (health.state, health.cause, health.error),
        };
        Self {
            id,
            provider,
            connected: state.is_connected(),
            next_try_at: row.refresh_at.filter(|_| state == IntegrationState::Failing).map(Time),
            state,
            cause,
            error,
            missing: health.missing,
            checked_at: health.checked_at.map(Time),
            first_failed_at: health.first_failed_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            last_verified_at: row.last_verified_at.map(Time),
            account: row.account_id.map(|id| AccountView {
                id,
                name: row.account_name,
            }),
            last_four: row.last_four,
            version: Some(row.version),
        }
    }

    pub fn opened(opened: Opened) -> Self {
        Self::new(
            opened.row.provider,
            Some(opened.row),
            opened.credential.err().map(|undecryptable| undecryptable.words),
        )
    }
}

/// The view of a row. It is opened to find out whether this installation can use it.
pub async fn view(state: &AdminState, provider: Provider, row: Option<StoredCredential>) -> Answer<IntegrationView> {
    let Some(row) = row else {
        return Ok(IntegrationView::new(provider, None, None));
    };
    Ok(match credentials::open(state, row.clone()).await? {
        Some(opened) => IntegrationView::opened(opened),
        None => IntegrationView::new(provider, Some(row), None),
    })
}
