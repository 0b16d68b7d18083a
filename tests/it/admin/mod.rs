//! The admin API through real HTTP, on the real store and the real vault.

pub(crate) mod audit;
mod bulk;
mod cache;
mod catalog;
mod cors;
pub(crate) mod dead_events;
mod documents;
mod endpoints;
mod every_route;
mod exchange;
mod integrations;
pub(crate) mod isolation;
mod lists;
mod newer_release;
pub(crate) mod openapi;
mod pages;
mod preconditions;
mod problems;
pub(crate) mod proof;
mod public_keys;
pub(crate) mod quarantine;
mod rules;
mod session;
mod settings;
mod statistics;
pub(crate) mod stream;
mod tokens;

pub(crate) use crate::support::app::{
    START, TestApp,
    admin::{Answer, OPERATOR_SECRET, SECRET},
};

use serde_json::{Value, json};

/// A rule that can be saved.
pub(crate) fn rule(name: &str) -> Value {
    json!({
        "name": name, "source": "vapi", "event_type": "end-of-call-report", "when": "message.endedReason != \
        'customer-busy'",
        "action": "twilio.send_sms", "parameters": { "to": "{{ message.customer.number }}", "body": "Thank you for \
        calling." },
    })
}
