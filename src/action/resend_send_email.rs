//! `resend.send_email`: one e-mail by the organisation's own account.
//!
//! Parameters: `to` (an address, or a list of up to 50), `subject`, `text` and/or `html`, and
//! optionally `from` (else the integration's sender), `cc`, `bcc`, `reply_to`. The table of errors
//! stands at [`resend::outcome`].
//!
//! **Invariant:** every try sends the same bytes under the same key, which Resend absorbs for a
//! day; past that a person decides. The sender of the integration is not frozen: where it changed
//! between two tries, Resend says so (409), and nothing goes out twice.

use super::*;
use crate::provider::{is_mailbox, resend};

pub struct ResendSendEmail;

/// Recipients of one e-mail (OpenAPI document, `SendEmailRequest.to`).
const RECIPIENTS_MAX: usize = 50;
const SUBJECT_CHARACTERS_MAX: usize = 998;
/// Of text and HTML together; Resend's own limit of 40 MB is for attachments.
const BODY_BYTES_MAX: usize = 256 << 10;
/// The fields of an e-mail, in the order in which they are written.
const TEXTS: [&str; 4] = ["from", "subject", "text", "html"];
const MAILBOXES: [&str; 4] = ["to", "cc", "bcc", "reply_to"];

/// The mailboxes of a parameter: one text, or a list of texts.
fn mailboxes<'a>(name: &str, value: &'a Value) -> Result<Vec<&'a str>, ParameterError> {
    let wrong = || ParameterError {
        field: format!("parameters.{name}"),
        problem: "expected an address such as mail@example.com, Name <mail@example.com>, or a list of them".to_owned(),
        cause: if name == "reply_to" {
            Cause::InvalidRequest
        } else {
            Cause::InvalidRecipient
        },
    };
    let all: Vec<&str> = match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    if all.is_empty() || all.len() > RECIPIENTS_MAX || !all.iter().all(|text| is_mailbox(text)) {
        return Err(wrong());
    }
    Ok(all)
}

/// Whether a parameter rendered to nothing.
fn is_nothing(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim().is_empty()) || value.as_array().is_some_and(Vec::is_empty)
}

fn check_recipients(rendered: &Map<String, Value>) -> Result<(), ParameterError> {
    if rendered.get("to").is_none_or(is_nothing) {
        return Err(ParameterError {
            field: "parameters.to".to_owned(),
            problem: "is empty: this event has no address to write to".to_owned(),
            cause: Cause::InvalidRecipient,
        });
    }
    let mut recipients = 0;
    for name in MAILBOXES {
        let Some(value) = rendered.get(name) else { continue };
        let count = mailboxes(name, value)?.len();
        recipients += if name == "reply_to" { 0 } else { count };
    }
    if recipients > RECIPIENTS_MAX {
        let problem = format!("with cc and bcc there are {recipients} recipients, {RECIPIENTS_MAX} at most");
        return Err(invalid("to", &problem));
    }
    Ok(())
}

fn check_texts(rendered: &Map<String, Value>) -> Result<(), ParameterError> {
    let text = |name: &str| rendered.get(name).and_then(Value::as_str);
    let subject = text("subject").unwrap_or_default();
    let is_too_long = subject.chars().count() > SUBJECT_CHARACTERS_MAX;
    if subject.trim().is_empty() || is_too_long || subject.chars().any(char::is_control) {
        let problem = format!("expected 1 to {SUBJECT_CHARACTERS_MAX} characters on one line");
        return Err(invalid("subject", &problem));
    }
    if text("from").is_some_and(|from| !is_mailbox(from)) {
        let expected = "expected an address such as mail@example.com, or Name <mail@example.com>";
        return Err(invalid("from", expected));
    }
    match text("text").unwrap_or_default().len() + text("html").unwrap_or_default().len() {
        0 => Err(invalid("text", "is empty, and so is html")),
        bytes if bytes > BODY_BYTES_MAX => {
            let problem = format!("with html it is {bytes} bytes long, {BODY_BYTES_MAX} at most");
            Err(invalid("text", &problem))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Action for ResendSendEmail {
    fn kind(&self) -> ActionKind {
        ActionKind::ResendSendEmail
    }

    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::SameKeyAgain {
            window: resend::KEY_WINDOW,
        }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(self.kind(), parameters)?;
        if parameters.contains_key("text") || parameters.contains_key("html") {
            Ok(())
        } else {
            Err(invalid("text", "missing: give text, html or both"))
        }
    }

    fn stand_in(&self, name: &str) -> Value {
        let text = match name {
            "from" | "to" | "cc" | "bcc" | "reply_to" => "mail@example.com",
            _ => "text",
        };
        text.into()
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        trim(&mut rendered, &MAILBOXES);
        trim(&mut rendered, &["from"]);
        // An optional parameter that renders to an empty text counts as left out. An empty place in
        // a list is dropped.
        for value in rendered.values_mut() {
            if let Value::Array(items) = value {
                items.retain(|item| item.as_str().is_none_or(|text| !text.trim().is_empty()));
            }
        }
        rendered.retain(|name, value| name == "to" || name == "subject" || !is_nothing(value));
        check_recipients(&rendered)?;
        check_texts(&rendered)?;
        Ok(FrozenRequest(rendered))
    }

    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail) {
        let Credential::Resend(credential) = attempt.credential else {
            let (cause, detail) = wrong_credential();
            return (Outcome::Park { cause }, detail);
        };
        let request = &attempt.request.0;
        let Some(from) = request
            .get("from")
            .and_then(Value::as_str)
            .or(credential.from.as_deref())
        else {
            let detail = Detail::in_words("no sender: give the integration one, or the rule a from");
            let cause = Cause::Misconfigured;
            return (Outcome::Park { cause }, detail);
        };
        match providers
            .resend
            .send_email(
                credential,
                body_of(request, from),
                attempt.idempotency_key,
                attempt.deadline,
            )
            .await
        {
            Ok(sent) => {
                let detail = Detail {
                    http_status: Some(200),
                    ..Detail::default()
                };
                (
                    Outcome::Succeeded {
                        cause: Cause::Accepted,
                        provider_ref: Some(sent.id),
                    },
                    detail,
                )
            }
            Err(error) => (resend::outcome(&error, providers.http.now()), detail_of(&error)),
        }
    }

    async fn look_up(&self, _providers: &Providers, _attempt: &Attempt<'_>) -> (LookUp, Detail) {
        // Resend's list has no filter by key, and only the lost answer has the id. So the same key
        // is sent again within its window.
        let cause = Cause::LookUpForbidden;
        let detail = Detail::in_words("Resend cannot be asked by our key");
        (LookUp::Failed(Outcome::Unknown { cause }), detail)
    }
}

/// The bytes that go out: the same for every try.
fn body_of(request: &Map<String, Value>, from: &str) -> Vec<u8> {
    let mut body = Map::new();
    body.insert("from".to_owned(), from.into());
    for name in MAILBOXES.into_iter().chain(TEXTS) {
        if let Some(value) = request.get(name).filter(|_| name != "from") {
            body.insert(name.to_owned(), value.clone());
        }
    }
    serde_json::to_vec(&body).expect("a JSON value always has a text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn freeze(value: Value) -> Result<FrozenRequest, ParameterError> {
        let Value::Object(map) = value else { panic!("an object") };
        ResendSendEmail.freeze(map)
    }

    #[test]
    fn what_is_frozen_is_what_was_rendered_without_blanks() {
        let frozen = freeze(
            json!({"to": [" a@b.example\n", ""], "subject": "Hi", "text": "x", "cc": "", "from": " ", "event": {}}),
        )
        .expect("a request");
        assert_eq!(
            Value::Object(frozen.0.clone()),
            json!({"to": ["a@b.example"], "subject": "Hi", "text": "x"})
        );
        let bytes = body_of(&frozen.0, "Us <us@c.example>");
        assert_eq!(
            serde_json::from_slice::<Value>(&bytes).expect("JSON"),
            json!({"from": "Us <us@c.example>", "to": ["a@b.example"], "subject": "Hi", "text": "x"})
        );
        let again: FrozenRequest = serde_json::from_slice(&serde_json::to_vec(&frozen).expect("JSON")).expect("JSON");
        assert_eq!(
            body_of(&again.0, "Us <us@c.example>"),
            bytes,
            "the row gives the same bytes again"
        );
    }

    #[test]
    fn what_cannot_be_sent_is_found_at_planning() {
        let many: Vec<String> = (0..51).map(|n| format!("a{n}@b.example")).collect();
        let good = |extra: Value| {
            let mut all = json!({"to": "a@b.example", "subject": "s", "text": "t"});
            all.as_object_mut()
                .expect("an object")
                .extend(extra.as_object().expect("an object").clone());
            all
        };
        for (value, field, cause) in [
            (
                json!({"subject": "s", "text": "t"}),
                "parameters.to",
                Cause::InvalidRequest,
            ),
            (good(json!({"to": ""})), "parameters.to", Cause::InvalidRecipient),
            (good(json!({"to": ["", " "]})), "parameters.to", Cause::InvalidRecipient),
            (
                good(json!({"to": "not an address"})),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                good(json!({"to": "a@b.example\r\nBcc: c@d.example"})),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (
                good(json!({"to": "a@b.example, c@d.example"})),
                "parameters.to",
                Cause::InvalidRecipient,
            ),
            (good(json!({"to": many})), "parameters.to", Cause::InvalidRecipient),
            (
                good(json!({"to": many[..50], "cc": "c@d.example"})),
                "parameters.to",
                Cause::InvalidRequest,
            ),
            (good(json!({"to": 7})), "parameters.to", Cause::InvalidRequest),
            (
                good(json!({"subject": "a\nb"})),
                "parameters.subject",
                Cause::InvalidRequest,
            ),
            (
                good(json!({"subject": " "})),
                "parameters.subject",
                Cause::InvalidRequest,
            ),
            (good(json!({"from": "us"})), "parameters.from", Cause::InvalidRequest),
            (
                good(json!({"reply_to": "us"})),
                "parameters.reply_to",
                Cause::InvalidRequest,
            ),
            (good(json!({"text": ""})), "parameters.text", Cause::InvalidRequest),
            (
                good(json!({"text": "a".repeat(BODY_BYTES_MAX + 1)})),
                "parameters.text",
                Cause::InvalidRequest,
            ),
            (
                good(json!({"attachments": []})),
                "parameters.attachments",
                Cause::InvalidRequest,
            ),
            (
                json!({"to": "a@b.example", "subject": "s"}),
                "parameters.text",
                Cause::InvalidRequest,
            ),
        ] {
            let error = freeze(value.clone()).expect_err(&value.to_string()[..value.to_string().len().min(120)]);
            assert_eq!((error.field.as_str(), error.cause), (field, cause), "{}", error.problem);
            assert!(
                !error.problem.contains("b.example"),
                "an error repeats the address: {}",
                error.problem
            );
        }
    }
}
