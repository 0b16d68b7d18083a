//! Messages as they lie in each queue, read past Hookswitch: a request's secrets are in none. The
//! body is, as it came (`docs/decisions/0013-bodies-in-the-log.md`).

use crate::{
    queue_embedded::{Scratch, open},
    support::{
        app::{
            TestApp,
            ingress::{Tenant, settings, sign, vapi_body},
        },
        db::NOW,
        wire::request,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookswitch::{
    domain::SecretBytes,
    queue::EventQueue,
    source::sign::{SignedHeader, form_body},
};
use serde_json::json;
use std::sync::Arc;

const PHRASE: &str = "my knee hurts since Tuesday";

/// Secrets that requests carried, and texts that their messages have to hold.
#[derive(Default)]
struct Sent {
    secrets: Vec<String>,
    carried: Vec<String>,
}

impl Sent {
    /// A text that stands nowhere else.
    fn plant(&mut self) -> String {
        let text = format!("canary{}", uuid::Uuid::now_v7().simple());
        self.secrets.push(text.clone());
        text
    }

    /// Beside what verifies: what a clumsy sender or a proxy sends along.
    fn beside(&mut self) -> Vec<SignedHeader> {
        let basic = STANDARD.encode(format!("user:{}", self.plant()));
        self.secrets.push(basic.clone());
        let headers = [
            ("x-api-key", self.plant()),
            ("xi-api-key", self.plant()),
            ("cookie", format!("session={}", self.plant())),
            ("proxy-authorization", format!("Basic {basic}")),
            ("x-forwarded-authorization", format!("Bearer {}", self.plant())),
            ("user-agent", "Vapi/1".to_owned()),
        ];
        headers
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .into()
    }

    /// A query with parameters that rules read between those that they may not.
    fn query(&mut self) -> String {
        let (one, two, three) = (self.plant(), self.plant(), self.plant());
        self.carried.push("clinic=north".to_owned());
        format!("token={one}&clinic=north&hook%5Fsecret={two};x&X-Api-Key={three}")
    }

    async fn accepted(&self, app: &TestApp, path: &str, kind: &str, headers: &[SignedHeader], body: &str) {
        let answer = app.exchange(&request(path, kind, headers, body.as_bytes())).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    /// An endpoint whose static secret stands in a header of each request.
    async fn bearer(&mut self, app: &TestApp, tenant: &Tenant, name: &str, has_prefix: bool) {
        let secret = self.plant();
        let plan = json!({ "type": "bearer", "headerName": name, "bearerPrefixEnabled": has_prefix });
        let new = json!({ "source": "vapi", "name": name, "secret": secret, "plan": plan });
        let made = app.post(tenant.org, "/api/endpoints", &new).await.expect(201).json();
        let path = format!("/webhooks/vapi/{}", made["id"].as_str().expect("an id"));
        let value = if has_prefix { format!("Bearer {secret}") } else { secret };
        let verifies: SignedHeader = (name.parse().expect("a name"), value.parse().expect("a value"));
        let headers = [vec![verifies.clone()], self.beside()].concat();
        let body = json!({ "message": {
            "type": "transcript", "timestamp": NOW.as_micros() / 1000, "role": "user", "transcriptType": "final",
            "transcript": PHRASE, "call": { "id": name, "assistantId": tenant.assistant },
            // Vapi repeats its own objects.
            "assistant": { "server": { "url": path, "secret": value.strip_prefix("Bearer ").unwrap_or(&value) } },
        } });
        self.carried.push(PHRASE.to_owned());
        let with_query = format!("{path}?{}", self.query());
        self.accepted(app, &with_query, "application/json", &headers, &body.to_string())
            .await;
        // Not accepted: a secret behind the path, and a wrong one.
        for (path, header) in [
            (format!("{path}/{}", self.plant()), verifies.1),
            (path, format!("Bearer {}", self.plant()).parse().expect("a value")),
        ] {
            let headers = [(verifies.0.clone(), header)];
            let refused = request(&path, "application/json", &headers, body.to_string().as_bytes());
            assert!([401, 404].contains(&app.exchange(&refused).await.status), "{path}");
        }
    }

    /// Requests whose bodies are signed: the signature is no secret that opens another request, but
    /// it travels no further either.
    async fn signed(&mut self, app: &TestApp, tenant: &Tenant) {
        let path = format!("/webhooks/vapi?{}", self.query());
        let body = vapi_body(&tenant.assistant);
        let signed = sign(&tenant.secret, &path, body.as_bytes(), NOW);
        let text = |(_, value): &SignedHeader| value.to_str().expect("a text").to_owned();
        // Beside the signature stands a time.
        self.secrets
            .extend(signed.iter().map(text).filter(|value| value.len() > 20));
        let headers = [signed, self.beside()].concat();
        self.accepted(app, &path, "application/json", &headers, &body).await;

        let token = SecretBytes::from(self.plant());
        let endpoint = app.add_twilio_endpoint(tenant, &token).await;
        let path = format!("/webhooks/twilio/{endpoint}?{}", self.query());
        let words = "call me back on Thursday";
        let params = [("MessageSid", "SM1"), ("SmsStatus", "received"), ("Body", words)];
        let (signature, params) = tenant.sign_twilio(&token, &path, &params);
        self.secrets.push(text(&signature));
        self.carried.push("call+me+back+on+Thursday".to_owned());
        let headers = [vec![signature], self.beside()].concat();
        let kind = "application/x-www-form-urlencoded";
        self.accepted(app, &path, kind, &headers, &form_body(&params)).await;
    }

    /// Four events, over a queue that nobody consumes.
    async fn through(queue: Arc<dyn EventQueue>) -> Self {
        let builder = TestApp::builder().admin().receiver(settings()).through(queue);
        let (app, [a, _]) = builder.start_with_senders().await;
        let mut sent = Self::default();
        sent.bearer(&app, &a, "X-Vapi-Secret", false).await;
        sent.bearer(&app, &a, "Authorization", true).await;
        sent.signed(&app, &a).await;
        sent
    }

    fn check(&self, messages: &[Vec<u8>]) {
        let holds = |text: &str| {
            let is_in = |message: &Vec<u8>| message.windows(text.len()).any(|window| window == text.as_bytes());
            messages.iter().any(is_in)
        };
        for text in self.carried.iter().map(String::as_str).chain(["Vapi/1", "[masked]"]) {
            assert!(holds(text), "these are not the messages: {text} is in none");
        }
        assert!(self.secrets.len() > 30, "{}", self.secrets.len());
        let found: Vec<_> = self.secrets.iter().filter(|secret| holds(secret)).collect();
        assert!(found.is_empty(), "of {:?} {found:?} lie in the queue", self.secrets);
    }
}

#[tokio::test]
async fn no_secret_of_a_request_lies_in_a_file_of_the_log() {
    let place = Scratch::new();
    let queue = Arc::new(open(&place.0).await);
    let sent = Sent::through(queue).await;
    let files = std::fs::read_dir(&place.0).expect("a directory");
    let files: Vec<_> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"))
        .collect();
    sent.check(&files);
}

#[cfg(feature = "rabbitmq")]
#[tokio::test]
async fn no_secret_of_a_request_lies_in_a_message_of_rabbitmq() {
    use crate::support::amqp::AmqpPlace;
    use lapin::types::AMQPValue;
    let Some(place) = AmqpPlace::new(1) else { return };
    let sent = Sent::through(place.open().await).await;
    let (bare, name) = (place.bare().await, place.queue_name(0));
    let mut messages = Vec::new();
    for message in bare.first(&name, 4).await {
        // Long texts are shown as numbers there.
        let mut raw = [message.data, format!("{:?}", message.properties).into_bytes()].concat();
        let headers = message.properties.headers().as_ref().expect("headers").inner();
        for (name, value) in headers {
            raw.extend_from_slice(name.as_str().as_bytes());
            raw.push(b'=');
            match value {
                AMQPValue::LongString(text) => raw.extend_from_slice(text.as_bytes()),
                other => raw.extend_from_slice(format!("{other:?}").as_bytes()),
            }
        }
        messages.push(raw);
    }
    assert_eq!(bare.count(&name).await, 0);
    sent.check(&messages);
}

#[cfg(feature = "kafka")]
#[tokio::test]
async fn no_secret_of_a_request_lies_in_a_message_of_kafka() {
    use crate::support::kafka::KafkaTopic;
    let Some(topic) = KafkaTopic::new(1) else { return };
    let sent = Sent::through(Arc::new(topic.open().await)).await;
    assert_eq!(topic.written(), Some(4));
    let messages = topic.raw(4).await;
    sent.check(&messages);
}
