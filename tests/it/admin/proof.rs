//! The provider's answer decides about connecting, verifying, and the holder of an assistant or a
//! number (invariant 18).

use crate::support::app::{
    TestApp,
    sandbox::{ASSISTANT, KEY, NUMBER, OTHER_KEY, SID, TOKEN, reader},
};
use hookswitch::{
    domain::{OrgId, Provider, Source},
    sandbox::{Accounts, Fault},
};
use serde_json::{Value, json};
use sqlx::Connection;
use std::time::Duration;

/// The view of an integration as the status has it.
pub(crate) fn without_warnings(mut connected: Value) -> Value {
    assert_eq!(connected.as_object_mut().unwrap().remove("warnings"), Some(json!([])));
    connected
}

#[tokio::test]
async fn a_credential_is_stored_once_the_provider_takes_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, org) = (&app, app.a);
    for (path, body) in [
        (
            "/api/integrations/twilio",
            json!({ "account_sid": SID, "auth_token": "f".repeat(32) }),
        ),
        (
            "/api/integrations/vapi",
            json!({ "api_key": "unowned-key-0123456789", "webhook_secret": "0123456789abcdef0123" }),
        ),
    ] {
        // Refused is refused, also where an unverified one would be taken.
        for query in ["", "?unverified=true"] {
            assert_eq!(
                app.post(org, &format!("{path}{query}"), &body).await.expect(422).code(),
                "refused_by_provider",
                "{path}"
            );
        }
        assert_eq!(
            app.post(org, &format!("{path}/test"), &body).await.expect(422).code(),
            "refused_by_provider"
        );
    }
    for provider in ["twilio", "vapi"] {
        assert_eq!(app.status(org, provider).await["state"], "not_connected");
    }
    assert!(
        app.store
            .list_secrets(org, Source::Vapi, None)
            .await
            .unwrap()
            .is_empty(),
        "nothing was stored"
    );

    let body = json!({ "account_sid": SID, "auth_token": TOKEN, "phone_number": NUMBER });
    let tested = app
        .post(org, "/api/integrations/twilio/test", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&tested["state"], &tested["account"]["id"]),
        (&json!("connected"), &json!(SID))
    );
    assert_eq!(
        app.status(org, "twilio").await["state"],
        "not_connected",
        "a test stores nothing"
    );
    let connected = app
        .post(org, "/api/integrations/twilio", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&connected["state"], &connected["connected"]),
        (&json!("connected"), &json!(true))
    );
    assert!(connected["last_verified_at"].is_string());
    assert_eq!(connected["last_four"], TOKEN[28..]);
    assert_eq!(app.status(org, "twilio").await, without_warnings(connected));
    assert_eq!(
        app.store.list_secrets(org, Source::Twilio, None).await.unwrap().len(),
        1,
        "the token verifies webhooks, too"
    );
    app.post(
        org,
        "/api/integrations/vapi",
        &json!({ "api_key": KEY, "webhook_secret": "0123456789abcdef0123" }),
    )
    .await
    .expect(200);
    assert_eq!(
        app.store.list_secrets(org, Source::Vapi, None).await.unwrap().len(),
        4,
        "one for each way in which Vapi uses it"
    );
}

#[tokio::test]
async fn verifying_keeps_what_the_provider_says_and_an_outage_nothing() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, org) = (&app, app.a);
    app.connect_vapi(org, KEY).await;
    let version = app.status(org, "vapi").await["version"].as_i64();
    app.providers().add_fault(Fault::of(Provider::Vapi).status(401));
    let refused = app
        .post(org, "/api/integrations/vapi/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&refused["state"], &refused["cause"], &refused["connected"]),
        (
            &json!("needs_reconnecting"),
            &json!("credential_refused"),
            &json!(false)
        )
    );
    assert!(
        refused["error"]["message"].is_string()
            && refused["first_failed_at"].is_string()
            && refused["last_verified_at"].is_string()
    );
    app.providers().clear_faults();
    app.providers().add_fault(Fault::of(Provider::Vapi).status(503));
    let unasked = app.post(org, "/api/integrations/vapi/verify", &json!({})).await;
    let mut unasked = unasked.expect(200).json();
    assert_eq!(unasked["not_checked"].take()["cause"], "provider_unavailable");
    assert_eq!(unasked, refused, "who is refused stays refused");
    assert_eq!(app.status(org, "vapi").await, refused);
    app.providers().clear_faults();
    let well = app
        .post(org, "/api/integrations/vapi/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&well["state"], &well["error"], &well["first_failed_at"]),
        (&json!("connected"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        well["version"].as_i64(),
        version.map(|version| version + 1),
        "a new version, so that what was parked goes on"
    );
}

#[tokio::test]
async fn an_assistant_is_whose_key_reads_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, a, b) = (&app, app.a, app.b);
    let claim = json!({ "assistant_id": ASSISTANT, "role": "inbound" });
    let nothing = app.post(a, "/api/assistants", &claim).await.expect(422).json();
    app.connect_vapi(a, KEY).await;
    let made = app.post(a, "/api/assistants", &claim).await.expect(201);
    assert_eq!(
        (&made.json()["state"], &made.json()["name"], &made.json()["proof"]),
        (&json!("live"), &json!("Front desk"), &json!("read_at_provider"))
    );
    assert_eq!(
        app.get(a, &format!("/api/assistants/{ASSISTANT}"))
            .await
            .expect(200)
            .etag(),
        made.etag()
    );
    // Proven again without its fields: it is the same claim, and what was left out stays.
    let again = app
        .post(a, "/api/assistants", &json!({ "assistant_id": ASSISTANT }))
        .await
        .expect(200)
        .json();
    assert_eq!((&again["role"], &again["version"]), (&json!("inbound"), &json!(2)));
    app.get(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);
    app.delete(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);

    // One answer to whoever cannot read it: without a key, with another's id, with an id that
    // nobody has.
    let mut held = app.post(b, "/api/assistants", &claim).await.expect(422).json();
    held["request_id"] = nothing["request_id"].clone();
    assert_eq!(held, nothing);
    app.connect_vapi(b, OTHER_KEY).await;
    let elsewhere = app.post(b, "/api/assistants", &claim).await.expect(409);
    assert_eq!(elsewhere.code(), "held_elsewhere");
    assert!(!elsewhere.text.contains(&a.to_string()) && !elsewhere.text.contains("Organisation A"));
    app.providers().add_fault(Fault::of(Provider::Vapi).status(503));
    assert_eq!(
        app.post(b, "/api/assistants", &claim).await.expect(503).code(),
        "provider_unreachable"
    );
    app.providers().clear_faults();
    assert_eq!(
        app.get(a, &format!("/api/assistants/{ASSISTANT}")).await.json()["state"],
        "live"
    );
}

#[tokio::test]
async fn proof_moves_a_stale_claim_and_both_sides_can_read_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, a, b) = (&app, app.a, app.b);
    app.connect_vapi(a, KEY).await;
    app.connect_vapi(b, OTHER_KEY).await;
    let claim = json!({ "assistant_id": ASSISTANT });
    app.post(a, "/api/assistants", &claim).await.expect(201);
    app.providers().register(Accounts {
        vapi: vec![reader(KEY, &[])],
        ..Accounts::default()
    });
    app.post(b, "/api/assistants", &claim).await.expect(201);
    assert_eq!(app.store.find_assistant_holder(ASSISTANT).await.unwrap(), Some(b));
    app.get(a, &format!("/api/assistants/{ASSISTANT}")).await.expect(404);
    let of = async |org: OrgId| app.get(org, "/api/audit?limit=1").await.json()["data"][0].clone();
    let (theirs, own) = (of(a).await, of(b).await);
    assert_eq!(
        (&theirs["verb"], &theirs["actor"]),
        (&json!("release"), &json!("hookswitch")),
        "without who took it"
    );
    assert_eq!((&own["verb"], &own["target_id"]), (&json!("prove"), &json!(ASSISTANT)));
    app.delete(b, &format!("/api/assistants/{ASSISTANT}")).await.expect(204);
    assert_eq!(app.store.find_assistant_holder(ASSISTANT).await.unwrap(), None);
}

/// A holder whose credential this installation cannot open shows no claim. The claimer's own proof
/// stands, and the former holder finds the move in its audit.
#[tokio::test]
async fn a_holders_credential_that_does_not_open_stops_no_other_organisations_claim() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, a, b) = (&app, app.a, app.b);
    app.connect_vapi(a, KEY).await;
    app.connect_twilio(a).await;
    let claims = [
        ("/api/assistants", json!({ "assistant_id": ASSISTANT })),
        ("/api/phone-numbers", json!({ "number": NUMBER })),
    ];
    for (path, claim) in &claims {
        app.post(a, path, claim).await.expect(201);
    }
    app.connect_vapi(b, OTHER_KEY).await;
    app.connect_twilio(b).await;
    for (path, claim) in &claims {
        app.post(b, path, claim).await.expect(409);
    }
    let file = format!("sqlite:{}", app.folder().join("store.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&file).await.unwrap();
    sqlx::query("UPDATE org_credentials SET sealed = x'00' WHERE org_id = ?1")
        .bind(a.as_bytes().as_slice())
        .execute(&mut connection)
        .await
        .unwrap();
    for (path, claim) in &claims {
        assert_eq!(app.post(a, path, claim).await.expect(500).code(), "undecryptable");
        app.post(b, path, claim).await.expect(201);
        let last = app.get(a, "/api/audit?limit=1").await.json()["data"][0].clone();
        assert_eq!(
            (&last["verb"], &last["actor"]),
            (&json!("release"), &json!("hookswitch"))
        );
        assert_eq!(last["address"], json!(null), "it is another organisation's person");
        assert_eq!(last["after"]["state"], "released");
    }
}

/// Vapi takes over a number's SMS webhook at Twilio unless it is asked not to. Hookswitch changes
/// nothing there, and shows what it reads.
#[tokio::test]
async fn where_the_texts_of_a_number_go_is_shown_as_vapi_last_said_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, a) = (&app, app.a);
    let at_vapi = |twilio_account_sid: Option<&str>, sms_enabled| {
        let mut organisation = reader(KEY, &[]);
        organisation.phone_numbers[0].twilio_account_sid = twilio_account_sid.map(str::to_owned);
        organisation.phone_numbers[0].sms_enabled = sms_enabled;
        app.providers().register(Accounts {
            vapi: vec![organisation],
            ..Accounts::default()
        });
    };
    let claim = async |provider: &str| {
        let new = json!({ "number": NUMBER, "provider": provider });
        let claimed = app.post(a, "/api/phone-numbers", &new).await;
        assert!(matches!(claimed.status, 200 | 201), "{claimed:?}");
        assert!(!claimed.text.contains("canary-twilio-auth-token"), "{claimed:?}");
        claimed.json()
    };
    let said = |view: &Value| ["sms_enabled", "sms_read_at", "sms_hint"].map(|name| view[name].clone());
    app.connect_twilio(a).await;
    assert_eq!(said(&claim("twilio").await), [Value::Null, Value::Null, Value::Null]);

    app.connect_vapi(a, KEY).await;
    for (account, set, enabled, hint) in [
        (None, None, Value::Null, "reads no number of Twilio's"),
        (Some(SID), Some(true), json!(true), "Vapi answers texts to this number"),
        (
            Some(SID),
            Some(false),
            json!(false),
            "Vapi leaves texts to this number alone",
        ),
        // The description: omitted is true.
        (Some(SID), None, json!(true), "Vapi answers texts to this number"),
    ] {
        at_vapi(account, set);
        app.clock.advance(Duration::from_mins(1));
        let view = claim("twilio").await;
        let [is_enabled, read_at, words] = said(&view);
        assert_eq!((&is_enabled, &read_at), (&enabled, &view["proven_at"]), "{view}");
        assert!(words.as_str().expect("a hint").contains(hint), "{view}");
        let listed = app.get(a, "/api/phone-numbers").await.expect(200).json();
        assert_eq!(listed["data"][0], view, "the list shows the same");
    }

    // Twilio's word is enough for the claim, and what Vapi said before stays, with its time.
    let before = said(&claim("twilio").await);
    app.clock.advance(Duration::from_mins(1));
    app.providers().add_fault(Fault {
        path: Some("/phone-number".to_owned()),
        status: Some(503),
        ..Fault::of(Provider::Vapi)
    });
    assert_eq!(said(&claim("twilio").await), before);
    app.providers().clear_faults();
    at_vapi(Some(SID), Some(false));
    claim("vapi").await;
    let listed = app.get(a, "/api/phone-numbers").await.expect(200).json();
    let [of_twilio, of_vapi] = [0, 1].map(|at| &listed["data"][at]);
    assert_eq!(said(of_twilio), before);
    assert_eq!(
        (&of_vapi["provider"], &of_vapi["sms_enabled"]),
        (&json!("vapi"), &json!(false))
    );
    assert_eq!(app.providers().violations(), []);
    let writes = app.providers().requests(Provider::Vapi);
    assert!(writes.iter().all(|one| one.method == "GET"), "{writes:?}");
}

#[tokio::test]
async fn a_number_is_whose_account_holds_it() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, a, b) = (&app, app.a, app.b);
    let path = format!("/api/phone-numbers/{NUMBER}");
    for bad in [
        "12025550199",
        "+1 202 555 0199",
        "+１２０２５５５０１９９",
        "+0202555",
        "+12025550199\u{200e}",
        "whatsapp:+12025550199",
        "",
    ] {
        assert_eq!(
            app.post(a, "/api/phone-numbers", &json!({ "number": bad }))
                .await
                .expect(400)
                .field(),
            "number",
            "{bad}"
        );
    }
    assert_eq!(
        app.post(a, "/api/phone-numbers", &json!({ "number": NUMBER }))
            .await
            .expect(422)
            .code(),
        "not_readable"
    );
    app.connect_twilio(a).await;
    assert_eq!(
        app.post(a, "/api/phone-numbers", &json!({ "number": "+12025550100" }))
            .await
            .expect(422)
            .code(),
        "not_readable"
    );
    let made = app
        .post(a, "/api/phone-numbers", &json!({ "number": NUMBER }))
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&made["provider"], &made["account_id"], &made["state"]),
        (&json!("twilio"), &json!(SID), &json!("live"))
    );
    app.get(a, &path).await.expect(200);
    app.get(b, &path).await.expect(404);
    app.delete(b, &path).await.expect(404);
    app.connect_twilio(b).await;
    assert_eq!(
        app.post(b, "/api/phone-numbers", &json!({ "number": NUMBER }))
            .await
            .expect(409)
            .code(),
        "held_elsewhere"
    );
    app.delete(a, "/api/integrations/twilio").await.expect(204);
    app.post(b, "/api/phone-numbers", &json!({ "number": NUMBER }))
        .await
        .expect(201);
    app.get(a, &path).await.expect(404);
    // The same digits at Vapi are another route.
    app.connect_vapi(a, KEY).await;
    let at_vapi = app
        .post(
            a,
            "/api/phone-numbers",
            &json!({ "number": NUMBER, "provider": "vapi" }),
        )
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&at_vapi["provider"], &at_vapi["account_id"]),
        (&json!("vapi"), &Value::Null)
    );
    assert_eq!(app.get(b, &path).await.expect(200).json()["state"], "live");
}

#[tokio::test]
async fn a_number_at_twilio_and_at_vapi_is_two_routes_each_shown_and_released_by_itself() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (app, org) = (&app, app.a);
    app.connect_twilio(org).await;
    app.connect_vapi(org, KEY).await;
    let path = format!("/api/phone-numbers/{NUMBER}");
    let claim = async |provider: &str, status: u16| {
        let new = json!({ "number": NUMBER, "provider": provider });
        let claimed = app.post(org, "/api/phone-numbers", &new).await.expect(status);
        let tag = claimed.etag();
        let row = claimed.json();
        assert_eq!((&row["provider"], &row["etag"]), (&json!(provider), &json!(tag)));
        row
    };
    claim("twilio", 201).await;
    assert_eq!(claim("vapi", 201).await["account_id"], Value::Null);
    let entry = app.get(org, "/api/audit?limit=1").await.json()["data"][0].clone();
    assert_eq!(
        (&entry["before"]["provider"], &entry["after"]["provider"]),
        (&Value::Null, &json!("vapi")),
        "it was not Twilio's before: {entry}"
    );
    // To claim the same again is 200, whichever stands first.
    let (twilio, vapi) = (claim("twilio", 200).await, claim("vapi", 200).await);
    for row in [&twilio, &vapi] {
        let own = format!("{path}?provider={}", row["provider"].as_str().expect("a provider"));
        assert_eq!(app.get(org, &own).await.expect(200).json(), *row);
    }
    let refused = app.get(org, &format!("{path}?provider=resend")).await.expect(400);
    assert_eq!(refused.field(), "provider");
    let release = async |row: &Value, status: u16| {
        let request = app
            .request(reqwest::Method::DELETE, &format!("{path}?provider=vapi"))
            .bearer_auth(app.token(org, hookswitch::admin::Role::Admin));
        let tag = row["etag"].as_str().expect("a tag");
        TestApp::send(request.header("if-match", tag)).await.expect(status)
    };
    release(&twilio, 412).await;
    release(&vapi, 204).await;
    app.get(org, &format!("{path}?provider=vapi")).await.expect(404);
    assert_eq!(app.get(org, &path).await.expect(200).json(), twilio);
}
