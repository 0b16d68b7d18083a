//! An envelope as a message: `CloudEvents` 1.0 in binary mode. Each attribute is a header with the
//! prefix `cloudEvents:`, `datacontenttype` is the content type, the body is the provider's bytes.

use crate::{
    domain::{Envelope, EventId},
    queue::{EnvelopeError, envelope::ATTRIBUTES_MAX, for_each_attribute, from_attributes},
};
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::collections::BTreeMap;

const PREFIX: &str = "cloudEvents:";
const CONTENT_TYPE: &str = "datacontenttype";
/// The broker writes the message to disk before it confirms.
const PERSISTENT: u8 = 2;

pub(super) fn properties(envelope: &Envelope) -> BasicProperties {
    let mut headers = Vec::with_capacity(ATTRIBUTES_MAX);
    let mut content_type = None;
    for_each_attribute(envelope, |name, text| {
        // A property holds 255 bytes; a longer content type stands among the headers.
        if name == CONTENT_TYPE
            && let Ok(text) = ShortString::try_new(text)
        {
            content_type = Some(text);
        } else {
            headers.push((
                ShortString::from([PREFIX, name].concat()),
                AMQPValue::LongString(text.into()),
            ));
        }
    });
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(envelope.id.to_string().into())
        // A map that is made at once costs less than one that grows.
        .with_headers(BTreeMap::from_iter(headers).into());
    match content_type {
        Some(content_type) => properties.with_content_type(content_type),
        None => properties,
    }
}

/// Bytes of the properties in their frame, at most.
pub(super) fn head_bytes(properties: &BasicProperties) -> usize {
    /// Flags, delivery mode, message id, and the length of the headers.
    const FIXED: usize = 64;
    /// A header's kind, and the lengths of its name and its value.
    const HEADER: usize = 6;
    let content_type = properties.content_type().as_ref().map_or(0, |text| text.as_str().len());
    let headers = properties.headers().as_ref();
    let headers = headers.into_iter().flat_map(FieldTable::inner);
    let bytes_of = |(name, value): (&ShortString, &AMQPValue)| {
        let value = match value {
            AMQPValue::LongString(text) => text.as_bytes().len(),
            _ => 0,
        };
        HEADER + name.as_str().len() + value
    };
    FIXED + content_type + headers.map(bytes_of).sum::<usize>()
}

/// How often the broker delivered the message before. RabbitMQ 4 counts deliveries that nobody
/// refused under a name of their own.
pub(super) fn redeliveries(properties: &BasicProperties) -> u32 {
    let count_of = |name: &str| {
        let headers = properties.headers().as_ref()?.inner();
        let (_, count) = headers.iter().find(|(key, _)| key.as_str() == name)?;
        let count = match count {
            AMQPValue::LongLongInt(count) => u32::try_from(*count).ok(),
            AMQPValue::LongInt(count) => u32::try_from(*count).ok(),
            AMQPValue::LongUInt(count) => Some(*count),
            _ => None,
        };
        Some(count.unwrap_or(u32::MAX))
    };
    let counts = ["x-delivery-count", "x-acquired-count"].map(count_of);
    counts.into_iter().flatten().max().unwrap_or(0)
}

/// The id of the event that a message carries, to match what the broker returns.
pub(super) fn id(properties: &BasicProperties) -> Option<EventId> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}

/// # Errors
/// The message is no envelope.
pub(super) fn envelope(properties: &BasicProperties, body: Vec<u8>) -> Result<Envelope, EnvelopeError> {
    let content_type = properties.content_type().as_ref();
    let content_type = content_type.map(|text| (CONTENT_TYPE, text.as_str()));
    let headers = properties.headers().as_ref();
    let headers = headers.into_iter().flat_map(FieldTable::inner);
    let attributes = headers.filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(PREFIX)?;
        match value {
            AMQPValue::LongString(text) => Some((name, std::str::from_utf8(text.as_bytes()).ok()?)),
            AMQPValue::ShortString(text) => Some((name, text.as_str())),
            _ => None,
        }
    });
    from_attributes(content_type.into_iter().chain(attributes), Bytes::from(body))
}
