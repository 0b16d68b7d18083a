//! A broker that follows a script, with a spool in front of it.

use crate::{
    conformance::queue::{Limits, delivered, event, id_of, take, within},
    queue_embedded::{self, Scratch},
};
use async_trait::async_trait;
use hookswitch::{
    domain::{Envelope, EventId, OrgId, SystemClock, VerifiedEvent},
    queue::{
        ConsumeError, Deliveries, EventQueue, LogQueue, LogSettings, PublishError, QueueState, SpoolQueue,
        SpoolSettings, SpoolState,
    },
};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How the broker treats one publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    Take,
    /// Stores nothing and says so.
    Refuse,
    /// Stores nothing and never answers.
    Hang,
    /// Stores the event and never answers.
    LoseConfirm,
    /// Will never take this event.
    RefuseForGood,
}

pub type Script = Box<dyn Fn(&Envelope) -> Treatment + Send + Sync>;

/// A broker that follows a script. A log stands for its storage.
pub struct Broker {
    pub log: Arc<LogQueue>,
    script: Mutex<Arc<Script>>,
}

impl Broker {
    pub async fn open(place: &Path, limits: Limits) -> Arc<Self> {
        let settings = LogSettings {
            bytes_max: limits.bytes_max,
            event_bytes_max: limits.event_bytes_max,
            ..queue_embedded::settings()
        };
        let log = LogQueue::open(place, settings, Arc::new(SystemClock)).await.unwrap();
        Arc::new(Self {
            log: Arc::new(log),
            script: Mutex::new(Arc::new(Box::new(|_| Treatment::Take))),
        })
    }

    pub fn follow(&self, script: impl Fn(&Envelope) -> Treatment + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(Box::new(script));
    }

    pub fn treat_all(&self, treatment: Treatment) {
        self.follow(move |_| treatment);
    }

    /// Everything that the broker stored, in its order.
    pub async fn stored(&self) -> Vec<Envelope> {
        let count = usize::try_from(self.log.state().events).unwrap();
        let mut deliveries = self.log.consume().await.unwrap();
        let stored = take(&mut deliveries, count).await;
        stored.iter().map(|delivery| delivered(delivery).clone()).collect()
    }
}

#[async_trait]
impl EventQueue for Broker {
    async fn publish(&self, event: &VerifiedEvent) -> Result<(), PublishError> {
        let script = self.script.lock().unwrap().clone();
        match script(event.envelope()) {
            Treatment::Take => self.log.publish(event).await,
            Treatment::Refuse => Err(PublishError::Unavailable { reason: "away".into() }),
            Treatment::Hang => std::future::pending().await,
            Treatment::LoseConfirm => {
                self.log.publish(event).await?;
                std::future::pending().await
            }
            Treatment::RefuseForGood => Err(PublishError::TooLarge { bytes: 2, bytes_max: 1 }),
        }
    }

    async fn consume(&self) -> Result<Box<dyn Deliveries>, ConsumeError> {
        self.log.consume().await
    }

    fn state(&self) -> QueueState {
        self.log.state()
    }

    async fn close(&self) {
        self.log.close().await;
    }
}

pub fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings {
        directory: directory.to_owned(),
        log: queue_embedded::settings(),
        publish_seconds_max: Duration::from_millis(200),
        drain_seconds_max: Duration::from_secs(10),
        may_be_volatile: true,
    }
}

pub async fn open(broker: &Arc<Broker>, settings: SpoolSettings) -> Arc<SpoolQueue> {
    let broker = Arc::clone(broker) as Arc<dyn EventQueue>;
    Arc::new(SpoolQueue::open(broker, settings, Arc::new(SystemClock)).await.unwrap())
}

/// A broker and a spool in front of it, with directories of their own.
pub struct House {
    pub broker: Arc<Broker>,
    pub queue: Arc<SpoolQueue>,
    pub spool_place: Scratch,
    pub broker_place: Scratch,
}

pub async fn house() -> House {
    house_with(|_| {}).await
}

pub async fn house_with(change: impl FnOnce(&mut SpoolSettings)) -> House {
    let (broker_place, spool_place) = (Scratch::new(), Scratch::new());
    let broker = Broker::open(&broker_place.0, Limits::default()).await;
    let mut settings = settings(&spool_place.0);
    change(&mut settings);
    let queue = open(&broker, settings).await;
    House {
        broker,
        queue,
        spool_place,
        broker_place,
    }
}

impl House {
    pub fn spool(&self) -> SpoolState {
        self.queue.spool().unwrap()
    }

    /// Publishes events of four subjects, one after the other; each has to be confirmed.
    pub async fn publish(&self, count: usize) -> Vec<EventId> {
        let org = OrgId::from_uuid(uuid::Uuid::from_u128(1));
        let mut ids = Vec::new();
        for n in 0..count {
            let event = event(org, &format!("call-{}", n % 4), format!("{n}"));
            ids.push(id_of(&event));
            within(self.queue.publish(&event))
                .await
                .expect("the broker or the spool takes it");
        }
        ids
    }
}

/// The first occurrence of each event, by subject, in the order of the broker.
pub fn firsts_by_subject(stored: &[Envelope]) -> HashMap<String, Vec<EventId>> {
    let mut seen = HashSet::new();
    let mut subjects: HashMap<String, Vec<EventId>> = HashMap::new();
    for envelope in stored {
        if seen.insert(envelope.id) {
            subjects
                .entry(envelope.subject.0.to_string())
                .or_default()
                .push(envelope.id);
        }
    }
    subjects
}

/// `published` in the four subjects of [`House::publish`].
pub fn by_subject(published: &[EventId]) -> HashMap<String, Vec<EventId>> {
    let mut subjects: HashMap<String, Vec<EventId>> = HashMap::new();
    for (n, id) in published.iter().enumerate() {
        subjects.entry(format!("call-{}", n % 4)).or_default().push(*id);
    }
    subjects
}
