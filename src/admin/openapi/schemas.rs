//! Types as schemas. Those of this room derive theirs; the words of `domain`, which knows no HTTP,
//! have theirs here.

use crate::{
    admin::{api::shapes::RETENTION_DAYS_MAX, web::view::Time},
    domain::{
        ActionKind, ActionState, AssistantRole, Cause, DeliveryStatus, IntegrationState, ManagedAssistantState,
        OpeningHours, PAIRS_PER_DAY_MAX, Provider, QuietHours, RouteState, RuleSpec, Source,
    },
    provider::table::{FORMS, How},
    rule,
    store::credentials::CredentialError,
};
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::BTreeMap};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type},
    },
};

/// The schemas that operations name, by name.
#[derive(Default)]
pub struct Schemas {
    all: BTreeMap<String, Value>,
}

impl Schemas {
    /// A reference to a type, which is described once.
    pub fn reference<T: ToSchema>(&mut self) -> Value {
        let mut found = Vec::new();
        T::schemas(&mut found);
        found.push((T::name().into_owned(), T::schema()));
        for (name, schema) in found {
            let value = serde_json::to_value(schema).expect("a schema is JSON");
            self.all.entry(name).or_insert(value);
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// A reference to a schema that is written by hand.
    pub fn put(&mut self, name: &str, schema: Value) -> Value {
        self.all.insert(name.to_owned(), schema);
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    pub fn into_components(self) -> BTreeMap<String, Value> {
        self.all
    }
}

/// A page of a list.
pub fn listed<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let item = schemas.reference::<T>();
    json!({
        "type": "object",
        "required": ["data", "next_cursor"],
        "properties": {
            "data": { "type": "array", "items": item },
            "next_cursor": { "type": ["string", "null"], "description": "`null` on the last page." },
        },
    })
}

/// The body that connects a provider: the fields of its form, and the names of the API before.
pub fn credential(schemas: &mut Schemas) -> Value {
    let mut properties = Map::new();
    for form in FORMS.iter().filter(|form| form.how == How::Fields) {
        for field in form.fields {
            let known = properties.entry(field.name).or_insert_with(|| {
                json!({ "type": ["string", "null"], "writeOnly": field.shape.is_secret(), "description": field.label })
            });
            known["description"] = json!(field.label);
        }
    }
    for former in ["apiKey", "accountSid", "authToken", "phoneNumber", "webhookSecret"] {
        properties.insert(
            former.to_owned(),
            json!({ "type": ["string", "null"], "deprecated": true }),
        );
    }
    schemas.put(
        "NewCredential",
        json!({
            "type": "object",
            "description": "Each provider takes the fields of its form in GET /api/providers.",
            "properties": properties,
            "additionalProperties": false,
        }),
    )
}

/// The changes of a PATCH: any of the fields of a rule.
pub fn rule_changes(schemas: &mut Schemas) -> Value {
    schemas.reference::<RuleSpec>();
    json!({ "type": "object", "description": "Fields of a rule; `null` removes an optional one." })
}

/// The changes of a PATCH of the settings.
pub fn settings_changes(schemas: &mut Schemas) -> Value {
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let (opening_hours, quiet_hours) = (schemas.reference::<OpeningHours>(), schemas.reference::<QuietHours>());
    schemas.put(
        "SettingsChanges",
        json!({
            "type": "object",
            "description": "Fields of the settings; `null` clears one.",
            "properties": {
                "time_zone": { "type": ["string", "null"] },
                "opening_hours": or_null(opening_hours),
                "quiet_hours": or_null(quiet_hours),
                "retention_days": { "type": ["integer", "null"], "minimum": 1, "maximum": RETENTION_DAYS_MAX },
            },
            "additionalProperties": false,
        }),
    )
}

macro_rules! words {
    ($($type:ident),+) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some($type::ALL.iter().map(|one| one.as_str())))
                    .into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    )+};
}
words!(
    ActionKind,
    ActionState,
    AssistantRole,
    ManagedAssistantState,
    Cause,
    DeliveryStatus,
    IntegrationState,
    Provider,
    RouteState,
    Source
);

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}

impl PartialSchema for CredentialError {
    fn schema() -> RefOr<Schema> {
        let or_null = |kind| ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]));
        ObjectBuilder::new()
            .property("message", ObjectBuilder::new().schema_type(Type::String))
            .property("http_status", or_null(Type::Integer))
            .property("code", or_null(Type::String))
            .required("message")
            .required("http_status")
            .required("code")
            .into()
    }
}

impl ToSchema for CredentialError {
    fn name() -> Cow<'static, str> {
        "CredentialError".into()
    }
}

/// From a time of day until another one.
fn hours() -> ObjectBuilder {
    let time = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"))
    };
    ObjectBuilder::new()
        .property("from", time())
        .property("until", time())
        .required("from")
        .required("until")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

impl PartialSchema for OpeningHours {
    fn schema() -> RefOr<Schema> {
        let day = || ArrayBuilder::new().items(hours()).max_items(Some(PAIRS_PER_DAY_MAX));
        Self::WEEKDAYS
            .iter()
            .fold(ObjectBuilder::new(), |week, name| week.property(*name, day()))
            .description(Some("A weekday without pairs, or that is absent, is closed."))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl ToSchema for OpeningHours {
    fn name() -> Cow<'static, str> {
        "OpeningHours".into()
    }
}

impl PartialSchema for QuietHours {
    fn schema() -> RefOr<Schema> {
        hours().description(Some("They may go on past midnight.")).into()
    }
}

impl ToSchema for QuietHours {
    fn name() -> Cow<'static, str> {
        "QuietHours".into()
    }
}

impl PartialSchema for RuleSpec {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let (seconds_min, seconds_max) = (*rule::EXPIRES_AFTER_SECONDS.start(), *rule::EXPIRES_AFTER_SECONDS.end());
        ObjectBuilder::new()
            .description(Some("docs/rules.md says what a rule means."))
            .property(
                "name",
                text().min_length(Some(1)).max_length(Some(rule::NAME_CHARACTERS_MAX)),
            )
            .property("source", Source::schema())
            .property(
                "event_type",
                text()
                    .min_length(Some(1))
                    .max_length(Some(rule::TYPE_PATTERN_BYTES_MAX)),
            )
            .property("when", text())
            .property("action", ActionKind::schema())
            .property("parameters", ObjectBuilder::new().schema_type(Type::Object))
            .property(
                "expires_after_seconds",
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(seconds_min))
                    .maximum(Some(seconds_max)),
            )
            .property("ignores_quiet_hours", ObjectBuilder::new().schema_type(Type::Boolean))
            .property("enabled", ObjectBuilder::new().schema_type(Type::Boolean))
            .required("name")
            .required("source")
            .required("event_type")
            .required("action")
            .required("parameters")
            .into()
    }
}

impl ToSchema for RuleSpec {
    fn name() -> Cow<'static, str> {
        "RuleSpec".into()
    }
}
