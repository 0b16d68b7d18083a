//! Whether a proven assistant or number can be used now. Its webhooks verify by the credential of
//! its provider.

use crate::{
    admin::state::{AdminState, Answer},
    domain::{OrgId, Provider},
};

/// The providers that an organisation has connected.
pub struct Connected(Vec<Provider>);

impl Connected {
    pub async fn load(state: &AdminState, org: OrgId) -> Answer<Self> {
        let rows = state.store.list_credentials(org).await?;
        Ok(Self(
            rows.into_iter()
                .filter(|row| row.is_active && row.name.is_empty())
                .map(|row| row.provider)
                .collect(),
        ))
    }

    /// Why a thing of a provider cannot be used; `None` where it can.
    pub fn reason(&self, provider: Provider) -> Option<String> {
        (!self.0.contains(&provider))
            .then(|| format!("{provider} is not connected: connect it, and its webhooks are taken again"))
    }
}
