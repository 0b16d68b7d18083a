//! Rows that cannot be read, beside others that can.

use super::*;

/// Written by hand, or by a newer release (invariant 15).
#[tokio::test]
async fn a_row_that_cannot_be_read_counts_as_deleted_and_holds_up_no_other() {
    let database = Database::new();
    let store = database.open().await;
    let (a, b) = (database.organisation().await, database.organisation().await);
    let (endpoint, secret) = (EndpointId::generate(), SecretId::generate());
    database
        .configure(&[
            assistant(a, "asst-a", "live"),
            number(a, "twilio", "+15550001", "AC1", "PN1"),
            format!(
                "INSERT INTO endpoints (id, org_id, source, name, is_active, created_at, updated_at, changed_version) \
                VALUES ({}, {}, 'vapi', 'own', 1, 0, 0, {VERSION})",
                blob(endpoint.as_bytes()),
                blob(a.as_bytes())
            ),
            format!(
                "INSERT INTO endpoint_secrets (id, org_id, source, plan, sealed, created_at, changed_version) \
                VALUES ({}, {}, 'vapi', '{{\"type\":\"bearer\"}}', x'0102', 0, {VERSION})",
                blob(secret.as_bytes()),
                blob(a.as_bytes())
            ),
        ])
        .await;
    let table = load(&database, &store).await;
    let of_a = |table: &RouteTable| {
        let number = get(table, RouteKind::TwilioNumber, "AC1/+15550001");
        let secrets = table.org(a).map_or(0, |entry| entry.secrets.len());
        (
            holds(table, "asst-a"),
            number,
            table.endpoint(endpoint).map(|found| found.org),
            secrets,
        )
    };
    let rows = [
        ("assistant_org_mapping", "state", "live"),
        ("phone_numbers", "provider", "twilio"),
        ("endpoints", "source", "vapi"),
        ("endpoint_secrets", "source", "vapi"),
    ];
    let written = |end: &str| {
        rows.map(|(table, column, value)| {
            format!("UPDATE {table} SET {column} = '{value}{end}', changed_version = {VERSION}")
        })
    };
    database.configure(&written("_of_another")).await;
    database.configure(&[assistant(b, "asst-b", "live")]).await;
    look(&table).await;
    for (how, table) in [("by changes", &table), ("afresh", &load(&database, &store).await)] {
        assert_eq!(of_a(table), (None, None, None, 0), "{how}");
        assert_eq!(holds(table, "asst-b"), Some(b), "{how}");
    }
    database.configure(&written("")).await;
    look(&table).await;
    assert_eq!(of_a(&table), (Some(a), Some(a), Some(a), 1), "it is mended");
    store.close().await;
}
