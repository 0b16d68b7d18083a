//! The parameters of each action, as data: what a rule may give, what forms and documentation are
//! drawn from. `GET /api/catalog` serves it, and `docs/rules.md` has a table made from it.

use crate::domain::ActionKind;

/// The type of a parameter's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Text,
    /// A text, or a list of texts.
    Texts,
    /// An object, a list or a text; texts inside it may be templates.
    Json,
}

impl Shape {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Texts => "text or list of texts",
            Self::Json => "object, list or text",
        }
    }
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub shape: Shape,
    pub is_required: bool,
    /// A form gives it several lines.
    pub is_multiline: bool,
    pub help: &'static str,
    pub example: &'static str,
}

const fn text(name: &'static str, help: &'static str, example: &'static str) -> Parameter {
    Parameter {
        name,
        shape: Shape::Text,
        is_required: false,
        is_multiline: false,
        help,
        example,
    }
}

impl Parameter {
    const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    const fn long(mut self) -> Self {
        self.is_multiline = true;
        self
    }

    const fn of(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }
}

/// Describes an action to a person who makes a rule.
#[must_use]
pub const fn purpose(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::TwilioSendSms => "Sends an SMS from the organisation's Twilio account.",
        ActionKind::HttpPost => "Posts to a destination, signed as Standard Webhooks.",
        ActionKind::ResendSendEmail => "Sends an e-mail from the organisation's Resend account.",
        ActionKind::GoogleCalendarCreateEvent => "Puts an event on the organisation's Google calendar.",
    }
}

/// The parameters of an action, in the order of a form.
#[must_use]
pub const fn parameters(kind: ActionKind) -> &'static [Parameter] {
    match kind {
        ActionKind::TwilioSendSms => TWILIO_SEND_SMS,
        ActionKind::HttpPost => HTTP_POST,
        ActionKind::ResendSendEmail => RESEND_SEND_EMAIL,
        ActionKind::GoogleCalendarCreateEvent => GOOGLE_CALENDAR_CREATE_EVENT,
    }
}

const TWILIO_SEND_SMS: &[Parameter] = &[
    text("to", "E.164: + and the country's code", "{{ message.customer.number }}").required(),
    text("body", "1 to 1,600 characters", "Thank you for calling.")
        .required()
        .long(),
    text("from", "Else the integration's phone number sends", "+12025550123"),
    text(
        "messaging_service_sid",
        "Twilio chooses the number from this messaging service",
        "MG0123456789abcdef0123456789abcdef",
    ),
];
const HTTP_POST: &[Parameter] = &[
    text("destination", "The name of a destination", "crm").required(),
    text(
        "body",
        "Else the body of the event",
        r#"{ "call": "{{ message.call.id }}" }"#,
    )
    .of(Shape::Json)
    .long(),
];
const RESEND_SEND_EMAIL: &[Parameter] = &[
    text("to", "Up to 50 addresses", "front.desk@example.com")
        .of(Shape::Texts)
        .required(),
    text(
        "subject",
        "Up to 998 characters",
        "A call from {{ message.customer.number }}",
    )
    .required(),
    text("text", "This, html or both", "{{ message.analysis.summary }}").long(),
    text(
        "html",
        "This, text or both; values are escaped",
        "<p>{{ message.analysis.summary }}</p>",
    )
    .long(),
    text(
        "from",
        "Else the integration's sender",
        "Birchwood Dental <hello@example.com>",
    ),
    text("cc", "Up to 50 addresses", "office@example.com").of(Shape::Texts),
    text("bcc", "Up to 50 addresses", "archive@example.com").of(Shape::Texts),
    text(
        "reply_to",
        "Up to 50 addresses",
        "{{ message.analysis.structuredData.email }}",
    )
    .of(Shape::Texts),
];
const GOOGLE_CALENDAR_CREATE_EVENT: &[Parameter] = &[
    text(
        "summary",
        "The title, up to 1,024 characters",
        "Call back {{ message.customer.number }}",
    )
    .required(),
    text(
        "start",
        "RFC 3339, or local beside time_zone; this or start_date",
        "{{ message.analysis.structuredData.start }}",
    ),
    text(
        "end",
        "Like start; this or end_date",
        "{{ message.analysis.structuredData.end }}",
    ),
    text("start_date", "The first day of an event of whole days", "2026-03-11"),
    text("end_date", "The day after its last day", "2026-03-12"),
    text("time_zone", "A name of the IANA database", "America/Denver"),
    text("calendar_id", "Else the primary calendar", "primary"),
    text(
        "description",
        "Up to 8,192 characters",
        "{{ message.analysis.summary }}",
    )
    .long(),
    text("location", "", "418 Alder Street"),
    text("attendees", "Addresses", "rowan@example.com").of(Shape::Texts),
    text(
        "send_updates",
        "all, externalOnly or none; all where there are attendees",
        "none",
    ),
];
