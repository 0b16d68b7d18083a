//! What a newer release wrote, after a roll back: a row with a word that this release does not know
//! stands in its lists with that word, and holds up nothing else of its organisation.

use super::{TestApp, isolation::plan, rule};
use crate::support::{postgres::PostgresDatabase, until};
use hookswitch::{
    domain::{ActionState, OrgId, SystemClock},
    store,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};
use std::sync::Arc;

/// The database behind the store's back.
enum Hand {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
}

impl Hand {
    /// Changes rows of a table, of which Postgres shows its owner none otherwise.
    async fn write(&mut self, table: &str, change: &str) {
        let update = format!("UPDATE {table} SET {change};");
        let written = match self {
            Self::Sqlite(database) => sqlx::raw_sql(AssertSqlSafe(update)).execute(database).await.map(drop),
            Self::Postgres(database) => {
                let all = format!(
                    "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY; {update} \
                    ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
                );
                sqlx::raw_sql(AssertSqlSafe(all))
                    .execute(&mut **database)
                    .await
                    .map(drop)
            }
        };
        written.expect("written");
    }
}

/// The test on SQLite, and on Postgres where there is one.
macro_rules! on_both {
    ($($case:ident $on_postgres:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let app = TestApp::builder().admin().provider_sandbox().start().await;
            let hand = Hand::Sqlite(app.open_database().await);
            cases::$case(app, hand).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $on_postgres() {
            let Some(database) = PostgresDatabase::new().await else {
                return;
            };
            let hand = Hand::Postgres(Box::new(database.connect().await));
            let store = store::connect(&database.url(), Arc::new(SystemClock)).await.expect("opens");
            let app = TestApp::builder().admin().provider_sandbox().over(store);
            cases::$case(app.start().await, hand).await;
        }
    )+};
}

on_both! {
    an_action_of_a_kind_of_a_newer_release_is_listed an_action_of_a_kind_of_a_newer_release_is_listed_on_postgres,
    many_actions_are_changed_beside_one_of_a_newer_release
        many_actions_are_changed_beside_one_of_a_newer_release_on_postgres,
    an_event_of_a_source_of_a_newer_release_is_listed an_event_of_a_source_of_a_newer_release_is_listed_on_postgres,
    a_credential_of_a_provider_of_a_newer_release_hides_no_other
        a_credential_of_a_provider_of_a_newer_release_hides_no_other_on_postgres,
}

/// As a newer release writes an action, of which there is one that is parked.
const NEWER_ACTION: &str =
    "kind = 'fax.send', provider = 'fax', delivery = 'of_a_newer_release', delivery_at = 1 WHERE state = 'parked'";

/// The ids of a list, page by page.
async fn paged(app: &TestApp, org: OrgId, path: &str) -> Vec<Value> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app
            .get(org, &format!("{path}?limit=1{cursor}"))
            .await
            .expect(200)
            .json();
        ids.extend(
            page["data"]
                .as_array()
                .expect("rows")
                .iter()
                .map(|row| row["id"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

mod cases {
    use super::*;

    pub async fn an_action_of_a_kind_of_a_newer_release_is_listed(app: TestApp, mut hand: Hand) {
        let org = app.a;
        let (_, oldest) = plan(&app, org, ActionState::Dead).await;
        let (event, newer) = plan(&app, org, ActionState::Parked).await;
        let (_, newest) = plan(&app, org, ActionState::Dead).await;
        hand.write("actions", NEWER_ACTION).await;
        let ids = [newest, newer, oldest].map(|id| json!(id));
        assert_eq!(paged(&app, org, "/api/actions").await, ids);
        let list = app.get(org, "/api/actions").await.expect(200).json();
        let named = |row: &Value| (row["action"].clone(), row["provider"].clone(), row["can"].clone());
        let own = (json!("fax.send"), json!("fax"), json!(["cancel"]));
        assert_eq!(named(&list["data"][1]), own);
        assert_eq!(list["data"][0]["action"], "twilio.send_sms");
        let path = format!("/api/actions/{newer}");
        let shown = app.get(org, &path).await.expect(200).json();
        assert_eq!((named(&shown), &shown["delivery"]), (own, &Value::Null));
        assert_eq!(shown["request"]["to"], "+15551234567");
        let story = app.get(org, &format!("/api/events/{event}")).await.expect(200).json();
        assert_eq!(story["actions"][0]["action"], "fax.send");
        // All else that counts actions or shows them.
        for path in ["/api/events", "/api/statistics", "/api/actions?provider=twilio"] {
            app.get(org, path).await.expect(200);
        }
        assert_eq!(app.status(org, "twilio").await["actions"]["dead"], 2);
        // By hand.
        let refused = app.post(org, &format!("{path}/retry"), &json!({})).await.expect(409);
        assert_eq!(refused.code(), "of_newer_release");
        let cancelled = app.post(org, &format!("{path}/cancel"), &json!({})).await.expect(200);
        assert_eq!(cancelled.json()["state"], "cancelled");
    }

    pub async fn many_actions_are_changed_beside_one_of_a_newer_release(app: TestApp, mut hand: Hand) {
        let org = app.a;
        for state in [ActionState::Dead, ActionState::Parked, ActionState::Dead] {
            plan(&app, org, state).await;
        }
        hand.write("actions", NEWER_ACTION).await;
        let job = async |verb: &str, body: Value| {
            let path = format!("/api/actions/{verb}");
            let plan = app
                .post(org, &format!("{path}?plan=true"), &body)
                .await
                .expect(200)
                .json();
            let begun = app.post(org, &path, &body).await.expect(202).json();
            let path = format!("/api/jobs/{}", begun["id"].as_str().expect("an id"));
            let done = until("the job has ended", || async {
                let job = app.get(org, &path).await.expect(200).json();
                (job["state"] == "done").then_some(job)
            })
            .await;
            (
                plan["count"].clone(),
                plan["by"][0]["provider"].clone(),
                done["done"].clone(),
                done["skipped"].clone(),
            )
        };
        let none = job("retry", json!({ "state": "parked" })).await;
        assert_eq!(
            none,
            (json!(1), json!("fax"), json!(0), json!(1)),
            "it is not tried again"
        );
        let dead = job("retry", json!({ "state": "dead", "provider": "twilio" })).await;
        assert_eq!(dead, (json!(2), json!("twilio"), json!(2), json!(0)));
        let all = job("cancel", json!({ "state": "parked" })).await;
        assert_eq!(all, (json!(1), json!("fax"), json!(1), json!(0)));
    }

    pub async fn an_event_of_a_source_of_a_newer_release_is_listed(app: TestApp, mut hand: Hand) {
        let org = app.a;
        let (newer, _) = plan(&app, org, ActionState::Dead).await;
        hand.write("events", "source = 'fax', event_type = 'fax.received'")
            .await;
        let (known, _) = plan(&app, org, ActionState::Dead).await;
        let ids = [known, newer].map(|id| json!(id));
        assert_eq!(paged(&app, org, "/api/events").await, ids);
        let list = app.get(org, "/api/events").await.expect(200).json();
        let sources = [&list["data"][0]["source"], &list["data"][1]["source"]];
        assert_eq!(sources, ["vapi", "fax"]);
        let path = format!("/api/events/{newer}");
        let shown = app.get(org, &path).await.expect(200).json();
        // Nobody knows where its secrets stand: none of its body is shown.
        assert_eq!(
            (&shown["source"], &shown["body"], &shown["can"]),
            (&json!("fax"), &Value::Null, &json!([]))
        );
        assert_eq!(shown["actions"].as_array().map(Vec::len), Some(1));
        let refused = app.post(org, &format!("{path}/replay"), &json!({})).await.expect(409);
        assert_eq!(refused.code(), "of_newer_release");
        let tried = json!({ "spec": rule("tried"), "event_id": newer });
        let refused = app.post(org, "/api/rules/dry-run", &tried).await.expect(400);
        assert_eq!(refused.field(), "event_id");
        let vapi = app.get(org, "/api/events?source=vapi").await.expect(200).json();
        assert_eq!(vapi["data"].as_array().map(Vec::len), Some(1));
    }

    pub async fn a_credential_of_a_provider_of_a_newer_release_hides_no_other(app: TestApp, mut hand: Hand) {
        let org = app.a;
        app.connect_vapi(org, crate::support::app::sandbox::KEY).await;
        app.connect_twilio(org).await;
        hand.write("org_credentials", "provider = 'fax' WHERE provider = 'vapi'")
            .await;
        assert_eq!(app.status(org, "twilio").await["state"], "connected");
        assert_eq!(app.status(org, "vapi").await["state"], "not_connected");
        app.get(org, "/api/destinations").await.expect(200);
        app.get(org, "/api/assistants").await.expect(200);
        app.post(org, "/api/rules", &rule("texts")).await.expect(201);
    }
}
