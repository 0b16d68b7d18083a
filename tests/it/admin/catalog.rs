//! The catalog of rules: what it says is what the rules do, and what `docs/rules.md` says.

use super::TestApp;
use serde_json::{Value, json};
use std::{fmt::Write as _, path::Path};

fn rows(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Puts a table between the marks of a part of the page.
fn put(page: &mut String, part: &str, table: &str) {
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let from = page.find(&begin).expect("the part begins") + begin.len();
    let to = page.find(&end).expect("the part ends");
    page.replace_range(from..to, table);
}

fn names(catalog: &Value) -> String {
    let mut table = "| name | events | |\n|---|---|---|\n".to_owned();
    for row in rows(&catalog["names"]) {
        let members: Vec<_> = rows(&row["members"])
            .iter()
            .map(|name| format!("`{}`", text(name)))
            .collect();
        let members = if members.is_empty() {
            String::new()
        } else {
            format!(": {}", members.join(", "))
        };
        let source = row["source"].as_str().unwrap_or("all");
        writeln!(
            table,
            "| `{}` | {source} | {}{members} |",
            text(&row["name"]),
            text(&row["help"])
        )
        .unwrap();
    }
    table
}

fn actions(catalog: &Value) -> String {
    let mut all = String::new();
    for (number, action) in rows(&catalog["actions"]).iter().enumerate() {
        let begin = if number == 0 { "" } else { "\n" };
        let hours = action["expires_after_seconds_default"].as_u64().unwrap() / 3600;
        writeln!(
            all,
            "{begin}### `{}`\n\n{}\nNeeds `{}`. Begins within {hours} hours.\n\n\
            | parameter | type | | example |\n|---|---|---|---|",
            text(&action["action"]),
            text(&action["purpose"]),
            text(&action["provider"]),
        )
        .unwrap();
        for row in rows(&action["parameters"]) {
            let required = if row["required"] == true { ", required" } else { "" };
            writeln!(
                all,
                "| `{}` | {}{required} | {} | `{}` |",
                text(&row["name"]),
                text(&row["type"]),
                text(&row["help"]),
                text(&row["example"]),
            )
            .unwrap();
        }
    }
    all
}

fn types(catalog: &Value) -> String {
    let mut table = "| type | samples |\n|---|---|\n".to_owned();
    for source in rows(&catalog["sources"]) {
        for row in rows(&source["event_types"]) {
            let samples: Vec<_> = rows(&row["samples"])
                .iter()
                .map(|name| format!("`{}`", text(name)))
                .collect();
            writeln!(table, "| `{}` | {} |", text(&row["type"]), samples.join(", ")).unwrap();
        }
    }
    table
}

#[tokio::test]
async fn the_page_of_rules_has_the_tables_of_the_catalog() {
    let app = TestApp::start().await;
    let catalog = app.get(app.a, "/api/catalog").await.expect(200).json();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut wanted = page.clone();
    put(&mut wanted, "names", &names(&catalog));
    put(&mut wanted, "actions", &actions(&catalog));
    put(&mut wanted, "types", &types(&catalog));
    if page != wanted {
        std::fs::write(&path, wanted).unwrap();
        panic!("docs/rules.md was out of date and has been written again: look at it and commit it");
    }
}

/// A rule that is made of the examples of the catalog, every parameter given, is planned for the
/// sample of its type.
#[tokio::test]
async fn the_examples_of_the_catalog_are_planned_for_its_samples() {
    let app = TestApp::start().await;
    let destination = json!({ "name": "crm", "url": "https://93.184.215.14/hooks" });
    app.post(app.a, "/api/destinations", &destination).await.expect(201);
    let catalog = app.get(app.a, "/api/catalog").await.expect(200).json();
    let sample = app
        .get(app.a, "/api/catalog/samples/vapi.end-of-call-report")
        .await
        .expect(200)
        .json();
    for action in rows(&catalog["actions"]) {
        // Each required parameter, and each other one beside them.
        let given = |row: &&Value| row["required"] == true || ["text", "start", "end"].contains(&text(&row["name"]));
        let all = rows(&action["parameters"]);
        let base: serde_json::Map<String, Value> = all
            .iter()
            .filter(given)
            .map(|row| (text(&row["name"]).to_owned(), value_of(row)))
            .collect();
        for more in all {
            let mut parameters = base.clone();
            if let Some(date) = text(&more["name"]).strip_suffix("_date") {
                for name in ["start", "end"] {
                    let row = all.iter().find(|row| row["name"] == format!("{name}_date")).unwrap();
                    parameters.remove(name);
                    parameters.insert(format!("{name}_date"), value_of(row));
                }
                assert!(["start", "end"].contains(&date));
            }
            parameters.insert(text(&more["name"]).to_owned(), value_of(more));
            let spec = json!({
                "name": "try", "source": "vapi", "event_type": "vapi.end-of-call-report",
                "action": action["action"], "parameters": parameters,
            });
            app.post(app.a, "/api/rules", &spec).await.expect(201);
            let ran = app
                .post(app.a, "/api/rules/dry-run", &json!({ "spec": spec, "sample": sample }))
                .await;
            let ran = ran.expect(200).json();
            // An example may name a part that this sample does not have; a required one may not.
            if more["required"] == true && !text(&action["action"]).starts_with("google") {
                assert_eq!(ran["outcome"], "planned", "{spec}: {ran}");
            }
        }
        let missing = json!({
            "name": "try", "source": "vapi", "event_type": "*", "action": action["action"], "parameters": {},
        });
        let refused = app.post(app.a, "/api/rules", &missing).await.expect(422).json();
        let fields: Vec<_> = rows(&refused["errors"])
            .iter()
            .map(|one| text(&one["field"]).to_owned())
            .collect();
        for row in all.iter().filter(|row| row["required"] == true) {
            let field = format!("parameters.{}", text(&row["name"]));
            assert!(fields.contains(&field), "all at once: {field} in {fields:?}");
        }
    }
}

fn value_of(parameter: &Value) -> Value {
    let example = text(&parameter["example"]);
    if parameter["type"] == "text" {
        return json!(example);
    }
    serde_json::from_str(example).unwrap_or(json!(example))
}

#[tokio::test]
async fn every_sample_of_the_catalog_can_be_tried() {
    let app = TestApp::start().await;
    let catalog = app.get(app.a, "/api/catalog").await.expect(200).json();
    let mut tried = 0;
    for source in rows(&catalog["sources"]) {
        for row in rows(&source["event_types"]) {
            for name in rows(&row["samples"]) {
                let sample = app
                    .get(app.a, &format!("/api/catalog/samples/{}", text(name)))
                    .await
                    .expect(200)
                    .json();
                assert_eq!(sample["event_type"], row["event_type"]);
                let spec = json!({
                    "name": "try", "source": source["source"], "event_type": row["type"], "action": "twilio.send_sms",
                    "when": "event.type == \"".to_owned() + text(&row["type"]) + "\"",
                    "parameters": { "to": "+12025550199", "body": "{{ event.kind }}" },
                });
                let ran = app
                    .post(app.a, "/api/rules/dry-run", &json!({ "spec": spec, "sample": sample }))
                    .await;
                let ran = ran.expect(200).json();
                assert_eq!(
                    (&ran["outcome"], &ran["parameters"]["body"]),
                    (&json!("planned"), &row["event_type"]),
                    "{ran}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "{tried} samples");
    app.get(app.a, "/api/catalog/samples/vapi.no-such").await.expect(404);
}
