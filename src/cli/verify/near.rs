//! Near misses: what single change would make a request verify.

use super::case::Signed;
use crate::{
    domain::{SecretBytes, Timestamp},
    source::{
        BearerPlan, BearerPlanText, Encoding, HmacAlgorithm, HmacPlan, HmacPlanText, Plan, Refusal, TwilioPlan,
        VapiPlan,
    },
};
use base64::{Engine, engine::general_purpose as base64s};
use http::{HeaderName, HeaderValue};

/// A change, and what it would verify with.
type Change = (String, Signed);

/// The first single change with which the request verifies. What people get wrong most often is
/// tried first.
pub(super) fn hint(request: &Signed, refusal: Refusal) -> Option<String> {
    if let Some(hint) = about_time(request, refusal) {
        return Some(hint);
    }
    let groups: [fn(&Signed, &mut Vec<Change>); 6] = [urls, secrets, timestamps, plans, signatures, bodies];
    groups.iter().find_map(|group| {
        let mut changes = Vec::new();
        group(request, &mut changes);
        changes
            .into_iter()
            .find(|(_, changed)| changed.verdict().is_ok())
            .map(|(hint, _)| format!("it would verify {hint}"))
    })
}

fn change(request: &Signed, changes: &mut Vec<Change>, hint: impl Into<String>, with: impl FnOnce(&mut Signed)) {
    let mut changed = request.clone();
    with(&mut changed);
    changes.push((hint.into(), changed));
}

/// A timestamp is judged after the signature matched, so these are authentic.
fn about_time(request: &Signed, refusal: Refusal) -> Option<String> {
    if !matches!(refusal, Refusal::TooOld | Refusal::TooFarAhead) {
        return None;
    }
    let plan = hmac_plan(request)?;
    let header: i64 = request
        .header(plan.timestamp_header.as_deref().unwrap_or("x-timestamp"))?
        .parse()
        .ok()?;
    let signed = if header < 100_000_000_000 {
        header
    } else {
        header / 1000
    };
    let (window, off) = (
        plan.replay_window_seconds.unwrap_or(300),
        request.now.as_seconds() - signed,
    );
    let mut at = request.clone();
    at.now = Timestamp::from_seconds(signed);
    at.verdict().ok()?;
    let side = if off > 0 { "before" } else { "after" };
    Some(format!(
        "the signature is right; it was made {} s {side} `now`, and the plan's window is {window} s: look at both \
        clocks, or raise replayWindowSeconds",
        off.abs()
    ))
}

fn hmac_plan(request: &Signed) -> Option<&HmacPlanText> {
    match &request.plan {
        Plan::Vapi(VapiPlan::Hmac(plan)) => Some(plan.text()),
        _ => None,
    }
}

fn urls(request: &Signed, changes: &mut Vec<Change>) {
    let signs_url = match &request.plan {
        Plan::Twilio(_) => true,
        Plan::Vapi(_) => hmac_plan(request)
            .and_then(|plan| plan.payload_format.as_deref())
            .is_some_and(|format| format.contains("{url}")),
    };
    if !signs_url {
        return;
    }
    let url = request.url.as_str();
    let mut with = |hint: &str, url: String| change(request, changes, hint, |request| request.url = url);
    const PROXY: &str = "behind a proxy, set HOOKSWITCH_PUBLIC_URL to the URL that the sender calls";
    if let Some(rest) = url.strip_prefix("http://") {
        with(
            &format!("with https as the URL's scheme ({PROXY})"),
            format!("https://{rest}"),
        );
    }
    if let Some(rest) = url.strip_prefix("https://") {
        with(
            &format!("with http as the URL's scheme ({PROXY})"),
            format!("http://{rest}"),
        );
    }
    let Some(host_at) = url.find("://").map(|at| at + 3) else {
        return;
    };
    let path_at = url[host_at..].find(['/', '?']).map_or(url.len(), |at| host_at + at);
    let (scheme, authority, rest) = (&url[..host_at], &url[host_at..path_at], &url[path_at..]);
    let (path, query) = rest
        .split_once('?')
        .map_or((rest, None), |(path, query)| (path, Some(query)));
    let question = |path: &str| query.map_or(path.to_owned(), |query| format!("{path}?{query}"));
    if let Some((host, port)) = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        with(
            &format!("without the port :{port} in the URL"),
            format!("{scheme}{host}{rest}"),
        );
    }
    for port in ["443", "80", "8080", "8443"] {
        if !authority.ends_with(&format!(":{port}")) {
            let host = authority.split(':').next().unwrap_or_default();
            with(
                &format!("with the port :{port} in the URL"),
                format!("{scheme}{host}:{port}{rest}"),
            );
        }
    }
    for header in ["x-forwarded-host", "x-original-host", "host"] {
        if let Some(host) = request.header(header).filter(|host| *host != authority) {
            with(
                &format!("with the host of the header {header} in the URL ({PROXY})"),
                format!("{scheme}{host}{rest}"),
            );
        }
    }
    if let Some(shorter) = path.strip_suffix('/') {
        with(
            "without the trailing slash of the URL's path",
            format!("{scheme}{authority}{}", question(shorter)),
        );
    } else {
        with(
            "with a trailing slash at the URL's path",
            format!("{scheme}{authority}{}", question(&format!("{path}/"))),
        );
    }
    with(
        "with the URL's path in lower case",
        format!("{scheme}{authority}{}", question(&path.to_lowercase())),
    );
    with(
        "with the URL's host in lower case",
        format!("{scheme}{}{rest}", authority.to_lowercase()),
    );
    with("with ' instead of %27 in the URL", url.replace("%27", "'"));
    with("with %27 instead of ' in the URL", url.replace('\'', "%27"));
    if let Some(query) = query {
        with("without the URL's query", format!("{scheme}{authority}{path}"));
        let pairs: Vec<&str> = query.split('&').collect();
        for order in orders(&pairs) {
            with(
                "with the URL's query in another order (something on the way sorts it)",
                format!("{scheme}{authority}{path}?{}", order.join("&")),
            );
        }
        for left_out in 0..pairs.len().min(20) {
            let kept: Vec<&str> = pairs
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out)
                .map(|(_, pair)| *pair)
                .collect();
            let name = pairs[left_out].split('=').next().unwrap_or_default();
            with(
                &format!("without the query parameter {name:?}"),
                format!("{scheme}{authority}{path}?{}", kept.join("&")),
            );
        }
    }
}

/// All orders of a few.
fn orders<'q>(pairs: &[&'q str]) -> Vec<Vec<&'q str>> {
    if pairs.len() < 2 {
        return vec![pairs.to_vec()];
    }
    if pairs.len() > 5 {
        return vec![pairs.iter().rev().copied().collect()];
    }
    (0..pairs.len())
        .flat_map(|at| {
            let mut rest = pairs.to_vec();
            let first = rest.remove(at);
            orders(&rest).into_iter().map(move |mut order| {
                order.insert(0, first);
                order
            })
        })
        .collect()
}

fn secrets(request: &Signed, changes: &mut Vec<Change>) {
    let secret = request.secret.expose_secret();
    let mut with = |hint: &str, bytes: Vec<u8>| {
        if bytes != secret && !bytes.is_empty() {
            change(request, changes, hint, |request| {
                request.secret = SecretBytes::new(bytes);
            });
        }
    };
    with(
        "with the secret trimmed of its surrounding white space",
        secret.trim_ascii().to_vec(),
    );
    with(
        "with the secret untrimmed: signed with a line feed at its end",
        [secret, b"\n"].concat(),
    );
    with(
        "with the secret untrimmed: signed with a carriage return and line feed at its end",
        [secret, b"\r\n"].concat(),
    );
    with(
        "with the secret untrimmed: signed with a space at its end",
        [secret, b" "].concat(),
    );
    with(
        "with the secret untrimmed: signed with a space at its front",
        [b" ", secret].concat(),
    );
    if let Some(inner) = secret.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        with("with the secret without its quotation marks", inner.to_vec());
    }
    if let Ok(decoded) = base64s::STANDARD.decode(secret) {
        with("with the secret decoded from base64 (secretIsBase64)", decoded);
    }
    if let Ok(decoded) = hex::decode(secret) {
        with("with the secret decoded from hex", decoded);
    }
    if let Some(decoded) = secret
        .strip_prefix(b"whsec_")
        .and_then(|rest| base64s::STANDARD.decode(rest).ok())
    {
        with(
            "with the part of the secret behind whsec_, decoded from base64",
            decoded,
        );
    }
    with("with the secret in lower case", secret.to_ascii_lowercase());
    with("with the secret in upper case", secret.to_ascii_uppercase());
}

fn timestamps(request: &Signed, changes: &mut Vec<Change>) {
    let Some(plan) = hmac_plan(request) else { return };
    let name = plan.timestamp_header.as_deref().unwrap_or("x-timestamp").to_lowercase();
    let Some(text) = request.header(&name) else { return };
    let mut with = |hint: &str, text: String| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&name), HeaderValue::from_str(&text)) {
            change(request, changes, hint, |request| {
                drop(request.headers.insert(name, value));
            });
        }
    };
    with("with the timestamp as milliseconds", format!("{text}000"));
    if text.len() > 3 && text.is_ascii() {
        with("with the timestamp as seconds", text[..text.len() - 3].to_owned());
    }
    if let Some((whole, _)) = text.split_once('.') {
        with("with the timestamp as whole seconds", whole.to_owned());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        with(
            "with the timestamp as seconds, not as a date",
            time.as_second().to_string(),
        );
        with(
            "with the timestamp as milliseconds, not as a date",
            time.as_millisecond().to_string(),
        );
    }
}

fn plans(request: &Signed, changes: &mut Vec<Change>) {
    match &request.plan {
        Plan::Vapi(VapiPlan::Hmac(plan)) => {
            hmac_plans(request, plan.text(), changes);
            bearer_plans(request, changes);
        }
        Plan::Vapi(VapiPlan::Bearer(_)) => {
            bearer_plans(request, changes);
            change(request, changes, "with Vapi's default HMAC plan", |request| {
                request.plan = Plan::Vapi(VapiPlan::default());
            });
        }
        Plan::Twilio(plan) => twilio_plans(request, plan, changes),
    }
}

fn hmac_plans(request: &Signed, text: &HmacPlanText, changes: &mut Vec<Change>) {
    let mut with = |hint: String, edit: &dyn Fn(&mut HmacPlanText)| {
        let mut text = text.clone();
        edit(&mut text);
        // A change that makes no plan is no near miss.
        if let Ok(plan) = HmacPlan::try_from(text) {
            change(request, changes, hint, |request| {
                request.plan = Plan::Vapi(VapiPlan::Hmac(plan));
            });
        }
    };
    if text.signature_prefix.is_some() {
        with(
            "without signaturePrefix in the plan: the signature comes without it".to_owned(),
            &|plan| plan.signature_prefix = None,
        );
    }
    for prefix in ["sha256=", "sha1=", "sha512=", "v1=", "v1,", "Bearer "] {
        with(format!("with signaturePrefix {prefix:?} in the plan"), &|plan| {
            plan.signature_prefix = Some(prefix.to_owned());
        });
    }
    for (encoding, name) in [(Encoding::Hex, "hex"), (Encoding::Base64, "base64")] {
        with(format!("with signatureEncoding {name:?} in the plan"), &|plan| {
            plan.signature_encoding = Some(encoding);
        });
    }
    for (algorithm, name) in [
        (HmacAlgorithm::Sha1, "sha1"),
        (HmacAlgorithm::Sha256, "sha256"),
        (HmacAlgorithm::Sha512, "sha512"),
    ] {
        with(format!("with algorithm {name:?} in the plan"), &|plan| {
            plan.algorithm = algorithm;
        });
    }
    for base64 in [true, false] {
        with(format!("with secretIsBase64 {base64} in the plan"), &|plan| {
            plan.secret_is_base64 = Some(base64);
        });
    }
    for format in [
        "{body}",
        "{timestamp}.{body}",
        "{timestamp}{body}",
        "{timestamp}:{body}",
        "{body}.{timestamp}",
        "{body}{timestamp}",
    ] {
        with(format!("with payloadFormat {format:?} in the plan"), &|plan| {
            plan.payload_format = Some(format.to_owned());
            plan.include_timestamp = Some(format.contains("{timestamp}"));
            if !format.contains("{timestamp}") {
                plan.replay_window_seconds = None;
            }
        });
    }
    for name in request.headers.keys() {
        with(
            format!("with signatureHeader {:?} in the plan", name.as_str()),
            &|plan| plan.signature_header = Some(name.to_string()),
        );
        with(
            format!("with timestampHeader {:?} in the plan", name.as_str()),
            &|plan| plan.timestamp_header = Some(name.to_string()),
        );
        if text.message_id_header.is_some() {
            with(
                format!("with messageIdHeader {:?} in the plan", name.as_str()),
                &|plan| plan.message_id_header = Some(name.to_string()),
            );
        }
    }
}

fn bearer_plans(request: &Signed, changes: &mut Vec<Change>) {
    for name in request.headers.keys() {
        for prefix in [false, true] {
            let text = BearerPlanText {
                header_name: Some(name.to_string()),
                bearer_prefix_enabled: Some(prefix),
            };
            if let Ok(plan) = BearerPlan::try_from(text) {
                let hint = format!(
                    "with a bearer plan of headerName {:?} and bearerPrefixEnabled {prefix}",
                    name.as_str()
                );
                change(request, changes, hint, |request| {
                    request.plan = Plan::Vapi(VapiPlan::Bearer(plan));
                });
            }
        }
    }
}

const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");

fn twilio_plans(request: &Signed, plan: &TwilioPlan, changes: &mut Vec<Change>) {
    if matches!(plan, TwilioPlan::SharedKey { .. }) {
        change(request, changes, "with the plan auth_token", |request| {
            request.plan = Plan::Twilio(TwilioPlan::AuthToken);
        });
    }
    let key = match plan {
        TwilioPlan::SharedKey { key } => format!("key={key},"),
        TwilioPlan::AuthToken => String::new(),
    };
    for algorithm in ["HMAC_SHA256", "HMAC_SHA1"] {
        if let Ok(value) = HeaderValue::from_str(&format!("{key}algorithm={algorithm}")) {
            let hint = format!("with algorithm={algorithm} in the header X-Twilio-Webhooks-Signature-Settings");
            change(request, changes, hint, |request| {
                drop(request.headers.insert(SETTINGS, value));
            });
        }
    }
    for (kind, value) in [
        ("a form", "application/x-www-form-urlencoded"),
        ("JSON", "application/json"),
    ] {
        let hint = format!("with the content type of {kind}: {value}");
        change(request, changes, hint, |request| {
            drop(
                request
                    .headers
                    .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(value)),
            );
        });
    }
    for method in ["GET", "POST"] {
        change(request, changes, format!("with the method {method}"), |request| {
            method.clone_into(&mut request.method);
        });
    }
}

fn signatures(request: &Signed, changes: &mut Vec<Change>) {
    let (name, prefix) = match &request.plan {
        Plan::Twilio(_) => ("x-twilio-signature".to_owned(), ""),
        Plan::Vapi(VapiPlan::Hmac(plan)) => {
            let text = plan.text();
            (
                text.signature_header.as_deref().unwrap_or("x-signature").to_lowercase(),
                text.signature_prefix.as_deref().unwrap_or_default(),
            )
        }
        Plan::Vapi(VapiPlan::Bearer(_)) => return,
    };
    let Ok(name) = HeaderName::try_from(name) else { return };
    let values: Vec<String> = request
        .headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let mut with = |hint: &str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{text}")) {
            change(request, changes, hint, |request| {
                drop(request.headers.insert(&name, value));
            });
        }
    };
    if values.len() > 1 {
        for value in &values {
            with(
                "with one signature: the header occurs more than once",
                value.strip_prefix(prefix).unwrap_or(value),
            );
        }
    }
    let Some(text) = values
        .first()
        .map(|value| value.strip_prefix(prefix).unwrap_or(value).trim())
    else {
        return;
    };
    with("with the signature in lower case", &text.to_lowercase());
    with("with the signature without surrounding white space", text);
    for (spelling, prefixed) in [("sha256=", "sha256="), ("sha1=", "sha1="), ("v1,", "v1,"), ("0x", "0x")] {
        if let Some(bare) = text.strip_prefix(prefixed) {
            with(&format!("with the signature without {spelling:?} before it"), bare);
        }
    }
    if let Ok(bytes) = hex::decode(text) {
        with(
            "with the signature in base64, not in hex",
            &base64s::STANDARD.encode(bytes),
        );
    }
    if let Ok(bytes) = base64s::STANDARD.decode(text) {
        with("with the signature in hex, not in base64", &hex::encode(bytes));
    }
    if let Ok(bytes) = base64s::STANDARD_NO_PAD.decode(text) {
        with(
            "with the padding (=) of the signature's base64",
            &base64s::STANDARD.encode(bytes),
        );
    }
    if let Ok(bytes) = base64s::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')) {
        with(
            "with the standard alphabet of base64 in the signature, not the one for URLs",
            &base64s::STANDARD.encode(bytes),
        );
    }
}

fn bodies(request: &Signed, changes: &mut Vec<Change>) {
    let body = request.body.as_slice();
    let mut with = |hint: &str, bytes: Vec<u8>| {
        if bytes != body {
            change(request, changes, hint, |request| request.body = bytes);
        }
    };
    const CHANGED: &str = "something on the way changed it";
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
    let text = String::from_utf8_lossy(body);
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
        let pairs: Vec<&str> = text.split('&').collect();
        for left_out in 0..pairs.len().min(100) {
            let kept: Vec<&str> = pairs
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != left_out)
                .map(|(_, pair)| *pair)
                .collect();
            let name = pairs[left_out].split('=').next().unwrap_or_default();
            with(&format!("without the parameter {name:?}"), kept.join("&").into_bytes());
        }
        for at in 0..pairs.len().min(100) {
            let mut padded: Vec<String> = pairs.iter().map(ToString::to_string).collect();
            padded[at].push('+');
            let name = pairs[at].split('=').next().unwrap_or_default();
            with(
                &format!("with a space at the end of the parameter {name:?} (something on the way trims it)"),
                padded.join("&").into_bytes(),
            );
        }
        return;
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        const AGAIN: &str = "(the body was parsed and written again; verify the raw bytes)";
        with(
            &format!("with the body's JSON without white space {AGAIN}"),
            respaced(&text, ",", ":"),
        );
        with(
            &format!("with a space behind the commas and colons of the body's JSON {AGAIN}"),
            respaced(&text, ", ", ": "),
        );
    }
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
