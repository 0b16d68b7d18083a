//! The differences between providers as data: fields with shapes, examples and help, the ways
//! to authenticate, and the requests that verify.
//!
//! `GET /api/providers` serves it, and the dashboard draws its forms from it. The API checks typed
//! fields by it, and the clients take the paths of their verifying requests from it. **Invariant:**
//! a field that is not in the table is refused, and a refusal never repeats a value.

use super::{is_e164, is_mailbox, is_sid};
use crate::domain::Provider;

/// One provider, as a person sees it.
#[derive(Debug)]
pub struct Form {
    pub provider: Provider,
    pub name: &'static str,
    /// Where its keys are made and explained.
    pub help_url: &'static str,
    pub how: How,
    pub fields: &'static [Field],
    /// Fields that belong together: exactly one of these sets is given. Empty: the required fields
    /// say it all.
    pub ways: &'static [&'static [&'static str]],
    /// The requests that verify, cheapest first; none has an effect.
    pub probes: &'static [Probe],
}

/// How a provider is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// By a form.
    Fields,
    /// By the provider's own consent page.
    Oauth,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub is_required: bool,
    pub shape: Shape,
    pub example: &'static str,
    /// The meaning of the field and where to find its value.
    pub help: &'static str,
    pub help_url: &'static str,
}

/// The form of a field's text, after blanks at its ends were cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// These letters and 32 hexadecimal digits.
    Sid(&'static str),
    /// A telephone number with its country.
    E164,
    /// A key: visible characters, beginning with this.
    Key(&'static str),
    /// A secret that signs webhooks: at least 16 visible characters.
    SigningSecret,
    /// `Name <mail@example.com>` or the address alone.
    Mailbox,
}

/// One request that verifies.
#[derive(Debug)]
pub struct Probe {
    pub method: &'static str,
    /// With `{field}` for what stands in the form.
    pub path: &'static str,
    /// Which of our features a key lacks that may not make this request.
    pub feature: &'static str,
}

/// Longest text of a field.
pub const FIELD_BYTES_MAX: usize = 512;

impl Shape {
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Key(_) | Self::SigningSecret)
    }

    /// As a regular expression for forms. The form anchors it, as HTML does with `pattern`.
    #[must_use]
    pub fn pattern(self) -> String {
        match self {
            Self::Sid(prefix) => format!("{prefix}[0-9a-fA-F]{{32}}"),
            Self::E164 => r"\+[1-9][0-9]{7,14}".to_owned(),
            Self::Key(prefix) => format!("{prefix}[!-~]{{1,{}}}", FIELD_BYTES_MAX - prefix.len()),
            Self::SigningSecret => format!("[!-~]{{16,{FIELD_BYTES_MAX}}}"),
            Self::Mailbox => {
                // HTML compiles patterns with the flag `v`: `(`, `)` and `-` are escaped in a
                // class.
                let label = r"[\p{L}\p{N}][\p{L}\p{N}\-]*";
                let address = format!(r#"[^<>@\s",;:\(\)\\]{{1,64}}@{label}(\.{label})+"#);
                format!("{address}|[^<>@,;]*<{address}>")
            }
        }
    }

    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        let is_visible = |text: &str, bytes_min: usize| {
            (bytes_min..=FIELD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match self {
            Self::Sid(prefix) => is_sid(text, prefix),
            Self::E164 => is_e164(text),
            Self::Key(prefix) => text.starts_with(prefix) && is_visible(text, prefix.len() + 1),
            Self::SigningSecret => is_visible(text, 16),
            Self::Mailbox => is_mailbox(text),
        }
    }

    /// The expected form in words, for a person who typed a wrong text.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Sid("AC") => "expected AC and 32 hexadecimal digits",
            Self::Sid("SK") => "expected SK and 32 hexadecimal digits",
            Self::Sid(_) => "expected two letters and 32 hexadecimal digits",
            Self::E164 => "expected E.164 with the country's code: + and 8 to 15 digits",
            Self::Key("") => "expected 1 to 512 visible characters, without blanks",
            Self::Key(_) => "expected a key that begins as the example does, of visible characters without blanks",
            Self::SigningSecret => "expected 16 to 512 visible characters, without blanks",
            Self::Mailbox => "expected an address such as mail@example.com, or Name <mail@example.com>",
        }
    }
}

impl Form {
    #[must_use]
    pub fn of(provider: Provider) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.provider == provider)
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const TWILIO_CONSOLE: &str = "https://www.twilio.com/docs/iam/api/authtoken";
const TWILIO_KEYS: &str = "https://www.twilio.com/docs/iam/api-keys";

/// The five integrations, in the order of [`Provider::INTEGRATIONS`].
pub const FORMS: &[Form] = &[
    Form {
        provider: Provider::Vapi,
        name: "Vapi",
        help_url: "https://docs.vapi.ai/api-keys",
        how: How::Fields,
        fields: &[
            Field {
                name: "api_key",
                label: "Private API key",
                is_required: true,
                shape: Shape::Key(""),
                example: "5b0d1c9e-6f0a-4c58-9f6e-2f6d7a1be000",
                help: "The private key, not the public one: dashboard, Organization, API keys.",
                help_url: "https://docs.vapi.ai/api-keys",
            },
            Field {
                name: "webhook_secret",
                label: "Webhook secret",
                is_required: false,
                shape: Shape::SigningSecret,
                example: "a-secret-of-16-bytes-or-more",
                help: "What Vapi's webhooks are signed with: the secret of the custom credential that your server URL \
                    names.",
                help_url: "https://docs.vapi.ai/server-url/server-authentication",
            },
        ],
        ways: &[],
        probes: &[Probe {
            method: "GET",
            path: "/assistant?limit=1",
            feature: "reading assistants",
        }],
    },
    Form {
        provider: Provider::Twilio,
        name: "Twilio",
        help_url: TWILIO_CONSOLE,
        how: How::Fields,
        fields: &[
            Field {
                name: "account_sid",
                label: "Account SID",
                is_required: true,
                shape: Shape::Sid("AC"),
                example: "AC0123456789abcdef0123456789abcdef",
                help: "Console, Account info.",
                help_url: TWILIO_CONSOLE,
            },
            Field {
                name: "auth_token",
                label: "Auth token",
                is_required: false,
                shape: Shape::Key(""),
                example: "0123456789abcdef0123456789abcdef",
                help: "The primary auth token. Sends, and verifies Twilio's webhooks.",
                help_url: TWILIO_CONSOLE,
            },
            Field {
                name: "auth_token_secondary",
                label: "Secondary auth token",
                is_required: false,
                shape: Shape::SigningSecret,
                example: "fedcba9876543210fedcba9876543210",
                help: "While a token is rotated: webhooks are verified with either, whichever Twilio has promoted.",
                help_url: TWILIO_CONSOLE,
            },
            Field {
                name: "api_key_sid",
                label: "API key SID",
                is_required: false,
                shape: Shape::Sid("SK"),
                example: "SK0123456789abcdef0123456789abcdef",
                help: "In the place of the auth token. It sends, but cannot verify webhooks. A Standard key is enough.",
                help_url: TWILIO_KEYS,
            },
            Field {
                name: "api_key_secret",
                label: "API key secret",
                is_required: false,
                shape: Shape::Key(""),
                example: "0123456789abcdef0123456789abcdef",
                help: "Shown once, when the key is made.",
                help_url: TWILIO_KEYS,
            },
            Field {
                name: "phone_number",
                label: "Phone number",
                is_required: false,
                shape: Shape::E164,
                example: "+12025550123",
                help: "What texts go out from where a rule names no other.",
                help_url: "https://www.twilio.com/docs/glossary/what-e164",
            },
        ],
        ways: &[&["auth_token"], &["api_key_sid", "api_key_secret"]],
        probes: &[
            Probe {
                method: "GET",
                path: "/2010-04-01/Accounts/{account_sid}.json",
                feature: "the account's name and status",
            },
            // A call that a Standard API key may make as well (docs:iam/api-keys).
            Probe {
                method: "GET",
                path: "/2010-04-01/Accounts/{account_sid}/Messages.json?PageSize=1",
                feature: "looking up messages whose sending was not confirmed",
            },
        ],
    },
    Form {
        provider: Provider::GoogleCalendar,
        name: "Google Calendar",
        help_url: "https://support.google.com/accounts/answer/3466521",
        how: How::Oauth,
        fields: &[],
        ways: &[],
        probes: &[Probe {
            method: "POST",
            path: "/calendar/v3/freeBusy",
            feature: "seeing when a calendar is free",
        }],
    },
    Form {
        provider: Provider::Resend,
        name: "Resend",
        help_url: "https://resend.com/docs/dashboard/api-keys/introduction",
        how: How::Fields,
        fields: &[
            Field {
                name: "api_key",
                label: "API key",
                is_required: true,
                shape: Shape::Key("re_"),
                example: "re_0123456789abcdef",
                help: "Dashboard, API keys. Sending access is enough to send.",
                help_url: "https://resend.com/docs/dashboard/api-keys/introduction",
            },
            Field {
                name: "from",
                label: "Sender",
                is_required: false,
                shape: Shape::Mailbox,
                example: "Birchwood Dental <hello@example.com>",
                help: "Who e-mails are from where a rule names no other: an address of a domain that is verified at \
                    Resend.",
                help_url: "https://resend.com/docs/dashboard/domains/introduction",
            },
        ],
        ways: &[],
        probes: &[Probe {
            method: "GET",
            path: "/domains",
            feature: "seeing which domains are verified, and looking e-mails up",
        }],
    },
    Form {
        provider: Provider::ElevenLabs,
        name: "ElevenLabs",
        help_url: "https://elevenlabs.io/docs/api-reference/authentication",
        how: How::Fields,
        fields: &[Field {
            name: "api_key",
            label: "API key",
            is_required: true,
            shape: Shape::Key(""),
            example: "sk_0123456789abcdef0123456789abcdef0123456789abcdef",
            help: "Profile, API keys. A key may be restricted; what it then cannot do is said after verifying.",
            help_url: "https://elevenlabs.io/docs/api-reference/authentication",
        }],
        ways: &[],
        probes: &[
            Probe {
                method: "GET",
                path: "/v1/user",
                feature: "seeing the account and its credits (permission user_read)",
            },
            Probe {
                method: "GET",
                path: "/v2/voices?page_size=1",
                feature: "listing voices (permission voices_read)",
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_five_in_order_and_its_examples_fit() {
        assert_eq!(
            FORMS.iter().map(|form| form.provider).collect::<Vec<_>>(),
            Provider::INTEGRATIONS
        );
        for form in FORMS {
            assert!(!form.probes.is_empty(), "{}: nothing verifies it", form.name);
            for field in form.fields {
                assert!(field.shape.matches(field.example), "{} {}", form.name, field.name);
                assert!(
                    field.help_url.starts_with("https://") && field.help.ends_with('.'),
                    "{} {}",
                    form.name,
                    field.name
                );
            }
            for name in form.ways.iter().copied().flatten() {
                assert!(
                    form.field(name).is_some_and(|field| !field.is_required),
                    "{} {name}",
                    form.name
                );
            }
            for probe in form.probes {
                for name in probe.path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                    assert!(
                        form.field(name)
                            .is_some_and(|field| field.is_required && !field.shape.is_secret()),
                        "{} {name}",
                        probe.path
                    );
                }
            }
        }
    }

    #[test]
    fn shapes_take_what_is_right_and_nothing_else() {
        let digits = "0123456789abcdefABCDEF9876543210";
        for (shape, right, wrong) in [
            (
                Shape::Sid("AC"),
                vec![format!("AC{digits}")],
                vec![
                    digits.to_owned(),
                    format!("SK{digits}"),
                    format!("AC{digits}0"),
                    format!("ac{digits}"),
                ],
            ),
            (
                Shape::E164,
                ["+12025550123", "+442079460958", "+12345678", "+123456789012345"]
                    .map(str::to_owned)
                    .to_vec(),
                [
                    "12025550123",
                    "+1 202 555 0123",
                    "+02025550123",
                    "+1234567",
                    "+1234567890123456",
                    "+1202555012３",
                    "tel:+12025550123",
                    "",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            (
                Shape::Key("re_"),
                vec!["re_1".to_owned()],
                vec![
                    "re_".to_owned(),
                    "sk_1".to_owned(),
                    "re_a b".to_owned(),
                    "re_é".to_owned(),
                    format!("re_{}", "a".repeat(510)),
                ],
            ),
            (
                Shape::SigningSecret,
                vec!["a".repeat(16)],
                vec!["a".repeat(15), "a".repeat(513), "whsec_ abcdefghijkl".to_owned()],
            ),
            (
                Shape::Mailbox,
                ["a@b.example", "Ann B. <ann@mail.example.com>", "Größe <a@b.example>"]
                    .map(str::to_owned)
                    .to_vec(),
                [
                    "a",
                    "a@b",
                    "a@@b.example",
                    "<a@b.example",
                    "A <a@b.example> x",
                    "a@b.example\r\nBcc: x@y.example",
                    "a@b.example, c@d.example",
                    "",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
        ] {
            for (texts, is_right) in [(right, true), (wrong, false)] {
                for text in texts {
                    assert_eq!(shape.matches(&text), is_right, "{shape:?} {text:?}");
                }
            }
        }
    }
}
