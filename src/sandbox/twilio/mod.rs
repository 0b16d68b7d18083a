//! Twilio's stand-in: messages (create, list, fetch), the account, and its numbers.
//!
//! | code | status | when | read on |
//! |---|---|---|---|
//! | 20001 | 400 | a parameter that the description does not name, or of another type (Twilio itself is more lenient) | error dictionary 20001 |
//! | 20003 | 401 | no or wrong credentials; 403: the account is not active, the key may not | error dictionary 20003; docs: iam/api-keys |
//! | 70004 | 403 | a restricted key without this permission | error dictionary 70004 |
//! | 20004 | 405 | a method that the resource has not | error dictionary 20004 |
//! | 20404 | 404 | no such resource, or of another account | error dictionary 20404 |
//! | 20429 | 429 | on request only (`POST /_faults`) | docs: errors/20429 |
//! | 21604 | 400 | no `To` | error dictionary 21604 |
//! | 21211 | 400 | `To` is no number in E.164, or the same as `From`; magic +15005550001 | docs: errors/21211, test credentials |
//! | 21603 | 400 | neither `From` nor `MessagingServiceSid` | error dictionary 21603 |
//! | 21606 | 400 | `From` is not the account's; 21701: no such messaging service | error dictionary 21606, 21701 |
//! | 21602 | 400 | neither `Body` nor `MediaUrl` nor `ContentSid` | error dictionary 21602 |
//! | 21617 | 400 | over 1,600 characters | docs: errors/21617 |
//! | 21608 | 400 | a trial account, and `To` is not verified | docs: errors/21608 |
//! | 21610 | 400 | `To` opted out; magic +15005550004 | docs: errors/21610, test credentials |
//! | 21408, 21612, 21614 | 400 | magic +15005550003, 0007, 0009: region, route, not a mobile | docs: iam/test-credentials |

mod messages;

pub use messages::SandboxMessage;
pub(super) use messages::{Accounts, CallbackJob};

use super::{AccountStatus, Call, KeyKind, Reply, SandboxState, TwilioAccount, description, form, lock};
use crate::domain::{Provider, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

const NOT_FOUND: u32 = 20404;

/// The caller and its permissions.
struct Caller {
    account: TwilioAccount,
    /// `None` for the account's own token.
    key: Option<KeyKind>,
}

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let Some(caller) = authenticated(state, call) else {
        return error(401, 20003, "Authenticate");
    };
    let rest = call
        .parts
        .uri
        .path()
        .strip_prefix("/2010-04-01/Accounts/")
        .unwrap_or_default();
    let (owner, resource) = rest.split_once('/').map_or_else(
        || (rest.strip_suffix(".json").unwrap_or(rest), ""),
        |(owner, resource)| (owner, resource),
    );
    if owner != caller.account.sid {
        return not_found(call);
    }
    let method = &call.parts.method;
    match resource {
        "" if caller.key == Some(KeyKind::Standard) => {
            error(403, 20003, "Permission Denied: this key may not read accounts")
        }
        // Only a closed account's own resource can still be read; everything else is refused.
        "" if method == Method::GET => {
            forbidden_to(&caller).unwrap_or_else(|| Reply::json(200, &account_json(&caller.account)))
        }
        _ if caller.account.status != AccountStatus::Active => error(403, 20003, "Account is not active"),
        "Messages.json" if method == Method::POST => messages::create(state, call, &caller.account),
        "Messages.json" if method == Method::GET => {
            forbidden_to(&caller).unwrap_or_else(|| messages::list(state, call, &caller.account))
        }
        "IncomingPhoneNumbers.json" if method == Method::GET => {
            forbidden_to(&caller).unwrap_or_else(|| numbers(state, call, &caller.account))
        }
        "" | "Messages.json" | "IncomingPhoneNumbers.json" => error(405, 20004, "Method not allowed"),
        _ => match resource
            .strip_prefix("Messages/")
            .and_then(|rest| rest.strip_suffix(".json"))
        {
            Some(sid) if method == Method::GET => {
                forbidden_to(&caller).unwrap_or_else(|| messages::fetch(state, call, &caller.account, sid))
            }
            _ => not_found(call),
        },
    }
}

fn forbidden_to(caller: &Caller) -> Option<Reply> {
    (caller.key == Some(KeyKind::Restricted)).then(|| error(403, 70004, "Insufficient permissions"))
}

fn not_found(call: &Call<'_>) -> Reply {
    error(
        404,
        NOT_FOUND,
        &format!("The requested resource {} was not found", call.parts.uri.path()),
    )
}

fn authenticated(state: &SandboxState, call: &Call<'_>) -> Option<Caller> {
    let decoded = STANDARD
        .decode(call.header(AUTHORIZATION).strip_prefix("Basic ")?)
        .ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let accounts = lock(&state.0.twilio);
    if let Some(account) = accounts.get(user) {
        return (account.auth_token == password).then(|| Caller {
            account: account.clone(),
            key: None,
        });
    }
    accounts.all().find_map(|account| {
        let key = account
            .api_keys
            .iter()
            .find(|key| key.sid == user && key.secret == password)?;
        Some(Caller {
            account: account.clone(),
            key: Some(key.kind),
        })
    })
}

/// Twilio's error body.
fn error(status: u16, code: u32, message: &str) -> Reply {
    Reply::json(
        status,
        &json!({
            "code": code,
            "message": message,
            "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
            "status": status,
        }),
    )
}

/// The body of an error that a fault asked for.
pub(super) fn error_body(status: u16) -> Value {
    let (code, message) = match status {
        401 | 403 => (20003, "Authenticate"),
        404 => (NOT_FOUND, "The requested resource was not found"),
        429 => (20429, "Too Many Requests"),
        503 => (20503, "Service unavailable"),
        500.. => (20500, "Internal Server Error"),
        _ => (20001, "Bad request"),
    };
    json!({
        "code": code,
        "message": message,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status,
    })
}

/// Notes the faults against the description, and answers 400 where there is one.
fn violated(state: &SandboxState, call: &Call<'_>, operation: &'static str, faults: &[String]) -> Option<Reply> {
    state.note(call, operation, faults);
    (!faults.is_empty()).then(|| {
        error(
            400,
            20001,
            &format!("Unknown or malformed parameters: {}", faults.join("; ")),
        )
    })
}

fn date(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_seconds())
        .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
        .unwrap_or_default()
}

fn account_json(account: &TwilioAccount) -> Value {
    let uri = format!("/2010-04-01/Accounts/{}", account.sid);
    json!({
        "auth_token": account.auth_token,
        "date_created": "Thu, 01 Jan 2026 00:00:00 +0000",
        "date_updated": "Thu, 01 Jan 2026 00:00:00 +0000",
        "friendly_name": account.friendly_name,
        "owner_account_sid": account.sid,
        "sid": account.sid,
        "status": account.status,
        "subresource_uris": {
            "messages": format!("{uri}/Messages.json"),
            "incoming_phone_numbers": format!("{uri}/IncomingPhoneNumbers.json"),
        },
        "type": account.kind,
        "uri": format!("{uri}.json"),
    })
}

fn numbers(state: &SandboxState, call: &Call<'_>, account: &TwilioAccount) -> Reply {
    const OPERATION: &str = "ListIncomingPhoneNumber";
    let query = call.query();
    let described = description::of(Provider::Twilio).expect("Twilio is described");
    if let Some(reply) = violated(state, call, OPERATION, &described.check_query(OPERATION, &query)) {
        return reply;
    }
    let wanted = form::get(&query, "PhoneNumber");
    let path = call.parts.uri.path();
    let rows: Vec<Value> = account
        .numbers
        .iter()
        // Twilio's filter matches parts of a number.
        .filter(|number| wanted.is_none_or(|wanted| number.contains(wanted)))
        .map(|number| number_json(account, number))
        .collect();
    let here = call.parts.uri.path_and_query().map_or(path, |uri| uri.as_str());
    Reply::json(
        200,
        &json!({
            "end": rows.len().saturating_sub(1), "first_page_uri": here, "next_page_uri": null, "page": 0,
            "page_size": 50, "previous_page_uri": null,
            "start": 0, "uri": here, "incoming_phone_numbers": rows,
        }),
    )
}

fn number_json(account: &TwilioAccount, number: &str) -> Value {
    // The number's digits make an id that is the same at every start.
    let sid = format!("PN{:0>32}", number.trim_start_matches('+'));
    let uri = format!("/2010-04-01/Accounts/{}/IncomingPhoneNumbers/{sid}", account.sid);
    json!({
        "account_sid": account.sid, "address_sid": null, "address_requirements": "none", "api_version": "2010-04-01",
        "beta": false,
        "capabilities": {"mms": true, "sms": true, "voice": true, "fax": false},
        "date_created": "Thu, 01 Jan 2026 00:00:00 \
        +0000", "date_updated": "Thu, 01 Jan 2026 00:00:00 +0000", "friendly_name": number,
        "identity_sid": null, "phone_number": number, "origin": "twilio", "sid": sid, "sms_application_sid": null,
        "sms_fallback_method": "POST",
        "sms_fallback_url": null, "sms_method": "POST", "sms_url": null, "status_callback": null,
        "status_callback_method": "POST", "trunk_sid": null,
        "uri": format!("{uri}.json"), "voice_receive_mode": "voice", "voice_application_sid": null,
        "voice_caller_id_lookup": false,
        "voice_fallback_method": "POST", "voice_fallback_url": null, "voice_method": "POST", "voice_url": null,
        "emergency_status": "Inactive",
        "emergency_address_sid": null, "emergency_address_status": "unregistered", "bundle_sid": null,
        "status": "in-use",
    })
}
