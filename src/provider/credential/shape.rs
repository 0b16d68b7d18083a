//! The shapes of single texts in credentials and in requests.

/// `prefix` and 32 hexadecimal digits (the pattern of Twilio's API description).
#[must_use]
pub fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// E.164 as we send it: `+`, then 8 to 15 digits that do not begin with 0. No spaces, no channel
/// prefix.
#[must_use]
pub fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `mail@example.com`, or `Name <mail@example.com>`: one mailbox, without anything that could begin
/// another header or another address.
#[must_use]
pub fn is_mailbox(text: &str) -> bool {
    let is_address = |address: &str| {
        let Some((local, domain)) = address.split_once('@') else {
            return false;
        };
        let is_plain = |c: char| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(c, '<' | '>' | '@' | '"' | ',' | ';' | ':' | '(' | ')' | '\\')
        };
        let is_label = |label: &str| {
            !label.is_empty() && !label.starts_with('-') && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        (1..=64).contains(&local.len())
            && local.chars().all(is_plain)
            && domain.len() <= 255
            && domain.contains('.')
            && domain.split('.').all(is_label)
    };
    if text.len() > 512 || text.chars().any(char::is_control) {
        return false;
    }
    match text.split_once('<') {
        Some((name, rest)) => !name.contains(['@', ',', ';', '>']) && rest.strip_suffix('>').is_some_and(is_address),
        None => is_address(text),
    }
}
