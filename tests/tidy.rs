//! The walls of the house that a single crate has no compiler for. Each test names what to turn
//! round.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Rooms by floor: a file may use rooms of lower floors, and of its own floor only where a line
/// below says so.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("config", 1),
    ("telemetry", 1),
    ("killpoint", 1),
    ("source", 2),
    ("provider", 2),
    ("queue", 2),
    ("store", 2),
    ("listener", 2),
    ("vault", 3),
    ("routing", 3),
    ("rule", 4),
    ("action", 4),
    ("oauth", 4),
    ("assistants", 4),
    ("jobs", 4),
    ("attempt", 5),
    ("reply", 6),
    ("receiver", 7),
    ("worker", 7),
    ("admin", 7),
    ("lifecycle", 8),
    ("sandbox", 8),
    ("cli", 9),
];

/// `(room, room that it may use, why)`: what the order of the floors alone would forbid.
const DOORS: &[(&str, &str, &str)] = &[
    (
        "telemetry",
        "config",
        "logs are set up from their settings; settings know nothing of logs",
    ),
    (
        "rule",
        "action",
        "a rule's parameters are checked and frozen by its action; actions know nothing of rules",
    ),
    (
        "assistants",
        "rule",
        "the audit masks secrets in an assistant as payloads are masked; rules know nothing of assistants",
    ),
];

/// `(room, room, why)`: what the order of the floors would allow and the design forbids.
const WALLS: &[(&str, &str, &str)] = &[
    (
        "vault",
        "source",
        "the vault hands plaintext to closures and knows no scheme",
    ),
    (
        "vault",
        "provider",
        "the vault hands plaintext to closures and knows no credential's shape",
    ),
    ("vault", "queue", "secrets do not travel"),
    ("routing", "source", "plans are opaque text to the snapshot"),
    ("routing", "queue", "routes are read from the store"),
    (
        "action",
        "vault",
        "an action gets a decrypted credential as an argument",
    ),
    ("action", "store", "an action knows nothing of the ledger"),
    ("action", "queue", "an action knows nothing of events' way"),
    ("receiver", "action", "the receiver cannot name an action"),
    ("receiver", "attempt", "the receiver cannot act at a provider"),
    ("receiver", "provider", "the receiver opens no outgoing connection"),
    ("sandbox", "store", "stand-ins for providers know nothing of us"),
    ("sandbox", "queue", "stand-ins for providers know nothing of us"),
    (
        "sandbox",
        "provider",
        "a stand-in that shares code with its client proves nothing",
    ),
    ("sandbox", "action", "stand-ins for providers know nothing of us"),
];

/// Lines a file may have. Over it: look for the second idea, or give the reason here.
const LINES_MAX: usize = 600;
const LONGER: &[(&str, usize, &str)] = &[
    ("tests/it/conformance/ledger.rs", 860, "one contract"),
    ("tests/it/conformance/queue.rs", 640, "one contract"),
    ("tests/it/conformance/store.rs", 840, "one contract"),
    ("tests/it/conformance/store_ledger.rs", 645, "one contract"),
    ("tests/it/support/ingress.rs", 630, "one receiver with its tenants"),
    (
        "tests/tidy.rs",
        750,
        "one list of walls, compiled by itself in a second",
    ),
];

/// Columns that a line of code may have, and a line of prose: comments and Markdown.
const CODE_COLUMNS_MAX: usize = 120;
const PROSE_COLUMNS_MAX: usize = 100;

/// The crates that the owner asked for: direct dependencies that `src` uses.
const OWNERS_CRATES: &[&str] = &[
    "tokio",
    "sqlx",
    "aes_gcm",
    "lru",
    "serde",
    "hmac",
    "sha2",
    "reqwest",
    "metrics",
    "metrics_exporter_prometheus",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with an ending, by their path from the root.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    fn walk(at: &Path, ending: &str, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.expect("a readable directory entry").path();
            if path.is_dir() {
                walk(&path, ending, into);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                into.insert(name, fs::read_to_string(&path).expect("UTF-8 text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join(folder), ending, &mut found);
    found
}

/// The room that a file of `src` belongs to.
fn room(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split(['/', '.']).next().unwrap_or(inside)
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Code without comments and without the unit tests at the end of a file: those may look into other
/// rooms.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
}

/// Rooms named by `crate::room…` and by `crate::{room…, room…}`.
fn rooms_used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => used.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            used.push(name);
        } else {
            used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used.iter()
        .map(|name| {
            name.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| floor(name).is_some())
        .collect()
}

#[test]
fn data_goes_one_way_through_the_rooms() {
    let mut wrong = String::new();
    for (file, text) in files("src", "rs") {
        let here = room(&file);
        let Some(own) = floor(here) else {
            assert!(
                matches!(here, "lib" | "main"),
                "{file}: give the room `{here}` a floor in tests/tidy.rs and src/lib.rs"
            );
            continue;
        };
        for used in rooms_used(&code(&text)) {
            if used == here {
                continue;
            }
            let theirs = floor(&used).expect("only rooms are listed");
            let door = DOORS.iter().any(|(from, to, _)| *from == here && *to == used);
            if theirs >= own && !door {
                writeln!(
                    wrong,
                    "{file} (floor {own}) uses `crate::{used}` (floor {theirs}): turn this import round, \
                    or hand the thing in as an argument"
                )
                .expect("to a string");
            }
            if let Some((_, _, why)) = WALLS.iter().find(|(from, to, _)| *from == here && *to == used) {
                writeln!(wrong, "{file} uses `crate::{used}`, but {why}").expect("to a string");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn files_fit_one_idea() {
    let mut wrong = String::new();
    for folder in ["src", "tests", "benches"] {
        for (file, text) in files(folder, "rs") {
            let lines = text.lines().count();
            let max = LONGER
                .iter()
                .find(|(name, _, _)| *name == file)
                .map_or(LINES_MAX, |(_, max, _)| *max);
            if lines > max {
                writeln!(
                    wrong,
                    "{file}: {lines} lines, at most {max}: look for the second idea in it"
                )
                .expect("to a string");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn lines_fit_the_page() {
    let mut wrong = String::new();
    for folder in ["src", "tests", "benches"] {
        for (file, text) in files(folder, "rs") {
            for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
                let text = line.trim_start();
                let is_comment = text.starts_with("//");
                let is_table = is_comment && text.trim_start_matches(['/', '!', ' ']).starts_with('|');
                // A raw string has no way to go on in the next line.
                let is_raw = text.contains("r#\"") || text.contains("r\"");
                let max = if is_comment {
                    PROSE_COLUMNS_MAX
                } else {
                    CODE_COLUMNS_MAX
                };
                if line.chars().count() > max && !is_table && !is_raw {
                    writeln!(wrong, "{file}:{number}: over {max} columns").expect("to a string");
                }
            }
        }
    }
    for (file, text) in pages() {
        let mut is_code = false;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            is_code ^= line.starts_with("```");
            let cannot_wrap = is_code || line.starts_with("    ") || line.starts_with('|');
            if line.chars().count() > PROSE_COLUMNS_MAX && !cannot_wrap {
                writeln!(wrong, "{file}:{number}: over {PROSE_COLUMNS_MAX} columns").expect("to a string");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// All Markdown of the project, by path from the root.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for folder in ["docs", "migrations", "schemas", "tests"] {
        pages.extend(files(folder, "md"));
    }
    for entry in fs::read_dir(root()).expect("a readable root") {
        let path = entry.expect("a readable directory entry").path();
        if path.extension().is_some_and(|e| e == "md") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            pages.insert(name, fs::read_to_string(&path).expect("UTF-8 text"));
        }
    }
    pages
}

#[test]
fn rooms_open_with_what_they_are_for() {
    for (file, text) in files("src", "rs") {
        assert!(
            text.starts_with("//! ") || text.starts_with("use ") && file.starts_with("src/config/"),
            "{file}: begin with a `//!` line that says what it is for"
        );
        for left_over in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!code(&text).contains(left_over), "{file}: `{left_over}…)` is left over");
        }
    }
}

#[test]
fn sql_stands_in_the_store_only() {
    for (file, text) in files("src", "rs") {
        if !file.starts_with("src/store/") {
            assert!(
                !code(&text).contains("sqlx::"),
                "{file}: SQL belongs into src/store/{{sqlite,postgres}}"
            );
        }
    }
}

#[test]
fn outgoing_connections_are_opened_by_the_one_client() {
    for (file, text) in files("src", "rs") {
        let may = file.starts_with("src/provider/") || file.starts_with("src/sandbox/") || file.starts_with("src/cli/");
        assert!(
            may || !code(&text).contains("reqwest::"),
            "{file}: outgoing connections go through provider::http"
        );
    }
}

#[test]
fn plaintext_is_exposed_in_few_places() {
    /// Files in which `expose_secret()` may stand, and why.
    const MAY: &[(&str, &str)] = &[
        ("src/domain/secret.rs", "defines it"),
        ("src/vault/", "seals and opens"),
        (
            "src/source/",
            "makes HMAC states from a secret, inside the vault's closure",
        ),
        (
            "src/provider/",
            "parses a credential and writes it on the line that sends",
        ),
        ("src/action/http_post.rs", "signs on the line that sends"),
        (
            "src/receiver/platform.rs",
            "makes HMAC states from the platform's own secrets",
        ),
        ("src/oauth/", "seals the tokens that it got"),
        (
            "src/assistants/",
            "opens what is wanted, with the secret that it sends to Vapi",
        ),
        ("src/attempt/send.rs", "opens the frozen request, which holds no secret"),
        ("src/worker/parts.rs", "opens an event, as the queue hands it over"),
        ("src/sandbox/", "the other side: it is the provider"),
        (
            "src/admin/",
            "takes secrets in to seal them, and keys of its own tokens",
        ),
        ("src/queue/kafka/url.rs", "hands the broker's password to its client"),
        ("src/cli/", "hands keys and the demo's secrets in"),
        ("src/config/", "reads the environment"),
    ];
    for (file, text) in files("src", "rs") {
        let may = MAY.iter().any(|(place, _)| file.starts_with(place));
        assert!(
            may || !code(&text).contains("expose_secret("),
            "{file}: plaintext is exposed only in {:?}",
            MAY.iter().map(|(place, _)| place).collect::<Vec<_>>()
        );
    }
}

#[test]
fn the_owners_crates_are_direct_dependencies_that_are_used() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let direct = manifest
        .split("[dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("a [dependencies] table");
    let source = files("src", "rs")
        .into_values()
        .map(|text| code(&text))
        .collect::<String>();
    for name in OWNERS_CRATES {
        let dashed = name.replace('_', "-");
        assert!(
            direct.lines().any(|line| line.starts_with(&format!("{dashed} ="))),
            "{dashed} is not a direct dependency"
        );
        assert!(
            source.contains(&format!("{name}::")),
            "{dashed} is a dependency that src does not use"
        );
    }
}

#[test]
fn applied_migrations_do_not_change() {
    let known = fs::read_to_string(root().join("migrations/HASHES")).unwrap_or_default();
    let mut now = String::new();
    for (file, text) in files("migrations", "sql") {
        writeln!(now, "{} {file}", sha256(&text)).expect("to a string");
    }
    for line in known.lines() {
        assert!(
            now.lines().any(|l| l == line),
            "an applied migration changed or went: {line}\nmake a new one instead"
        );
    }
    rewrite("migrations/HASHES", &now);
}

#[test]
fn settings_are_documented() {
    let mut doc = String::from(
        "# Settings\n\n\
         Read from the environment at the start. An unknown `HOOKSWITCH_…` name is an error; all faults are\n\
         reported at once. `NAME_FILE` names a file that holds the value of `NAME`, for every setting. This\n\
         page is made from the structs in `src/config` by `cargo test --test tidy settings`.\n\n\
         | setting | kind | default | |\n|---|---|---|---|\n",
    );
    let mut properties = serde_json::Map::new();
    for setting in hookswitch::config::Settings::all() {
        let default = if setting.default.is_empty() {
            "–".to_owned()
        } else {
            format!("`{}`", setting.default)
        };
        writeln!(
            doc,
            "| `{}` | {} | {default} | {} |",
            setting.name, setting.kind, setting.doc
        )
        .expect("to a string");
        let kind = match setting.kind {
            "number" => serde_json::json!({ "type": "string", "pattern": "^[0-9][0-9_]*$" }),
            "seconds" => serde_json::json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$" }),
            "true or false" => serde_json::json!({ "type": "string", "enum": ["true", "false"] }),
            "human or json" => serde_json::json!({ "type": "string", "enum": ["human", "json"] }),
            _ => serde_json::json!({ "type": "string" }),
        };
        let mut property = kind.as_object().expect("an object").clone();
        property.insert("description".into(), setting.doc.into());
        if !setting.default.is_empty() {
            property.insert("default".into(), setting.default.clone().into());
        }
        if setting.kind == "secret" {
            property.insert("writeOnly".into(), true.into());
        }
        properties.insert(setting.name.into(), property.into());
    }
    let names: Vec<_> = properties.keys().cloned().collect();
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Hookswitch settings, as environment variables",
        "type": "object",
        "propertyNames": {
            "anyOf": [
                { "not": { "pattern": "^HOOKSWITCH_" } },
                { "enum": names },
                // Any of them may be given as the path of a file.
                { "pattern": "^HOOKSWITCH_.*_FILE$" },
            ]
        },
        "properties": properties,
    });
    rewrite("docs/settings.md", &doc);
    rewrite(
        "schemas/config.json",
        &format!("{}\n", serde_json::to_string_pretty(&schema).expect("JSON")),
    );
}

#[test]
fn the_schema_of_settings_refuses_an_unknown_name() {
    // By the part of JSON Schema that the file uses for names.
    let text = fs::read_to_string(root().join("schemas/config.json")).expect("schemas/config.json");
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let names = &schema["propertyNames"]["anyOf"];
    assert_eq!(names[0]["not"]["pattern"], "^HOOKSWITCH_");
    let is_accepted = |name: &str| {
        let listed = names[1]["enum"].as_array().expect("a list of names");
        !name.starts_with("HOOKSWITCH_") || listed.iter().any(|known| known == name)
    };
    for setting in hookswitch::config::Settings::all() {
        assert!(is_accepted(setting.name), "{}", setting.name);
    }
    assert!(is_accepted("PATH"));
    assert!(!is_accepted("HOOKSWITCH_JWT_SECRETS") && !is_accepted("HOOKSWITCH_"));
}

/// Writes what a page should be, and fails when it was something else: run it once more and commit.
fn rewrite(file: &str, text: &str) {
    let path = root().join(file);
    if fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return;
    }
    fs::write(&path, text).expect("a writable checkout");
    panic!("{file} was out of date and has been written again: look at it and commit it");
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

#[test]
fn cited_invariants_exist() {
    let page = fs::read_to_string(root().join("docs/invariants.md")).expect("docs/invariants.md");
    let mut cited = 0;
    for folder in ["src", "tests", "benches"] {
        for (file, text) in files(folder, "rs") {
            for word in ["nvariant ", "nvariants "] {
                for (at, _) in text.match_indices(word) {
                    let number: String = text[at + word.len()..]
                        .chars()
                        .take_while(char::is_ascii_digit)
                        .collect();
                    if !number.is_empty() {
                        cited += 1;
                        let heading = format!("\n## {number}. ");
                        assert!(
                            page.contains(&heading),
                            "{file}: docs/invariants.md has no invariant {number}"
                        );
                    }
                }
            }
        }
    }
    assert!(cited > 0, "no invariant is cited: this test looks for the wrong word");
}

#[test]
fn cited_files_and_decisions_exist() {
    // Paths that pages and comments cite by these folders, and decisions by their number.
    const FOLDERS: &[&str] = &[
        "benches/",
        "docs/",
        "migrations/",
        "schemas/",
        "scripts/",
        "src/",
        "tests/",
    ];
    let mut texts = pages();
    for folder in ["src", "tests", "benches"] {
        texts.extend(files(folder, "rs"));
    }
    // Here the patterns themselves stand.
    texts.remove("tests/tidy.rs");
    let decisions: Vec<String> = files("docs/decisions", "md").into_keys().collect();
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let (mut wrong, mut cited) = (String::new(), 0);
    for (file, text) in texts {
        for folder in FOLDERS {
            for (at, _) in text.match_indices(folder) {
                let rest = &text[at..];
                let path = &rest[..rest.find(|c| !is_of_path(c)).unwrap_or(rest.len())];
                // A pattern such as `src/{a,b}`, a name to fill in, or the end of a longer path.
                let is_pattern = rest[path.len()..].starts_with(['{', '*', '…']) || path.contains("NAME");
                if is_pattern || text[..at].ends_with(|c: char| is_of_path(c) || c == '}') {
                    continue;
                }
                cited += 1;
                if !root().join(path.trim_end_matches(['.', '/'])).exists() {
                    writeln!(wrong, "{file}: {path} does not exist").expect("to a string");
                }
            }
        }
        for (at, word) in text.match_indices("ecision 00") {
            let number = text[at + word.len() - 2..].chars().take(4).collect::<String>();
            if !decisions.iter().any(|name| name.contains(&format!("/{number}-"))) {
                writeln!(wrong, "{file}: there is no decision {number}").expect("to a string");
            }
        }
        let folder = Path::new(&file).parent().expect("a file has a folder");
        for (at, _) in text.match_indices("](").filter(|_| file.ends_with("md")) {
            let link: String = text[at + 2..].chars().take_while(|c| *c != ')' && *c != '#').collect();
            if !link.contains("://") && !root().join(folder).join(&link).exists() {
                writeln!(wrong, "{file}: the link {link} leads nowhere").expect("to a string");
            }
        }
    }
    assert!(cited > 0, "no path is cited: this test looks for the wrong words");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Words of our own for things that have a name in the field, and that name. Checked as whole
/// words, in any case, over code, tests, benches and pages.
const BANNED: &[(&str, &str)] = &[
    ("stranger", "unknown sender, unknown id"),
    ("strangers", "unknown senders, unknown ids"),
    ("vouch", "verify; from_verified"),
    ("vouches", "verifies, covers"),
    ("vouched", "verified"),
    ("lever", "manual transition"),
    ("levers", "manual transitions"),
    ("levered", "manual transition"),
    ("hurry", "refresh_now"),
    ("look_again", "refresh_now"),
    ("keeper", "maintenance"),
    ("bury", "store as dead, store_dead_event"),
    ("buried", "stored as dead"),
    ("wish", "request, configuration"),
    ("nobodys", "decoy, unowned"),
    ("settle", "record_callback, look_up_delay, take_confirms"),
    ("settles", "records, ends"),
    ("settled", "recorded, ended"),
    ("told", "reported, answered, distinguished"),
];

/// Names of types that say too little: of what? Checked in code only, with their capital.
const BANNED_TYPES: &[(&str, &str)] = &[
    ("Turns", "PublishPermits"),
    ("Said", "ProviderHealth"),
    ("Place", "WebhookPath, OrgIndex"),
    ("Places", "SampleValues"),
    ("Held", "BodyMemory, HeldDelivery"),
    ("Holding", "BodyReservation"),
    ("Good", "Accepted, VerifiedCredential"),
    ("Known", "KnownOrg"),
];

#[test]
fn words_are_those_of_the_field() {
    let mut wrong = String::new();
    let mut texts = pages();
    for folder in ["src", "tests", "benches"] {
        texts.extend(files(folder, "rs"));
    }
    // Here the banned words themselves stand.
    texts.remove("tests/tidy.rs");
    for (file, text) in texts {
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            let is_code =
                Path::new(&file).extension().is_some_and(|e| e == "rs") && !line.trim_start().starts_with("//");
            for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
                let plain = BANNED
                    .iter()
                    .find(|(banned, _)| word.eq_ignore_ascii_case(banned))
                    .or_else(|| BANNED_TYPES.iter().find(|(banned, _)| is_code && word == *banned));
                if let Some((_, plain)) = plain {
                    writeln!(wrong, "{file}:{number}: `{word}`: say {plain}").expect("to a string");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn tests_are_named_for_behaviour() {
    // A name such as `c7_…` says nothing to a reader.
    let mut wrong = String::new();
    for folder in ["src", "tests"] {
        for (file, text) in files(folder, "rs") {
            for (at, _) in text.match_indices("fn ") {
                let name = &text[at + 3..];
                let number = name.strip_prefix(['a', 'b', 'c']).unwrap_or_default();
                let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
                if rest.len() < number.len() && rest.starts_with('_') {
                    let name: String = name.chars().take_while(|c| *c != '(').collect();
                    writeln!(wrong, "{file}: `{name}` begins with a fault's number").expect("to a string");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
