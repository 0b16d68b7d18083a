//! Secrets that requests carry: taken out of the query and the body of an event, and out of the
//! first bytes of a refused body, with numbers and addresses. In doubt a byte is masked.

use crate::source::decode_form;
use bytes::Bytes;
use memchr::memmem;

/// Text in which runs of digits, long tokens, addresses, and the values of keys that sound secret
/// are masked; control characters become spaces.
pub(super) fn masked(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut masked = String::with_capacity(text.len());
    // Holds until the next key: a value may hold commas and line breaks.
    let mut is_value_secret = false;
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let is_key = after.trim_start_matches(['"', '\'', ' ', '\\']).starts_with([':', '=']);
            if is_key {
                is_value_secret = is_secret_name(word);
                masked.push_str(word_masked(word));
            } else {
                masked.push_str(if is_value_secret { MASK } else { word_masked(word) });
            }
            rest = after;
        } else {
            masked.push(if c.is_control() { ' ' } else { c });
            rest = &rest[c.len_utf8()..];
        }
    }
    masked
}

/// The query of a URL, with the values of parameters masked whose names end as names of secrets do.
/// Some senders put a token into a webhook's URL, and the query lies in the queue and in the
/// database. Rules read the other parameters.
pub(super) fn query_masked(query: &str) -> String {
    let parameters = query.split('&').map(|parameter| match secret_value_at(parameter) {
        Some(at) => [&parameter[..at], VALUE_MASK].concat(),
        None => parameter.to_owned(),
    });
    parameters.collect::<Vec<_>>().join("&")
}

/// The body without the secret that its own request carried in a header. Vapi repeats the secret of
/// a server in the objects that it sends. All else stays as it came. A secret that is saved has 16
/// bytes at least, so no other word is taken for it. Looked for as a text of JSON has it.
pub(super) fn body_masked(body: Bytes, secret: &[u8]) -> Bytes {
    let is_plain = !secret.iter().any(|byte| matches!(byte, b'"' | b'\\'));
    match str::from_utf8(secret) {
        Ok(secret) if !is_plain => {
            let text = serde_json::Value::from(secret).to_string();
            replaced(body, &text.as_bytes()[1..text.len() - 1])
        }
        _ => replaced(body, secret),
    }
}

fn replaced(body: Bytes, secret: &[u8]) -> Bytes {
    let mut places = memmem::find_iter(&body, secret).peekable();
    if secret.is_empty() || places.peek().is_none() {
        return body;
    }
    let mut masked = Vec::with_capacity(body.len());
    let mut begin = 0;
    for at in places {
        masked.extend_from_slice(&body[begin..at]);
        masked.extend_from_slice(VALUE_MASK.as_bytes());
        begin = at + secret.len();
    }
    masked.extend_from_slice(&body[begin..]);
    masked.into()
}

/// The value in the place of a secret, as rules see it in bodies too.
const VALUE_MASK: &str = "[masked]";

/// Where the secret of a parameter begins. Some parsers part parameters by `;` as well.
fn secret_value_at(parameter: &str) -> Option<usize> {
    let mut begin = 0;
    for part in parameter.split(';') {
        if let Some((name, _)) = part.split_once('=')
            && ends_as_secret(name)
        {
            return Some(begin + name.len() + 1);
        }
        begin += part.len() + 1;
    }
    None
}

/// Narrower than [`is_secret_name`], because rules read queries: `country_code` is none.
fn ends_as_secret(name: &str) -> bool {
    const ENDS: [&str; 13] = [
        "secret",
        "token",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "key",
        "signature",
        "sig",
        "credential",
        "credentials",
        "auth",
        "authorization",
    ];
    let decoded = decode_form(name.as_bytes());
    let letters = decoded.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let name: String = letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    ENDS.iter().any(|end| name.ends_with(end))
}

const MASK: &str = "…";

/// Characters of tokens, numbers and addresses, also as forms encode them.
fn is_word(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(
            c,
            '+' | '-' | '_' | '.' | '@' | '%' | '/' | '(' | ')' | '~' | '!' | '#' | '$' | '*' | '|'
        )
}

fn word_masked(word: &str) -> &str {
    const DIGITS_MAX: usize = 4;
    const TOKEN_CHARS_MAX: usize = 24;
    let is_address = word.contains('@') || word.contains("%40");
    let is_number = word.chars().filter(|c| c.is_numeric()).count() > DIGITS_MAX;
    if is_address || is_number || word.chars().count() > TOKEN_CHARS_MAX {
        MASK
    } else {
        word
    }
}

fn is_secret_name(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    [
        "secret",
        "token",
        "password",
        "passwd",
        "pwd",
        "key",
        "auth",
        "credential",
        "signature",
        "bearer",
        "pin",
        "code",
    ]
    .iter()
    .any(|part| word.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_numbers_and_addresses_are_masked_and_the_shape_stays() {
        for (head, kept) in [
            (
                r#"{"message":{"type":"status-update","call":{"id":"x1"}}}"#,
                r#"{"message":{"type":"status-update","call":{"id":"x1"}}}"#,
            ),
            (
                r#"{"number":"+15552010188","n":15552010188}"#,
                r#"{"number":"…","n":…}"#,
            ),
            (r#"{"n":"+1 (555) 201-0188"}"#, r#"{"n":"+1 (555) …"}"#),
            (r#"{"email":"ann@example.com"}"#, r#"{"email":"…"}"#),
            ("From=%2B15552010188&Body=hi&Mail=a%40b.c", "From=…&Body=hi&Mail=…"),
            (
                r#"{"secret":"hunter2 and more","type":"x"}"#,
                r#"{"secret":"… … …","type":"x"}"#,
            ),
            (r#"{"apiKey":["a","b"],"x":"y"}"#, r#"{"apiKey":["…","…"],"x":"y"}"#),
            ("AuthToken=abc&To=x", "AuthToken=…&To=x"),
            ("Authorization: Bearer abc", "Authorization: … …"),
            ("sk_live_abcdefghijklmnopqrstuvwxyz", "…"),
            ("a\u{1b}[31m\r\nb", "a [31m  b"),
        ] {
            assert_eq!(masked(head.as_bytes()), kept);
        }
    }

    #[test]
    fn a_query_keeps_what_rules_read_and_no_secret() {
        for (query, kept) in [
            ("", ""),
            ("step=2&lang=de", "step=2&lang=de"),
            (
                "country_code=49&keyword=x&design=y",
                "country_code=49&keyword=x&design=y",
            ),
            ("action=0190a6e2-5b4c&x", "action=0190a6e2-5b4c&x"),
            ("a=1&token=t%26u&b=2", "a=1&token=[masked]&b=2"),
            ("api_key=k", "api_key=[masked]"),
            ("X-Vapi-Secret=s;t", "X-Vapi-Secret=[masked]"),
            ("%74oken=t", "%74oken=[masked]"),
            ("hook[auth]=a=b", "hook[auth]=[masked]"),
            ("a=1;token=t;b=2&c=3", "a=1;token=[masked]&c=3"),
            ("token", "token"),
        ] {
            assert_eq!(query_masked(query), kept);
        }
    }

    #[test]
    fn a_body_loses_the_secret_of_its_request_and_nothing_else() {
        let secret = "a-secret-of-a-server";
        for (body, kept) in [
            (
                r#"{"secret":"a-secret-of-a-server","n":1}"#,
                r#"{"secret":"[masked]","n":1}"#,
            ),
            ("a-secret-of-a-server a-secret-of-a-server", "[masked] [masked]"),
            ("xa-secret-of-a-server", "x[masked]"),
            ("a-secret-of-a-serve", "a-secret-of-a-serve"),
            ("A-secret-of-a-server", "A-secret-of-a-server"),
            ("", ""),
        ] {
            assert_eq!(body_masked(Bytes::from(body), secret.as_bytes()), kept, "{body}");
        }
        // As JSON writes it.
        let secret = r#"quo"te\and-backslash"#;
        let body = serde_json::json!({ "secret": secret }).to_string();
        let kept = r#"{"secret":"[masked]"}"#;
        assert_eq!(body_masked(Bytes::from(body), secret.as_bytes()), kept);
        let no_text = b"\xff\xfe-a-secret-of-bytes";
        assert_eq!(body_masked(Bytes::from_static(no_text), no_text), "[masked]");
    }

    #[test]
    fn what_is_no_text_is_masked_as_text() {
        assert_eq!(masked(b"\xff\xfe+15552010188"), "\u{fffd}\u{fffd}…");
    }
}
