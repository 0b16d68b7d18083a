//! `http.post`: an event to an organisation's own URL, signed as Standard Webhooks (spec v1.0.0).
//!
//! Parameters: `destination` (the name of a credential of provider `http`) and optionally `body`
//! (object, array or text; templates inside its texts). The body that goes out is
//! `{"type","timestamp","data"}`: type and time of the event, and `body`, or the event's own body
//! where none is given.
//!
//! | what came back | what follows | why |
//! |---|---|---|
//! | 2xx | succeeded | spec, "Deliverability": success is 2xx only |
//! | 3xx | dead, `redirect_not_followed` | spec: do not follow; a new address is the organisation's to give |
//! | 408, 425, 429, 5xx | again after a backoff, not before `Retry-After` | spec: slow down for 429, 502, 504; the others are transient by RFC 9110 and RFC 8470 |
//! | 410 | parked, `endpoint_gone` | spec: disable the endpoint; until the destination is saved again |
//! | other 4xx | dead, `invalid_request` | the same bytes would be refused again; a person can retry |
//! | no connection | again after a backoff | nothing was sent |
//! | no answer | unknown: sent again with the same `webhook-id` | the receiver absorbs it by the id (spec, "Webhook identifier") |
//! | an address that is not allowed | dead, `address_not_allowed` | nothing was sent |
//!
//! **Invariant:** `webhook-id` and the bytes are the same for every try; `webhook-timestamp` and
//! `webhook-signature` are of the try.

use super::*;
use crate::{
    domain::{HOPS_HEADER, SecretBytes},
    provider::masked,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_TYPE, HeaderName},
};
use serde_json::json;
use sha2::Sha256;

pub struct HttpPost;

/// How long a receiver is expected to know an id: the length of the spec's example schedule,
/// rounded down to what receivers keep at least.
const KEY_WINDOW: Duration = Duration::from_hours(24);
/// Largest body. The spec advises 20 kB and links for more; events with a whole conversation are
/// larger.
const BODY_BYTES_MAX: usize = 256 << 10;
/// The type of a post by which a person tries a destination out.
const TEST_TYPE: &str = "hookswitch.test";

#[async_trait]
impl Action for HttpPost {
    fn kind(&self) -> ActionKind {
        ActionKind::HttpPost
    }

    fn on_unknown(&self) -> OnUnknown {
        OnUnknown::SameKeyAgain { window: KEY_WINDOW }
    }

    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        check_names(self.kind(), parameters)
    }

    fn stand_in(&self, name: &str) -> Value {
        if name == "body" {
            Value::Object(Map::new())
        } else {
            name.into()
        }
    }

    fn freeze(&self, mut rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        let event = rendered.remove(EVENT_KEY);
        self.check_parameters(&rendered)?;
        trim(&mut rendered, &["destination"]);
        if rendered
            .get("destination")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(invalid("destination", "is empty"));
        }
        let mut payload = match event {
            Some(Value::Object(event)) => event,
            _ => Map::new(),
        };
        if let Some(body) = rendered.remove("body") {
            payload.insert("data".to_owned(), body);
        }
        rendered.insert("payload".to_owned(), Value::Object(payload));
        let bytes = serde_json::to_vec(&rendered["payload"]).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > BODY_BYTES_MAX {
            return Err(invalid(
                "body",
                &format!("is {bytes} bytes long, {BODY_BYTES_MAX} at most: name the fields that are wanted"),
            ));
        }
        Ok(FrozenRequest(rendered))
    }

    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail) {
        let Credential::Http(destination) = attempt.credential else {
            let (cause, detail) = wrong_credential();
            return (Outcome::Park { cause }, detail);
        };
        let body = body_of(attempt);
        let headers = match signed_headers(destination, attempt, &body, providers.http.now()) {
            Ok(headers) => headers,
            Err(error) => {
                return (
                    Outcome::Park {
                        cause: Cause::Misconfigured,
                    },
                    Detail {
                        text: error.to_string().into(),
                        ..Detail::default()
                    },
                );
            }
        };
        match providers
            .http
            .post_guarded(&destination.url, headers, body, attempt.deadline)
            .await
        {
            Ok(answer) => {
                let words = answer
                    .body
                    .as_ref()
                    .map_or("", |body| std::str::from_utf8(body).unwrap_or(""));
                let text = if (200..300).contains(&answer.status) {
                    "".into()
                } else {
                    masked(&words.chars().take(2000).collect::<String>())
                };
                (
                    outcome_of(answer.status, answer.retry_after),
                    Detail {
                        http_status: Some(answer.status),
                        provider_code: None,
                        text,
                    },
                )
            }
            Err(error) => {
                let outcome = match error {
                    CallError::NotSent { .. } => Outcome::Retry {
                        cause: Cause::ConnectFailed,
                        not_before: None,
                    },
                    CallError::AddressNotAllowed { .. } => Outcome::Dead {
                        cause: Cause::AddressNotAllowed,
                    },
                    _ => Outcome::Unknown { cause: Cause::NoAnswer },
                };
                (outcome, detail_of(&error))
            }
        }
    }

    async fn look_up(&self, _providers: &Providers, _attempt: &Attempt<'_>) -> (LookUp, Detail) {
        // A receiver cannot be asked: within the window the same id is sent again, past it a person
        // decides.
        (
            LookUp::Failed(Outcome::Unknown {
                cause: Cause::LookUpForbidden,
            }),
            Detail {
                text: "a destination cannot be asked what it has".into(),
                ..Detail::default()
            },
        )
    }
}

/// One signed post that says that it is a test, to a destination of an organisation. It is never
/// sent again.
pub async fn send_test(
    providers: &Providers,
    (org, credential): (OrgId, &Credential),
    now: Timestamp,
    deadline: Duration,
) -> (Outcome, Detail) {
    let request = json!({"payload": {"type": TEST_TYPE, "data": {}}});
    let request = FrozenRequest(request.as_object().cloned().unwrap_or_default());
    let attempt = Attempt {
        action: ActionId::generate(),
        org,
        event: EventId::generate(),
        request: &request,
        idempotency_key: "",
        credential,
        planned_at: now,
        first_sent_at: None,
        deadline,
        public_url: None,
        hops: 0,
        hops_header: None,
    };
    HttpPost.send(providers, &attempt).await
}

/// The table of the module's documentation.
fn outcome_of(status: u16, retry_after: Option<Timestamp>) -> Outcome {
    match status {
        200..300 => Outcome::Succeeded {
            cause: Cause::Accepted,
            provider_ref: None,
        },
        300..400 => Outcome::Dead {
            cause: Cause::RedirectNotFollowed,
        },
        429 => Outcome::Retry {
            cause: Cause::RateLimited,
            not_before: retry_after,
        },
        408 | 425 | 500.. => Outcome::Retry {
            cause: Cause::ProviderUnavailable,
            not_before: retry_after,
        },
        410 => Outcome::Park {
            cause: Cause::EndpointGone,
        },
        400.. => Outcome::Dead {
            cause: Cause::InvalidRequest,
        },
        _ => Outcome::Unknown { cause: Cause::NoAnswer },
    }
}

/// The bytes that go out: the frozen payload, with type and time where the planner gave none.
fn body_of(attempt: &Attempt<'_>) -> Vec<u8> {
    let payload = attempt.request.0.get("payload");
    let get = |name: &str| payload.and_then(|payload| payload.get(name)).cloned();
    let planned_at = || {
        jiff::Timestamp::from_microsecond(attempt.planned_at.as_micros())
            .map_or(Value::Null, |at| at.to_string().into())
    };
    let body = json!({
        "type": get("type").unwrap_or_else(|| "hookswitch.event".into()),
        "timestamp": get("timestamp").unwrap_or_else(planned_at),
        "data": get("data").unwrap_or(Value::Null),
    });
    serde_json::to_vec(&body).expect("a JSON value always has a text")
}

/// `webhook-id`, `webhook-timestamp` and `webhook-signature` over `{id}.{timestamp}.{body}`, one
/// signature a secret, newest first.
fn signed_headers(
    destination: &crate::provider::HttpCredential,
    attempt: &Attempt<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<HeaderMap, crate::provider::CredentialError> {
    let id = attempt.action.to_string();
    let timestamp = now.as_seconds().to_string();
    let mut signatures = String::new();
    for key in destination.signing_keys()? {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut signatures);
    }
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let texts = [
        ("webhook-id", Some(&id)),
        ("webhook-timestamp", Some(&timestamp)),
        ("webhook-signature", Some(&signatures)),
        (HOPS_HEADER, attempt.hops_header.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

/// A new signing secret for a destination: `whsec_` and the base64 of 32 random bytes. Shown once.
#[must_use]
pub fn generate_secret() -> SecretBytes {
    let mut key = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(key.as_mut_slice()).expect("the system gives random bytes");
    let mut text = String::with_capacity(64);
    text.push_str("whsec_");
    STANDARD.encode_string(*key, &mut text);
    SecretBytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::HttpCredential;

    fn freeze(value: Value) -> Result<FrozenRequest, ParameterError> {
        let Value::Object(map) = value else { panic!("an object") };
        HttpPost.freeze(map)
    }

    #[test]
    fn the_payload_is_frozen_with_the_event() {
        let event = json!({"type": "vapi.hang", "timestamp": "2026-01-01T00:00:00Z", "data": {"a": 1}});
        let with_body = freeze(json!({"destination": "crm", "body": {"x": "y"}, "event": event})).expect("a request");
        assert_eq!(
            with_body.0["payload"],
            json!({"type": "vapi.hang", "timestamp": "2026-01-01T00:00:00Z", "data": {"x": "y"}})
        );
        let without = freeze(json!({"destination": "crm", "event": event})).expect("a request");
        assert_eq!(without.0["payload"], event);
        assert_eq!(without.0["destination"], "crm");
    }

    #[test]
    fn what_cannot_be_posted_is_found_at_planning() {
        for (value, field) in [
            (json!({}), "parameters.destination"),
            (json!({"destination": ""}), "parameters.destination"),
            (json!({"destination": 5}), "parameters.destination"),
            (json!({"destination": "crm", "body": 5}), "parameters.body"),
            (
                json!({"destination": "crm", "body": "a".repeat(BODY_BYTES_MAX)}),
                "parameters.body",
            ),
            (
                json!({"destination": "crm", "url": "https://example.com"}),
                "parameters.url",
            ),
        ] {
            assert_eq!(freeze(value.clone()).expect_err(&value.to_string()).field, field);
        }
    }

    #[test]
    fn every_status_has_the_outcome_that_the_table_says() {
        for (status, label, cause) in [
            (200, "succeeded", Cause::Accepted),
            (204, "succeeded", Cause::Accepted),
            (101, "unknown", Cause::NoAnswer),
            (301, "dead", Cause::RedirectNotFollowed),
            (308, "dead", Cause::RedirectNotFollowed),
            (400, "dead", Cause::InvalidRequest),
            (401, "dead", Cause::InvalidRequest),
            (404, "dead", Cause::InvalidRequest),
            (408, "retry", Cause::ProviderUnavailable),
            (410, "parked", Cause::EndpointGone),
            (425, "retry", Cause::ProviderUnavailable),
            (429, "retry", Cause::RateLimited),
            (500, "retry", Cause::ProviderUnavailable),
            (503, "retry", Cause::ProviderUnavailable),
            (999, "retry", Cause::ProviderUnavailable),
        ] {
            let outcome = outcome_of(status, None);
            assert_eq!((outcome.label(), outcome.cause()), (label, cause), "{status}");
        }
        let at = Timestamp::from_seconds(9);
        assert_eq!(
            outcome_of(503, Some(at)),
            Outcome::Retry {
                cause: Cause::ProviderUnavailable,
                not_before: Some(at)
            }
        );
    }

    /// The secret, id, timestamp, body and signature of the libraries' own README and tests
    /// (standardwebhooks 1.1.0, `test_sign`).
    #[test]
    fn signatures_are_those_of_the_official_libraries() {
        let destination = HttpCredential {
            name: "crm".to_owned(),
            url: "https://example.com".to_owned(),
            secrets: vec![SecretBytes::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())],
        };
        let key = destination.signing_keys().expect("a key").remove(0);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
        mac.update(br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#);
        assert_eq!(
            STANDARD.encode(mac.finalize().into_bytes()),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_generated_secret_can_sign() {
        let secrets = vec![generate_secret(), generate_secret()];
        assert_ne!(secrets[0].expose_secret(), secrets[1].expose_secret());
        let destination = HttpCredential {
            name: "a".to_owned(),
            url: "https://example.com".to_owned(),
            secrets,
        };
        assert_eq!(destination.signing_keys().expect("two keys").len(), 2);
    }
}
