//! A body as rules, templates and people may see it: read leniently, secrets masked (invariant 19).
//!
//! The scanner of `source` takes a document for the few fields that it reads. One unreadable value
//! must not affect the others, so the limits of this parser touch that value alone. Half a
//! surrogate pair becomes U+FFFD. A number out of range becomes the largest float (RFC 8259,
//! section 6, allows a limited range). **Invariant:** a body whose secrets cannot be found is an
//! [`UnreadableBody`]; its text is never handed on instead.

use super::mask::{MASKED, mask};
use crate::domain::Source;
use serde_json::{Map, Value};

/// Names and values in a form or a query, at most.
const PAIRS_MAX: usize = 1_000;

/// The body is not the JSON that its source writes, so that its secrets cannot be masked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body of the event cannot be read as JSON, so that its secrets cannot be masked")]
pub struct UnreadableBody;

/// JSON as a tree with known secrets masked, and a form as an object. Other text only where its
/// source puts no secrets into payloads.
///
/// # Errors
/// The source writes JSON with secrets in it, and `body` is no JSON.
pub fn masked_body(source: Source, content_type: &str, body: &[u8]) -> Result<Value, UnreadableBody> {
    if is_form(source, content_type) {
        return Ok(Value::Object(form(body)));
    }
    match json(body) {
        Some(mut value) => {
            mask(source, &mut value);
            Ok(value)
        }
        None if is_secret_free(source) => Ok(Value::String(String::from_utf8_lossy(body).into_owned())),
        None => Err(UnreadableBody),
    }
}

/// The body as people may see it: JSON with known secrets masked, a form as the text that was sent.
/// A body that cannot be masked is masked as a whole.
#[must_use]
pub fn shown_body(source: Source, content_type: &str, body: &[u8]) -> Value {
    if is_form(source, content_type) {
        return Value::String(String::from_utf8_lossy(body).into_owned());
    }
    masked_body(source, content_type, body).unwrap_or_else(|UnreadableBody| Value::String(MASKED.to_owned()))
}

/// Twilio puts no secret into its requests; of every other source secrets are expected.
fn is_secret_free(source: Source) -> bool {
    source == Source::Twilio
}

fn is_form(source: Source, content_type: &str) -> bool {
    const FORM: &str = "application/x-www-form-urlencoded";
    is_secret_free(source)
        && content_type
            .trim_start()
            .get(..FORM.len())
            .is_some_and(|essence| essence.eq_ignore_ascii_case(FORM))
}

/// The document as `serde_json` reads it. Only where `serde_json` refuses it, its values are
/// brought within the parser's limits first.
fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().or_else(|| {
        let text = std::str::from_utf8(body).ok()?;
        serde_json::from_str(&within_limits(text)).ok()
    })
}

/// JSON text with each half of a surrogate pair and each number beyond all floats replaced. Text
/// that is no JSON stays none.
fn within_limits(text: &str) -> String {
    let mut limited = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_in_string = false;
    while let Some(at) = rest.find(|c| c == '"' || if is_in_string { c == '\\' } else { begins_number(c) }) {
        limited.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with('"') {
            is_in_string = !is_in_string;
            limited.push('"');
            1
        } else if is_in_string {
            limit_escape(rest, &mut limited)
        } else {
            limit_number(rest, &mut limited)
        };
        rest = &rest[taken..];
    }
    limited.push_str(rest);
    limited
}

const fn begins_number(c: char) -> bool {
    c == '-' || c.is_ascii_digit()
}

/// Copies the escape that `text` begins with to `limited`, and gives its length in bytes: two, six
/// for `\uXXXX`, twelve for a pair of surrogates. Half a pair becomes U+FFFD.
fn limit_escape(text: &str, limited: &mut String) -> usize {
    let unit = |at: usize| {
        text.get(at..at + 6)
            .filter(|escape| escape.starts_with("\\u"))
            .and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok())
    };
    let taken = match unit(0) {
        Some(0xd800..=0xdbff) if unit(6).is_some_and(|low| matches!(low, 0xdc00..=0xdfff)) => 12,
        Some(0xd800..=0xdfff) => {
            limited.push_str("\\ufffd");
            return 6;
        }
        Some(_) => 6,
        None => 1 + text[1..].chars().next().map_or(0, char::len_utf8),
    };
    limited.push_str(&text[..taken]);
    taken
}

/// Copies the number that `text` begins with to `limited`, and gives its length in bytes.
fn limit_number(text: &str, limited: &mut String) -> usize {
    let taken = text
        .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
        .unwrap_or(text.len());
    let number = &text[..taken];
    match number.parse::<f64>() {
        Ok(value) if value == f64::INFINITY => limited.push_str("1.7976931348623157e308"),
        Ok(value) if value == f64::NEG_INFINITY => limited.push_str("-1.7976931348623157e308"),
        _ => limited.push_str(number),
    }
    taken
}

/// Names and values, decoded. The first value of a name counts.
pub(super) fn form(bytes: &[u8]) -> Map<String, Value> {
    let mut pairs = Map::new();
    for pair in bytes
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(PAIRS_MAX)
    {
        let split = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = split.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        pairs
            .entry(decode(name))
            .or_insert_with(|| Value::String(decode(value)));
    }
    pairs
}

fn decode(bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            {
                Some(value) if after[0] != b'+' => {
                    decoded.push(value);
                    rest = &after[2..];
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vapi(body: &[u8]) -> Result<Value, UnreadableBody> {
        masked_body(Source::Vapi, "application/json", body)
    }

    #[test]
    fn a_text_cut_within_an_emoji_leaves_the_rest_readable() {
        let body = vapi(
            br#"{"message":{"transcript":"bye \ud83d","other":"\ud83d\ude0a \\ud83d \udc00\u00e9","customer":{"number":"+15550100"},"\ud83d":1}}"#,
        )
        .expect("readable");
        assert_eq!(body["message"]["transcript"], "bye \u{fffd}");
        assert_eq!(body["message"]["other"], "\u{1f60a} \\ud83d \u{fffd}\u{e9}");
        assert_eq!(body["message"]["customer"]["number"], "+15550100");
        assert_eq!(body["message"]["\u{fffd}"], 1);
    }

    #[test]
    fn a_number_beyond_all_floats_is_limited_and_the_rest_stays_as_it_is() {
        let huge = "9".repeat(400);
        let body = format!(
            r#"{{"a":1e400,"b":[-1E+400,{huge},-{huge}.5,1e-400,0e999,-0,12345678901234567890123],"c":"1e400 \"-1e400\" \\","d":1e400}}"#
        );
        let body = vapi(body.as_bytes()).expect("readable");
        let expected = [
            f64::MAX,
            f64::MIN,
            f64::MAX,
            f64::MIN,
            0.0,
            0.0,
            -0.0,
            1.234_567_890_123_456_8e22,
        ];
        let numbers = [&body["a"]].into_iter().chain(body["b"].as_array().expect("a list"));
        for (number, expected) in numbers.zip([expected[0]].into_iter().chain(expected[1..].iter().copied())) {
            assert_eq!(number.as_f64(), Some(expected), "{number}");
        }
        assert_eq!(body["c"], "1e400 \"-1e400\" \\");
        assert_eq!(body["d"].as_f64(), Some(f64::MAX));
    }

    #[test]
    fn secrets_are_masked_whatever_stands_beside_them() {
        for odd in [
            "1e400",
            "-1e999",
            r#""\ud83d""#,
            r#"{"\udc00":"\ud800\ud800"}"#,
            "[1e400,\"\\ud83d\"]",
        ] {
            let body = format!(
                r#"{{"message":{{"odd":{odd},"assistant":{{"server":{{"secret":"S-ONE"}}}},"phoneNumber":{{"twilioAuthToken":"S-TWO"}}}}}}"#
            );
            let shown = vapi(body.as_bytes()).expect("readable");
            assert!(!shown.to_string().contains("S-"), "{odd}: {shown}");
            assert!(shown["message"].get("odd").is_some(), "{odd}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_masked_is_refused_and_not_shown_as_text() {
        for body in [
            &b"{\"secret\":\"S\""[..],
            b"{\"a\":\"\\",
            b"{\"a\":\"\\u12",
            b"{\"secret\":\"\xff\"}",
            b"secret=S",
            b"\xef\xbb\xbf{}",
            b"1e",
            b"{\"a\":1e400e}",
            b"",
        ] {
            for content_type in [
                "application/json",
                "application/x-www-form-urlencoded",
                "text/plain",
                "",
            ] {
                assert_eq!(masked_body(Source::Vapi, content_type, body), Err(UnreadableBody));
                assert_eq!(shown_body(Source::Vapi, content_type, body), MASKED);
            }
        }
        assert_eq!(
            masked_body(Source::Twilio, "text/plain", b"no json"),
            Ok(Value::String("no json".to_owned())),
            "this source puts no secrets into its payloads"
        );
    }

    #[test]
    fn people_see_a_form_as_it_was_sent() {
        let content_type = "Application/X-WWW-Form-Urlencoded; charset=utf-8";
        assert_eq!(shown_body(Source::Twilio, content_type, b"Body=a+b"), "Body=a+b");
        assert_eq!(
            masked_body(Source::Twilio, content_type, b"Body=a+b").expect("a form")["Body"],
            "a b"
        );
    }

    #[test]
    fn the_source_says_what_a_body_is_and_not_a_content_type() {
        let body = br#"{"message":{"server":{"secret":"S"}}}"#;
        let shown = masked_body(Source::Vapi, "application/x-www-form-urlencoded", body).expect("readable");
        assert_eq!(shown["message"]["server"], MASKED);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// A document with bytes changed: where the scanner of `source` takes it, it can be masked.
        #[test]
        fn a_body_that_is_accepted_can_be_masked(
            at in proptest::prelude::any::<proptest::sample::Index>(),
            with in "[0-9eE+.\"\\\\u\\-d8fF]{0,9}", cut in 0_usize..4,
        ) {
            let mut body = r#"{"message":{"type":"hang","a":[-1.5e30,"\ud83d\ude0a \n",1],"b":{"c":"\u00e9"}}}"#.to_owned();
            let at = at.index(body.len());
            body.replace_range(at..(at + cut).min(body.len()), &with);
            let request = crate::source::Request {
                method: "POST",
                url: "https://hooks.example/webhooks/vapi",
                headers: &http::HeaderMap::new(),
                body: body.as_bytes(),
            };
            if crate::source::read(Source::Vapi, &request).is_ok() {
                proptest::prop_assert!(vapi(body.as_bytes()).is_ok(), "{}", body);
            }
        }
    }
}
