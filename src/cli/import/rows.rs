//! Reads a row of the earlier system, in either spelling of its columns.

use crate::domain::{OrgId, Provider};
use serde_json::{Map, Value};

/// A row that can be imported.
pub enum Row {
    Organisation {
        org: OrgId,
        name: String,
    },
    Credential(CredentialRow),
    Assistant {
        org: OrgId,
        assistant: String,
        role: Option<String>,
        name: Option<String>,
    },
}

pub struct CredentialRow {
    pub org: OrgId,
    pub provider: Provider,
    /// Sealed, or the plain JSON that one migration of the earlier system wrote into the column.
    pub value: Value,
    pub is_active: bool,
}

/// Letters and digits in lower case: `isActive` and `is_active` are one name.
pub fn normal(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

const ORG: &[&str] = &["orgid", "organizationid", "organisationid", "tenantid"];
const PROVIDER: &[&str] = &["provider", "providername", "service", "integration"];
const SEALED: &[&str] = &[
    "encryptedconfig",
    "encryptedcredentials",
    "encryptedcredential",
    "encryptedvalue",
    "encrypteddata",
    "credentialsencrypted",
    "encrypted",
    "credentials",
    "config",
];
const ACTIVE: &[&str] = &["isactive", "active"];
const ASSISTANT: &[&str] = &["assistantid", "vapiassistantid"];
const ROLE: &[&str] = &["assistantrole", "assistanttype", "role", "direction"];
const NAME: &[&str] = &["assistantname", "name", "orgname", "organizationname"];

/// The first of these columns that has a value.
fn find<'r>(row: &'r Map<String, Value>, names: &[&str]) -> Option<&'r Value> {
    names.iter().find_map(|wanted| {
        row.iter()
            .find(|(name, value)| normal(name) == **wanted && !value.is_null())
            .map(|(_, value)| value)
    })
}

fn text<'r>(row: &'r Map<String, Value>, names: &[&str]) -> Option<&'r str> {
    find(row, names)?
        .as_str()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn org(row: &Map<String, Value>, names: &[&str]) -> Result<OrgId, String> {
    let text = text(row, names).ok_or("it names no organisation (`org_id`)")?;
    text.parse().map_err(|_| "its organisation is no UUID".to_owned())
}

/// The provider, in any of the spellings of the earlier system.
pub fn provider(text: &str) -> Option<Provider> {
    Some(match normal(text).as_str() {
        "twilio" => Provider::Twilio,
        "vapi" => Provider::Vapi,
        "resend" => Provider::Resend,
        "elevenlabs" => Provider::ElevenLabs,
        "google" | "googlecalendar" | "gcal" | "calendar" => Provider::GoogleCalendar,
        _ => return None,
    })
}

/// # Errors
/// Why the row cannot be imported, without a value of it.
pub fn read(row: &Map<String, Value>) -> Result<Row, String> {
    if let Some(value) = find(row, SEALED) {
        let spelled = text(row, PROVIDER).ok_or("it names no provider")?;
        let is_active = match find(row, ACTIVE) {
            None | Some(Value::Bool(true)) => true,
            Some(Value::String(word)) => matches!(normal(word).as_str(), "true" | "t" | "1" | "yes"),
            Some(_) => false,
        };
        return Ok(Row::Credential(CredentialRow {
            org: org(row, ORG)?,
            provider: provider(spelled).ok_or("its provider is not known here")?,
            value: value.clone(),
            is_active,
        }));
    }
    if let Some(assistant) = text(row, ASSISTANT) {
        let role = text(row, ROLE).map(str::to_ascii_lowercase);
        return Ok(Row::Assistant {
            org: org(row, ORG)?,
            assistant: assistant.to_owned(),
            role: role.filter(|role| matches!(role.as_str(), "inbound" | "outbound")),
            name: text(row, NAME).map(str::to_owned),
        });
    }
    if let Some(name) = text(row, NAME) {
        let own_id = [ORG, &["id"]].concat();
        return Ok(Row::Organisation {
            org: org(row, &own_id)?,
            name: name.to_owned(),
        });
    }
    Err("it is no organisation, credential or mapping of the earlier system".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be0aa";

    fn kind(row: Value) -> String {
        let Value::Object(row) = row else { panic!("an object") };
        match read(&row) {
            Ok(Row::Organisation { name, .. }) => format!("organisation {name}"),
            Ok(Row::Credential(row)) => format!("{} active {}", row.provider, row.is_active),
            Ok(Row::Assistant { role, name, .. }) => format!("assistant {role:?} {name:?}"),
            Err(problem) => problem,
        }
    }

    #[test]
    fn rows_are_told_apart_by_their_columns_in_either_spelling() {
        let cases = [
            (json!({ "id": ID, "name": "A clinic" }), "organisation A clinic"),
            (
                json!({ "org_id": ID, "provider": "twilio", "encrypted_config": "x" }),
                "twilio active true",
            ),
            (
                json!({ "orgId": ID, "provider": "Google-Calendar", "encryptedCredentials": "x", "isActive": false }),
                "google_calendar active false",
            ),
            (
                json!({ "org_id": ID, "provider": "eleven_labs", "config": "x", "is_active": "f", "name": "y" }),
                "elevenlabs active false",
            ),
            (
                json!({ "orgId": ID, "vapiAssistantId": "a", "assistantRole": "Inbound", "assistant_name": "Desk" }),
                "assistant Some(\"inbound\") Some(\"Desk\")",
            ),
            (
                json!({ "org_id": ID, "assistant_id": "a", "role": "other" }),
                "assistant None None",
            ),
            (
                json!({ "org_id": "1", "assistant_id": "a" }),
                "its organisation is no UUID",
            ),
            (json!({ "assistant_id": "a" }), "it names no organisation (`org_id`)"),
            (
                json!({ "org_id": ID, "provider": "fax", "config": "x" }),
                "its provider is not known here",
            ),
            (json!({ "org_id": ID, "config": "x" }), "it names no provider"),
            (
                json!({ "org_id": ID, "config": null }),
                "it is no organisation, credential or mapping of the earlier system",
            ),
        ];
        for (row, wanted) in cases {
            assert_eq!(kind(row.clone()), wanted, "{row}");
        }
    }
}
