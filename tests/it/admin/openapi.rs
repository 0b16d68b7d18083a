//! The document of the API: it names the routes that the router has, and every answer that a test
//! gets is held against it.

use super::{TestApp, documents::routes_of_resources};
use hookswitch::admin::{document, path_methods};
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

#[test]
fn the_document_is_kept_as_it_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi.json");
    let wanted = format!("{}\n", serde_json::to_string_pretty(document()).unwrap());
    if std::fs::read_to_string(&path).is_ok_and(|known| known == wanted) {
        return;
    }
    std::fs::write(&path, wanted).unwrap();
    panic!("schemas/openapi.json was out of date and has been written again: look at it and commit it");
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let app = TestApp::start().await;
    let described: BTreeSet<(String, String)> = path_methods()
        .into_iter()
        .map(|(path, method)| (path.to_owned(), method.to_uppercase()))
        .collect();
    let mut routed = routes_of_resources();
    routed.insert(("/api/openapi.json".to_owned(), "GET".to_owned()));
    assert_eq!(routed, described);
    // The router itself names the methods of a path, to a method that no path has.
    for path in described.iter().map(|(path, _)| path).collect::<BTreeSet<_>>() {
        let answer = TestApp::send(app.request(Method::TRACE, path)).await.expect(405);
        let allowed: BTreeSet<_> = answer.headers["allow"]
            .to_str()
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect();
        let mut wanted: BTreeSet<_> = described
            .iter()
            .filter(|(one, _)| one == path)
            .map(|(_, m)| m.clone())
            .collect();
        if wanted.contains("GET") {
            wanted.insert("HEAD".to_owned());
        }
        assert_eq!(allowed, wanted, "{path}");
    }
    let served = TestApp::send(app.request(Method::GET, "/api/openapi.json"))
        .await
        .expect(200);
    assert_eq!(&served.json(), document());
    let ids: Vec<&str> = operations()
        .map(|(_, _, one)| one["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unique");
}

/// The names that an operation may be asked with, by the document.
fn names_of(operation: &Value) -> BTreeSet<String> {
    let all = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let of_query = all.iter().filter(|one| one["in"] == "query");
    of_query.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_operation_takes_the_query_parameters_of_the_document_and_no_other() {
    let app = TestApp::start().await;
    let names: BTreeSet<String> = operations()
        .flat_map(|(_, _, one)| names_of(one))
        .chain(["nonsense".to_owned()])
        .collect();
    assert!(names.len() > 15, "{names:?}");
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (path, method, operation) in operations() {
        // Google adds parameters of its own to the address that people come back to; the other two
        // are for callers without a token.
        if ["callback", "session_open", "openapi"].contains(&operation["operationId"].as_str().unwrap()) {
            continue;
        }
        let own = names_of(operation);
        let id = hookswitch::domain::OrgId::generate().to_string();
        let concrete: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { id.as_str() } else { part })
            .collect::<Vec<_>>()
            .join("/")
            .replace(&format!("/integrations/{id}"), "/integrations/vapi");
        for name in &names {
            let at = format!("{concrete}?{name}=x");
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = if path.starts_with("/operator/") || path.starts_with("/api/debug/") {
                app.operator(method.clone(), &at, &json!({})).await
            } else {
                app.call(app.a, method.clone(), &at, Some(&json!({}))).await
            };
            let is_refused = answer.status == 400
                && answer.code() == "invalid_query"
                && answer.field() == *name
                && answer.text.contains("not a known parameter");
            if is_refused == own.contains(name) {
                wrong.push(format!("{method} {path}?{name}: {} {}", answer.status, answer.text));
            }
            tried += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods
            .iter()
            .map(move |(method, one)| (path.as_str(), method.as_str(), one))
    })
}

/// An operation of the document.
pub(crate) struct Documented {
    pub path: &'static str,
    pub method: Method,
    pub operation: &'static Value,
}

impl Documented {
    pub fn id(&self) -> &'static str {
        self.operation["operationId"].as_str().unwrap()
    }

    /// The names that it may be asked with.
    pub fn query(&self) -> impl Iterator<Item = &'static str> {
        self.parameters("query")
    }

    pub fn has_header(&self, name: &str) -> bool {
        self.parameters("header").any(|one| one == name)
    }

    pub fn needs_header(&self, name: &str) -> bool {
        let all = self.operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter()
            .any(|one| one["in"] == "header" && one["name"] == name && one["required"] == true)
    }

    fn parameters(&self, place: &'static str) -> impl Iterator<Item = &'static str> {
        let all = self.operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let here = all.iter().filter(move |one| one["in"] == place);
        here.map(|one| one["name"].as_str().unwrap())
    }
}

/// Every operation of the document.
pub(crate) fn documented() -> Vec<Documented> {
    let all = operations().map(|(path, method, operation)| Documented {
        path,
        method: method.to_uppercase().parse().unwrap(),
        operation,
    });
    all.collect()
}

/// Holds an answer against the document. A path that is in no document is none of its business.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, text: &str) {
    let path = path.split('?').next().unwrap_or(path);
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template
                .iter()
                .zip(&path)
                .all(|(a, b)| a == b || a.starts_with('{') && !b.is_empty())
    };
    let mut found: Vec<_> = operations()
        .filter(|(template, verb, _)| method.as_str().eq_ignore_ascii_case(verb) && fits(template))
        .collect();
    found.sort_by_key(|(template, _, _)| template.matches('{').count());
    let Some((template, _, operation)) = found.first() else {
        return;
    };
    let responses = &operation["responses"];
    let response = match responses.get(status.to_string()) {
        Some(response) => response,
        None if status >= 400 => &document()["components"]["responses"]["Problem"],
        None => panic!("{method} {template} answers {status}, which the document does not say: {text}"),
    };
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert_eq!(text, "", "{method} {template} {status} has no body in the document");
        return;
    };
    let (media, schema) = content.iter().next().unwrap();
    assert_eq!(headers["content-type"], media.as_str(), "{method} {template} {status}");
    if text.is_empty() {
        return; // HEAD
    }
    let body: Value = serde_json::from_str(text).unwrap();
    if let Err(problem) = validate(&schema["schema"], &body, "") {
        panic!("{method} {template} {status}: {problem}\n{text}");
    }
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => {
            let pointer = name.strip_prefix('#').unwrap();
            resolved(
                document()
                    .pointer(pointer)
                    .unwrap_or_else(|| panic!("{name} is not in the document")),
            )
        }
        None => schema,
    }
}

/// The parts of a schema that are all meant: the schema itself, and those in `allOf`.
fn parts(schema: &'static Value, all: &mut Vec<&'static Value>) {
    let schema = resolved(schema);
    all.push(schema);
    for one in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        parts(one, all);
    }
}

/// The parts of a value that differ from its schema. A field that no schema names is wrong: the
/// document is to be whole.
fn validate(schema: &'static Value, value: &Value, at: &str) -> Result<(), String> {
    let mut all = Vec::new();
    parts(schema, &mut all);
    let wrong = |what: String| Err(format!("{at}: {what}"));
    for schema in &all {
        for choice in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(choice).and_then(Value::as_array) {
                let failures: Vec<_> = choices
                    .iter()
                    .filter_map(|one| validate(one, value, at).err())
                    .collect();
                if failures.len() == choices.len() {
                    return wrong(format!("is none of {choice}: {failures:?}"));
                }
            }
        }
        if let Some(kind) = schema.get("type") {
            let kinds: Vec<&str> = kind.as_array().map_or_else(
                || kind.as_str().into_iter().collect(),
                |kinds| kinds.iter().filter_map(Value::as_str).collect(),
            );
            if !kinds.iter().any(|kind| is_of(kind, value)) {
                return wrong(format!("expected {kinds:?}, found {value}"));
            }
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            return wrong(format!("{value} is none of {words:?}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(items) = schema.get("items") {
                validate(items, item, &format!("{at}/{index}"))?;
            }
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let has_choices = all
        .iter()
        .any(|one| one.get("oneOf").is_some() || one.get("anyOf").is_some());
    let is_open = has_choices
        || all.iter().all(|one| one.get("properties").is_none())
        || all.iter().any(|one| {
            one.get("additionalProperties")
                .is_some_and(|more| *more != json!(false))
        });
    for (name, value) in fields {
        let known: Vec<_> = all.iter().filter_map(|one| one["properties"].get(name)).collect();
        if known.is_empty() && !is_open {
            return wrong(format!("the document does not say that there is a {name}"));
        }
        for schema in known {
            validate(schema, value, &format!("{at}/{name}"))?;
        }
    }
    for schema in &all {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                return wrong(format!("{name} is missing"));
            }
        }
    }
    Ok(())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

#[test]
fn the_check_finds_what_the_document_does_not_say() {
    let said = |status: u16, body: Value| {
        let headers = HeaderMap::from_iter([(
            reqwest::header::CONTENT_TYPE,
            if status < 400 {
                "application/json"
            } else {
                "application/problem+json"
            }
            .parse()
            .unwrap(),
        )]);
        let text = body.to_string();
        std::panic::catch_unwind(|| check(&Method::GET, "/api/me", status, &headers, &text)).is_ok()
    };
    let me = json!({
        "organisation": { "id": "o", "name": "n" }, "role": "owner", "subject": "s", "csrf_token": null,
        "expires_at": "2026-01-01T00:00:00Z", "can": ["read"],
    });
    assert!(said(200, me.clone()));
    for (name, value) in [
        ("more", json!(1)),
        ("can", json!("read")),
        ("role", json!(7)),
        ("subject", json!(null)),
    ] {
        let mut wrong = me.clone();
        wrong[name] = value;
        assert!(!said(200, wrong), "{name}");
    }
    let mut missing = me.clone();
    missing.as_object_mut().unwrap().remove("role");
    assert!(!said(200, missing));
    assert!(!said(202, me.clone()) && !said(418, me));
}
