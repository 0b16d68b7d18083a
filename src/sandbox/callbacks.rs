//! Status callbacks, as Twilio posts them: `queued`, `sent`, `delivered` for each message that
//! names a URL, signed with the account's token.
//!
//! **Invariant:** the queue and the number of workers are bounded. A receiver that does not answer
//! costs callbacks, never messages.

use super::{SandboxState, lock, twilio::CallbackJob};
use crate::{
    domain::SecretBytes,
    source::sign::{TwilioSigner, form_body},
};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::{collections::HashMap, sync::Mutex, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Most messages that wait for their callbacks. A further message gets none.
const QUEUE_MAX: usize = 20_000;
/// Twilio waits 15 s for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const STATUSES: [&str; 3] = ["queued", "sent", "delivered"];

pub(super) struct Queue {
    sender: mpsc::Sender<CallbackJob>,
    receiver: Mutex<Option<mpsc::Receiver<CallbackJob>>>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    pub(super) fn push(&self, job: CallbackJob) {
        let _ = self.sender.try_send(job);
    }
}

/// Works the queue off until `stop`. A second call has no queue and only waits.
pub(super) async fn run(state: SandboxState, stop: CancellationToken) {
    let Some(receiver) = lock(&state.0.callbacks.receiver).take() else {
        stop.cancelled().await;
        return;
    };
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
    let mut workers = JoinSet::new();
    for _ in 0..state.0.config.callbacks_concurrent_max.max(1) {
        let (state, receiver) = (state.clone(), receiver.clone());
        workers.spawn(async move {
            let mut client = Client::default();
            loop {
                let job = receiver.lock().await.recv().await;
                let Some(job) = job else { return };
                post_all(&state, &mut client, &job).await;
            }
        });
    }
    stop.cancelled().await;
    workers.shutdown().await;
}

async fn post_all(state: &SandboxState, client: &mut Client, job: &CallbackJob) {
    let message = &job.message;
    let signer = TwilioSigner::auth_token(&SecretBytes::from(job.auth_token.clone()));
    for status in STATUSES {
        if status != "queued" {
            lock(&state.0.twilio).advance(&job.position, status, state.now());
        }
        let mut form = vec![
            ("AccountSid", message.account_sid.as_str()),
            ("ApiVersion", "2010-04-01"),
            ("From", message.from.as_deref().unwrap_or_default()),
            ("MessageSid", &message.sid),
            ("MessageStatus", status),
            ("SmsSid", &message.sid),
            ("SmsStatus", status),
            ("To", &message.to),
        ];
        form.extend(
            message
                .messaging_service_sid
                .as_deref()
                .map(|sid| ("MessagingServiceSid", sid)),
        );
        let headers = signer.sign_form(&job.url, &form);
        let body = Bytes::from(form_body(&form));
        // One retry, as Twilio's default: only where there was no connection.
        if tokio::time::timeout(ANSWER_MAX, client.post(&job.url, &headers, body.clone())).await
            == Ok(Err(Failed::NotConnected))
        {
            let _ = tokio::time::timeout(ANSWER_MAX, client.post(&job.url, &headers, body)).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The URL is none, or is `https`, which a local stand-in does not call.
    NotCalled,
    NotConnected,
    NoAnswer,
}

/// A worker's connections, one for each authority. Plain HTTP only, because the receiver runs
/// beside the sandbox.
#[derive(Default)]
struct Client {
    open: HashMap<String, SendRequest<Full<Bytes>>>,
    drivers: JoinSet<()>,
}

impl Client {
    async fn post(
        &mut self,
        url: &str,
        headers: &[crate::source::sign::SignedHeader],
        body: Bytes,
    ) -> Result<u16, Failed> {
        // The fragment is Twilio's connection overrides: neither sent nor signed.
        let url = url.split('#').next().unwrap_or_default();
        let rest = url.strip_prefix("http://").ok_or(Failed::NotCalled)?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "TwilioProxy/1.1")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| Failed::NotCalled)?;
        let mut connection = match self.open.remove(authority) {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect(authority).await?,
        };
        let response = match connection.try_send_request(request).await {
            Ok(response) => response,
            // The peer closed the idle connection before the request was written, so hyper returns
            // the request.
            Err(mut error) => {
                let request = error.take_message().ok_or(Failed::NoAnswer)?;
                connection = self.connect(authority).await?;
                connection.send_request(request).await.map_err(|_| Failed::NoAnswer)?
            }
        };
        let status = response.status().as_u16();
        response.into_body().collect().await.map_err(|_| Failed::NoAnswer)?;
        self.open.insert(authority.to_owned(), connection);
        Ok(status)
    }

    async fn connect(&mut self, authority: &str) -> Result<SendRequest<Full<Bytes>>, Failed> {
        while self.drivers.try_join_next().is_some() {}
        let address = if authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let stream = TcpStream::connect(address).await.map_err(|_| Failed::NotConnected)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failed::NotConnected)?;
        self.drivers.spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}
