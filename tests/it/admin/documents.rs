//! `schemas/problem.json` says what refusals look like: made from the codes, held against real
//! answers.

use super::{Api, isolation, proof};
use hookswitch::{
    admin::{Code, Role},
    domain::ActionState,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

fn schema() -> Value {
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
    let ingress = hookswitch::receiver::refusal_bodies().into_iter().map(|body| {
        let body: Value = serde_json::from_str(body).unwrap();
        let part = |name: &str| json!({ "const": body[name] });
        json!({ "properties": { "code": part("code"), "status": part("status"), "title": part("title") } })
    });
    let codes: Vec<Value> = codes.into_iter().chain(ingress).collect();
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
    let wanted = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::fs::read_to_string(&path).is_ok_and(|known| known == wanted) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, wanted).unwrap();
    panic!("schemas/problem.json was out of date and has been written again: look at it and commit it");
}

/// Holds a real answer against the schema, by the parts of JSON Schema that it uses.
#[track_caller]
pub(crate) fn check_problem(body: &Value) {
    let schema = schema();
    let body = body.as_object().expect("an object");
    for name in schema["required"].as_array().unwrap() {
        assert!(body.contains_key(name.as_str().unwrap()), "{name} is missing: {body:?}");
    }
    for name in body.keys() {
        assert!(
            schema["properties"].get(name).is_some(),
            "{name} is not in the schema: {body:?}"
        );
    }
    let matching = schema["oneOf"].as_array().unwrap().iter().filter(|one| {
        let properties = one["properties"].as_object().unwrap();
        properties.iter().all(|(name, rule)| rule["const"] == body[name])
    });
    assert_eq!(matching.count(), 1, "{body:?}");
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        assert!(
            error["field"].is_string() && error["problem"].is_string() && error.as_object().unwrap().len() == 2,
            "{error}"
        );
    }
}

#[test]
fn refusals_of_ingress_fit_the_schema() {
    let bodies = hookswitch::receiver::refusal_bodies();
    assert_eq!(bodies.len(), 10);
    for body in bodies {
        let mut body: Value = serde_json::from_str(body).unwrap();
        body["request_id"] = json!("an id");
        check_problem(&body);
        // A code that is not in the catalogue fits nothing.
        body["code"] = json!("no_such_code");
        let schema = schema();
        let fits = |one: &Value| one["properties"]["code"]["const"] == body["code"];
        assert!(!schema["oneOf"].as_array().unwrap().iter().any(fits));
    }
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

/// Each `curl` of the page is sent as it stands; `# 201 RULE=id` is what it answers, and what the
/// next ones call `$RULE`.
#[tokio::test]
async fn every_curl_of_the_page_does_what_the_page_says() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).unwrap();
    let house = proof::start().await;
    let api = &house.api;
    let (event, action) = isolation::plan(api, api.a, ActionState::Dead).await;
    let (_, waiting) = isolation::plan(api, api.a, ActionState::Pending).await;
    let dead = super::dead_events::store(api, Some(api.a), "planning it broke").await;
    let mut names = BTreeMap::from([
        ("ADMIN".to_owned(), api.base.clone()),
        ("TOKEN".to_owned(), api.token(api.a, Role::Owner)),
        ("OPERATOR".to_owned(), api.operator_token()),
        ("ORG".to_owned(), api.a.to_string()),
        ("EVENT".to_owned(), event.to_string()),
        ("ACTION".to_owned(), action.to_string()),
        ("WAITING".to_owned(), waiting.to_string()),
        ("DEAD".to_owned(), dead.to_string()),
    ]);
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("curl ")) {
        let (command, expected) = line
            .rsplit_once(" # ")
            .unwrap_or_else(|| panic!("what does it answer? {line}"));
        let mut command = command.to_owned();
        for (name, value) in names.iter().rev() {
            command = command.replace(&format!("${name}"), value);
        }
        assert!(!command.contains('$'), "a name that nothing set: {command}");
        let (mut method, mut url, mut body, mut headers) = (Method::GET, None, None, Vec::new());
        let mut words = words(&command).into_iter().skip(1);
        let mut next = move || words.next();
        while let Some(word) = next() {
            match word.as_str() {
                "-X" => method = next().unwrap().parse().unwrap(),
                "-d" => body = next(),
                "--oauth2-bearer" => headers.push(("authorization".to_owned(), format!("Bearer {}", next().unwrap()))),
                "--json" => {
                    method = Method::POST;
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
        let path = url.strip_prefix(&api.base).unwrap_or_else(|| panic!("{line}"));
        let mut request = api.request(method.clone(), path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = Api::send(match body {
            Some(body) => request.body(body),
            None => request,
        })
        .await;
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
    let routes = pages_of_resources();
    assert!(routes.contains(".route("), "no resource has a page under src/admin/api");
    let mut missing = Vec::new();
    for line in routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
        let (route, handlers) = line.split_once('"').unwrap();
        for method in ["get", "post", "put", "patch", "delete"]
            .into_iter()
            .filter(|method| handlers.contains(&format!("{method}(")))
        {
            let matches = |seen: &String| {
                let (shown_method, path) = seen.split_once(' ').unwrap();
                let (shown, wanted): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
                shown_method.eq_ignore_ascii_case(method)
                    && shown.len() == wanted.len()
                    && shown.iter().zip(&wanted).all(|(a, b)| a == b || b.starts_with('{'))
            };
            if !seen.iter().any(matches) {
                missing.push(format!("{method} {route}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/api.md shows no curl of {missing:?}");
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
