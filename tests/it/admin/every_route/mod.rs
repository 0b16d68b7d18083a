//! What holds on every route. Routes come from the document, which is the router's
//! (`openapi::every_route_is_in_the_document_and_the_other_way_round`), and never from a list here:
//! a route with an id or a body of a kind that this file does not know fails its tests.

mod hostile;

use super::{
    Answer, OPERATOR_SECRET, SECRET, START, TestApp,
    isolation::plan,
    openapi::{Documented, documented},
    rule,
    tokens::{claims, hs256, part, signed},
};
use crate::support::{
    app::sandbox::{ASSISTANT, KEY, NUMBER},
    until,
};
use hookswitch::{
    admin::Role,
    config::Settings,
    domain::{ActionState, EventId, OrgId},
};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ROLES: [Role; 4] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner];
/// A body, a header or a value of the wrong form never gets as far as these.
const ANY_VERSION: (&str, &str) = ("if-match", "*");

async fn app() -> TestApp {
    let mut settings = Settings::default();
    settings.admin.admin_requests_per_minute_max = 1_000_000;
    let builder = TestApp::builder().admin().provider_sandbox();
    builder.settings(settings).start().await
}

/// One thing of each kind that belongs to an organisation.
struct Things {
    rule: String,
    endpoint: String,
    event: String,
    action: String,
    /// The rule that planned the action.
    action_rule: String,
    job: String,
}

impl Things {
    async fn of(app: &TestApp, org: OrgId) -> Self {
        app.connect_vapi(org, KEY).await;
        app.connect_twilio(org).await;
        let make = async |path: &str, body: Value, status: u16| app.post(org, path, &body).await.expect(status).json();
        let id = |made: &Value| made["id"].as_str().expect("an id").to_owned();
        make("/api/assistants", json!({ "assistant_id": ASSISTANT }), 201).await;
        make("/api/phone-numbers", json!({ "number": NUMBER }), 201).await;
        let destination = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
        make("/api/destinations", destination, 201).await;
        let kept = json!({ "name": "Front desk", "assistant": { "firstMessage": "Hello" } });
        app.call(org, Method::PUT, "/api/assistants/inbound", Some(&kept))
            .await
            .expect(200);
        let rule = make("/api/rules", rule("one"), 201).await;
        let endpoint = make("/api/endpoints", json!({ "source": "vapi", "name": "one" }), 201).await;
        let (event, action) = plan(app, org, ActionState::Unknown).await;
        let job = make("/api/actions/cancel", json!({ "provider": "resend" }), 202).await;
        let path = format!("/api/jobs/{}", id(&job));
        until("the job has ended", || async {
            let shown = app.get(org, &path).await.expect(200).json();
            (shown["state"] == "done").then_some(())
        })
        .await;
        let shown = app.get(org, &format!("/api/actions/{action}")).await.expect(200).json();
        let action_rule = shown["rule_id"].as_str().expect("an id").to_owned();
        Self {
            action_rule,
            rule: id(&rule),
            endpoint: id(&endpoint),
            event: event.to_string(),
            action: action.to_string(),
            job: id(&job),
        }
    }

    /// The path with the thing of this organisation in it, and with one that nobody has. `None`
    /// where the path names nothing that belongs to an organisation.
    fn path(&self, template: &str) -> Option<[String; 2]> {
        let parameter = template.split('/').find(|part| part.starts_with('{'))?;
        let absent = EventId::generate().to_string();
        let (own, absent) = match template.split('/').nth(2).unwrap() {
            "rules" => (self.rule.as_str(), absent.as_str()),
            "endpoints" => (&*self.endpoint, &*absent),
            "events" => (&*self.event, &*absent),
            "actions" => (&*self.action, &*absent),
            "jobs" => (&*self.job, &*absent),
            "assistants" => (ASSISTANT, &*absent),
            "managed-assistants" => ("inbound", "outbound"),
            "destinations" => ("crm", "erp"),
            "phone-numbers" => (NUMBER, "+12025550100"),
            // Names of providers and of samples are everybody's.
            "integrations" | "catalog" => return None,
            other => panic!("{template}: say here what {other} belongs to"),
        };
        Some([own, absent].map(|id| template.replace(parameter, id)))
    }

    /// Texts that stand in answers about these things, and in no other.
    fn marks(&self) -> [&str; 8] {
        [
            &self.rule,
            &self.endpoint,
            &self.event,
            &self.action,
            &self.job,
            ASSISTANT,
            NUMBER,
            "93.184.215.14",
        ]
    }

    /// The path as this organisation asks it.
    fn own(&self, one: &Documented) -> String {
        match self.path(one.path) {
            // It names a role, and no id.
            Some(_) if one.id() == "assistant_ensure" => "/api/assistants/inbound".to_owned(),
            Some([own, _]) => own,
            None => one
                .path
                .replace("{provider}", "vapi")
                .replace("{name}", "vapi.end-of-call-report"),
        }
    }
}

/// A body that changes something; `None` where the operation takes none.
fn body_of(one: &Documented, things: &Things) -> Option<Value> {
    one.operation.get("requestBody")?;
    Some(match one.id() {
        "settings_change" => json!({ "retention_days": 7 }),
        "connect" | "test" => json!({ "api_key": KEY }),
        "integration_change" => json!({ "rotate_after_days": 7 }),
        "assistant_claim" => json!({ "assistant_id": ASSISTANT }),
        "assistant_ensure" => json!({ "name": "Stolen", "assistant": { "firstMessage": "Stolen" } }),
        "phone_number_claim" => json!({ "number": NUMBER }),
        "endpoint_create" => json!({ "source": "vapi", "name": "another" }),
        "endpoint_change" | "rule_change" => json!({ "name": "stolen" }),
        "destination_create" => json!({ "name": "another", "url": "https://93.184.215.14/" }),
        "destination_change" => json!({ "url": "https://93.184.215.14/stolen" }),
        "rule_create" | "rule_replace" => rule("stolen"),
        "rule_try" => json!({ "spec": rule("tried"), "event_id": things.event }),
        "rule_try_stored" => json!({ "event_id": things.event }),
        "endpoint_rotate" | "event_replay" => json!({}),
        "action_resolve" => json!({ "outcome": "sent" }),
        // As the action stands, so that a plan counts it.
        "actions_retry" => json!({ "state": "unknown", "rule_id": things.action_rule }),
        "actions_cancel" => json!({ "rule_id": things.rule }),
        other => panic!("say here what changes something by {other}"),
    })
}

fn of_organisations() -> Vec<Documented> {
    let of_organisation = |one: &Documented| one.operation.get("x-role").is_some();
    let all: Vec<_> = documented().into_iter().filter(of_organisation).collect();
    assert!(all.len() > 50, "{}", all.len());
    all
}

/// A stream goes on; of every other answer the whole is read.
async fn send(one: &Documented, request: RequestBuilder) -> Answer {
    if one.id() == "stream" {
        TestApp::send_for_head(request).await
    } else {
        TestApp::send(request).await
    }
}

fn request(app: &TestApp, one: &Documented, path: &str, token: &str) -> RequestBuilder {
    let (name, value) = ANY_VERSION;
    app.request(one.method.clone(), path)
        .bearer_auth(token)
        .header(name, value)
}

fn with_body(request: RequestBuilder, body: Option<&Value>) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

/// All that the organisation can read of itself.
async fn all_of(app: &TestApp, org: OrgId, things: &Things) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for one in of_organisations().into_iter().filter(|one| one.method == Method::GET) {
        // Figures are of a moment, and a consent is begun by its GET.
        if ["stream", "statistics", "authorize"].contains(&one.id()) {
            continue;
        }
        let path = things.own(&one);
        let answer = app.get(org, &path).await.expect(200);
        all.insert(path, answer.text);
    }
    assert!(all.len() > 20, "{}", all.len());
    all
}

fn shown(answer: &Answer) -> (u16, Value, BTreeMap<String, String>) {
    let mut body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    body["request_id"] = Value::Null;
    let headers = answer.headers.iter().filter(|(name, _)| {
        // They count requests, or name one.
        !["x-request-id", "date", "ratelimit"].contains(&name.as_str())
    });
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    (answer.status, body, headers.collect())
}

#[tokio::test]
async fn no_id_of_a_is_there_for_any_role_of_b_on_any_route() {
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let mut tried = 0;
    for one in of_organisations() {
        let Some([theirs, absent]) = things.path(one.path) else {
            if one.method == Method::GET {
                let path = things.own(&one);
                let answer = send(&one, request(&app, &one, &path, &app.token(app.b, Role::Owner))).await;
                let found: Vec<_> = things
                    .marks()
                    .into_iter()
                    .filter(|mark| answer.text.contains(mark))
                    .collect();
                assert!(found.is_empty(), "{path} shows {found:?} of A: {answer:?}");
            }
            continue;
        };
        for role in ROLES {
            let token = app.token(app.b, role);
            let body = body_of(&one, &things);
            let ask = async |path: &str| send(&one, with_body(request(&app, &one, path, &token), body.as_ref())).await;
            let (found, none) = (ask(&theirs).await, ask(&absent).await);
            let wanted = if may(&one, role) { 404 } else { 403 };
            assert_eq!(found.status, wanted, "{role:?} {} {theirs}: {found:?}", one.method);
            assert_eq!(shown(&found), shown(&none), "{role:?} {} {theirs}", one.method);
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(all_of(&app, app.a, &things).await, before, "nothing of A's was changed");
}

/// Ids in a query or a body are looked for inside of the caller's organisation.
#[tokio::test]
async fn an_id_of_a_in_a_query_or_a_body_is_nothing_to_b() {
    let app = app().await;
    let things = Things::of(&app, app.a).await;
    let before = all_of(&app, app.a, &things).await;
    let token = app.token(app.b, Role::Owner);
    let mut tried = 0;
    for one in of_organisations() {
        for name in one.query().filter(|name| name.ends_with("_id")) {
            let own = match name {
                "event_id" => &things.event,
                "rule_id" => &things.action_rule,
                other => panic!("say here what {other} names"),
            };
            let ask =
                async |id: &str| send(&one, request(&app, &one, &format!("{}?{name}={id}", one.path), &token)).await;
            let (found, none) = (ask(own).await, ask(&EventId::generate().to_string()).await);
            assert_eq!(shown(&found.expect(200)), shown(&none), "{} {name}", one.path);
            tried += 1;
        }
        let ids = [&things.event, &things.rule, &things.action_rule];
        let names_one = |body: &Value| ids.iter().any(|id| body.to_string().contains(id.as_str()));
        let Some(body) = body_of(&one, &things).filter(names_one) else {
            continue;
        };
        if one.path.contains('{') {
            continue; // not there for B at all
        }
        let absent = EventId::generate().to_string();
        let other = ids
            .iter()
            .fold(body.to_string(), |text, id| text.replace(id.as_str(), &absent));
        let other: Value = serde_json::from_str(&other).unwrap();
        let ask = async |body: &Value| {
            // A look, where the operation has one.
            let query = if one.query().any(|name| name == "plan") {
                "?plan=true"
            } else {
                ""
            };
            send(
                &one,
                request(&app, &one, &format!("{}{query}", one.path), &token).json(body),
            )
            .await
        };
        assert_eq!(shown(&ask(&body).await), shown(&ask(&other).await), "{}", one.path);
        tried += 1;
    }
    assert!(tried >= 5, "{tried}");
    assert_eq!(all_of(&app, app.a, &things).await, before);
}

/// The least role of each operation: a viewer reads and tries out, a member retries, an admin
/// configures, an owner connects accounts at providers.
const LEAST: [(Role, &[&str]); 4] = [
    (
        Role::Viewer,
        &[
            "action",
            "actions",
            "assistant",
            "assistants",
            "audit",
            "catalog",
            "destination",
            "destinations",
            "endpoint",
            "endpoints",
            "event",
            "events",
            "job",
            "managed_assistant",
            "managed_assistants",
            "pauses_own",
            "phone_number",
            "phone_numbers",
            "providers",
            "rejections",
            "rule",
            "rule_try",
            "rule_try_stored",
            "rules",
            "sample",
            "settings",
            "statistics",
            "status",
            "stream",
        ],
    ),
    (
        Role::Member,
        &[
            "action_cancel",
            "action_resolve",
            "action_retry",
            "actions_cancel",
            "actions_retry",
            "event_replay",
            "job_stop",
        ],
    ),
    (
        Role::Admin,
        &[
            "assistant_claim",
            "assistant_ensure",
            "assistant_release",
            "destination_change",
            "destination_create",
            "destination_delete",
            "destination_rotate",
            "destination_test",
            "endpoint_change",
            "endpoint_create",
            "endpoint_delete",
            "endpoint_rotate",
            "integration_change",
            "managed_assistant_delete",
            "phone_number_claim",
            "phone_number_release",
            "rule_change",
            "rule_create",
            "rule_delete",
            "rule_replace",
            "settings_change",
            "test",
            "verify",
        ],
    ),
    (Role::Owner, &["authorize", "connect", "disconnect"]),
];

/// The place of an operation's least role among [`ROLES`], by the table.
fn least(one: &Documented) -> usize {
    let (role, _) = LEAST
        .iter()
        .find(|(_, ids)| ids.contains(&one.id()))
        .unwrap_or_else(|| panic!("say in LEAST who may use {}", one.id()));
    rank(*role)
}

fn rank(role: Role) -> usize {
    ROLES.iter().position(|one| *one == role).expect("a role")
}

fn may(one: &Documented, role: Role) -> bool {
    rank(role) >= least(one)
}

#[test]
fn the_table_of_roles_has_every_operation_once_and_the_document_says_the_same() {
    let mut tabled: Vec<(&str, &str)> = LEAST
        .iter()
        .flat_map(|(role, ids)| ids.iter().map(|id| (*id, role.as_str())))
        .collect();
    let all = of_organisations();
    let mut documented: Vec<(&str, &str)> = all
        .iter()
        .map(|one| (one.id(), one.operation["x-role"].as_str().expect("a role")))
        .collect();
    tabled.sort_unstable();
    documented.sort_unstable();
    assert_eq!(tabled, documented);
}

#[tokio::test]
async fn every_route_opens_for_the_roles_that_the_document_says_and_for_no_other() {
    let app = app().await;
    for one in of_organisations() {
        let path = absent(one.path);
        for role in ROLES {
            let token = app.token(app.a, role);
            let answer = send(&one, with_body(request(&app, &one, &path, &token), Some(&json!({})))).await;
            let is_refused = (answer.status, answer.code_if_any().as_str()) == (403, "forbidden");
            assert_eq!(
                is_refused,
                !may(&one, role),
                "{role:?} {} {path}: {answer:?}",
                one.method
            );
            assert_ne!(answer.status, 401, "{role:?} {} {path}", one.method);
        }
    }
}

/// A path whose ids nobody has.
fn absent(template: &str) -> String {
    let id = EventId::generate().to_string();
    let parts = template.split('/').map(|part| match part {
        "{provider}" => "elevenlabs",
        "{role}" => "outbound",
        part if part.starts_with('{') => id.as_str(),
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Tokens that open nothing: claims of a person, or of an operator where they are.
fn bad_tokens(good: &Value, secret: &str) -> Vec<(&'static str, String)> {
    const HEADER: &str = r#"{"alg":"HS256"}"#;
    let by = |key: &str, claims: &Value| {
        let key = EncodingKey::from_secret(key.as_bytes());
        signed(HEADER, &claims.to_string(), &key, Algorithm::HS256)
    };
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        by(secret, &claims)
    };
    let now = START.as_seconds();
    vec![
        (
            "no algorithm",
            format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&good.to_string())),
        ),
        ("another key", by("a secret of somebody else, 32+ bytes", good)),
        (
            "another algorithm",
            signed(
                r#"{"alg":"HS384"}"#,
                &good.to_string(),
                &EncodingKey::from_secret(secret.as_bytes()),
                Algorithm::HS384,
            ),
        ),
        ("a header that names another one", {
            let whole = by(secret, good);
            let (_, rest) = whole.split_once('.').expect("parts");
            format!("{}.{rest}", part(r#"{"alg":"RS256"}"#))
        }),
        (
            "a header that names another one, and was signed so",
            signed(
                r#"{"alg":"HS512"}"#,
                &good.to_string(),
                &EncodingKey::from_secret(secret.as_bytes()),
                Algorithm::HS256,
            ),
        ),
        ("expired", with("exp", json!(now - 3_600))),
        ("from the future", with("nbf", json!(now + 3_600))),
        ("another audience", with("aud", json!("somebody-else"))),
        ("another issuer", with("iss", json!("somebody-else"))),
        ("nobody's", with("sub", json!(""))),
        (
            "of an organisation that is not there",
            with("org_id", json!(OrgId::generate())),
        ),
    ]
}

#[tokio::test]
async fn no_route_opens_for_a_token_that_is_not_good() {
    let app = app().await;
    let person = claims(app.a);
    let operator = json!({
        "exp": START.as_seconds() + 3_600, "iss": "hookswitch-operator", "aud": "hookswitch-operator", "sub": "op",
        "hookswitch_role": "operator",
    });
    assert_eq!(
        super::tokens::status(&app, &hs256(r#"{"alg":"HS256"}"#, &person.to_string())).await,
        200
    );
    let mut tried = 0;
    for one in documented() {
        if one.operation["security"] == json!([]) {
            continue;
        }
        let path = absent(one.path);
        let is_operators = one.path.starts_with("/operator/") || one.path.starts_with("/api/debug/");
        let mut bad = bad_tokens(&operator, OPERATOR_SECRET);
        // An operator is of no organisation: such a claim changes nothing.
        bad.pop();
        if !is_operators {
            bad.extend(bad_tokens(&person, SECRET));
        }
        bad.push(("nothing", String::new()));
        for (what, token) in bad {
            let answer = send(&one, request(&app, &one, &path, &token).json(&json!({}))).await;
            assert_eq!(answer.status, 401, "{what}: {} {path}: {answer:?}", one.method);
            assert!(one.id() == "stream" || answer.code() == "unauthenticated", "{answer:?}");
            tried += 1;
        }
        let without = app.request(one.method.clone(), &path).json(&json!({}));
        assert_eq!(send(&one, without).await.status, 401, "{} {path}", one.method);
        // A good token of the other kind: an operator has no organisation, and the operators'
        // routes are not there for anybody else.
        if is_operators {
            let answer = send(
                &one,
                request(&app, &one, &path, &app.token(app.a, Role::Owner)).json(&json!({})),
            )
            .await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
        } else if one.operation.get("x-role").is_some() {
            let answer = send(&one, request(&app, &one, &path, &app.operator_token()).json(&json!({}))).await;
            assert_eq!(answer.status, 401, "an operator's: {} {path}", one.method);
        }
    }
    assert!(tried > 1_000, "{tried}");
}
