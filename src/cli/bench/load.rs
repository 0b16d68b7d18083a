//! The load generator: unique signed events over keep-alive connections, open loop or as fast as
//! they are answered.
//!
//! **Invariant:** with a rate, a latency runs from the time at which a request was due, not from
//! the time at which it was sent. So the figures show a server that stalls (no coordinated
//! omission).

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// The requests to send, their target and their rate.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) assistant_id: String,
    /// Signs the body alone: hex HMAC-SHA256 in `x-vapi-signature`.
    pub(crate) key: Hmac<Sha256>,
    pub(crate) kind: String,
    pub(crate) body_bytes: usize,
    pub(crate) connections: usize,
    /// Requests a second over all connections; `None`: each connection sends as soon as it was
    /// answered.
    pub(crate) rate: Option<f64>,
    /// A request that is due while its connection still waits is counted and never sent. So the
    /// load is that of many senders which do not queue.
    pub(crate) gives_up: bool,
    pub(crate) duration: Duration,
}

/// The result of a load.
pub(crate) struct Report {
    pub(crate) answered: u64,
    pub(crate) by_status: Vec<(u16, u64)>,
    pub(crate) elapsed: Duration,
    /// Microseconds, from when each request was due.
    pub(crate) latency: Histogram<u64>,
    /// Microseconds from when it was sent, of answers that are 200.
    pub(crate) taken: Histogram<u64>,
    /// Due, and not sent.
    pub(crate) missed: u64,
    /// Refusals other than 503 or 429 with `retry-after`.
    pub(crate) rude: u64,
}

impl Report {
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn good_per_second(&self) -> f64 {
        self.taken.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn all_good(&self) -> bool {
        self.by_status.iter().all(|(status, _)| *status == 200)
    }

    pub(crate) fn latency_line(&self) -> String {
        let ms = |q: f64| Duration::from_micros(self.latency.value_at_quantile(q)).as_secs_f64() * 1e3;
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            ms(0.5),
            ms(0.99),
            ms(0.999),
            self.latency.max() as f64 / 1e3
        )
    }
}

/// Makes one event after the other. Only the call id and the time of the 2 kB differ.
struct Events {
    head: Vec<u8>,
    tail: Vec<u8>,
    key: Hmac<Sha256>,
    request: Vec<u8>,
    body: Vec<u8>,
    path: String,
}

impl Events {
    fn new(load: &Load) -> Self {
        let kind = &load.kind;
        let head = format!(r#"{{"message":{{"type":"{kind}","status":"in-progress","endedReason":"customer-ended-call","call":{{"id":""#).into_bytes();
        let mut tail = format!(
            r#"","orgId":"adf7ff8a-041c-4921-b9af-addb4795b8e6","assistantId":"{}","type":"inboundPhoneCall","customer":{{"number":"+15552010188"}}}},"customer":{{"number":"+15552010188"}},"artifact":{{"transcript":""#,
            load.assistant_id
        )
        .into_bytes();
        let end = br#""}}}"#;
        // 36 for the call id, 40 for the timestamp member that stands before the transcript's end.
        let filler = load
            .body_bytes
            .saturating_sub(head.len() + tail.len() + end.len() + 36 + 32);
        tail.extend(
            "The caller asks for an appointment next week. "
                .bytes()
                .cycle()
                .take(filler),
        );
        tail.extend_from_slice(br#""},"timestamp":"#);
        Self {
            head,
            tail,
            key: load.key.clone(),
            request: Vec::with_capacity(load.body_bytes + 512),
            body: Vec::with_capacity(load.body_bytes),
            path: load.path.clone(),
        }
    }

    /// The bytes of a whole request for event number `n` of this run.
    fn request(&mut self, n: u64) -> &[u8] {
        self.body.clear();
        self.body.extend_from_slice(&self.head);
        let id = uuid::Uuid::now_v7();
        let mut text = [0; 36];
        self.body
            .extend_from_slice(id.as_hyphenated().encode_lower(&mut text).as_bytes());
        self.body.extend_from_slice(&self.tail);
        // Writing into a Vec cannot fail.
        let _ = write!(self.body, "{}}}}}", 1_700_000_000_000 + n);
        let mut mac = self.key.clone();
        mac.update(&self.body);
        let mut signature = [0; 64];
        hex::encode_to_slice(mac.finalize().into_bytes(), &mut signature).expect("64 hex characters are 32 bytes");
        self.request.clear();
        let _ = write!(
            self.request,
            "POST {} HTTP/1.1\r\nhost: localhost\r\nuser-agent: hookswitch-bench\r\ncontent-type: \
            application/json\r\nx-vapi-signature: ",
            self.path
        );
        self.request.extend_from_slice(&signature);
        let _ = write!(self.request, "\r\ncontent-length: {}\r\n\r\n", self.body.len());
        self.request.extend_from_slice(&self.body);
        &self.request
    }
}

/// Runs the load to its end.
pub(crate) async fn run(load: Load) -> anyhow::Result<Report> {
    let sent = Arc::new(AtomicU64::new(0));
    // All connections are opened before the clock starts, because opening is no part of the rate.
    let mut streams = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        streams.push(connect(load.address).await?);
    }
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let (load, sent) = (load.clone(), sent.clone());
        connections.spawn(async move { connection(&load, stream, number, begun, &sent).await });
    }
    let (mut latency, mut taken, mut missed, mut rude) = (Histogram::new(3)?, Histogram::new(3)?, 0, 0);
    let mut statuses = std::collections::BTreeMap::new();
    while let Some(done) = connections.join_next().await {
        let seen = done??;
        latency.add(seen.latency)?;
        taken.add(seen.taken)?;
        missed += seen.missed;
        rude += seen.rude;
        for (status, count) in seen.by_status {
            *statuses.entry(status).or_insert(0) += count;
        }
    }
    let by_status: Vec<(u16, u64)> = statuses.into_iter().collect();
    Ok(Report {
        answered: by_status.iter().map(|(_, count)| count).sum(),
        by_status,
        elapsed: begun.elapsed(),
        latency,
        taken,
        missed,
        rude,
    })
}

struct Seen {
    latency: Histogram<u64>,
    taken: Histogram<u64>,
    by_status: std::collections::BTreeMap<u16, u64>,
    missed: u64,
    rude: u64,
}

pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(
    load: &Load,
    mut stream: TcpStream,
    number: usize,
    begun: Instant,
    sent: &AtomicU64,
) -> anyhow::Result<Seen> {
    let mut events = Events::new(load);
    let mut seen = Seen {
        latency: Histogram::new(3)?,
        taken: Histogram::new(3)?,
        by_status: std::collections::BTreeMap::new(),
        missed: 0,
        rude: 0,
    };
    let mut answer = Vec::with_capacity(4096);
    let interval = load
        .rate
        .map(|rate| Duration::from_secs_f64(load.connections as f64 / rate));
    // Connections start spread over one interval, so that an open loop is smooth.
    let mut due = begun + interval.map_or(Duration::ZERO, |i| i.mul_f64(number as f64 / load.connections as f64));
    let end = begun + load.duration;
    loop {
        if let Some(interval) = interval {
            while load.gives_up && due < end && due + interval < Instant::now() {
                due += interval;
                seen.missed += 1;
            }
            if due >= end {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
        } else if Instant::now() >= end {
            break;
        }
        let n = sent.fetch_add(1, Ordering::Relaxed);
        let request = events.request(n);
        let sent_at = Instant::now();
        let from = interval.map_or(sent_at, |_| due);
        due += interval.unwrap_or_default();
        stream
            .write_all(request)
            .await
            .context("the server closed a connection")?;
        let status = read_answer(&mut stream, &mut answer).await?;
        let micros = |from: Instant| u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        seen.latency.record(micros(from))?;
        if status == 200 {
            seen.taken.record(micros(sent_at))?;
        } else if !matches!(status, 429 | 503)
            || !answer
                .windows(14)
                .any(|bytes| bytes.eq_ignore_ascii_case(b"\r\nretry-after:"))
        {
            seen.rude += 1;
        }
        *seen.by_status.entry(status).or_insert(0) += 1;
    }
    Ok(seen)
}

/// Reads one answer with a `content-length`, and returns its status.
pub(super) async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    loop {
        if let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = std::str::from_utf8(&buffer[..head]).context("the answer's head is not text")?;
            let status = text
                .get(9..12)
                .and_then(|s| s.parse().ok())
                .context("the answer has no status")?;
            let length: usize = text
                .lines()
                .find_map(|line| {
                    line.split_once(':')
                        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                })
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0);
            while buffer.len() < head + 4 + length {
                if stream.read_buf(buffer).await? == 0 {
                    bail!("the server closed a connection within an answer");
                }
            }
            return Ok(status);
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed a connection before it answered");
        }
    }
}
