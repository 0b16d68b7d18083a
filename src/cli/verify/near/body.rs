//! Changes of the body, as a framework or a proxy makes them when it parses and writes it again.

use super::{Change, Signed, change};
use crate::source::Plan;

const CHANGED: &str = "something on the way changed it";

/// Parameters of a form that are changed one by one; a longer form is tried with its first ones
/// only.
const PARAMETERS_MAX: usize = 100;

pub(super) fn changes(request: &Signed, changes: &mut Vec<Change>) {
    let body = request.body.as_slice();
    let text = String::from_utf8_lossy(body);
    let mut with = |hint: &str, bytes: Vec<u8>| {
        if bytes != body {
            change(request, changes, hint, |request| request.body = bytes);
        }
    };
    with(
        &format!("without the white space at the body's end ({CHANGED})"),
        body.trim_ascii_end().to_vec(),
    );
    with(
        &format!("with a line feed at the body's end ({CHANGED})"),
        [body, b"\n"].concat(),
    );
    with(
        "without the byte order mark before the body",
        body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).to_vec(),
    );
    with(
        &format!("with line feeds instead of carriage returns and line feeds in the body ({CHANGED})"),
        text.replace("\r\n", "\n").into_bytes(),
    );
    with(
        &format!("with carriage returns and line feeds instead of line feeds in the body ({CHANGED})"),
        text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes(),
    );
    let is_form = matches!(request.plan, Plan::Twilio(_)) && !text.trim_start().starts_with(['{', '[']);
    if is_form {
        form(&text, &mut with);
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        json(&text, &mut with);
    }
}

fn form(text: &str, with: &mut impl FnMut(&str, Vec<u8>)) {
    let pairs: Vec<&str> = text.split('&').collect();
    for left_out in 0..pairs.len().min(PARAMETERS_MAX) {
        let mut kept = pairs.clone();
        let name = kept.remove(left_out).split('=').next().unwrap_or_default();
        with(&format!("without the parameter {name:?}"), kept.join("&").into_bytes());
    }
    for at in 0..pairs.len().min(PARAMETERS_MAX) {
        let name = pairs[at].split('=').next().unwrap_or_default();
        let mut padded: Vec<String> = pairs.iter().map(ToString::to_string).collect();
        padded[at].push('+');
        with(
            &format!("with a space at the end of the parameter {name:?} (something on the way trims it)"),
            padded.join("&").into_bytes(),
        );
    }
}

fn json(text: &str, with: &mut impl FnMut(&str, Vec<u8>)) {
    const AGAIN: &str = "(the body was parsed and written again; verify the raw bytes)";
    with(
        &format!("with the body's JSON without white space {AGAIN}"),
        respaced(text, ",", ":"),
    );
    with(
        &format!("with a space behind the commas and colons of the body's JSON {AGAIN}"),
        respaced(text, ", ", ": "),
    );
}

/// JSON with other white space outside its texts.
fn respaced(json: &str, comma: &str, colon: &str) -> Vec<u8> {
    let (mut written, mut in_text, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            written.push(c);
            continue;
        }
        match c {
            '"' => {
                in_text = true;
                written.push(c);
            }
            ',' => written.push_str(comma),
            ':' => written.push_str(colon),
            ' ' | '\n' | '\r' | '\t' => {}
            c => written.push(c),
        }
    }
    written.into_bytes()
}
