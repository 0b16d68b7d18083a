//! `/api/settings`: the organisation's time zone, opening hours, quiet hours and retention.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{self, shown_name},
            etag,
            page::Params,
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{OpeningHours, OrgId, OrgSettings, QuietHours, WrongField, Zone},
    store::{StoreError, audit::Changes, settings::StoredSettings},
};
use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{HeaderMap, Uri};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The most days where the installation keeps events for ever.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/settings", get(show).patch(patch))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SettingsView {
    /// A name of the IANA database; `null`: UTC.
    time_zone: Option<String>,
    /// `null`: none are set.
    opening_hours: Option<OpeningHours>,
    /// Text messages that are planned in them wait for their end; `null`: none.
    quiet_hours: Option<QuietHours>,
    /// Days that ended events are kept; `null`: as long as the installation keeps them.
    retention_days: Option<u32>,
    /// The installation's own, which is the most that can be chosen; `null`: for ever.
    retention_days_max: Option<u32>,
    /// Stored values that this release cannot read: each has to be set anew, or cleared.
    damaged: Vec<&'static str>,
    /// 0: nothing was chosen so far.
    version: i64,
    updated_at: Option<Time>,
    etag: String,
}

impl SettingsView {
    fn new(state: &AdminState, org: OrgId, stored: StoredSettings) -> Self {
        let settings = stored.settings;
        Self {
            etag: tag(state, org, stored.version),
            time_zone: settings.time_zone.map(|zone| zone.name().to_owned()),
            opening_hours: settings.opening_hours,
            quiet_hours: settings.quiet_hours,
            retention_days: settings.retention_days,
            retention_days_max: Some(state.events_kept_days).filter(|days| *days > 0),
            damaged: stored.damaged,
            version: stored.version,
            updated_at: stored.updated_at.map(Time),
        }
    }
}

fn tag(state: &AdminState, org: OrgId, version: i64) -> String {
    etag::tag(&state.vault, org, "settings", org, version)
}

pub async fn show(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<impl IntoResponse> {
    Params::of(&uri)?.finish()?;
    let stored = state.store.find_settings(member.org).await?;
    let view = SettingsView::new(&state, member.org, stored);
    Ok(etag::tagged(view, |view| &view.etag))
}

/// Changes the fields that the body names and keeps the others; `null` clears one. `If-Match` is
/// checked where it is sent.
pub async fn patch(
    State(state): Admin,
    Manager(member): Manager,
    headers: HeaderMap,
    body::Json(fields): body::Json<Map<String, Value>>,
) -> Answer<impl IntoResponse> {
    let org = member.org;
    let before = state.store.find_settings(org).await?;
    etag::check(&headers, &tag(&state, org, before.version))?;
    let after = changed(&before, &fields, state.events_kept_days)?;
    if after == before.settings && before.damaged.is_empty() {
        let view = SettingsView::new(&state, org, before);
        return Ok(etag::tagged(view, |view| &view.etag));
    }
    let changes = differences(&before.settings, &after);
    let audit = state.audit(&member, "update", "organisation", org, changes);
    match state.store.save_settings(org, before.version, after, audit).await {
        Ok(saved) => {
            let view = SettingsView::new(&state, org, saved);
            Ok(etag::tagged(view, |view| &view.etag))
        }
        Err(StoreError::Stale { .. }) => Err(etag::stale()),
        Err(error) => Err(error.into()),
    }
}

/// The settings with the changes of a body. All that is wrong is said at once.
fn changed(before: &StoredSettings, fields: &Map<String, Value>, kept_days: u32) -> Answer<OrgSettings> {
    let mut after = before.settings.clone();
    let mut faults: Vec<WrongField> = Vec::new();
    for (name, value) in fields {
        let value = Some(value).filter(|value| !value.is_null());
        let result = match name.as_str() {
            "time_zone" => set(&mut after.time_zone, value, time_zone),
            "opening_hours" => set(&mut after.opening_hours, value, |value| {
                OpeningHours::read("opening_hours", value)
            }),
            "quiet_hours" => set(&mut after.quiet_hours, value, |value| {
                QuietHours::read("quiet_hours", value)
            }),
            "retention_days" => set(&mut after.retention_days, value, |value| {
                retention_days(value, kept_days)
            }),
            _ => Err(one(name, "is not a known field here")),
        };
        faults.extend(result.err().into_iter().flatten());
    }
    for name in before.damaged.iter().filter(|name| !fields.contains_key(**name)) {
        let problem = "the stored value cannot be read: send one, or null to clear it";
        faults.extend(one(name, problem));
    }
    if faults.is_empty() {
        return Ok(after);
    }
    let problem = Problem::new(Code::InvalidField);
    Err(faults.into_iter().fold(problem, |problem, wrong| {
        problem.and_field(shown_name(&wrong.field), wrong.problem)
    }))
}

type Read<T> = Result<T, Vec<WrongField>>;

fn set<T>(field: &mut Option<T>, value: Option<&Value>, read: impl FnOnce(&Value) -> Read<T>) -> Read<()> {
    *field = value.map(read).transpose()?;
    Ok(())
}

fn one(field: &str, problem: impl Into<String>) -> Vec<WrongField> {
    let (field, problem) = (field.to_owned(), problem.into());
    vec![WrongField { field, problem }]
}

fn time_zone(value: &Value) -> Read<Zone> {
    value.as_str().and_then(Zone::find).ok_or_else(|| {
        one(
            "time_zone",
            "expected a name of the IANA database such as Europe/Berlin",
        )
    })
}

fn retention_days(value: &Value, kept_days: u32) -> Read<u32> {
    let max = if kept_days == 0 { RETENTION_DAYS_MAX } else { kept_days };
    let days = value.as_u64().and_then(|days| u32::try_from(days).ok());
    days.filter(|days| (1..=max).contains(days))
        .ok_or_else(|| one("retention_days", format!("expected 1 to {max} days")))
}

/// None of the fields is a secret.
fn differences(before: &OrgSettings, after: &OrgSettings) -> Changes {
    Changes::default()
        .value("time_zone", &before.time_zone, &after.time_zone)
        .value("opening_hours", &before.opening_hours, &after.opening_hours)
        .value("quiet_hours", before.quiet_hours, after.quiet_hours)
        .value("retention_days", before.retention_days, after.retention_days)
}
