//! The delivery of a message or e-mail after the provider had accepted it.

use crate::{
    domain::{ActionId, Delivery, DeliveryStatus, OrgId, Timestamp},
    store::{
        StoreError,
        sql::{Dialect, Sql, Statement, Transaction},
    },
};
use std::sync::LazyLock;

/// The ranks of the statuses stand in the statement, so that one statement compares and writes.
static RECORD: LazyLock<String> = LazyLock::new(|| {
    let ranks: Vec<String> = DeliveryStatus::ALL
        .iter()
        .map(|status| format!("WHEN '{status}' THEN {}", status.rank()))
        .collect();
    let ranks = ranks.join(" ");
    format!(
        "
    UPDATE actions
    SET delivery = $4, delivery_code = $5, delivery_detail = $6, delivery_at = $7
    WHERE id = $1 AND org_id = $2 AND provider_ref = $3
        AND $8 > CASE delivery {ranks} ELSE -1 END"
    )
});

pub fn statement() -> Sql {
    Sql::both(RECORD.as_str())
}

pub async fn record<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    action: ActionId,
    provider_ref: &str,
    delivery: Delivery,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let changed = Statement::new("record a delivery", statement())
        .id(action)
        .id(org)
        .text(provider_ref)
        .text(delivery.status.as_str())
        .text_opt(delivery.code.as_deref())
        .text_opt(delivery.detail.as_deref())
        .time(now)
        .number(delivery.status.rank())
        .execute(tx)
        .await?;
    Ok(changed == 1)
}
