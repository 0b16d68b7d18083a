//! The providers' own descriptions of their APIs (`schemas/providers/`), and checks against them.
//!
//! **Invariant:** a value that a description leaves open is allowed; a field that it does not name
//! is a fault. In a request it is the sender's fault, in an answer it is ours.

use crate::domain::Provider;
use serde_json::Value;
use std::{collections::HashMap, sync::OnceLock};

const TWILIO: &str = include_str!("../../schemas/providers/twilio_api_v2010.json");
const VAPI: &str = include_str!("../../schemas/providers/vapi_openapi.json");
const RESEND: &str = include_str!("../../schemas/providers/resend.json");
const GOOGLE: &str = include_str!("../../schemas/providers/google_calendar_v3.json");
const FORM: &str = "application/x-www-form-urlencoded";

/// One provider's description.
pub struct Description {
    document: Value,
    operations: HashMap<&'static str, Operation>,
}

#[derive(Default)]
struct Operation {
    form: HashMap<String, Value>,
    query: HashMap<String, Value>,
    body: Value,
    answer: Value,
}

/// The description of a provider that has one here.
pub fn of(provider: Provider) -> Option<&'static Description> {
    static ALL: OnceLock<[Description; 4]> = OnceLock::new();
    let [twilio, vapi, resend, google] = ALL.get_or_init(|| [TWILIO, VAPI, RESEND, GOOGLE].map(Description::parse));
    match provider {
        Provider::Twilio => Some(twilio),
        Provider::Vapi => Some(vapi),
        Provider::Resend => Some(resend),
        Provider::GoogleCalendar => Some(google),
        // The licence of ElevenLabs' description does not let us keep it.
        Provider::ElevenLabs | Provider::Http => None,
    }
}

impl Description {
    fn parse(text: &'static str) -> Self {
        let document: Value = serde_json::from_str(text).expect("the committed description is JSON: a test parses it");
        let mut operations = HashMap::new();
        for path in document["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.values())
        {
            for operation in path.as_object().into_iter().flat_map(|path| path.values()) {
                let Some(id) = operation["operationId"].as_str() else {
                    continue;
                };
                let mut out = Operation::default();
                for parameter in operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "query")
                {
                    out.query.insert(
                        parameter["name"].as_str().unwrap_or_default().to_owned(),
                        parameter["schema"].clone(),
                    );
                }
                if let Some(fields) = operation["requestBody"]["content"][FORM]["schema"]["properties"].as_object() {
                    out.form = fields
                        .iter()
                        .map(|(name, schema)| (name.clone(), schema.clone()))
                        .collect();
                }
                out.body = operation["requestBody"]["content"]["application/json"]["schema"].clone();
                if let Some(answer) = operation["responses"]
                    .as_object()
                    .and_then(|answers| answers.values().next())
                {
                    out.answer = answer["content"]["application/json"]["schema"].clone();
                }
                // A dozen names are leaked, once in a process.
                operations.insert(&*String::leak(id.to_owned()), out);
            }
        }
        Self { document, operations }
    }

    /// The faults of a form: missing or unknown fields, values of another type.
    pub fn check_form(&self, operation: &str, form: &[(String, String)]) -> Vec<String> {
        self.operations
            .get(operation)
            .map_or_else(Vec::new, |operation| self.check_fields(&operation.form, form))
    }

    /// The same for a query.
    pub fn check_query(&self, operation: &str, query: &[(String, String)]) -> Vec<String> {
        self.operations
            .get(operation)
            .map_or_else(Vec::new, |operation| self.check_fields(&operation.query, query))
    }

    fn check_fields(&self, known: &HashMap<String, Value>, given: &[(String, String)]) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, (name, text)) in given.iter().enumerate() {
            let Some(schema) = known.get(name) else {
                faults.push(format!("{name}: not in the description"));
                continue;
            };
            let schema = self.resolved(schema);
            let schema = if schema["type"] == "array" {
                self.resolved(&schema["items"])
            } else {
                if given[..index].iter().any(|(earlier, _)| earlier == name) {
                    faults.push(format!("{name}: given more than once"));
                }
                schema
            };
            let value = match schema["type"].as_str() {
                Some("integer") => text.parse::<i64>().map(Value::from).ok(),
                Some("number") => text.parse::<f64>().map(Value::from).ok(),
                Some("boolean") => text.parse::<bool>().map(Value::from).ok(),
                _ => Some(Value::from(text.as_str())),
            };
            match value {
                Some(value) => self.check(schema, &value, name, &mut faults),
                None => faults.push(format!("{name}: not of type {}", schema["type"])),
            }
        }
        faults
    }

    /// The faults of a JSON body of a request.
    pub fn check_body(&self, operation: &str, body: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        match self.operations.get(operation) {
            Some(operation) => self.check(&operation.body, body, "$", &mut faults),
            None => faults.push(format!("{operation}: no such operation")),
        }
        faults
    }

    /// The faults of the body of an answer.
    pub fn check_answer(&self, operation: &str, body: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        match self.operations.get(operation) {
            Some(operation) => self.check(&operation.answer, body, "$", &mut faults),
            None => faults.push(format!("{operation}: no such operation")),
        }
        faults
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix("#/components/schemas/"))
        {
            Some(name) => &self.document["components"]["schemas"][name],
            None => schema,
        }
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = self.resolved(schema);
        if schema.as_object().is_none_or(serde_json::Map::is_empty) || (value.is_null() && schema["nullable"] == true) {
            return;
        }
        if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            let tries = choices.iter().map(|choice| {
                let mut faults = Vec::new();
                self.check(choice, value, at, &mut faults);
                faults
            });
            faults.extend(tries.min_by_key(Vec::len).unwrap_or_default());
            return;
        }
        if !is_of_type(schema, value) {
            faults.push(format!("{at}: not of type {}", schema["type"]));
            return;
        }
        // Vapi's document puts the enum of a list's items on the list as well.
        if let Some(allowed) = schema["enum"].as_array().filter(|_| !value.is_array())
            && !allowed.contains(value)
        {
            faults.push(format!("{at}: not one of the values that the description lists"));
        }
        match value {
            Value::String(text) => check_text(schema, text, at, faults),
            Value::Number(number) => check_bounds(schema, number, at, faults),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, &format!("{at}[{index}]"), faults);
                }
            }
            Value::Object(fields) => self.check_object(schema, fields, at, faults),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_object(
        &self,
        schema: &Value,
        fields: &serde_json::Map<String, Value>,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                faults.push(format!("{at}.{name}: missing"));
            }
        }
        let Some(known) = schema["properties"].as_object() else {
            return;
        };
        for (name, field) in fields {
            match known.get(name) {
                Some(schema) => self.check(schema, field, &format!("{at}.{name}"), faults),
                None => faults.push(format!("{at}.{name}: not in the description")),
            }
        }
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

fn check_bounds(schema: &Value, number: &serde_json::Number, at: &str, faults: &mut Vec<String>) {
    let number = number.as_f64().unwrap_or_default();
    if schema["minimum"].as_f64().is_some_and(|least| number < least)
        || schema["maximum"].as_f64().is_some_and(|most| number > most)
    {
        faults.push(format!("{at}: outside of its bounds"));
    }
}

fn check_text(schema: &Value, text: &str, at: &str, faults: &mut Vec<String>) {
    let characters = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|least| characters < least)
        || schema["maxLength"].as_u64().is_some_and(|most| characters > most)
    {
        faults.push(format!("{at}: too short or too long"));
    }
    if schema["pattern"]
        .as_str()
        .is_some_and(|pattern| !is_sid_of(pattern, text))
    {
        faults.push(format!("{at}: does not match its pattern"));
    }
    let is_format = match schema["format"].as_str() {
        Some("date-time-rfc-2822") => jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).is_ok(),
        Some("uri") => {
            text.starts_with('/')
                || text
                    .split_once("://")
                    .is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && !rest.is_empty())
        }
        Some("date-time") if at == "$" || at.starts_with("$.") || at.starts_with("$[") => {
            text.parse::<jiff::Timestamp>().is_ok()
        }
        Some("uuid") => text.parse::<uuid::Uuid>().is_ok(),
        _ => true,
    };
    if !is_format {
        faults.push(format!("{at}: not of format {}", schema["format"]));
    }
}

/// All patterns of the kept operations have the form `^AC[0-9a-fA-F]{32}$` or
/// `^(SM|MM)[0-9a-fA-F]{32}$`; a test holds that. Others match nothing.
fn is_sid_of(pattern: &str, text: &str) -> bool {
    let Some(prefixes) = sid_prefixes(pattern) else {
        return false;
    };
    prefixes.into_iter().any(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

fn sid_prefixes(pattern: &str) -> Option<Vec<&str>> {
    let prefix = pattern.strip_prefix('^')?.strip_suffix("[0-9a-fA-F]{32}$")?;
    let prefix = prefix
        .strip_prefix('(')
        .and_then(|prefix| prefix.strip_suffix(')'))
        .unwrap_or(prefix);
    Some(prefix.split('|').collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_pattern_of_the_descriptions_is_one_that_is_understood() {
        fn walk(value: &Value, found: &mut usize) {
            match value {
                Value::Object(fields) => {
                    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
                        assert!(sid_prefixes(pattern).is_some(), "{pattern}");
                        *found += 1;
                    }
                    fields.values().for_each(|field| walk(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
                _ => {}
            }
        }
        let mut found = 0;
        walk(&of(Provider::Twilio).expect("described").document, &mut found);
        walk(&of(Provider::Vapi).expect("described").document, &mut found);
        assert!(found > 10);
    }

    #[test]
    fn forms_are_held_against_the_description() {
        let twilio = of(Provider::Twilio).expect("described");
        for (form, faults) in [
            (
                vec![
                    ("To", "+15551234567"),
                    ("Body", "x"),
                    ("StatusCallback", "https://example.com/a"),
                ],
                vec![],
            ),
            (
                vec![("MediaUrl", "https://a.example/1"), ("MediaUrl", "https://a.example/2")],
                vec![],
            ),
            (vec![("ValidityPeriod", "60"), ("SmartEncoded", "true")], vec![]),
            (vec![("to", "x")], vec!["to: not in the description"]),
            (vec![("To", "x"), ("To", "y")], vec!["To: given more than once"]),
            (
                vec![("ValidityPeriod", "soon")],
                vec!["ValidityPeriod: not of type \"integer\""],
            ),
            (
                vec![("SmartEncoded", "yes")],
                vec!["SmartEncoded: not of type \"boolean\""],
            ),
            (
                vec![("StatusCallback", "nowhere")],
                vec!["StatusCallback: not of format \"uri\""],
            ),
            (
                vec![("RiskCheck", "maybe")],
                vec!["RiskCheck: not one of the values that the description lists"],
            ),
            (
                vec![("MessagingServiceSid", "MG1")],
                vec![
                    "MessagingServiceSid: too short or too long",
                    "MessagingServiceSid: does not match its pattern",
                ],
            ),
        ] {
            assert_eq!(twilio.check_form("CreateMessage", &pairs(&form)), faults, "{form:?}");
        }
        assert_eq!(
            twilio.check_query(
                "ListMessage",
                &pairs(&[("To", "+1"), ("DateSent>", "2026-01-01"), ("PageSize", "50")])
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            twilio.check_query("ListMessage", &pairs(&[("PageSize", "1001")])),
            ["PageSize: outside of its bounds"]
        );
    }

    #[test]
    fn answers_of_another_shape_are_seen() {
        let twilio = of(Provider::Twilio).expect("described");
        let faults = twilio.check_answer(
            "FetchMessage",
            &json!({"sid": "SM1", "status": "gone", "num_media": 0, "extra": 1, "date_sent": "today"}),
        );
        assert_eq!(faults.len(), 6, "{faults:?}");
        let vapi = of(Provider::Vapi).expect("described");
        assert!(
            vapi.check_answer("AssistantController_findOne", &json!({"id": "a"}))
                .contains(&"$.orgId: missing".to_owned())
        );
    }
}
