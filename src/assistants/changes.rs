//! What the audit tells of a kept assistant, and of the endpoint of its webhooks: values before and
//! after, without secrets.

use super::Wanted;
use crate::{
    domain::{Endpoint, Source},
    provider::vapi::assistants::Fields,
    rule,
    store::audit::{Changes, SecretChange},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The configuration, field by field. Of a field in which only a secret differs there is its fate.
pub(super) fn of_config(before: Option<&Wanted>, after: Option<&Wanted>) -> Changes {
    let fields = |wanted: Option<&Wanted>| wanted.map(|wanted| wanted.config.clone()).unwrap_or_default();
    let (before, after) = (fields(before), fields(after));
    let (seen_before, seen_after) = (masked(&before), masked(&after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().fold(Changes::default(), |changes, name| {
        let field = format!("assistant.{name}");
        let (seen_before, seen_after) = (seen_before.get(name), seen_after.get(name));
        if before.get(name) != after.get(name) && seen_before == seen_after {
            let fate = SecretChange::between(before.contains_key(name), after.contains_key(name));
            return changes.secret(field, fate);
        }
        changes.value(field, seen_before, seen_after)
    })
}

/// With the mask of the same objects in Vapi's payloads: tools and models hold secrets.
fn masked(config: &Fields) -> Value {
    let text = serde_json::to_vec(config).expect("JSON");
    rule::shown_body(Source::Vapi, "application/json", &text)
}

pub(super) fn of_endpoint(before: Option<&Endpoint>, after: Option<&Endpoint>) -> Changes {
    let source = |endpoint: Option<&Endpoint>| endpoint.map(|endpoint| endpoint.source);
    let name = |endpoint: Option<&Endpoint>| endpoint.map(|endpoint| endpoint.name.clone());
    Changes::default()
        .value("source", source(before), source(after))
        .value("name", name(before), name(after))
        .secret("secret", SecretChange::between(before.is_some(), after.is_some()))
}
