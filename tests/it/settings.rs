//! Settings, and the schema of them that is published: what one refuses by form, the other does
//! too.

use crate::support::schema;
use hookswitch::config::{Environment, Settings};
use serde_json::{Value, json};

/// Values of a kind that can be used, and values that cannot.
fn values(kind: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        "number" => (&["1", "50", "1_0"], &["twelve", "-1", "1.5", "_"]),
        "seconds" => (&["30", "30.5"], &["soon", "-1", "30s"]),
        "true or false" => (&["true", "false"], &["yes", "1"]),
        "human or json" => (&["human", "json"], &["text", "JSON,"]),
        "text" | "secret" | "list, separated by commas" => (&[], &[]),
        kind => panic!("{kind}: a kind of setting that this test does not know"),
    }
}

#[test]
fn the_schema_of_settings_and_the_settings_refuse_the_same() {
    let schema = schema::read("config.json");
    let check = |name: &str, value: &str| {
        let file = json!({ name: value });
        let (_, faults) = Settings::read(&Environment::default().with(name, value));
        let is_refused = faults.iter().any(|fault| fault.name == name);
        (schema::check(&schema, &file).is_ok(), is_refused)
    };
    for setting in Settings::all() {
        let (good, bad) = values(setting.kind);
        for value in bad {
            assert_eq!(check(setting.name, value), (false, true), "{}={value}", setting.name);
        }
        for value in good {
            // One value alone may contradict another setting; its form is good.
            assert!(check(setting.name, value).0, "{}={value}", setting.name);
        }
        if !setting.default.is_empty() {
            assert_eq!(check(setting.name, &setting.default), (true, false), "{}", setting.name);
        }
    }
    assert_eq!(check("HOOKSWITCH_JWT_SECRETS", "x"), (false, true), "an unknown name");
    assert_eq!(check("PATH", "/bin"), (true, false), "not ours");
}

/// The settings in the pages' examples.
#[test]
fn the_settings_that_the_pages_show_fit_the_schema() {
    let schema = schema::read("config.json");
    let mut shown = serde_json::Map::new();
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");
    let pages = std::fs::read_dir(docs).unwrap().map(|file| file.unwrap().path());
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into();
    for page in pages
        .chain([readme])
        .filter(|path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "md"))
    {
        let text = std::fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("HOOKSWITCH_") {
            let rest = &text[at..];
            let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            let Some(value) = after.strip_prefix('=') else { continue };
            let value = value.split(['`', ' ', '\n', ',', ')']).next().unwrap_or_default();
            // An ellipsis stands for a value of the reader's own.
            if !value.contains('…') && !value.is_empty() && !name.starts_with("HOOKSWITCH_TEST_") {
                shown.insert(name.to_owned(), Value::from(value.trim_matches(['"', '\''])));
            }
        }
    }
    assert!(shown.len() >= 3, "{shown:?}");
    schema::check(&schema, &Value::Object(shown)).unwrap();
}
