//! Posts spans and error events to an OTLP receiver, in the background of a process.
//!
//! `serve` and `dev` enter. **Invariant:** a receiver that is away costs a batch of telemetry and
//! nothing else, and a process ends within a second of its last word.

use crate::{
    config::TelemetrySettings,
    telemetry::otlp::{self, Batch, Outbox},
};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::time::Duration;
use tokio::{sync::oneshot, task::JoinHandle};

/// Spans that end at the same time share a post.
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Time for what is left at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;

/// The running exporter. [`Otlp::flush`] posts what is left.
pub(super) struct Otlp {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Otlp {
    /// Starts it where a receiver is set.
    pub fn start(settings: &TelemetrySettings, outbox: Option<Outbox>) -> anyhow::Result<Option<Self>> {
        let (Some(url), Some(outbox)) = (&settings.otlp_url, outbox) else {
            return Ok(None);
        };
        let mut headers = reqwest::header::HeaderMap::new();
        let texts = settings.otlp_headers.as_ref().map(ExposeSecret::expose_secret);
        for (name, value) in texts.into_iter().flat_map(otlp::headers) {
            let mut value = reqwest::header::HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            headers.insert(reqwest::header::HeaderName::from_bytes(name.as_bytes())?, value);
        }
        super::install_crypto_provider();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_MAX)
            .default_headers(headers)
            .build()?;
        let url = url.trim_end_matches('/').to_owned();
        let (stop, stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "outlives the lifecycle; `flush` joins it")]
        let task = tokio::spawn(run(Post { client, url }, outbox, stopped));
        Ok(Some(Self { stop, task }))
    }

    pub async fn flush(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(FLUSH_MAX, self.task).await;
    }
}

async fn run(post: Post, mut outbox: Outbox, mut stopped: oneshot::Receiver<()>) {
    loop {
        let batch = tokio::select! {
            batch = outbox.next_batch() => batch,
            _ = &mut stopped => break,
        };
        let Some(batch) = batch else { return };
        post.batch(batch).await;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = &mut stopped => break,
        }
    }
    if let Some(batch) = outbox.rest() {
        post.batch(batch).await;
    }
}

struct Post {
    client: reqwest::Client,
    url: String,
}

impl Post {
    async fn batch(&self, batch: Batch) {
        for (path, body) in [("/v1/traces", batch.traces), ("/v1/logs", batch.logs)] {
            let Some(body) = body else { continue };
            let mut wait = PAUSE;
            for attempt in 1..=TRIES {
                match self.one(path, &body).await {
                    Ok(()) => break,
                    // At level warn: an error would become an item of the next batch.
                    Err(problem) if attempt == TRIES => {
                        tracing::warn!(path, problem, "The OTLP receiver did not take {} items", batch.items);
                        otlp::dropped(batch.items);
                    }
                    Err(_) => {
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                    }
                }
            }
        }
    }

    async fn one(&self, path: &str, body: &Value) -> Result<(), String> {
        let sent = self.client.post(format!("{}{path}", self.url)).json(body).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status().as_u16())),
            Err(error) => Err(error.without_url().to_string()),
        }
    }
}
