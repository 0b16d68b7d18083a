//! `twilio.send_sms`: one SMS by the organisation's own account.
//!
//! Parameters: `to` (E.164), `body` (1 to 1,600 characters), and optionally `from` and
//! `messaging_service_sid`; without either the credential's number sends.
//!
//! **Invariant:** Twilio knows no idempotency key, so what may have gone out is looked up in the
//! account's list before any second send (invariant 2).

use super::*;
use crate::{
    domain::{DeliveryStatus, Source},
    provider::{
        ProviderRefusal, TwilioAuth, TwilioCredential, is_e164, is_sid,
        twilio::{self, Listed, ListedMessage, NewMessage},
    },
};

pub struct TwilioSendSms;

/// Most characters of a body (error 21617).
const BODY_CHARACTERS_MAX: usize = 1600;
/// Twilio's connection overrides, put on every URL that we give to it: five tries for 5xx and
/// failed connections, all within its 15 s. Neither sent nor signed.
const CALLBACK_OVERRIDES: &str = "#rc=5&rp=5xx,ct,rt";
/// The parameter of the callback's URL that carries the action's id. Twilio signs the URL.
const CALLBACK_ACTION: &str = "action";
/// How far Twilio's clock may be behind ours: messages are matched from this long before the first
/// try. Invariant 16 takes an instance out of service at this offset. A match that is too early
/// holds another action's id, or makes the outcome ambiguous. A message that is missed would be
/// sent twice.
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

    /// The message of a frozen request, or the outcome of an attempt that has none to send.
    fn message<'a>(
        request: &'a FrozenRequest,
        credential: &'a TwilioCredential,
        status_callback: Option<&'a str>,
    ) -> Result<NewMessage<'a>, (Outcome, Detail)> {
        let messaging_service_sid = Self::text(request, "messaging_service_sid");
        let own_number = || {
            credential
                .phone_number
                .as_deref()
                .filter(|_| messaging_service_sid.is_none())
        };
        let from = Self::text(request, "from").or_else(own_number);
        if from.is_none() && messaging_service_sid.is_none() {
            let text = "no number to send from: give the integration a phone number, or the rule a from or a \
                messaging_service_sid";
            let cause = Cause::Misconfigured;
            return Err((Outcome::Park { cause }, Detail::in_words(text)));
        }
        let (Some(to), Some(body)) = (Self::text(request, "to"), Self::text(request, "body")) else {
            let cause = Cause::InvalidRequest;
            let detail = Detail::in_words("the frozen request has no to or no body");
            return Err((Outcome::Dead { cause }, detail));
        };
        Ok(NewMessage {
            to,
            from,
            messaging_service_sid,
            body,
            status_callback,
        })
    }
}

#[async_trait]
impl Action for TwilioSendSms {
    fn kind(&self) -> ActionKind {
        ActionKind::TwilioSendSms
    }

    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::LookUp {
            delay: Duration::from_mins(1),
            times: 2,
            is_by_own_id: false,
        }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(self.kind(), parameters)
    }

    fn stand_in(&self, name: &str) -> Value {
        let text = match name {
            "to" | "from" => "+12025550123",
            "messaging_service_sid" => "MG0123456789abcdef0123456789abcdef",
            _ => "text",
        };
        text.into()
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        trim(&mut rendered, &["to", "from", "messaging_service_sid"]);
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
        let status_callback = attempt.public_url.map(|url| callback_url(url, attempt.action));
        let message = match Self::message(attempt.request, credential, status_callback.as_deref()) {
            Ok(message) => message,
            Err(not_sent) => return not_sent,
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
                    text: format!(
                        "{}, from {}",
                        sent.status.as_deref().unwrap_or("accepted"),
                        sender(&message)
                    )
                    .into(),
                };
                (
                    Outcome::Succeeded {
                        cause: Cause::Accepted,
                        provider_ref: Some(sent.sid),
                    },
                    detail,
                )
            }
            Err(error) => {
                let (outcome, mut detail) = (twilio::outcome(&error, providers.http.now()), detail_of(&error));
                // Twilio names the number that is wrong, and numbers are masked in its words: the
                // organisation is shown its own.
                if outcome.cause() == Cause::Misconfigured {
                    detail.text = format!("{} (the sender is {})", detail.text, sender(&message)).into();
                }
                (outcome, detail)
            }
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
        // Only a number that is frozen in the request. The credential's number may have changed
        // since the message went out, and a messaging service picks its own.
        let from = Self::text(attempt.request, "from")
            .filter(|_| Self::text(attempt.request, "messaging_service_sid").is_none());
        match providers
            .twilio
            .list_messages(credential, to, from, since, attempt.deadline)
            .await
        {
            Ok(listed) => matches_of(&listed, to, body, since),
            Err(error) => (
                LookUp::Failed(Outcome::Unknown {
                    cause: cause_of_failed_look_up(&error, credential),
                }),
                detail_of(&error),
            ),
        }
    }

    /// A status callback of a send of ours: the action's id stands in the URL that we gave with the
    /// send, under Twilio's signature.
    fn read_callback(&self, event: &Envelope) -> Option<Callback> {
        if event.source != Source::Twilio || event.event_type.kind() != "message-status" {
            return None;
        }
        let value_of = |form: &'_ [u8], wanted: &str| {
            pairs(form)
                .find(|(name, _)| *name == wanted.as_bytes())
                .and_then(|(_, value)| String::from_utf8(value.to_vec()).ok())
        };
        let action = value_of(event.query.as_bytes(), CALLBACK_ACTION)?.parse().ok()?;
        // SIDs are plain letters and digits: nothing to decode.
        let provider_ref = value_of(&event.body, "MessageSid")?;
        let is_sid = provider_ref.len() == 34 && provider_ref.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let code = value_of(&event.body, "ErrorCode").filter(|code| is_error_code(code));
        let delivery = value_of(&event.body, "MessageStatus").and_then(|status| delivery_of(&status, code));
        is_sid.then_some(Callback {
            action,
            provider_ref,
            delivery,
        })
    }
}

/// The sender of a message: the organisation's own number or messaging service.
fn sender<'m>(message: &NewMessage<'m>) -> &'m str {
    message.from.or(message.messaging_service_sid).unwrap_or_default()
}

fn is_error_code(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && text != "0"
}

/// Twilio's status of a message (docs: "Message status values"). `None` for what is no outgoing
/// message's.
fn delivery_of(status: &str, code: Option<String>) -> Option<Delivery> {
    let status = match status {
        "accepted" | "scheduled" | "queued" | "sending" | "sent" => DeliveryStatus::Sent,
        "delivered" => DeliveryStatus::Delivered,
        "read" => DeliveryStatus::Read,
        "undelivered" => DeliveryStatus::Undelivered,
        "failed" | "canceled" => DeliveryStatus::Failed,
        _ => return None,
    };
    let detail = code.as_deref().and_then(meaning_of).map(str::to_owned);
    Some(Delivery { status, code, detail })
}

/// Error codes of a delivery, in words (docs: "Error and warning dictionary").
fn meaning_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "21610" => "the recipient has opted out of messages from this number",
        "30001" => "the queue of messages of the account was full",
        "30002" => "the account is suspended",
        "30003" => "the handset cannot be reached: switched off, or out of coverage",
        "30004" => "the recipient blocks the message",
        "30005" => "the number is unknown or not in service any more",
        "30006" => "the number is a landline, or its carrier cannot be reached",
        "30007" => "the carrier filtered the message as unwanted",
        "30008" => "the carrier gives no reason",
        "30034" => "the number is not registered for A2P 10DLC",
        "30036" => "the message was not delivered within its validity period",
        "30450" => "Twilio blocked the message as probable SMS pumping fraud",
        _ => return None,
    })
}

/// Where Twilio calls back about an action.
fn callback_url(public_url: &str, action: ActionId) -> String {
    let public_url = public_url.trim_end_matches('/');
    format!("{public_url}/webhooks/twilio?{CALLBACK_ACTION}={action}{CALLBACK_OVERRIDES}")
}

/// The listed messages that could be the one that was sent.
fn matches_of(listed: &Listed, to: &str, body: &str, since: Timestamp) -> (LookUp, Detail) {
    let is_match = |message: &&ListedMessage| {
        message.is_outbound
            && message.created_at.is_none_or(|at| at >= since)
            && message.to.as_deref().is_none_or(|theirs| theirs == to)
            && message.body.as_deref().is_none_or(|theirs| is_same_text(theirs, body))
    };
    let ids: Vec<Box<str>> = listed
        .messages
        .iter()
        .filter(is_match)
        .map(|message| message.sid.clone())
        .collect();
    if ids.is_empty() && !listed.is_complete {
        let cause = Cause::Ambiguous;
        let detail = Detail::in_words("the recipient has more messages than a look-up reads");
        return (LookUp::Failed(Outcome::Unknown { cause }), detail);
    }
    let detail = Detail {
        http_status: Some(200),
        provider_code: None,
        text: format!("{} of {} listed messages match", ids.len(), listed.messages.len()).into(),
    };
    (LookUp::Matches(ids), detail)
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

fn pairs(form: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    form.split(|&byte| byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    })
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
        let frozen = freeze(json!({"to": " +15551234567\n", "body": "hi", "from": " ", "event": {"type": "x"}}))
            .expect("a request");
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
                json!({"to": "+1555\n1234567", "body": "x"}),
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

    fn callback(query: &str, body: &str) -> Option<Callback> {
        let at = Timestamp::from_seconds(1);
        TwilioSendSms.read_callback(&Envelope {
            id: EventId::generate(),
            source: Source::Twilio,
            event_type: crate::domain::EventType::new(Source::Twilio, "message-status"),
            time: at,
            received_at: at,
            subject: crate::domain::Subject("SM".into()),
            org: Some(OrgId::generate()),
            endpoint: None,
            secret: None,
            dedupe_key: crate::domain::DedupeKey([0; 16]),
            traceparent: None,
            content_type: "application/x-www-form-urlencoded".into(),
            path: "/webhooks/twilio".into(),
            query: query.into(),
            headers: Vec::new(),
            hops: 0,
            body: body.to_owned().into(),
        })
    }

    #[test]
    fn a_callback_says_which_action_and_what_became_of_it() {
        let id = ActionId::generate();
        let url = callback_url("https://hooks.example/", id);
        assert!(
            url.starts_with("https://hooks.example/webhooks/twilio?action="),
            "{url}"
        );
        let query = url.split(['?', '#']).nth(1).expect("a query");
        let sid = "SM0123456789abcdef0123456789abcdef";
        for (status, code, expected) in [
            ("sent", "", Some((DeliveryStatus::Sent, None, false))),
            ("delivered", "", Some((DeliveryStatus::Delivered, None, false))),
            (
                "undelivered",
                "30007",
                Some((DeliveryStatus::Undelivered, Some("30007"), true)),
            ),
            ("failed", "99999", Some((DeliveryStatus::Failed, Some("99999"), false))),
            ("failed", "x'--", Some((DeliveryStatus::Failed, None, false))),
            ("received", "", None),
        ] {
            let body = format!("MessageSid={sid}&MessageStatus={status}&ErrorCode={code}");
            let callback = callback(query, &body).expect("a callback");
            assert_eq!((callback.action, callback.provider_ref.as_str()), (id, sid));
            let delivery = callback.delivery;
            let found = delivery
                .as_ref()
                .map(|delivery| (delivery.status, delivery.code.as_deref(), delivery.detail.is_some()));
            assert_eq!(found, expected, "{status} {code}");
        }
        assert_eq!(
            callback("action=1", &format!("MessageSid={sid}&MessageStatus=sent")),
            None
        );
        assert_eq!(callback(query, "MessageSid=SM1&MessageStatus=sent"), None);
        assert_eq!(callback("", &format!("MessageSid={sid}&MessageStatus=sent")), None);
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
