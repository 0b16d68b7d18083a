//! Finds the organisation of a webhook: all routes, endpoints, sealed signing secrets and wrapped
//! data keys are in memory.
//!
//! `receiver` and `worker` enter. **Invariant:** a look-up does no I/O, and an unknown sender's ids
//! cost no database read. All routes are here, so an id that is not here has no organisation. There
//! is nothing to remember about a miss. Before a refusal the receiver asks
//! [`RouteTable::refresh_now`], which reads the version at most 10 times a second however many
//! unknown senders knock.

mod health;
mod keys;
mod refresh;

pub use health::{KeyCheck, KeyCoverage};
pub use refresh::Asker;

use crate::{
    domain::{Clock, EndpointId, OrgId, RouteKey, SealedBytes, SecretId, Source, Timestamp},
    store::{
        Store, StoreError,
        keys::DataKeyRow,
        snapshot::{EndpointRow, RouteRow, SecretRow, SnapshotChanges},
    },
};
use keys::{Keys, OrgIndex, lock, read, write};
use refresh::Looks;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long a secret that has ended stays in its entry, so that clocks may differ. The verifier
/// compares `not_after` itself.
const ENDED_SECRETS_KEPT: Duration = Duration::from_hours(1);

/// One organisation as ingress needs it.
#[derive(Debug)]
pub struct OrgEntry {
    pub org: OrgId,
    pub is_active: bool,
    /// Valid signing secrets of all sources and endpoints, newest first.
    pub secrets: Vec<SigningSecret>,
    /// Newest first.
    pub data_keys: Vec<DataKeyRow>,
}

/// A sealed signing secret. `id` names its content: a changed secret is another id.
#[derive(Debug, Clone)]
pub struct SigningSecret {
    pub id: SecretId,
    pub source: Source,
    /// `None`: the organisation's own secret for the source.
    pub endpoint: Option<EndpointId>,
    /// JSON of `source::Plan`.
    pub plan: Arc<str>,
    pub sealed: SealedBytes,
    pub not_after: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct EndpointEntry {
    pub id: EndpointId,
    pub org: OrgId,
    pub source: Source,
    pub ignored_types: Arc<[String]>,
}

pub struct RouteTable {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keys: Keys,
    orgs: RwLock<Orgs>,
    endpoints: RwLock<HashMap<EndpointId, EndpointEntry>>,
    /// The few routes for which the platform's own account signs.
    platform: RwLock<HashMap<RouteKey, OrgId>>,
    current: Mutex<Current>,
    looks: tokio::sync::Mutex<Looks>,
    looks_begun: AtomicU64,
    clock_offset_micros: AtomicI64,
}

/// The version and time for which the snapshot is current.
struct Current {
    version: i64,
    /// When the look began that found so.
    at: Instant,
}

/// Organisations by their place, which is given once: routes hold places.
#[derive(Default)]
struct Orgs {
    places: HashMap<OrgId, OrgIndex>,
    /// Swapped whole, so that a reader holds one state of an organisation.
    entries: Vec<Arc<OrgEntry>>,
}

impl Orgs {
    /// An organisation that only other rows name is there, and is not active.
    fn ensure(&mut self, org: OrgId) -> OrgIndex {
        *self.places.entry(org).or_insert_with(|| {
            self.entries.push(Arc::new(OrgEntry {
                org,
                is_active: false,
                secrets: Vec::new(),
                data_keys: Vec::new(),
            }));
            OrgIndex::try_from(self.entries.len() - 1).expect("fewer than 2^32 organisations fit in memory")
        })
    }

    fn entry(&self, index: OrgIndex) -> &Arc<OrgEntry> {
        &self.entries[index as usize]
    }

    /// Swaps in changed entries, with their keys and secrets newest first and without secrets that
    /// ended long ago.
    fn put_back(&mut self, drafts: HashMap<OrgId, OrgEntry>, database_now: Timestamp) {
        for (org, mut draft) in drafts {
            draft
                .data_keys
                .sort_unstable_by_key(|key| std::cmp::Reverse(key.version));
            // Ids are made in order of time.
            draft
                .secrets
                .sort_unstable_by_key(|secret| std::cmp::Reverse(secret.id));
            draft.secrets.retain(|secret| {
                secret
                    .not_after
                    .is_none_or(|end| end + ENDED_SECRETS_KEPT > database_now)
            });
            let index = self.ensure(org);
            self.entries[index as usize] = Arc::new(draft);
        }
    }
}

impl RouteTable {
    /// Loads everything; an error means that the store could not be read.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let begun = Instant::now();
        let changes = store.load_changes(0).await?;
        let table = Self {
            store,
            clock,
            keys: Keys::default(),
            orgs: RwLock::default(),
            endpoints: RwLock::default(),
            platform: RwLock::default(),
            current: Mutex::new(Current { version: 0, at: begun }),
            looks: tokio::sync::Mutex::default(),
            looks_begun: AtomicU64::new(0),
            clock_offset_micros: AtomicI64::new(0),
        };
        table.note_clock(changes.database_now, Duration::ZERO);
        table.keys.reserve(changes.routes.len());
        table.apply(changes, begun);
        Ok(Arc::new(table))
    }

    /// Memory only: one hash look-up.
    #[must_use]
    pub fn get(&self, key: &RouteKey) -> Option<OrgId> {
        let place = self.keys.get(key)?;
        Some(read(&self.orgs).entry(place).org)
    }

    /// Memory only. An organisation that is not active is there, and says so.
    #[must_use]
    pub fn org(&self, org: OrgId) -> Option<Arc<OrgEntry>> {
        let orgs = read(&self.orgs);
        orgs.places.get(&org).map(|place| Arc::clone(orgs.entry(*place)))
    }

    /// Memory only. Active endpoints.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointEntry> {
        read(&self.endpoints).get(&id).cloned()
    }

    /// Whether the platform's own account signs for this route of the organisation (invariant 19).
    /// Memory only.
    #[must_use]
    pub fn is_platform_managed(&self, key: &RouteKey, org: OrgId) -> bool {
        read(&self.platform).get(key) == Some(&org)
    }

    /// How old the snapshot is: since the last time that it was known to be current.
    #[must_use]
    pub fn age(&self) -> Duration {
        lock(&self.current).at.elapsed()
    }

    /// The database's clock less ours at the last look, in microseconds (invariant 16).
    #[must_use]
    pub fn clock_offset_micros(&self) -> i64 {
        self.clock_offset_micros.load(Ordering::Relaxed)
    }

    /// How far our clock is from the database's, in either direction.
    #[must_use]
    pub fn clock_offset(&self) -> Duration {
        Duration::from_micros(self.clock_offset_micros().unsigned_abs())
    }

    #[must_use]
    pub fn routes_len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes that the table of routes takes, without organisations. For the benchmark.
    #[must_use]
    pub fn routes_bytes(&self) -> usize {
        self.keys.bytes()
    }

    /// Our time is taken in the middle of the look: what is left is half of what the exchange took
    /// at most.
    fn note_clock(&self, database_now: Timestamp, look_took: Duration) {
        let ours = self.clock.now() - look_took / 2;
        self.clock_offset_micros.store(
            database_now.as_micros().saturating_sub(ours.as_micros()),
            Ordering::Relaxed,
        );
    }

    /// Organisations first, then what leads to them: a route is never there before the secrets that
    /// it chooses from.
    fn apply(&self, changes: SnapshotChanges, begun: Instant) {
        let SnapshotChanges {
            version,
            database_now,
            organisations,
            data_keys,
            endpoints,
            secrets,
            routes,
        } = changes;
        let mut drafts = Drafts {
            orgs: &self.orgs,
            drafts: HashMap::new(),
        };
        for row in organisations {
            drafts.of(row.org).is_active = row.is_active;
        }
        for row in data_keys {
            let keys = &mut drafts.of(row.org).data_keys;
            keys.retain(|key| key.version != row.version);
            keys.push(row);
        }
        let mut plans = HashSet::new();
        for row in secrets {
            let draft = drafts.of(row.org);
            draft.secrets.retain(|secret| secret.id != row.id);
            draft.secrets.extend(signing_secret(row, &mut plans));
        }
        let drafts = drafts.drafts;
        write(&self.orgs).put_back(drafts, database_now);
        self.apply_endpoints(endpoints);
        let places: Vec<OrgIndex> = {
            let mut orgs = write(&self.orgs);
            routes.iter().map(|row| orgs.ensure(row.org)).collect()
        };
        self.apply_platform(&routes);
        self.keys.apply(&routes, &places);
        *lock(&self.current) = Current { version, at: begun };
    }

    fn apply_platform(&self, rows: &[RouteRow]) {
        let mut platform = write(&self.platform);
        for row in rows {
            let is_managed = row.is_live && row.is_platform_managed;
            // A row takes out what was its own organisation's, and no other's.
            if !is_managed && platform.get(&row.key) == Some(&row.org) {
                platform.remove(&row.key);
            }
        }
        let managed = rows.iter().filter(|row| row.is_live && row.is_platform_managed);
        platform.extend(managed.map(|row| (row.key.clone(), row.org)));
    }

    fn apply_endpoints(&self, rows: Vec<EndpointRow>) {
        let mut table = write(&self.endpoints);
        for row in rows {
            if !row.is_active {
                table.remove(&row.id);
                continue;
            }
            let entry = EndpointEntry {
                id: row.id,
                org: row.org,
                source: row.source,
                ignored_types: row.ignored_types.into(),
            };
            table.insert(row.id, entry);
        }
    }
}

/// Entries that change, copied once each and put back whole.
struct Drafts<'a> {
    orgs: &'a RwLock<Orgs>,
    drafts: HashMap<OrgId, OrgEntry>,
}

impl Drafts<'_> {
    fn of(&mut self, org: OrgId) -> &mut OrgEntry {
        self.drafts.entry(org).or_insert_with(|| {
            let orgs = read(self.orgs);
            match orgs.places.get(&org).map(|place| orgs.entry(*place)) {
                Some(entry) => OrgEntry {
                    org,
                    is_active: entry.is_active,
                    secrets: entry.secrets.clone(),
                    data_keys: entry.data_keys.clone(),
                },
                None => OrgEntry {
                    org,
                    is_active: false,
                    secrets: Vec::new(),
                    data_keys: Vec::new(),
                },
            }
        })
    }
}

/// `None`: it is erased. Most organisations have the same few plans: each is kept once a load.
fn signing_secret(row: SecretRow, plans: &mut HashSet<Arc<str>>) -> Option<SigningSecret> {
    let sealed = row.sealed?;
    let plan = plans.get(row.plan.as_str()).cloned().unwrap_or_else(|| {
        let plan: Arc<str> = row.plan.into();
        plans.insert(Arc::clone(&plan));
        plan
    });
    Some(SigningSecret {
        id: row.id,
        source: row.source,
        endpoint: row.endpoint,
        plan,
        sealed,
        not_after: row.not_after,
    })
}
