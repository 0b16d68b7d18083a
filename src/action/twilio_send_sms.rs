//! `twilio.send_sms`: one SMS by the organisation's own account.
//!
//! Parameters: `to` (E.164), `body` (1 to 1,600 characters), and optionally `from` and
//! `messaging_service_sid`; without either the credential's number sends.
//!
//! **Invariant:** Twilio knows no idempotency key, so what may have gone out is looked up in the
//! account's list before any second send (invariant 2).

use super::*;
use crate::provider::{
    ProviderRefusal, TwilioAuth, TwilioCredential, is_e164, is_sid,
    twilio::{self, ListedMessage, NewMessage},
};

pub struct TwilioSendSms;

/// Most characters of a body (error 21617).
const BODY_CHARACTERS_MAX: usize = 1600;
/// Twilio's connection overrides, put on every URL that we give to it: five tries for 5xx and
/// failed connections, all within its 15 s. Neither sent nor signed.
const CALLBACK_OVERRIDES: &str = "#rc=5&rp=5xx,ct,rt";
/// How far Twilio's clock may be behind ours: messages are matched from this long before the first
/// try. Invariant 16 takes an instance out of service at this offset. What is matched too early is
/// another action's by its id, or makes the outcome ambiguous; what is missed would be sent twice.
const CLOCK_ALLOWANCE: Duration = Duration::from_mins(1);
/// Stands before the bodies that trial accounts send. Seen in public answers; not in the API
/// description.
const TRIAL_PREFIX: &str = "Sent from your Twilio trial account - ";

impl TwilioSendSms {
    fn text<'a>(request: &'a FrozenRequest, name: &str) -> Option<&'a str> {
        request
            .0
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }
}

#[async_trait]
impl Action for TwilioSendSms {
    fn kind(&self) -> ActionKind {
        ActionKind::TwilioSendSms
    }

    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::LookUp {
            settle: Duration::from_mins(1),
            times: 2,
        }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(
            parameters,
            &["to", "body", "from", "messaging_service_sid"],
            &[],
            &["to", "body"],
        )
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        // An optional parameter that renders to nothing is one that was not given.
        rendered.retain(|name, value| matches!(name.as_str(), "to" | "body") || value.as_str() != Some(""));
        let text = |name: &str| rendered.get(name).and_then(Value::as_str);
        let recipient = |problem: &str| ParameterError {
            field: "parameters.to".to_owned(),
            problem: problem.to_owned(),
            cause: Cause::InvalidRecipient,
        };
        match text("to").unwrap_or_default() {
            "" => return Err(recipient("is empty: this event has no number to text")),
            to if !is_e164(to) => return Err(recipient("expected E.164: + and 8 to 15 digits")),
            _ => {}
        }
        let body = text("body").unwrap_or_default();
        if body.trim().is_empty() {
            return Err(invalid("body", "is empty"));
        }
        let characters = body.chars().count();
        if characters > BODY_CHARACTERS_MAX {
            return Err(invalid(
                "body",
                &format!("has {characters} characters, {BODY_CHARACTERS_MAX} at most"),
            ));
        }
        if text("from").is_some_and(|from| !is_sender(from)) {
            return Err(invalid(
                "from",
                "expected a number in E.164, a short code, or up to 11 letters and digits",
            ));
        }
        if text("messaging_service_sid").is_some_and(|sid| !is_sid(sid, "MG")) {
            return Err(invalid(
                "messaging_service_sid",
                "expected MG and 32 hexadecimal digits",
            ));
        }
        Ok(FrozenRequest(rendered))
    }

    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail) {
        let Credential::Twilio(credential) = attempt.credential else {
            let (cause, detail) = wrong_credential();
            return (Outcome::Park { cause }, detail);
        };
        let messaging_service_sid = Self::text(attempt.request, "messaging_service_sid");
        let from = Self::text(attempt.request, "from").or_else(|| {
            credential
                .phone_number
                .as_deref()
                .filter(|_| messaging_service_sid.is_none())
        });
        if from.is_none() && messaging_service_sid.is_none() {
            let text = "no number to send from: give the integration a phone number, or the rule a from or a \
                messaging_service_sid"
                .into();
            return (
                Outcome::Park {
                    cause: Cause::Misconfigured,
                },
                Detail {
                    text,
                    ..Detail::default()
                },
            );
        }
        let (Some(to), Some(body)) = (Self::text(attempt.request, "to"), Self::text(attempt.request, "body")) else {
            return (
                Outcome::Dead {
                    cause: Cause::InvalidRequest,
                },
                Detail {
                    text: "the frozen request has no to or no body".into(),
                    ..Detail::default()
                },
            );
        };
        let status_callback = attempt.status_callback.as_ref().map(|url| {
            if url.contains('#') {
                url.clone()
            } else {
                format!("{url}{CALLBACK_OVERRIDES}")
            }
        });
        let message = NewMessage {
            to,
            from,
            messaging_service_sid,
            body,
            status_callback: status_callback.as_deref(),
        };
        match providers
            .twilio
            .send_message(credential, message, attempt.deadline)
            .await
        {
            Ok(sent) => {
                let detail = Detail {
                    http_status: Some(201),
                    provider_code: None,
                    text: sent.status.unwrap_or_default(),
                };
                (
                    Outcome::Succeeded {
                        cause: Cause::Accepted,
                        provider_ref: Some(sent.sid),
                    },
                    detail,
                )
            }
            Err(error) => (twilio::outcome(&error, providers.http.now()), detail_of(&error)),
        }
    }

    async fn look_up(&self, providers: &Providers, attempt: &Attempt<'_>) -> (LookUp, Detail) {
        let Credential::Twilio(credential) = attempt.credential else {
            // Never `Park` from here: a parked action is sent when the credential changes, and this
            // one may have gone out.
            let (cause, detail) = wrong_credential();
            return (LookUp::Failed(Outcome::Unknown { cause }), detail);
        };
        let (Some(to), Some(body)) = (Self::text(attempt.request, "to"), Self::text(attempt.request, "body")) else {
            return (
                LookUp::Failed(Outcome::Unknown {
                    cause: Cause::Ambiguous,
                }),
                Detail::default(),
            );
        };
        let since = attempt.first_sent_at.unwrap_or(attempt.planned_at) - CLOCK_ALLOWANCE;
        // Only a number that is frozen in the request: the credential's may have changed since the
        // message went out, and a messaging service picks its own.
        let from = Self::text(attempt.request, "from")
            .filter(|_| Self::text(attempt.request, "messaging_service_sid").is_none());
        match providers
            .twilio
            .list_messages(credential, to, from, since, attempt.deadline)
            .await
        {
            Ok(listed) => {
                let matches = |message: &&ListedMessage| {
                    message.is_outbound
                        && message.created_at.is_none_or(|at| at >= since)
                        && message.to.as_deref().is_none_or(|theirs| theirs == to)
                        && message.body.as_deref().is_none_or(|theirs| is_same_text(theirs, body))
                };
                let ids: Vec<Box<str>> = listed
                    .messages
                    .iter()
                    .filter(matches)
                    .map(|message| message.sid.clone())
                    .collect();
                if ids.is_empty() && !listed.is_complete {
                    let text = "the recipient has more messages than a look-up reads".into();
                    return (
                        LookUp::Failed(Outcome::Unknown {
                            cause: Cause::Ambiguous,
                        }),
                        Detail {
                            text,
                            ..Detail::default()
                        },
                    );
                }
                let text = format!("{} of {} listed messages match", ids.len(), listed.messages.len()).into();
                (
                    LookUp::Matches(ids),
                    Detail {
                        http_status: Some(200),
                        provider_code: None,
                        text,
                    },
                )
            }
            Err(error) => (
                LookUp::Failed(Outcome::Unknown {
                    cause: cause_of_failed_look_up(&error, credential),
                }),
                detail_of(&error),
            ),
        }
    }
}

fn cause_of_failed_look_up(error: &CallError, credential: &TwilioCredential) -> Cause {
    match error {
        CallError::NotSent { .. } => Cause::ConnectFailed,
        // Keys may be allowed to send and not to list; of an auth token the same answer says that
        // it is wrong.
        CallError::Refused(ProviderRefusal {
            http_status: 401 | 403, ..
        }) if matches!(credential.auth, TwilioAuth::ApiKey { .. }) => Cause::LookUpForbidden,
        CallError::Refused(ProviderRefusal {
            http_status: 401 | 403, ..
        }) => Cause::CredentialRefused,
        CallError::Refused(ProviderRefusal { http_status: 429, .. }) => Cause::RateLimited,
        CallError::Refused(ProviderRefusal { http_status: 500.., .. }) => Cause::ProviderUnavailable,
        _ => Cause::NoAnswer,
    }
}

/// Whether a listed body is ours. Twilio may trim the ends and write line breaks its own way; a
/// false "absent" would send twice, so these count as equal.
fn is_same_text(theirs: &str, ours: &str) -> bool {
    let lines = |text: &str| text.replace("\r\n", "\n").trim().to_owned();
    theirs == ours || lines(theirs.strip_prefix(TRIAL_PREFIX).unwrap_or(theirs)) == lines(ours)
}

/// A number, a short code, or an alphanumeric sender id (at most 11 characters, one letter at
/// least; docs: "Alphanumeric Sender ID").
fn is_sender(text: &str) -> bool {
    let is_short_code = (3..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'+' | b'-' | b'_' | b'&');
    let is_alphanumeric =
        text.len() <= 11 && text.bytes().any(|byte| byte.is_ascii_alphabetic()) && text.bytes().all(is_name);
    is_e164(text) || is_short_code || is_alphanumeric
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn freeze(value: Value) -> Result<FrozenRequest, ParameterError> {
        let Value::Object(map) = value else { panic!("an object") };
        TwilioSendSms.freeze(map)
    }

    #[test]
    fn what_is_frozen_is_what_was_rendered_without_event_and_blanks() {
        let frozen =
            freeze(json!({"to": "+15551234567", "body": "hi", "from": "", "event": {"type": "x"}})).expect("a request");
        assert_eq!(Value::Object(frozen.0), json!({"to": "+15551234567", "body": "hi"}));
    }

    #[test]
    fn what_cannot_be_sent_is_found_at_planning() {
        let long = "a".repeat(1601);
        for (value, field, cause) in [
            (json!({"to": "", "body": "x"}), "parameters.to", Cause::InvalidRecipient),
            (
                json!({"to": "15551234567", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+1555123", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+1234567890123456", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+05551234567", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+1 5551234567", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+1555１234567", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "whatsapp:+15551234567", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+15551234567\n", "body": "x"}),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                json!({"to": "+15551234567", "body": " \n"}),
                "parameters.body",
                Cause::InvalidRequest,
            ),
            (
                json!({"to": "+15551234567", "body": long}),
                "parameters.body",
                Cause::InvalidRequest,
            ),
            (json!({"to": "+15551234567"}), "parameters.body", Cause::InvalidRequest),
            (
                json!({"to": 15_551_234_567_u64, "body": "x"}),
                "parameters.to",
                Cause::InvalidRequest,
            ),
            (
                json!({"to": "+15551234567", "body": "x", "from": "whatsapp:+1"}),
                "parameters.from",
                Cause::InvalidRequest,
            ),
            (
                json!({"to": "+15551234567", "body": "x", "messaging_service_sid": "MG1"}),
                "parameters.messaging_service_sid",
                Cause::InvalidRequest,
            ),
            (
                json!({"to": "+15551234567", "body": "x", "cc": "y"}),
                "parameters.cc",
                Cause::InvalidRequest,
            ),
        ] {
            let error = freeze(value.clone()).expect_err(&value.to_string());
            assert_eq!((error.field.as_str(), error.cause), (field, cause), "{value}");
            assert!(
                !error.problem.contains("555"),
                "an error repeats the number: {}",
                error.problem
            );
        }
        assert!(freeze(json!({"to": "+15551234567", "body": "é".repeat(1600)})).is_ok());
        assert!(freeze(json!({"to": "+12345678", "body": "x", "from": "ACME Inc"})).is_ok());
    }

    #[test]
    fn the_event_is_no_parameter_of_a_rule() {
        let Value::Object(map) = json!({"to": "a", "body": "b", "event": {}}) else {
            panic!("an object")
        };
        assert_eq!(
            TwilioSendSms.check_parameters(&map).expect_err("refused").field,
            "parameters.event"
        );
    }

    #[test]
    fn bodies_compare_but_for_what_twilio_may_change() {
        for (theirs, same) in [
            ("Hello\nyou", true),
            ("Hello\r\nyou", true),
            ("Hello\nyou ", true),
            ("Sent from your Twilio trial account - Hello\nyou", true),
            ("hello\nyou", false),
            ("Hello\nyou!", false),
            ("", false),
        ] {
            assert_eq!(is_same_text(theirs, "Hello\nyou"), same, "{theirs:?}");
        }
    }
}
