//! The fields of a connect as a person typed them, checked by the provider's form.
//!
//! **Invariant:** a refusal names the field and the expected form, and never repeats a typed text.

use crate::{
    admin::{
        state::Answer,
        web::{
            body,
            problem::{Code, Problem},
        },
    },
    provider::table::Form,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::fmt;

/// The fields of a body in the order of the body, texts by name.
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

/// Typed fields that fit the form: each is known, occurs once and has its shape, and none is
/// missing.
pub struct CheckedFields {
    form: &'static Form,
    fields: Vec<(&'static str, SecretString)>,
}

fn wrong(field: &str, problem: &str) -> Problem {
    Problem::field(Code::InvalidField, field, problem)
}

impl CheckedFields {
    pub fn new(form: &'static Form, typed: TypedFields) -> Answer<Self> {
        // An unknown name comes first: a person who mistyped a name would otherwise look for the
        // field that is said to be missing.
        if let Some((name, _)) = typed.0.iter().find(|(name, _)| form.field(name).is_none()) {
            return Err(wrong(&body::shown_name(name), "is not a known field here"));
        }
        let mut checked = Self {
            form,
            fields: Vec::new(),
        };
        for (name, value) in typed.0 {
            checked.add(&name, value)?;
        }
        let missing = form
            .fields
            .iter()
            .find(|field| field.is_required && !checked.has(field.name));
        if let Some(missing) = missing {
            return Err(wrong(missing.name, "is required"));
        }
        checked.check_ways()?;
        Ok(checked)
    }

    fn add(&mut self, name: &str, value: Option<SecretString>) -> Answer<()> {
        let Some(field) = self.form.field(name) else {
            return Ok(());
        };
        if self.has(field.name) {
            return Err(wrong(field.name, "occurs more than once"));
        }
        let Some(value) = value else { return Ok(()) };
        // Pasted texts often have a blank or a line break at their ends.
        let text = value.expose_secret().trim();
        if text.is_empty() && !field.is_required {
            return Ok(());
        }
        if !field.shape.matches(text) {
            return Err(wrong(field.name, field.shape.expected()));
        }
        self.fields.push((field.name, SecretString::from(text)));
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| *known == name)
    }

    /// Exactly one of the form's ways is given, and given whole.
    fn check_ways(&self) -> Answer<()> {
        let ways = self.form.ways;
        let Some(first) = ways.first() else { return Ok(()) };
        let begun: Vec<_> = ways
            .iter()
            .filter(|way| way.iter().any(|name| self.has(name)))
            .collect();
        // Name the missing field of the one way that was begun; where none or several were begun,
        // name the first field of all.
        let field = match begun[..] {
            [way] => match way.iter().find(|name| !self.has(name)) {
                None => return Ok(()),
                Some(missing) => missing,
            },
            _ => first[0],
        };
        let expected: Vec<_> = ways.iter().map(|way| way.join(" with ")).collect();
        Err(wrong(
            field,
            &format!("expected {}, and not both", expected.join(", or ")),
        ))
    }

    pub fn take(&mut self, name: &str) -> Option<SecretString> {
        let index = self.fields.iter().position(|(known, _)| *known == name)?;
        Some(self.fields.swap_remove(index).1)
    }

    pub fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|text| text.expose_secret().to_owned())
    }

    pub fn take_required(&mut self, name: &'static str) -> Answer<SecretString> {
        self.take(name).ok_or_else(|| wrong(name, "is required"))
    }

    /// In debug builds, panics when a field of the form was not taken: the form and the reader of
    /// its provider differ.
    pub fn finish(&self) {
        debug_assert!(
            self.fields.is_empty(),
            "{}: a field of the form is not read",
            self.form.name
        );
    }
}
