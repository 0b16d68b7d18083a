//! The fields of a connect as a person typed them, checked by the provider's form.
//!
//! **Invariant:** a refusal names each wrong field and its expected form, and never repeats a typed
//! text.

use crate::{
    admin::{
        state::Answer,
        web::{
            body,
            problem::{Code, Problem},
        },
    },
    provider::{Credential, table::Form},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::fmt;

/// Names of the API before this one, and the names of today.
const FORMER_NAMES: [(&str, &str); 5] = [
    ("apiKey", "api_key"),
    ("accountSid", "account_sid"),
    ("authToken", "auth_token"),
    ("phoneNumber", "phone_number"),
    ("webhookSecret", "webhook_secret"),
];

/// The fields of a body in the order of the body, texts by name. `None` is `null`.
pub struct TypedFields(Vec<(String, Option<SecretString>)>);

impl<'de> Deserialize<'de> for TypedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = TypedFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TypedFields, A::Error> {
                let mut fields: Vec<(String, Option<SecretString>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<SecretString>>()? {
                    fields.push((name, value));
                }
                Ok(TypedFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl TypedFields {
    /// Gives fields of the former API their names of today. Whether there was one.
    pub fn rename_former(&mut self) -> bool {
        let mut is_renamed = false;
        for (name, _) in &mut self.0 {
            if let Some((_, today)) = FORMER_NAMES.iter().find(|(former, _)| *former == name.as_str()) {
                (*today).clone_into(name);
                is_renamed = true;
            }
        }
        is_renamed
    }

    /// The text of a field, without blanks at its ends.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(typed, _)| typed == name)?;
        value.as_ref().map(|text| text.expose_secret().trim())
    }
}

/// A field that the body names. A field that it does not name keeps its stored value.
enum Change {
    Set(SecretString),
    /// `null`: the stored value is removed.
    Clear,
}

/// Typed fields that fit the form together with the stored fields. Each is known, occurs once and
/// has its shape. No required field is missing.
pub struct CheckedFields {
    form: &'static Form,
    changes: Vec<(&'static str, Change)>,
    /// Names of the fields that are stored.
    stored: Vec<&'static str>,
}

impl CheckedFields {
    /// `stored`: the credential whose values stand in for fields that the body leaves out.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn new(form: &'static Form, typed: TypedFields, stored: Option<&Credential>) -> Answer<Self> {
        let mut checked = Self {
            form,
            changes: Vec::new(),
            stored: stored.map(stored_names).unwrap_or_default(),
        };
        let mut problem = Problem::new(Code::InvalidField);
        // Unknown names come first: a person who mistyped a name would otherwise look for the field
        // that is said to be missing.
        for (name, _) in typed.0.iter().filter(|(name, _)| form.field(name).is_none()) {
            problem = problem.and_field(body::shown_name(name), "is not a known field here");
        }
        let is_known = problem.errors.is_empty();
        let mut misshapen = Vec::new();
        for (name, value) in typed.0 {
            if let Err((field, wrong)) = checked.add(&name, value) {
                misshapen.push(field);
                problem = problem.and_field(field, wrong);
            }
        }
        if is_known {
            let is_missing = |name: &'static str| !checked.has(name) && !misshapen.contains(&name);
            for field in form.fields.iter().filter(|field| field.is_required) {
                if is_missing(field.name) {
                    problem = problem.and_field(field.name, "is required");
                }
            }
            if misshapen.is_empty()
                && let Some((field, wrong)) = checked.wrong_way()
            {
                problem = problem.and_field(field, wrong);
            }
        }
        if problem.errors.is_empty() {
            Ok(checked)
        } else {
            Err(problem)
        }
    }

    fn add(&mut self, name: &str, value: Option<SecretString>) -> Result<(), (&'static str, &'static str)> {
        let Some(field) = self.form.field(name) else {
            return Ok(());
        };
        if self.changes.iter().any(|(known, _)| *known == field.name) {
            return Err((field.name, "occurs more than once"));
        }
        let Some(value) = value else {
            self.changes.push((field.name, Change::Clear));
            return Ok(());
        };
        // Pasted texts often have a blank or a line break at their ends.
        let text = value.expose_secret().trim();
        // An empty text is a field that was left out: forms send it for an untouched input.
        if text.is_empty() {
            return Ok(());
        }
        if !field.shape.matches(text) {
            return Err((field.name, field.shape.expected()));
        }
        self.changes.push((field.name, Change::Set(SecretString::from(text))));
        Ok(())
    }

    fn change(&self, name: &str) -> Option<&Change> {
        self.changes
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, change)| change)
    }

    fn is_typed(&self, name: &str) -> bool {
        matches!(self.change(name), Some(Change::Set(_)))
    }

    pub fn is_cleared(&self, name: &str) -> bool {
        matches!(self.change(name), Some(Change::Clear))
    }

    /// Whether the field has a value: a typed one, or a stored one that stays.
    fn has(&self, name: &str) -> bool {
        match self.change(name) {
            Some(Change::Set(_)) => true,
            Some(Change::Clear) => false,
            None => self.stored.contains(&name),
        }
    }

    /// The field to complain about, unless exactly one of the form's ways is given, and given
    /// whole. A way that is typed takes the place of the stored way.
    fn wrong_way(&self) -> Option<(&'static str, String)> {
        let ways = self.form.ways;
        let first = ways.first()?;
        let mut begun: Vec<_> = ways
            .iter()
            .filter(|way| way.iter().any(|name| self.is_typed(name)))
            .collect();
        if begun.is_empty() {
            begun = ways
                .iter()
                .filter(|way| way.iter().any(|name| self.has(name)))
                .collect();
        }
        // Name the missing field of the one way that was begun; where none or several were begun,
        // name the first field of all.
        let field = match begun[..] {
            [way] => way.iter().find(|name| !self.has(name))?,
            _ => first[0],
        };
        let expected: Vec<_> = ways.iter().map(|way| way.join(" with ")).collect();
        Some((field, format!("expected {}, and not both", expected.join(", or "))))
    }

    /// The typed value of a field. `None`: it was left out or cleared.
    pub fn take(&mut self, name: &str) -> Option<SecretString> {
        let index = self
            .changes
            .iter()
            .position(|(known, change)| *known == name && matches!(change, Change::Set(_)))?;
        match self.changes.swap_remove(index).1 {
            Change::Set(text) => Some(text),
            Change::Clear => None,
        }
    }

    /// The typed text, else the stored text unless it was cleared.
    pub fn take_or_keep(&mut self, name: &str, stored: Option<String>) -> Option<String> {
        if self.is_cleared(name) {
            return None;
        }
        self.take(name).map(|text| text.expose_secret().to_owned()).or(stored)
    }

    /// In debug builds, panics when a typed field of the form was not taken: the form and the
    /// reader of its provider differ.
    pub fn finish(&self) {
        debug_assert!(
            self.changes.iter().all(|(_, change)| matches!(change, Change::Clear)),
            "{}: a field of the form is not read",
            self.form.name
        );
    }
}

fn stored_names(credential: &Credential) -> Vec<&'static str> {
    let settings = credential.settings().into_iter().map(|(name, _)| name);
    settings.chain(credential.secrets_set()).collect()
}
