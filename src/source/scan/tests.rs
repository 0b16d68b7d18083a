//! The scanner held against `serde_json`, and against hostile documents.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn skips(body: &[u8]) -> Scanned<()> {
    document(body, Scan::skip)
}

/// `message.call.id` and `message.type`, the way `read` looks for them.
fn ids(body: &[u8]) -> Scanned<[Option<String>; 2]> {
    let (mut id, mut kind, mut seen) = (Slot::default(), Slot::default(), [false; 2]);
    document(body, |scan| {
        scan.object(|scan, key| match key {
            "message" => {
                once(&mut seen[0])?;
                scan.object(|scan, key| match key {
                    "type" => kind.fill(scan),
                    "call" => {
                        once(&mut seen[1])?;
                        scan.object(|scan, key| if key == "id" { id.fill(scan) } else { scan.skip() })
                    }
                    _ => scan.skip(),
                })
            }
            _ => scan.skip(),
        })
    })?;
    Ok([id.get().map(str::to_owned), kind.get().map(str::to_owned)])
}

#[test]
fn ids_are_text_however_they_are_written() {
    for (id, expected) in [
        (r#""plain""#, Some("plain")),
        (r#""\u0069d\n\ud83d\ude0a""#, Some("id\n😊")),
        ("9007199254740993", Some("9007199254740993")),
        ("-0", Some("-0")),
        ("1e3", Some("1e3")),
        ("true", Some("true")),
        ("null", None),
        (r#""cut \ud83d""#, None),
        (r#""""#, None),
        ("{}", None),
        (r#"["x"]"#, None),
    ] {
        let body = format!(r#" {{"x":[1,{{}}],"message" : {{"call":{{"id":{id} , "y":null}},"type":"t"}}}} "#);
        assert_eq!(
            ids(body.as_bytes()),
            Ok([expected.map(str::to_owned), Some("t".to_owned())]),
            "{body}"
        );
    }
}

#[test]
fn a_field_that_is_read_occurs_once_however_its_name_is_written() {
    for body in [
        r#"{"message":{"type":"a","type":"a"}}"#,
        r#"{"message":{"type":"a","\u0074ype":"b"}}"#,
        r#"{"message":{"call":{"id":"a"},"call":{"id":"b"}}}"#,
        r#"{"message":{"call":{"id":null,"x":{"id":1},"i\u0064":"b"}}}"#,
        r#"{"message":{},"message":{}}"#,
    ] {
        assert_eq!(ids(body.as_bytes()), Err(REPEATED), "{body}");
    }
    assert!(
        ids(br#"{"message":{"x":1,"x":2,"y":{"type":1,"type":2}}}"#).is_ok(),
        "a field that nobody reads may repeat"
    );
    assert_eq!(
        ids(br#"{"\ud83d":1,"message":{"typ\ud83de":0,"\udc00":{},"call":{"id":"a"},"type":"b"}}"#),
        Ok([Some("a".to_owned()), Some("b".to_owned())]),
        "a name that does not decode is the name of nothing that is read"
    );
}

#[test]
fn documents_are_taken_where_serde_json_takes_them() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let (at_limit, over_limit) = (deep(127), deep(128));
    for body in [
        "",
        " ",
        "nul",
        "nulll",
        "null null",
        "\u{feff}{}",
        "{",
        "{}",
        "[]",
        "[",
        "]",
        "{]",
        "[}",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "01",
        "-",
        "-01",
        "-0",
        "0.",
        ".5",
        "1.",
        "1e",
        "1e+",
        "1e5",
        "1E-5",
        "+1",
        "NaN",
        "Infinity",
        "0e400",
        "1e-400",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\ud83d\\ude0a\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"\u{0}\"",
        "\"\u{7f}\"",
        "'a'",
        "true",
        "truefalse",
        "[true,false,null]",
        "/**/1",
        "{\"a\":{\"b\":[{\"c\":[]}]}}",
        &at_limit,
        &over_limit,
    ] {
        assert_eq!(
            skips(body.as_bytes()).is_ok(),
            serde_json::from_str::<Value>(body).is_ok(),
            "{:?} {body:.80}",
            skips(body.as_bytes())
        );
    }
    // Authentic events hold these in unread fields: a transcript cut within an emoji, a number that
    // overflows.
    for body in ["1e400", "-1e400", r#""\ud800""#, r#""\ud800\ud800""#, r#""\udc00""#] {
        assert!(skips(body.as_bytes()).is_ok(), "{body}");
    }
    assert!(skips(b"\"\xff\"").is_err());
    assert!(
        skips(
            &json!("é")
                .to_string()
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>()
        )
        .is_err()
    );
}

/// Bounded in time and stack; the thread's stack is a tenth of a usual one.
#[test]
fn hostile_documents_are_bounded_in_time_and_stack() {
    let many_keys = format!(
        "{{{}}}",
        (0..1_000_000)
            .map(|i| format!("\"k{i}\":0"))
            .collect::<Vec<_>>()
            .join(",")
    );
    let documents = [
        ("10^5 arrays, open", "[".repeat(100_000), false),
        ("10^5 arrays", "[".repeat(100_000) + &"]".repeat(100_000), false),
        (
            "10^5 objects",
            "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000),
            false,
        ),
        ("10^6 keys", many_keys, true),
        ("5 MB text", format!("\"{}\"", "x".repeat(5_000_000)), true),
        ("5 MB of escapes", format!("\"{}\"", "\\u0041".repeat(800_000)), true),
        ("10^5 digits", "9".repeat(100_000), true),
        (
            "10^5 digits behind the point",
            format!("0.{}", "9".repeat(100_000)),
            true,
        ),
    ];
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            for (name, document, taken) in &documents {
                let begun = std::time::Instant::now();
                assert_eq!(skips(document.as_bytes()).is_ok(), *taken, "{name}");
                // Unoptimised and on a busy machine; optimised it is a hundred times less.
                assert!(begun.elapsed().as_secs() < 5, "{name} took {:?}", begun.elapsed());
            }
        })
        .expect("a thread")
        .join()
        .expect("no stack overflow, no panic");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("id|type|call|message|x|[a-z\"\\\\é]{0,3}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn by_serde(document: &Value) -> [Option<String>; 2] {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    };
    [
        text(&document["message"]["call"]["id"]),
        text(&document["message"]["type"]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_same_ids_as_serde_json(call in any_json(), kind in any_json(), rest in any_json(), pretty: bool) {
        let document = json!({
            "rest": rest,
            "message": { "call": { "id": call, "x": kind }, "type": kind },
            "tail": [rest],
        });
        let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) };
        let body = body.expect("a value serialises");
        prop_assert_eq!(ids(&body), Ok(by_serde(&document)));
    }

    /// A document with some bytes changed, cut or doubled is taken by both or by neither.
    #[test]
    fn damaged_documents_are_refused_where_serde_json_refuses_them(
        document in any_json(), at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 0..4), cut in 0_usize..4,
    ) {
        let mut body = serde_json::to_vec(&document).expect("a value serialises");
        let at = at.index(body.len() + 1);
        let end = (at + cut).min(body.len());
        body.splice(at..end, with);
        let (ours, theirs) = (skips(&body).is_ok(), serde_json::from_slice::<Value>(&body).is_ok());
        // We take what they take, and besides only halves of surrogate pairs and numbers beyond
        // all.
        let text = String::from_utf8_lossy(&body);
        prop_assert!(ours == theirs || (ours && (text.contains("\\u") || text.contains(['e', 'E']))), "{}", text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ids(&body);
    }

    #[test]
    fn plain_len_is_what_a_loop_finds(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(0x80), Just(0x1f), Just(0x21), Just(b'\\')],
            0..40,
        ),
    ) {
        let special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        let expected = bytes.iter().position(special).unwrap_or(bytes.len());
        prop_assert_eq!(plain_len(&bytes), expected);
    }
}
