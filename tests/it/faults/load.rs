//! Senders: signed events by a seed, at a rate, sent again as providers do it; and the book of what
//! was answered.

use super::world::Org;
use crate::support::{client, hooks};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// SplitMix64: small, seeded, the same on every machine.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// From `0` to `end`, without `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One event as its sender knows it.
#[derive(Clone)]
pub struct Event {
    pub call: String,
    pub org: usize,
    /// A rule wants it.
    pub is_wanted: bool,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
pub struct Sent {
    pub org: usize,
    pub is_wanted: bool,
    /// How many 200s it got.
    pub taken: u32,
}

#[derive(Default)]
struct Book {
    calls: HashMap<String, Sent>,
    answers: BTreeMap<u16, u64>,
    /// No answer: the connection failed, or nobody said anything in time.
    unanswered: u64,
    without_retry_after: u64,
    took: Vec<Duration>,
}

pub struct Load {
    seed: u64,
    ingress: String,
    orgs: Mutex<Vec<Org>>,
    book: Mutex<Book>,
    next: AtomicU64,
    http: reqwest::Client,
}

impl Load {
    pub fn new(seed: u64, base: u16) -> Self {
        Self {
            seed,
            ingress: format!("http://127.0.0.1:{base}"),
            orgs: Mutex::default(),
            book: Mutex::default(),
            next: AtomicU64::new(0),
            http: client(),
        }
    }

    pub fn know(&self, org: &Org) {
        self.orgs.lock().unwrap().push(org.clone());
    }

    /// The organisation signs with another secret from here on.
    pub fn sign_with(&self, org: usize, secret: &str) {
        secret.clone_into(&mut self.orgs.lock().unwrap()[org].secret);
    }

    /// The event of a number: the same for the same seed.
    pub fn event(&self, number: u64) -> Event {
        let mut random =
            Random::new(self.seed.wrapping_mul(0x5851_F42D_4C95_7F2D) ^ number.wrapping_mul(0xD134_2543_DE82_EF95));
        let call = uuid::Uuid::from_u64_pair(random.next(), random.next()).to_string();
        let (org, is_wanted) = (usize::try_from(random.below(3)).expect("small"), random.chance(80));
        let kind = if is_wanted {
            "end-of-call-report"
        } else {
            "speech-update"
        };
        let padding = "x".repeat(usize::try_from(random.below(4_000)).expect("small"));
        let message = json!({ "message": {
            "type": kind, "timestamp": 1_773_068_003_417_u64 + number, "endedReason": "customer-ended-call",
            "call": { "id": call }, "customer": { "number": format!("+1555{:07}", random.below(10_000_000)) },
            "artifact": { "transcript": padding },
        }});
        Event {
            call,
            org,
            is_wanted,
            body: serde_json::to_vec(&message).expect("JSON"),
        }
    }

    pub fn fresh(&self) -> Event {
        self.event(self.next.fetch_add(1, Ordering::SeqCst))
    }

    /// A fresh event of this organisation that a rule wants.
    pub fn wanted_of(&self, org: usize) -> Event {
        loop {
            let event = self.fresh();
            if event.org == org && event.is_wanted {
                return event;
            }
        }
    }

    /// A fresh event that no rule wants.
    pub fn unwanted(&self) -> Event {
        loop {
            let event = self.fresh();
            if !event.is_wanted {
                return event;
            }
        }
    }

    /// Posts an event. `None`: no answer came.
    pub async fn send(&self, event: &Event) -> Option<u16> {
        self.note(event, |sent, _| {
            sent.taken += 0;
        });
        let begun = Instant::now();
        let answer = self.post(event).await;
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        let asks_again = answer.is_some_and(|answer| answer.headers().contains_key("retry-after"));
        self.note(event, |sent, book| {
            sent.taken += u32::from(status == Some(200));
            match status {
                Some(status) => {
                    *book.answers.entry(status).or_default() += 1;
                    book.without_retry_after += u64::from(matches!(status, 429 | 503) && !asks_again);
                    book.took.push(begun.elapsed());
                }
                None => book.unanswered += 1,
            }
        });
        status
    }

    /// Posts an event that is not counted.
    pub async fn post(&self, event: &Event) -> Option<reqwest::Response> {
        let (url, signature) = {
            let orgs = self.orgs.lock().unwrap();
            let org = &orgs[event.org];
            (
                format!("{}/webhooks/vapi/{}", self.ingress, org.endpoint),
                hooks::sign(&org.secret, &event.body),
            )
        };
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("x-vapi-signature", signature)
            .timeout(Duration::from_secs(15));
        request.body(event.body.clone()).send().await.ok()
    }

    fn note(&self, event: &Event, change: impl FnOnce(&mut Sent, &mut Book)) {
        let mut book = self.book.lock().unwrap();
        let mut sent = book.calls.get(&event.call).copied().unwrap_or(Sent {
            org: event.org,
            is_wanted: event.is_wanted,
            taken: 0,
        });
        change(&mut sent, &mut book);
        book.calls.insert(event.call.clone(), sent);
    }

    /// Sends until it gets its 200, as a provider with retries does it.
    pub async fn insist(&self, event: &Event) {
        let end = Instant::now() + super::world::PATIENCE;
        while self.send(event).await != Some(200) {
            assert!(
                Instant::now() < end,
                "seed {}: nobody takes an event: {}",
                self.seed,
                self.summary()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// So many fresh events, each sent until it is taken.
    pub async fn send_all(&self, count: usize) {
        let events: Vec<Event> = (0..count).map(|_| self.fresh()).collect();
        futures_util::future::join_all(events.chunks(count.div_ceil(16).max(1)).map(|chunk| async move {
            for event in chunk {
                self.insist(event).await;
            }
        }))
        .await;
    }

    /// Load in the background: about `rate` events a second, of which some are sent again though
    /// they were taken, and half of those that were not.
    pub fn run(self: &Arc<Self>, rate: u32) -> Running {
        const SENDERS: u32 = 8;
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs(1) * SENDERS / rate;
        let tasks = (0..SENDERS).map(|sender| {
            let (load, stop) = (self.clone(), stop.clone());
            let mut random = Random::new(self.seed ^ u64::from(sender));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let (event, begun) = (load.fresh(), Instant::now());
                    let comes_back = random.chance(50);
                    let mut status = load.send(&event).await;
                    if status == Some(200) && random.chance(10) {
                        status = load.send(&event).await;
                    }
                    while status != Some(200) && comes_back && !stop.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        status = load.send(&event).await;
                    }
                    tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
                }
            })
        });
        Running {
            tasks: tasks.collect(),
            stop,
        }
    }

    pub fn calls(&self) -> HashMap<String, Sent> {
        self.book.lock().unwrap().calls.clone()
    }

    pub fn answers(&self) -> BTreeMap<u16, u64> {
        self.book.lock().unwrap().answers.clone()
    }

    pub fn without_retry_after(&self) -> u64 {
        self.book.lock().unwrap().without_retry_after
    }

    /// Events that got a 200 at least once, and how many 200s there were.
    pub fn taken(&self) -> (usize, u64) {
        let book = self.book.lock().unwrap();
        (
            book.calls.values().filter(|sent| sent.taken > 0).count(),
            book.answers.get(&200).copied().unwrap_or(0),
        )
    }

    /// Requests that got no answer.
    pub fn unanswered(&self) -> u64 {
        self.book.lock().unwrap().unanswered
    }

    /// How long the answers since the last call took, by their share that was not slower.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut took = std::mem::take(&mut self.book.lock().unwrap().took);
        took.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into what was counted"
        )]
        let at = ((took.len() as f64) * share) as usize;
        took.get(at.min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    pub fn summary(&self) -> String {
        let book = self.book.lock().unwrap();
        let mut text = format!("{} events, answers", book.calls.len());
        for (status, count) in &book.answers {
            let _ = write!(text, " {status}×{count}");
        }
        let _ = write!(text, ", unanswered {}", book.unanswered);
        text
    }
}

pub struct Running {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Running {
    /// Ends after the requests that are under way.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.expect("senders do not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in &self.tasks {
            task.abort();
        }
    }
}
