//! Google's consent: PKCE, the state, the browser, and everything that can be wrong with them.

use super::*;
use hookswitch::{
    domain::Provider,
    sandbox::{Accounts, Fault, GoogleAccount},
};
use serde_json::json;
use std::time::Duration;

fn query(url: &str, name: &str) -> String {
    reqwest::Url::parse(url)
        .unwrap()
        .query_pairs()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_person_consents_and_the_calendar_is_connected() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    for (name, value) in [
        ("response_type", "code"),
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("code_challenge_method", "S256"),
        ("redirect_uri", CALLBACK),
    ] {
        assert_eq!(query(&begun.url, name), value, "{name}");
    }
    let scopes = query(&begun.url, "scope");
    let wanted = [
        "openid",
        "email",
        "https://www.googleapis.com/auth/calendar.events.owned",
        "https://www.googleapis.com/auth/calendar.freebusy",
    ];
    assert_eq!(scopes.split(' ').collect::<Vec<_>>(), wanted, "the least that books");
    let back = consent(&begun.url).await;
    let connected = come_back(&app, &back, Some(&begun.cookie)).await.expect(200).json();
    assert_eq!(
        (&connected["state"], &connected["provider"], &connected["account"]["id"]),
        (&json!("connected"), &json!("google_calendar"), &json!("google-1"))
    );
    assert_eq!(
        connected["account"]["name"], "google-1@example.com",
        "as people know it"
    );
    assert_eq!(app.status(app.a, "google_calendar").await, connected);
    assert_eq!(app.status(app.b, "google_calendar").await["state"], "not_connected");
    assert_eq!(app.providers().violations(), []);
    let audit = app.get(app.a, "/api/audit?limit=1").await.json()["data"][0].clone();
    assert_eq!(
        (&audit["verb"], &audit["actor"]),
        (&json!("connect"), &json!("a person"))
    );
}

#[tokio::test]
async fn a_state_counts_once() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    come_back(&app, &back, Some(&begun.cookie)).await.expect(200);
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(400).code(),
        "consent_invalid"
    );
    assert_eq!(app.status(app.a, "google_calendar").await["version"], 1);
}

#[tokio::test]
async fn of_many_who_come_back_at_once_one_is_taken() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    let answers = futures_util::future::join_all((0..10).map(|_| come_back(&app, &back, Some(&begun.cookie)))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400, 400, 400]);
}

#[tokio::test]
async fn a_state_ends_after_ten_minutes() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(400).code(),
        "consent_invalid"
    );
}

#[tokio::test]
async fn a_state_that_was_made_up_changed_or_left_out_is_one_answer() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    let state = query(&begun.url, "state");
    let (id, mark) = state.split_once('.').unwrap();
    let other = if mark.starts_with('0') { "1" } else { "0" };
    let mut answers = Vec::new();
    for wrong in [
        String::new(),
        "x".to_owned(),
        id.to_owned(),
        format!("{id}."),
        format!("{id}.{other}{}", &mark[1..]),
        format!("{}.{mark}", "0".repeat(32)),
        format!("{id}.{mark}x"),
    ] {
        let path = back.replace(&state, &wrong);
        let answer = come_back(&app, &path, Some(&begun.cookie)).await.expect(400);
        let mut body = answer.json();
        body["request_id"] = Value::Null;
        answers.push(body);
    }
    answers.push({
        let mut body = come_back(
            &app,
            "/api/integrations/google_calendar/callback?code=x",
            Some(&begun.cookie),
        )
        .await
        .expect(400)
        .json();
        body["request_id"] = Value::Null;
        body
    });
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    come_back(&app, &back, Some(&begun.cookie)).await.expect(200);
}

#[tokio::test]
async fn only_the_browser_or_the_person_that_began_finishes() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let others = begin(&app, app.b, "").await;
    let back = consent(&begun.url).await;
    // A link that someone sent: no cookie, another flow's cookie, a made-up one.
    for cookie in [
        None,
        Some(others.cookie.as_str()),
        Some("hookswitch_consent=0123456789abcdef0123456789abcdef"),
        Some("hookswitch_consent="),
    ] {
        assert_eq!(
            come_back(&app, &back, cookie).await.expect(400).code(),
            "consent_invalid",
            "{cookie:?}"
        );
    }
    // The token of another organisation takes the state out of the world: nobody can finish what
    // was tampered with.
    assert_eq!(app.get(app.b, &back).await.expect(400).code(), "consent_invalid");
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(400).code(),
        "consent_invalid"
    );
    for org in [app.a, app.b] {
        assert_eq!(app.status(org, "google_calendar").await["state"], "not_connected");
    }
}

#[tokio::test]
async fn the_token_of_another_role_finishes_no_consent_and_uses_none_up() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    for role in [Role::Viewer, Role::Member, Role::Admin] {
        let refused = app.call_as(app.a, role, Method::GET, &back, None).await.expect(403);
        assert_eq!(refused.code(), "forbidden", "{role:?}");
    }
    assert_eq!(app.status(app.a, "google_calendar").await["state"], "not_connected");
    app.get(app.a, &back).await.expect(200);
}

#[tokio::test]
async fn authorize_is_for_the_owner() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let path = "/api/integrations/google_calendar/authorize";
    for role in [Role::Viewer, Role::Member, Role::Admin] {
        let refused = app.call_as(app.a, role, Method::GET, path, None).await.expect(403);
        assert_eq!(refused.headers.get("set-cookie"), None, "{role:?}");
    }
    TestApp::send(app.request(Method::GET, path)).await.expect(401);
    let answer = app.get(app.a, path).await.expect(200);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(
        [
            "HttpOnly",
            "SameSite=Lax",
            "Secure",
            "Max-Age=600",
            "Path=/api/integrations/google_calendar"
        ]
        .iter()
        .all(|part| cookie.contains(part)),
        "{cookie}"
    );
    assert!(
        !answer.text.contains("canary-client-secret")
            && !query(answer.json()["url"].as_str().unwrap(), "state").is_empty()
    );
    let fields = app
        .post(
            app.a,
            "/api/integrations/google_calendar",
            &json!({ "access_token": "x" }),
        )
        .await
        .expect(404);
    assert_eq!(fields.code(), "not_served", "no token is taken by hand");
}

#[tokio::test]
async fn without_a_client_google_says_that_it_is_not_set_up() {
    let app = TestApp::start().await;
    assert_eq!(
        app.get(app.a, "/api/integrations/google_calendar/authorize")
            .await
            .expect(404)
            .code(),
        "not_served"
    );
    assert_eq!(
        app.get(app.a, "/api/providers").await.json()["providers"][2]["available"],
        false
    );
}

#[tokio::test]
async fn a_no_on_googles_page_changes_nothing() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    let before = app.status(app.a, "google_calendar").await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&format!("{}&login_hint=deny", begun.url)).await;
    assert!(back.contains("error=access_denied"));
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(422).code(),
        "consent_refused"
    );
    assert_eq!(app.status(app.a, "google_calendar").await, before);
}

#[tokio::test]
async fn a_code_that_google_does_not_know_connects_nothing() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for code in ["4%2Fmade-up", "", "a%20b", &"x".repeat(2000)] {
        let begun = begin(&app, app.a, "").await;
        let path = format!(
            "/api/integrations/google_calendar/callback?state={}&code={code}",
            query(&begun.url, "state")
        );
        assert_eq!(
            come_back(&app, &path, Some(&begun.cookie)).await.expect(422).code(),
            "consent_refused",
            "{code:.20}"
        );
    }
    assert_eq!(app.status(app.a, "google_calendar").await["state"], "not_connected");
}

#[tokio::test]
async fn a_code_of_another_flow_does_not_fit_the_verifier() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let (ours, theirs) = (begin(&app, app.a, "").await, begin(&app, app.b, "").await);
    let stolen = consent(&theirs.url)
        .await
        .replace(&query(&theirs.url, "state"), &query(&ours.url, "state"));
    let answer = come_back(&app, &stolen, Some(&ours.cookie)).await.expect(422);
    assert_eq!(answer.code(), "consent_refused");
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("verifier"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn while_google_is_away_the_exchange_is_503() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    app.providers()
        .add_fault(Fault::of(Provider::GoogleCalendar).status(503));
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(503).code(),
        "provider_unreachable"
    );
    assert_eq!(app.status(app.a, "google_calendar").await["state"], "not_connected");
}

#[tokio::test]
async fn boxes_that_were_not_ticked_limit_the_connection_and_none_ticked_is_none() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let person = |id: &str, unticked: &[&str]| GoogleAccount {
        id: id.to_owned(),
        email: format!("{id}@example.com"),
        calendars: vec![],
        unticked: unticked.iter().map(|end| (*end).to_owned()).collect(),
    };
    let people = vec![
        person("half", &["calendar.freebusy"]),
        person("none", &["calendar.freebusy", "calendar.events.owned"]),
    ];
    app.providers().register(Accounts {
        google_accounts: people,
        ..Accounts::default()
    });
    let limited = connect_google(&app, app.a, "half").await;
    assert_eq!(limited["state"], "limited");
    assert!(limited["missing"].as_str().unwrap().contains("free"), "{limited}");
    let verified = app
        .post(app.a, "/api/integrations/google_calendar/verify", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(verified["state"], "limited", "{verified}");
    let begun = begin(&app, app.b, "").await;
    let back = consent(&format!("{}&login_hint=none", begun.url)).await;
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(422).code(),
        "consent_refused"
    );
    assert_eq!(app.status(app.b, "google_calendar").await["state"], "not_connected");
    assert_eq!(app.providers().google_grants(), 1, "what is of no use was given back");
}

#[tokio::test]
async fn a_reconnect_keeps_the_id_and_another_account_needs_a_word() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let first = connect_google(&app, app.a, "google-1").await;
    let again = connect_google(&app, app.a, "google-1").await;
    assert_eq!((&again["id"], &again["version"]), (&first["id"], &json!(2)));
    let grants = app.providers().google_grants();
    let other = async |query: &str| {
        let begun = begin(&app, app.a, query).await;
        let back = consent(&format!("{}&login_hint=google-2", begun.url)).await;
        come_back(&app, &back, Some(&begun.cookie)).await
    };
    assert_eq!(other("").await.expect(409).code(), "account_differs");
    assert_eq!(
        app.providers().google_grants(),
        grants,
        "the grant that is not kept was given back"
    );
    let replaced = other("?replace_account=true").await.expect(200).json();
    assert_eq!(
        (&replaced["id"], &replaced["account"]["id"]),
        (&first["id"], &json!("google-2"))
    );
    assert_eq!(
        app.providers().google_grants(),
        grants,
        "the grant of the former account was given back"
    );
    app.delete(app.a, "/api/integrations/google_calendar").await.expect(204);
    let begun = begin(&app, app.a, "").await;
    let back = consent(&begun.url).await;
    assert_eq!(
        come_back(&app, &back, Some(&begun.cookie)).await.expect(409).code(),
        "account_differs",
        "also after a disconnect"
    );
}

#[tokio::test]
async fn people_are_sent_back_to_a_page_of_this_host_with_one_word() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    for bad in [
        "https://evil.example",
        "//evil.example",
        "%5Cevil",
        "integrations",
        "/%5C/evil.example",
        "/a%0d%0aX:1",
    ] {
        let path = format!("/api/integrations/google_calendar/authorize?return_to={bad}");
        assert_eq!(app.get(app.a, &path).await.expect(400).field(), "return_to", "{bad}");
    }
    let begun = begin(&app, app.a, "?return_to=/integrations?tab=google").await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let back = consent(&begun.url).await;
    let answer = client
        .get(format!("{}{back}", app.base()))
        .header("cookie", &begun.cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()),
        (303, "/integrations?tab=google&connected=google_calendar")
    );
}

/// The parameters that a page gets back, without the request's id, which has to be there.
async fn page_gets(app: &TestApp, back: &str, cookie: Option<&str>) -> String {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut request = client.get(format!("{}{back}", app.base()));
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 303, "{answer:?}");
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let to = answer.headers()["location"].to_str().unwrap().to_owned();
    let end = format!("&request_id={id}");
    assert!(to.ends_with(&end), "{to}");
    to.strip_suffix(&end).unwrap().to_owned()
}

#[tokio::test]
async fn a_page_learns_why_a_consent_came_to_nothing() {
    let app = TestApp::builder().provider_sandbox().start().await;
    let org = app.a;
    let begin = async || begin(&app, org, "?return_to=/integrations%3Ftab%3Dg").await;
    let page = "/integrations?tab=g";

    let begun = begin().await;
    let denied = consent(&format!("{}&login_hint=deny", begun.url)).await;
    assert_eq!(
        page_gets(&app, &denied, Some(&begun.cookie)).await,
        format!("{page}&error=consent_refused&reason=denied")
    );
    // Used, and from another browser: the page is named by the state, which is signed.
    for cookie in [Some(&*begun.cookie), None, Some("hookswitch_consent=x")] {
        assert_eq!(
            page_gets(&app, &denied, cookie).await,
            format!("{page}&error=consent_invalid")
        );
    }
    let begun = begin().await;
    let back = consent(&begun.url).await;
    let (before, code) = back.split_once("code=").unwrap();
    let rest = code.split_once('&').map_or("", |(_, rest)| rest);
    assert_eq!(
        page_gets(&app, &format!("{before}code=made-up&{rest}"), Some(&begun.cookie)).await,
        format!("{page}&error=consent_refused&reason=code_refused")
    );
    // A state that was changed leads nowhere.
    let begun = begin().await;
    let back = consent(&begun.url).await;
    let (head, state) = back.split_once("state=").unwrap();
    let (id, rest) = state.split_once('.').unwrap();
    let (mark, _) = rest.split_once('.').unwrap();
    let evil = "Ly9ldmlsLmV4YW1wbGU"; // //evil.example
    let forged = format!("{head}state={id}.{mark}.{evil}&code=x");
    assert_eq!(
        come_back(&app, &forged, Some(&begun.cookie)).await.expect(400).code(),
        "consent_invalid"
    );
}

#[tokio::test]
async fn a_disconnect_revokes_at_google_and_says_so() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    connect_google(&app, app.b, "google-2").await;
    app.delete(app.a, "/api/integrations/google_calendar").await.expect(204);
    assert_eq!(
        app.providers().google_grants(),
        1,
        "the other organisation's grant stands"
    );
    let audit = app.get(app.a, "/api/audit?limit=1").await.json()["data"][0].clone();
    assert!(audit["fields"].to_string().contains("revoked_at_provider"), "{audit}");
    // Google away: it is disconnected all the same, and nothing is said of a revocation.
    app.providers()
        .add_fault(Fault::of(Provider::GoogleCalendar).status(503));
    app.delete(app.b, "/api/integrations/google_calendar").await.expect(204);
    let audit = app.get(app.b, "/api/audit?limit=1").await.json()["data"][0].clone();
    assert!(
        audit["verb"] == "erase" && !audit["fields"].to_string().contains("revoked"),
        "{audit}"
    );
    assert_eq!(app.status(app.b, "google_calendar").await["state"], "not_connected");
}

#[tokio::test]
async fn tokens_and_verifiers_stand_nowhere_in_clear() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    connect_google(&app, app.a, "google-1").await;
    begin(&app, app.b, "").await;
    app.post(app.a, "/api/integrations/google_calendar/verify", &json!({}))
        .await
        .expect(200);
    let answers = [
        app.get(app.a, "/api/integrations/status").await,
        app.get(app.a, "/api/audit").await,
    ];
    for answer in answers {
        assert!(
            !answer.text.contains("ya29.") && !answer.text.contains("1//") && !answer.text.contains("canary"),
            "{answer:?}"
        );
    }
    for file in std::fs::read_dir(app.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [&b"ya29."[..], b"1//", b"canary-client-secret"] {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{} holds a token",
                file.display()
            );
        }
    }
}
