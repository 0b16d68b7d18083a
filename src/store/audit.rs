//! The audit log: the actor, the address, and the changed fields before and after.
//!
//! **Invariant:** a change and its entry are one transaction. Every mutation of the other concerns
//! takes its entry as an argument. It refuses an entry that names another organisation, and writes
//! none where it changed nothing. Of a secret field an entry tells what happened, never a value.

use super::StoreError;
use crate::domain::{OrgId, Period, Timestamp};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub org: OrgId,
    pub at: Timestamp,
    /// The token's subject, or `operator:` and the operator's.
    pub actor: String,
    /// The address that the request came from; `None` where no request did it.
    pub address: Option<IpAddr>,
    /// `connect`, `erase`, `create`, `update`, `delete`, `rotate`, `prove`, `release`, `retry`,
    /// `cancel`, `replay`, `promote`, `pause`, `resume`, `recover`.
    pub verb: &'static str,
    /// `credential`, `endpoint`, `secret`, `assistant`, `phone_number`, `rule`, `action`, `event`,
    /// `organisation`, `key`, `provider`, `installation`.
    pub target_kind: &'static str,
    pub target_id: String,
    pub changes: Changes,
}

/// The fate of a secret field. Its value stands in no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretChange {
    Set,
    Changed,
    Cleared,
}

impl SecretChange {
    /// `None` where neither side has it.
    #[must_use]
    pub const fn between(was_set: bool, is_set: bool) -> Option<Self> {
        match (was_set, is_set) {
            (false, true) => Some(Self::Set),
            (true, true) => Some(Self::Changed),
            (true, false) => Some(Self::Cleared),
            (false, false) => None,
        }
    }
}

/// A field before and after a change; `null` where it was not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// Of a secret field, which has no values here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretChange>,
}

/// Longer values are cut, so that a rule's long text does not fill the log.
const VALUE_BYTES_MAX: usize = 1_000;

/// The fields that a change touched, with their values where they are known and no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    fields: Vec<String>,
    values: Vec<FieldChange>,
}

impl Changes {
    /// Adds a field that is no secret, unless its value is the same as before.
    #[must_use]
    pub fn value(mut self, field: impl Into<String>, before: impl Serialize, after: impl Serialize) -> Self {
        let (field, before, after) = (field.into(), shown(before), shown(after));
        if before != after {
            self.name(&field);
            self.values.push(FieldChange {
                field,
                before: cut(before),
                after: cut(after),
                secret: None,
            });
        }
        self
    }

    /// Adds a secret field; `None` adds nothing.
    #[must_use]
    pub fn secret(mut self, field: impl Into<String>, what: Option<SecretChange>) -> Self {
        let field = field.into();
        if what.is_some() {
            self.name(&field);
            self.values.push(FieldChange {
                field,
                before: Value::Null,
                after: Value::Null,
                secret: what,
            });
        }
        self
    }

    /// Adds fields by name alone.
    #[must_use]
    pub fn named(mut self, fields: &[&str]) -> Self {
        for field in fields {
            self.name(field);
        }
        self
    }

    /// Adds the fields of `other` that have values, or are secrets.
    #[must_use]
    pub fn and_values(mut self, other: &Self) -> Self {
        for change in &other.values {
            self.name(&change.field);
            self.values.push(change.clone());
        }
        self
    }

    fn name(&mut self, field: &str) {
        if !self.fields.iter().any(|known| known == field) {
            self.fields.push(field.to_owned());
        }
    }

    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    #[must_use]
    pub fn values(&self) -> &[FieldChange] {
        &self.values
    }
}

impl<const N: usize> From<&[&str; N]> for Changes {
    fn from(fields: &[&str; N]) -> Self {
        Self::default().named(fields)
    }
}

fn shown(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn cut(value: Value) -> Value {
    let text = match &value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    Value::String(format!("{}…", &text[..end]))
}

/// The actor of a change that another organisation's proof caused. Its people are not named here.
pub const ACTOR_SYSTEM: &str = "hookswitch";

/// An entry as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAuditEntry {
    /// UUIDv7; the cursor.
    pub id: Uuid,
    pub at: Timestamp,
    pub actor: String,
    /// `None` in entries of earlier releases too.
    pub address: Option<String>,
    pub verb: String,
    pub target_kind: String,
    pub target_id: String,
    pub fields: Vec<String>,
    /// Empty in entries of earlier releases.
    pub changes: Vec<FieldChange>,
}

#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    /// The entries of one integration: its credential, and the signing secrets that came with it.
    pub integration: Option<String>,
    pub verb: Option<String>,
    pub period: Period,
}

#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Writes the entry of an act that changes no configuration: retry, cancel, replay.
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError>;
    /// Newest first, before `before`.
    async fn list_audit(
        &self,
        org: OrgId,
        filter: AuditFilter,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<StoredAuditEntry>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_has_what_differs_and_of_secrets_only_their_fate() {
        let changes = Changes::default()
            .value("name", "a", "b")
            .value("role", "inbound", "inbound")
            .value("from", None::<&str>, Some("c"))
            .secret("api_key", SecretChange::between(true, true))
            .secret("webhook_secret", SecretChange::between(false, false))
            .named(&["name", "account"]);
        assert_eq!(changes.fields(), ["name", "from", "api_key", "account"]);
        assert_eq!(
            serde_json::to_value(changes.values()).expect("JSON"),
            json!([
                { "field": "name", "before": "a", "after": "b" },
                { "field": "from", "after": "c" },
                { "field": "api_key", "secret": "changed" },
            ])
        );
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let changes = Changes::default().value("body", &long, json!({ "text": long }));
        for value in [&changes.values()[0].before, &changes.values()[0].after] {
            let text = value.as_str().expect("a text");
            assert!(text.len() <= VALUE_BYTES_MAX + '…'.len_utf8() && text.ends_with('…'));
        }
    }
}
