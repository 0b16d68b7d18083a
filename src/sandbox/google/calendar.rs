//! The calendar: free and busy times, and events with ids that the client may choose.

use super::{Google, KEPT_MAX, Token, error};
use crate::{
    domain::Provider,
    sandbox::{Call, Reply, SandboxState, description, lock},
};
use http::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

/// One call with a valid token.
struct Request<'a> {
    state: &'a SandboxState,
    call: &'a Call<'a>,
    token: Token,
    body: Value,
}

/// `/calendar/v3/…`.
pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let now = state.now();
    let mut google = lock(&state.0.google);
    let shown = call.header(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let Some(token) = google.tokens.get(shown).cloned().filter(|token| token.expires_at > now) else {
        return error(401, "authError", "Invalid Credentials");
    };
    let request = Request {
        state,
        call,
        token,
        body: serde_json::from_slice(call.body).unwrap_or(Value::Null),
    };
    let path = call.parts.uri.path().strip_prefix("/calendar/v3").unwrap_or_default();
    if path == "/freeBusy" && call.parts.method == Method::POST {
        return request.free_busy();
    }
    let mut parts = path.strip_prefix("/calendars/").unwrap_or_default().split('/');
    let (Some(calendar), Some("events"), id, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return error(404, "notFound", "Not Found");
    };
    if !request.has_scope(&["/calendar.events.owned", "/calendar.events", "/calendar"]) {
        return forbidden();
    }
    let calendar = calendar.replace("%40", "@");
    if !request.can_reach(&google, &calendar) {
        return error(404, "notFound", "Not Found");
    }
    match (&call.parts.method, id) {
        (&Method::POST, None) => request.insert(&mut google, &calendar),
        (&Method::GET, None) => request.list(&google, &calendar),
        (&Method::GET, Some(id)) => request.get(&google, &calendar, id),
        (&Method::DELETE, Some(id)) => request.delete(&mut google, &calendar, id),
        _ => error(405, "httpMethodNotAllowed", "Method not allowed"),
    }
}

fn forbidden() -> Reply {
    error(
        403,
        "insufficientPermissions",
        "Request had insufficient authentication scopes.",
    )
}

impl Request<'_> {
    fn has_scope(&self, suffixes: &[&str]) -> bool {
        let mut scopes = self.token.scope.split(' ');
        scopes.any(|scope| suffixes.iter().any(|suffix| scope.ends_with(suffix)))
    }

    fn can_reach(&self, google: &Google, calendar: &str) -> bool {
        calendar == "primary"
            || google.accounts.iter().any(|account| {
                account.id == self.token.account && account.calendars.iter().any(|known| known == calendar)
            })
    }

    fn key(&self, calendar: &str, id: &str) -> (String, String, String) {
        (self.token.account.clone(), calendar.to_owned(), id.to_owned())
    }

    /// Compares the call with Google's own description; a refusal when they differ.
    fn violation(&self, operation: &'static str, body: &Value) -> Option<Reply> {
        let described = description::of(Provider::GoogleCalendar).expect("Google Calendar is described");
        let mut faults = described.check_query(operation, &self.call.query());
        if !body.is_null() {
            faults.extend(described.check_body(operation, body));
        }
        self.state.note(self.call, operation, &faults);
        (!faults.is_empty()).then(|| error(400, "invalid", &faults.join("; ")))
    }

    fn free_busy(&self) -> Reply {
        if !self.has_scope(&["/calendar.freebusy", "/calendar", "/calendar.readonly"]) {
            return forbidden();
        }
        if let Some(refused) = self.violation("calendar.freebusy.query", &self.body) {
            return refused;
        }
        let items = self.body["items"].as_array().into_iter().flatten();
        let calendars: serde_json::Map<String, Value> = items
            .filter_map(|item| item["id"].as_str())
            .map(|id| (id.to_owned(), busy_times(id)))
            .collect();
        Reply::json(
            200,
            &json!({
                "kind": "calendar#freeBusy",
                "timeMin": self.body["timeMin"],
                "timeMax": self.body["timeMax"],
                "calendars": calendars,
            }),
        )
    }

    fn insert(&self, google: &mut Google, calendar: &str) -> Reply {
        if let Some(refused) = self.violation("calendar.events.insert", &self.body) {
            return refused;
        }
        let id = self.body["id"]
            .as_str()
            .map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned);
        if !is_event_id(&id) {
            return error(400, "invalid", "Invalid resource id value.");
        }
        let has_time = |name: &str| !self.body[name]["dateTime"].is_null() || !self.body[name]["date"].is_null();
        if !has_time("start") || !has_time("end") {
            return error(400, "required", "Missing end time.");
        }
        let key = self.key(calendar, &id);
        if google.events.contains_key(&key) {
            return error(409, "duplicate", "The requested identifier already exists.");
        }
        let mut event = self.body.clone();
        event["id"] = id.into();
        event["kind"] = "calendar#event".into();
        event["status"] = "confirmed".into();
        if google.events.len() < KEPT_MAX {
            google.events.insert(key, event.clone());
        }
        Reply::json(200, &event)
    }

    fn get(&self, google: &Google, calendar: &str, id: &str) -> Reply {
        if let Some(refused) = self.violation("calendar.events.get", &Value::Null) {
            return refused;
        }
        google
            .events
            .get(&self.key(calendar, id))
            .map_or_else(|| error(404, "notFound", "Not Found"), |event| Reply::json(200, event))
    }

    fn delete(&self, google: &mut Google, calendar: &str, id: &str) -> Reply {
        match google.events.get_mut(&self.key(calendar, id)) {
            None => error(404, "notFound", "Not Found"),
            Some(event) if event["status"] == "cancelled" => error(410, "deleted", "Resource has been deleted"),
            Some(event) => {
                event["status"] = "cancelled".into();
                Reply::json(204, &Value::Null)
            }
        }
    }

    fn list(&self, google: &Google, calendar: &str) -> Reply {
        if let Some(refused) = self.violation("calendar.events.list", &Value::Null) {
            return refused;
        }
        let items: Vec<&Value> = google
            .events
            .iter()
            .filter(|((account, in_calendar, _), _)| *account == self.token.account && in_calendar == calendar)
            .map(|(_, event)| event)
            .collect();
        Reply::json(
            200,
            &json!({"kind": "calendar#events", "summary": "Sandbox", "timeZone": "UTC", "items": items}),
        )
    }
}

/// A calendar that cannot be read is no error of the call: a 200 without busy times.
fn busy_times(calendar: &str) -> Value {
    if calendar == "primary" {
        json!({"busy": []})
    } else {
        json!({"errors": [{"domain": "global", "reason": "notFound"}], "busy": []})
    }
}

/// 5 to 1024 characters of base32hex.
fn is_event_id(id: &str) -> bool {
    (5..=1024).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte))
}
