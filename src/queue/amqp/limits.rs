//! The most that the broker takes of one message. Events over it are refused before they are sent
//! (invariant 11): the broker closes the channel or the connection for one, with all that is on it.

use super::{
    AmqpSettings,
    connection::{Link, LinkError},
    message,
};
use crate::{domain::Envelope, queue::PublishError};
use lapin::{
    BasicProperties, Channel, ErrorKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::error;

/// Beside the properties their frame holds its own head and end, and the size of the body.
const FRAME_BYTES: usize = 64;

#[derive(Debug)]
pub(super) struct BrokerLimits {
    /// Of the properties, which have to fit into one frame.
    head: AtomicUsize,
    body: AtomicUsize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            head: AtomicUsize::new(usize::MAX),
            body: AtomicUsize::new(usize::MAX),
        }
    }
}

impl BrokerLimits {
    /// Learns the limits of a new connection. The broker says the size of a frame, and nothing of
    /// that of a message: it gets one of our largest size that goes to no queue.
    pub async fn learn(&self, link: &Link, settings: &AmqpSettings) -> Result<(), LinkError> {
        let head = link.frame_bytes_max().saturating_sub(FRAME_BYTES);
        self.head.store(head, Ordering::Relaxed);
        match tokio::time::timeout(settings.confirm_seconds_max, offer_our_largest(link, settings)).await {
            Ok(Err(refusal)) => {
                let Some(bytes_max) = size_limit(&refusal) else {
                    return Err(refusal.into());
                };
                error!(
                    "RabbitMQ takes messages of {bytes_max} bytes, and an event may have {}: larger ones get 413. \
                     Raise its max_message_size, or lower HOOKSWITCH_BODY_BYTES_MAX",
                    settings.event_bytes_max
                );
                self.body.store(bytes_max, Ordering::Relaxed);
            }
            Ok(Ok(())) => self.body.store(usize::MAX, Ordering::Relaxed),
            // An alarm blocks the connection. A message that is too large ends it later, and the
            // next one learns the limit.
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether the broker would refuse the event for good.
    pub fn check(&self, envelope: &Envelope, properties: &BasicProperties) -> Result<(), PublishError> {
        let sizes = [
            (message::head_bytes(properties), &self.head),
            (envelope.body.len(), &self.body),
        ];
        for (bytes, limit) in sizes {
            let bytes_max = limit.load(Ordering::Relaxed);
            if bytes > bytes_max {
                return Err(PublishError::TooLarge { bytes, bytes_max });
            }
        }
        Ok(())
    }
}

/// Publishes a message of so many bytes that goes to no queue, and waits for the broker's
/// judgement.
pub(super) async fn offer(channel: &Channel, nowhere: &str, bytes: usize) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (options, body) = (BasicPublishOptions::default(), vec![0; bytes]);
    let sent = channel.basic_publish("".into(), nowhere.into(), options, &body, BasicProperties::default());
    sent.await?.await.map(drop)
}

async fn offer_our_largest(link: &Link, settings: &AmqpSettings) -> lapin::Result<()> {
    let channel = link.bare_channel().await?;
    offer(
        &channel,
        &format!("{}.nowhere", settings.prefix),
        settings.event_bytes_max,
    )
    .await?;
    channel.close(200, "done".into()).await
}

/// The limit, where that is why the broker refused: "message size 2000 is larger than configured
/// max size 1000".
fn size_limit(refusal: &lapin::Error) -> Option<usize> {
    let ErrorKind::ProtocolError(error) = refusal.kind() else {
        return None;
    };
    if *error.kind() != AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) {
        return None;
    }
    let (_, limit) = error.get_message().as_str().split_once(" max size ")?;
    let digits = limit.split(|other: char| !other.is_ascii_digit()).next()?;
    digits.parse().ok()
}
