//! The document of this API (OpenAPI 3.1), served at `/api/openapi.json` and kept as
//! `schemas/openapi.json`.
//!
//! Schemas come from the types that handlers answer with; the operations stand in one table. Tests
//! hold the table against the router, and every answer that a test gets against its schema.
//! **Invariant:** the document says nothing about an installation or an organisation, so that it is
//! the same for everybody and needs no token.

mod operations;
mod query;
mod schemas;

use super::{Admin, AdminState, web::problem::Code};
use axum::{Json, Router, extract::State, routing::get};
use operations::{OPERATIONS, Operation, Who};
use schemas::Schemas;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

pub use operations::path_methods;
pub(super) use query::only_documented;

/// Where the document is served, beside the resources that it describes.
pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/openapi.json", get(serve))
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(build);

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

pub async fn serve(State(_): Admin) -> Json<&'static Value> {
    Json(document())
}

fn build() -> Value {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        entry[operation.method] = described(operation, &mut schemas);
    }
    let problem = problem(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hookswitch admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "docs/api.md says what each operation does and how to begin.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "responses": {
                "Problem": {
                    "description": "A refusal: what happened and what to do next.",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "__Host-hookswitch_session",
                    "description": "Of POST /api/session. A write needs X-CSRF-Token beside it.",
                },
                "operator": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
        },
    })
}

/// The body of a refusal. `schemas/problem.json` ties each code to its status.
fn problem(schemas: &mut Schemas) -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let errors = schemas.reference::<super::web::problem::FieldError>();
    let provider = schemas.reference::<super::web::problem::ProviderWords>();
    let accounts = schemas.reference::<super::web::problem::Accounts>();
    schemas.put(
        "Problem",
        json!({
            "type": "object",
            "description": "RFC 9457. `code` is stable, for programs; `detail` is for people.",
            "required": ["type", "title", "status", "detail", "code", "request_id"],
            "properties": {
                "type": { "type": "string" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "code": { "type": "string", "enum": codes },
                "request_id": { "type": "string", "description": "The same as the header x-request-id." },
                "errors": { "type": "array", "items": errors },
                "provider": provider,
                "accounts": accounts,
            },
        }),
    )
}

fn described(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    for (status, body) in operation.answers {
        let mut response = json!({ "description": reason(*status) });
        if let Some(body) = body {
            response["content"] = json!({ (operation.media()): { "schema": body(schemas) } });
        }
        responses.insert(status.to_string(), response);
    }
    let has_tag = operation.method == "get" && !operation.is_stream();
    if has_tag && operation.answers.iter().any(|(status, _)| *status == 200) {
        responses.insert("304".to_owned(), json!({ "description": reason(304) }));
    }
    for range in ["4XX", "5XX"] {
        responses.insert(range.to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [tag(operation.path)],
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": responses,
        "security": match operation.who {
            Who::Anyone => json!([]),
            Who::SignedIn => json!([{ "token": [] }, { "session": [] }, { "operator": [] }]),
            Who::Operator => json!([{ "operator": [] }, { "session": [] }]),
            Who::Viewer | Who::Member | Who::Admin | Who::Owner => json!([{ "token": [] }, { "session": [] }]),
        },
    });
    if let Some(role) = operation.who.role() {
        described["x-role"] = json!(role);
    }
    if let Some(body) = operation.body {
        described["requestBody"] = json!({
            "required": operation.needs_body,
            "content": { "application/json": { "schema": body(schemas) } },
        });
    }
    described
}

/// The resource: the first part of the path behind `/api` or `/operator`.
fn tag(path: &str) -> &str {
    path.trim_start_matches("/api/")
        .trim_start_matches("/operator/")
        .split('/')
        .next()
        .unwrap_or(path)
}

const fn reason(status: u16) -> &'static str {
    match status {
        201 => "Made",
        202 => "Taken; it is done in a moment",
        204 => "Done; there is nothing to show",
        303 => "Goes on to another page",
        304 => "The same as the ETag in If-None-Match",
        _ => "The answer",
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let text = |name: &str, place: &str, is_required: bool, schema: Value| {
        let mut parameter = json!({ "name": name, "in": place, "schema": schema });
        parameter["required"] = json!(is_required);
        parameter
    };
    let mut all: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| text(name, "path", true, json!({ "type": "string", "minLength": 1 })))
        .collect();
    for query in operation.query {
        all.push(text(query.name, "query", false, (query.schema)()));
    }
    match operation.method {
        // It sets a route, whatever was there.
        "put" if operation.who == Who::Operator => {}
        "put" => all.push(text(
            "If-Match",
            "header",
            !operation.makes(),
            json!({ "type": "string" }),
        )),
        "patch" | "delete" if !matches!(operation.who, Who::Anyone) => {
            all.push(text("If-Match", "header", false, json!({ "type": "string" })));
        }
        "post" if !matches!(operation.who, Who::Anyone | Who::Operator) => {
            let key = json!({
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "pattern": "^[!#-+\\--\\[\\]-~]+$",
            });
            all.push(text("Idempotency-Key", "header", false, key));
        }
        "get" if !operation.is_stream() => {
            all.push(text("If-None-Match", "header", false, json!({ "type": "string" })));
        }
        _ => {}
    }
    all
}
