//! `schemas/problem.json` says what refusals look like: made from the codes, held against real
//! answers.

use super::{TestApp, isolation};
use crate::support::{
    client,
    dev::{Dev, Directory, port_base, run},
    schema, until,
};
use hookswitch::{
    admin::{Code, Role},
    domain::ActionState,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

fn schema_of_problems() -> Value {
    let codes: Vec<Value> = Code::ALL
        .iter()
        .map(|code| {
            json!({
                "properties": {
                    "code": { "const": code.as_str() },
                    "status": { "const": code.status() },
                    "title": { "const": code.title() },
                },
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A refusal of the admin API or of ingress (RFC 9457, application/problem+json)",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "additionalProperties": false,
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "For people: what happened and what to do next." },
            "code": { "type": "string", "description": "Stable; for programs." },
            "request_id": { "type": "string", "description": "The same as the header x-request-id; finds the request \
            in the log; at ingress it is the rejection's id." },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "problem"],
                    "additionalProperties": false,
                    "properties": { "field": { "type": "string" }, "problem": { "type": "string" } }
                }
            },
            "provider": {
                "type": "object",
                "description": "The answer of a provider that refuses a credential, apart from our words.",
                "required": ["name", "http_status", "code", "message"],
                "additionalProperties": false,
                "properties": {
                    "name": { "type": "string" },
                    "http_status": { "type": "integer" },
                    "code": { "type": ["string", "null"] },
                    "message": { "type": "string" }
                }
            },
            "accounts": {
                "type": "object",
                "description": "Of account_differs: the account that was connected, and the one that this credential \
                opens.",
                "required": ["before", "now"],
                "additionalProperties": false,
                "properties": { "before": { "type": ["string", "null"] }, "now": { "type": ["string", "null"] } }
            }
        },
        "oneOf": codes,
    })
}

#[test]
fn problems_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/problem.json");
    let wanted = format!("{}\n", serde_json::to_string_pretty(&schema_of_problems()).unwrap());
    if std::fs::read_to_string(&path).is_ok_and(|known| known == wanted) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, wanted).unwrap();
    panic!("schemas/problem.json was out of date and has been written again: look at it and commit it");
}

/// `docs/problems.md`: the catalogue as people read it.
#[test]
fn every_code_has_its_line_in_the_page_of_problems() {
    let mut page = String::from(
        "# Refusals\n\n\
         Every refusal of ingress and of the admin API is `application/problem+json` with one of these codes.\n\
         A code is stable, and has one status and one title wherever it stands. This page is made from\n\
         `src/domain/problem.rs` by `cargo test --test it every_code`; `schemas/problem.json` is the form.\n\n\
         | code | status | title | |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (name, status, title, help) = (code.as_str(), code.status(), code.title(), code.help());
        writeln!(page, "| `{name}` | {status} | {title} | {help} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/problems.md");
    if std::fs::read_to_string(&path).is_ok_and(|known| known == page) {
        return;
    }
    std::fs::write(&path, page).unwrap();
    panic!("docs/problems.md was out of date and has been written again: look at it and commit it");
}

#[test]
fn the_schema_of_problems_refuses_what_is_none() {
    let schema = schema::read("problem.json");
    let good = json!({
        "type": "about:blank", "title": Code::NotVerified.title(), "status": 401, "detail": "x", "code": "not_verified",
        "request_id": "x",
    });
    schema::check(&schema, &good).unwrap();
    for (field, value) in [
        ("code", json!("no_such_code")),
        ("status", json!(403)),
        ("title", json!("Another")),
        ("detail", Value::Null),
        ("errors", json!([{ "field": "to" }])),
        ("more", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(schema::check(&schema, &bad).is_err(), "{bad}");
    }
}

/// A code says the same wherever it stands.
#[test]
fn a_code_has_one_line_in_the_catalogue() {
    let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.len(), Code::ALL.len());
}

/// Words of a shell line: blanks part them, single quotes keep them together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

const NUMBER: &str = "+12025550199";
const ASSISTANT: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";

#[tokio::test]
async fn every_curl_of_the_page_does_what_the_page_says() {
    let app = TestApp::builder().admin().provider_sandbox().start().await;
    let app = &app;
    let (event, action) = isolation::plan(app, app.a, ActionState::Dead).await;
    let (_, waiting) = isolation::plan(app, app.a, ActionState::Pending).await;
    let dead = super::dead_events::store(app, Some(app.a), "planning it broke").await;
    let token = "0123456789abcdef0123456789abcdef";
    let names = [
        ("ADMIN", app.base().to_owned()),
        ("TOKEN", app.token(app.a, Role::Owner)),
        ("OPERATOR", app.operator_token()),
        ("ORG", app.a.to_string()),
        ("EVENT", event.to_string()),
        ("ACTION", action.to_string()),
        ("WAITING", waiting.to_string()),
        ("DEAD", dead.to_string()),
        ("VAPI_KEY", "vapi-key-of-the-first-organisation".to_owned()),
        ("TWILIO_SID", format!("AC{token}")),
        ("TWILIO_TOKEN", token.to_owned()),
        ("RESEND_KEY", "re_key_of_the_first_organisation".to_owned()),
        ("ELEVENLABS_KEY", "elevenlabs-key-of-the-first-one".to_owned()),
        ("ASSISTANT", ASSISTANT.to_owned()),
        ("NUMBER", NUMBER.to_owned()),
    ];
    let seen = send_all(names.map(|(name, value)| (name.to_owned(), value)).into()).await;
    let mut missing = Vec::new();
    for (route, method) in routes_of_resources() {
        let matches = |seen: &String| {
            let (shown_method, path) = seen.split_once(' ').unwrap();
            let (shown, wanted): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
            shown_method == method
                && shown.len() == wanted.len()
                && shown.iter().zip(&wanted).all(|(a, b)| a == b || b.starts_with('{'))
        };
        if !seen.iter().any(matches) {
            missing.push(format!("{method} {route}"));
        }
    }
    assert!(missing.is_empty(), "docs/api.md shows no curl of {missing:?}");
}

/// With the keys that `dev` prints, and with an action that the sandbox refused and one that waits.
#[tokio::test]
async fn every_curl_of_the_page_works_against_a_fresh_dev() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let mut actions = Vec::new();
    for (status, code, state) in [(400, 21211, "dead"), (429, 20429, "waiting")] {
        let fault = json!({
            "provider": "twilio", "method": "POST", "path": "Messages", "status": status, "times": 1,
            "retry_after": 3000, "body": { "code": code, "message": "no", "status": status },
        });
        let answer = client()
            .post(format!("{}/_faults", dev.get("sandbox")))
            .json(&fault)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let folder = directory.path().to_str().unwrap();
        assert!(
            run(&["send", "vapi/end-of-call-report", "--data-dir", folder], &[])
                .status
                .success()
        );
        let found = until(state, || async {
            let list = dev.admin(&format!("/api/actions?state={state}&provider=twilio")).await;
            list["data"].as_array().unwrap().first().cloned()
        });
        actions.push(found.await);
    }
    let keys = &dev.state["keys"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names = [
        ("ADMIN", dev.get("admin")),
        ("TOKEN", dev.get("admin_token")),
        ("OPERATOR", dev.get("operator_token")),
        ("ORG", dev.get("org_id")),
        ("EVENT", text(&actions[0]["event_id"])),
        ("ACTION", text(&actions[0]["id"])),
        ("WAITING", text(&actions[1]["id"])),
        ("VAPI_KEY", text(&keys["vapi"]["good"]["api_key"])),
        ("TWILIO_SID", text(&keys["twilio"]["good"]["account_sid"])),
        ("TWILIO_TOKEN", text(&keys["twilio"]["good"]["auth_token"])),
        ("RESEND_KEY", text(&keys["resend"]["good"]["api_key"])),
        ("ELEVENLABS_KEY", text(&keys["elevenlabs"]["good"]["api_key"])),
        ("ASSISTANT", text(&keys["to_claim"]["assistant"])),
        ("NUMBER", text(&keys["to_claim"]["number"])),
    ];
    send_all(names.map(|(name, value)| (name.to_owned(), value)).into()).await;
}

/// The keys that `dev` prints are known to its sandbox, and are what they are called.
#[tokio::test]
async fn dev_prints_a_good_and_a_limited_key_for_every_provider() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let providers = dev.state["keys"].as_object().unwrap();
    let mut tried = 0;
    for (provider, kinds) in providers {
        if !["vapi", "twilio", "resend", "elevenlabs"].contains(&provider.as_str()) {
            continue;
        }
        for (kind, body) in kinds.as_object().unwrap() {
            let (status, answer) = dev
                .admin_post(&format!("/api/integrations/{provider}/test"), body)
                .await;
            let state = if kind == "limited" { "limited" } else { "connected" };
            assert_eq!(
                (status, &answer["state"]),
                (200, &json!(state)),
                "{provider} {kind}: {answer}"
            );
            tried += 1;
        }
    }
    assert_eq!(tried, 9);
}

/// Each `curl` of the page is sent as it stands; `# 201 RULE=id` is what it answers, and what the
/// next ones call `$RULE`. Returns the methods and paths that were sent.
async fn send_all(mut names: BTreeMap<String, String>) -> BTreeSet<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap();
    let base = names["ADMIN"].clone();
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("curl ")) {
        let (command, expected) = line
            .rsplit_once(" # ")
            .unwrap_or_else(|| panic!("what does it answer? {line}"));
        let mut command = command.to_owned();
        for (name, value) in names.iter().rev() {
            command = command.replace(&format!("${name}"), value);
        }
        if command.contains("$DEAD") {
            continue; // a fresh `dev` has no dead event
        }
        assert!(!command.contains('$'), "a name that nothing set: {command}");
        let (mut method, mut url, mut body, mut headers) = (Method::GET, None, None, Vec::new());
        let mut goes_on = false;
        let mut words = words(&command).into_iter().skip(1);
        let mut next = move || words.next();
        while let Some(word) = next() {
            match word.as_str() {
                "-N" => goes_on = true,
                "-X" => method = next().unwrap().parse().unwrap(),
                "-d" => body = next(),
                "--oauth2-bearer" => headers.push(("authorization".to_owned(), format!("Bearer {}", next().unwrap()))),
                "--json" => {
                    if method == Method::GET {
                        method = Method::POST;
                    }
                    headers.push(("content-type".to_owned(), "application/json".to_owned()));
                    body = next();
                }
                "-H" => {
                    let header = next().unwrap();
                    let (name, value) = header.split_once(": ").unwrap();
                    headers.push((name.to_owned(), value.to_owned()));
                }
                other => url = Some(other.to_owned()),
            }
        }
        let url = url.unwrap();
        assert!(url.starts_with(&base), "{line}");
        let mut request = client().request(method.clone(), &url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = match body {
            Some(body) => request.body(body),
            None => request,
        };
        let answer = if goes_on {
            TestApp::send_for_head(request).await
        } else {
            TestApp::send(request).await
        };
        let mut parts = expected.split(' ');
        assert_eq!(answer.status.to_string(), parts.next().unwrap(), "{line}: {answer:?}");
        for set in parts {
            let (name, field) = set.split_once('=').unwrap();
            let value = if field == "etag" {
                answer.etag()
            } else {
                answer.json()[field].as_str().unwrap().to_owned()
            };
            names.insert(name.to_owned(), value);
        }
        let template = line
            .split(' ')
            .find_map(|word| word.strip_prefix("$ADMIN"))
            .unwrap()
            .replace('\'', "");
        let template = template.split('?').next().unwrap().to_owned();
        seen.insert(format!("{method} {template}"));
    }
    seen
}

/// Every path with each of its methods, as the files of the resources give them to the router.
pub(super) fn routes_of_resources() -> BTreeSet<(String, String)> {
    let all = pages_of_resources();
    let mut routes = BTreeSet::new();
    for part in all.split(".route(").skip(1) {
        let path = part.split('"').nth(1).unwrap();
        let end = part.find(".route(").unwrap_or(part.len());
        let handlers = &part[..part[..end].find("\n}").unwrap_or(end)];
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.contains(&format!("{method}(")) {
                routes.insert((path.to_owned(), method.to_uppercase()));
            }
        }
    }
    assert!(routes.len() > 30, "no resource has a page under src/admin/api");
    routes
}

/// The text of every file under `src/admin/api`: each begins with the routes of its resource.
fn pages_of_resources() -> String {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/api")];
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    all
}
