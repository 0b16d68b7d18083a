//! The first bytes of a refused body, without secrets, numbers and addresses. In doubt a byte is
//! masked.

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
    fn what_is_no_text_is_masked_as_text() {
        assert_eq!(masked(b"\xff\xfe+15552010188"), "\u{fffd}\u{fffd}…");
    }
}
