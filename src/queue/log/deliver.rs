//! The one consumer: reads durable records in log order and hands them out.

use super::{
    format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER},
    redeliveries::Redeliveries,
    segment::Segment,
    shared::{Shared, lock},
};
use crate::queue::{ConsumeError, Deliveries, Delivery, DeliveryTag, envelope};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

/// Bytes that are read ahead. A larger event is read by itself.
const CHUNK_BYTES: u64 = 512 << 10;

/// One record that was handed out and not acked.
#[derive(Debug)]
pub(in crate::queue) struct Record {
    pub tag: DeliveryTag,
    /// The encoded envelope.
    pub payload: Bytes,
}

pub(in crate::queue) struct LogDeliveries {
    shared: Arc<Shared>,
    /// Position of the next record to hand out.
    cursor: u64,
    /// Bytes read ahead, from `cursor` on.
    ahead: Bytes,
    file: Option<(Arc<Segment>, Arc<File>)>,
    redeliveries: Redeliveries,
}

impl LogDeliveries {
    pub(super) fn take(shared: Arc<Shared>) -> Result<Self, ConsumeError> {
        let (cursor, in_vain) = {
            let mut consumed = lock(&shared.consumed);
            if consumed.held {
                return Err(ConsumeError::AlreadyConsumed);
            }
            consumed.held = true;
            (consumed.acked(), consumed.in_vain())
        };
        Ok(Self {
            shared,
            cursor,
            ahead: Bytes::new(),
            file: None,
            redeliveries: Redeliveries::after(in_vain),
        })
    }

    /// Waits for at least one record, then returns at most `count_max` that are there. Empty only
    /// when the log was closed. Cancel safe.
    pub async fn next_records(&mut self, count_max: usize) -> Result<Vec<Record>, ConsumeError> {
        while self.wait().await? {
            let batch = self.hand_out(count_max.max(1))?;
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
        Ok(Vec::new())
    }

    /// Waits until the next record is read ahead. `false`: the log was closed. Cancel safe.
    async fn wait(&mut self) -> Result<bool, ConsumeError> {
        loop {
            if lock(&self.shared.intake).closing {
                return Ok(false);
            }
            match self.first_ahead() {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => {}
                Err(reason) => return Err(self.unreadable(reason)),
            }
            let left = self.ahead.len();
            if self.read_ahead().await? {
                if left > 0 && self.ahead.len() <= left {
                    return Err(self.unreadable("a record is cut off"));
                }
                continue;
            }
            // `Notify` keeps a permit, so no notification between the look and the wait is lost.
            self.shared.more.notified().await;
        }
    }

    /// Hands out everything that is not acked once more.
    pub fn rewind(&mut self) {
        self.cursor = lock(&self.shared.consumed).acked();
        self.ahead = Bytes::new();
        self.file = None;
    }

    /// Acks records in memory; the mark on the disk follows lazily.
    pub fn acknowledge(&self, tags: &[DeliveryTag]) {
        let (released, acked) = {
            let mut consumed = lock(&self.shared.consumed);
            let released: Vec<_> = tags
                .iter()
                .filter_map(|tag| consumed.outstanding.remove(&tag.0))
                .collect();
            (released, consumed.acked())
        };
        let mut intake = lock(&self.shared.intake);
        for (org, bytes) in released {
            intake.usage.release(org, bytes);
        }
        intake.usage.advance(acked);
    }

    /// Hands out the records that are read ahead, up to `count_max`. A record that is not sound is
    /// an error only once everything before it is handed out.
    fn hand_out(&mut self, count_max: usize) -> Result<Vec<Record>, ConsumeError> {
        let shared = self.shared.clone();
        let mut consumed = lock(&shared.consumed);
        let mut batch = Vec::new();
        while batch.len() < count_max {
            let (header, payload) = match self.first_ahead() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) if !batch.is_empty() => break,
                Err(reason) => return Err(self.unreadable(reason)),
            };
            if !consumed.is_acked(self.cursor) {
                consumed
                    .outstanding
                    .insert(self.cursor, (header.org, header.record_bytes()));
                batch.push(Record {
                    tag: DeliveryTag(self.cursor),
                    payload: payload.clone(),
                });
            }
            self.ahead = self.ahead.slice(RECORD_HEADER + payload.len()..);
            self.cursor += header.record_bytes();
            consumed.delivered = consumed.delivered.max(self.cursor);
        }
        Ok(batch)
    }

    /// The record at the cursor, if it is read as a whole.
    fn first_ahead(&self) -> Result<Option<(RecordHeader, Bytes)>, &'static str> {
        if self.ahead.len() < RECORD_HEADER {
            return Ok(None);
        }
        let header = RecordHeader::from_bytes(&self.ahead, self.shared.log, self.cursor)?;
        let whole = RECORD_HEADER + header.length as usize;
        if self.ahead.len() < whole {
            return Ok(None);
        }
        let payload = self.ahead.slice(RECORD_HEADER..whole);
        if crc32c::crc32c(&payload) == header.payload_checksum {
            Ok(Some((header, payload)))
        } else {
            Err("the checksum of a record is wrong")
        }
    }

    fn unreadable(&self, reason: &str) -> ConsumeError {
        self.shared.damaged.store(true, Ordering::Relaxed);
        unreadable(self.file.as_ref().map(|(segment, _)| &**segment), self.cursor, reason)
    }

    /// Reads on from `cursor`. `false`: all that is durable was read.
    async fn read_ahead(&mut self) -> Result<bool, ConsumeError> {
        let durable = self.shared.durable();
        if self.cursor >= durable {
            return Ok(false);
        }
        let segment = {
            let segments = lock(&self.shared.segments);
            let here = segments
                .range(..=self.cursor)
                .next_back()
                .filter(|(_, segment)| self.cursor < segment.end());
            // Behind the end of a segment the next one begins; further on where segments between
            // them were moved away.
            here.or_else(|| segments.range(self.cursor..).next())
                .map(|(_, segment)| segment.clone())
        };
        let segment = segment.ok_or_else(|| unreadable(None, self.cursor, "no segment holds it"))?;
        self.cursor = self.cursor.max(segment.base);
        let file = self
            .file
            .as_ref()
            .filter(|(open, _)| open.base == segment.base)
            .map(|(_, file)| file.clone());
        if file.is_none() {
            // Its descriptor may be the one that the next segment is opened with.
            self.file = None;
        }
        let (cursor, end) = (self.cursor, durable.min(segment.end()));
        let read = tokio::task::spawn_blocking(move || read(&segment, file, cursor, end));
        // A runtime that shuts down does not run this read.
        let (segment, file, bytes) = read
            .await
            .map_err(|error| unreadable(None, cursor, &error.to_string()))??;
        self.file = Some((segment, file));
        self.ahead = bytes;
        Ok(true)
    }
}

type Chunk = (Arc<Segment>, Arc<File>, Bytes);

fn read(segment: &Arc<Segment>, file: Option<Arc<File>>, cursor: u64, end: u64) -> Result<Chunk, ConsumeError> {
    let failed = |error: io::Error| unreadable(Some(segment), cursor, &error.to_string());
    let file = match file {
        Some(file) => file,
        None => Arc::new(File::open(&segment.path).map_err(failed)?),
    };
    let read = |bytes: u64| {
        let mut chunk = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut chunk, segment.offset(cursor))
            .map(|()| chunk)
            .map_err(failed)
    };
    let left = end - cursor;
    let mut chunk = read(left.min(CHUNK_BYTES))?;
    if chunk.len() >= 8 {
        // The length only says how much to read. `hand_out` checks whether it is a record.
        let length = u32::from_le_bytes(chunk[4..8].try_into().expect("four bytes"));
        let whole = RECORD_HEADER as u64 + u64::from(length);
        if whole > chunk.len() as u64 && whole <= left {
            chunk = read(whole)?;
        }
    }
    Ok((segment.clone(), file, chunk.into()))
}

fn unreadable(segment: Option<&Segment>, position: u64, reason: &str) -> ConsumeError {
    let place = match segment {
        Some(segment) => format!(
            "byte {} of {}",
            SEGMENT_HEADER as u64 + position.saturating_sub(segment.base),
            segment.path.display()
        ),
        None => format!("position {position}"),
    };
    ConsumeError::Unreadable {
        place: place.into(),
        reason: reason.into(),
    }
}

#[async_trait]
impl Deliveries for LogDeliveries {
    async fn next_batch(&mut self, count_max: usize) -> Result<Vec<Delivery>, ConsumeError> {
        if self.redeliveries.is_to_be_noted() && self.wait().await? {
            self.redeliveries.note(&self.shared).await;
        }
        let records = self.next_records(count_max).await?;
        let delivery = |record: Record| Delivery {
            tag: record.tag,
            event: envelope::decode(&record.payload),
            redeliveries: self.redeliveries.next(),
        };
        Ok(records.into_iter().map(delivery).collect())
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), ConsumeError> {
        self.acknowledge(tags);
        self.redeliveries.moved(&self.shared);
        Ok(())
    }
}

impl Drop for LogDeliveries {
    fn drop(&mut self) {
        lock(&self.shared.consumed).held = false;
    }
}
