//! Clients and actions against the sandbox, and against servers that misbehave byte by byte.

mod checks;
mod sms;
mod transport;

use crate::outside::*;
use hookswitch::{
    action::{self, Action, Attempt, FrozenRequest, LookUp},
    domain::{ActionId, ActionKind, Clock, EventId, OrgId, Outcome, SystemClock, Timestamp},
    provider::{Credential, Providers},
};
use serde_json::{Value, json};
use std::time::Duration;

/// An action with its frozen request and everything around it.
struct Try {
    kind: ActionKind,
    request: FrozenRequest,
    credential: Credential,
    id: ActionId,
    deadline: Duration,
    first_sent_at: Option<Timestamp>,
    public_url: Option<&'static str>,
}

impl Try {
    fn new(kind: ActionKind, credential: Credential, parameters: Value) -> Self {
        let Value::Object(parameters) = parameters else {
            panic!("an object")
        };
        let request = action::get(kind).freeze(parameters).expect("a request");
        Self {
            kind,
            request,
            credential,
            id: ActionId::generate(),
            deadline: LONG,
            first_sent_at: None,
            public_url: None,
        }
    }

    fn sms(body: &str) -> Self {
        Self::new(
            ActionKind::TwilioSendSms,
            Credential::Twilio(twilio()),
            json!({"to": TO, "body": body}),
        )
    }

    fn action(&self) -> &'static dyn Action {
        action::get(self.kind)
    }

    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            action: self.id,
            org: OrgId::from_uuid(uuid::Uuid::nil()),
            event: EventId::from_uuid(uuid::Uuid::nil()),
            request: &self.request,
            idempotency_key: "org:key",
            credential: &self.credential,
            planned_at: SystemClock.now(),
            first_sent_at: self.first_sent_at,
            deadline: self.deadline,
            public_url: self.public_url,
            hops: 0,
            hops_header: Some("1.abcdef".to_owned()),
        }
    }

    async fn send(&self, providers: &Providers) -> Outcome {
        self.action().send(providers, &self.attempt()).await.0
    }

    async fn look_up(&self, providers: &Providers) -> LookUp {
        self.action().look_up(providers, &self.attempt()).await.0
    }
}

/// A resolver that knows no name.
struct NoNames;

impl hookswitch::provider::http::Lookup for NoNames {
    fn lookup(
        &self,
        _: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<std::net::SocketAddr>>> + Send>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
