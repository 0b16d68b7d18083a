//! Who looks at the lists of an organisation, and the looks at the store for them.
//!
//! `api::stream` opens and reads; `web::respond` says that this process wrote. **Invariant:** an
//! organisation costs one look at a time, however many streams of it are open, and none without
//! one. A stream learns the names of its own organisation's lists, and nothing else.

use crate::{
    domain::OrgId,
    store::{
        Store, StoreError,
        marks::{List, ListMarks},
    },
    telemetry::catalogue,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

/// Between two looks that nothing hurries.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks where this process writes.
const LOOK_GAP_MIN: Duration = Duration::from_millis(200);

/// What was said of an organisation so far: counters, so that a slow reader misses nothing and
/// nothing waits for it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Reports {
    /// Whether the first look is done. What changes after it is reported.
    pub is_ready: bool,
    changes: [u64; List::ALL.len()],
    /// Sessions that were ended here.
    pub sessions_ended: u64,
}

impl Reports {
    /// The lists that changed since `seen`.
    pub fn since(&self, seen: &Self) -> Vec<List> {
        let pairs = List::ALL.into_iter().zip(self.changes).zip(seen.changes);
        let changed = pairs.filter(|((_, now), before)| now != before);
        changed.map(|((list, _), _)| list).collect()
    }

    fn count(&mut self, lists: &[List]) {
        for (counter, list) in self.changes.iter_mut().zip(List::ALL) {
            *counter += u64::from(lists.contains(&list));
        }
    }
}

/// Why no stream was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    Organisation,
    Process,
}

/// All streams of this process.
pub struct Streams {
    store: Arc<dyn Store>,
    tasks: TaskTracker,
    max: usize,
    per_organisation_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: usize,
    orgs: HashMap<OrgId, Watched>,
}

/// An organisation with a stream.
struct Watched {
    count: usize,
    reports: Arc<watch::Sender<Reports>>,
    refresh_now: Arc<Notify>,
}

/// A place among the streams, and what is reported on it. Dropping it gives the place back.
pub struct OpenStream {
    pub reports: watch::Receiver<Reports>,
    org: OrgId,
    streams: Arc<Streams>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.count -= 1;
        if let Some(watched) = open.orgs.get_mut(&self.org) {
            watched.count -= 1;
        }
        show(&open);
    }
}

fn show(open: &Open) {
    catalogue::ADMIN_STREAMS.set(open.count as f64, &[]);
}

impl Streams {
    pub fn new(store: Arc<dyn Store>, tasks: TaskTracker, max: usize, per_organisation_max: usize) -> Arc<Self> {
        let open = Mutex::default();
        Arc::new(Self {
            store,
            tasks,
            max,
            per_organisation_max,
            open,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream. The first one of an organisation begins the looks.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn open(self: &Arc<Self>, org: OrgId) -> Result<OpenStream, Full> {
        let mut open = self.lock();
        if open.orgs.get(&org).map_or(0, |watched| watched.count) >= self.per_organisation_max {
            return Err(Full::Organisation);
        }
        if open.count >= self.max {
            return Err(Full::Process);
        }
        open.count += 1;
        let watched = open.orgs.entry(org).or_insert_with(|| self.begin(org));
        watched.count += 1;
        let reports = watched.reports.subscribe();
        show(&open);
        drop(open);
        Ok(OpenStream {
            reports,
            org,
            streams: Arc::clone(self),
        })
    }

    fn begin(self: &Arc<Self>, org: OrgId) -> Watched {
        let watched = Watched {
            count: 0,
            reports: Arc::new(watch::Sender::new(Reports::default())),
            refresh_now: Arc::default(),
        };
        let (reports, refresh_now) = (Arc::clone(&watched.reports), Arc::clone(&watched.refresh_now));
        self.tasks.spawn(Arc::clone(self).look(org, reports, refresh_now));
        watched
    }

    /// Somebody of the organisation wrote through this process: the next look comes at once.
    pub fn wrote(&self, org: OrgId) {
        if let Some(watched) = self.lock().orgs.get(&org) {
            watched.refresh_now.notify_one();
        }
    }

    /// A session of the organisation was ended through this process.
    pub fn session_ended(&self, org: OrgId) {
        if let Some(watched) = self.lock().orgs.get(&org) {
            watched.reports.send_modify(|reports| reports.sessions_ended += 1);
        }
    }

    /// Forgets an organisation without a stream.
    fn is_watched(&self, org: OrgId) -> bool {
        let mut open = self.lock();
        let is_watched = open.orgs.get(&org).is_some_and(|watched| watched.count > 0);
        if !is_watched {
            open.orgs.remove(&org);
        }
        is_watched
    }

    /// Looks while a stream of the organisation is open.
    async fn look(self: Arc<Self>, org: OrgId, reports: Arc<watch::Sender<Reports>>, refresh_now: Arc<Notify>) {
        let mut known = None;
        while self.is_watched(org) {
            let begun = Instant::now();
            tokio::select! {
                biased;
                () = reports.closed() => continue,
                looked = self.store.look_at_lists(org) => known = tell(&reports, known.as_ref(), looked),
            }
            let again = async {
                let hurried = tokio::time::timeout_at(begun + LOOK_EVERY, refresh_now.notified());
                if hurried.await.is_ok() {
                    sleep_until(begun + LOOK_GAP_MIN).await;
                }
            };
            tokio::select! {
                biased;
                () = reports.closed() => {}
                () = again => {}
            }
        }
    }
}

/// Tells what a look found, and returns what is known now. Where the look failed, and where it is
/// the first one after that, all lists are reported once: their readers find out for themselves.
fn tell(
    reports: &watch::Sender<Reports>,
    known: Option<&ListMarks>,
    looked: Result<ListMarks, StoreError>,
) -> Option<ListMarks> {
    let marks = looked.ok();
    let is_first = !reports.borrow().is_ready;
    let lists: Vec<List> = match (known, &marks) {
        (Some(known), Some(marks)) => marks.changed_since(known).collect(),
        (None, None) if !is_first => Vec::new(),
        _ => List::ALL.to_vec(),
    };
    if !lists.is_empty() {
        reports.send_modify(|reports| {
            reports.is_ready = true;
            reports.count(&lists);
        });
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::SystemClock,
        store::{self, marks::Mark},
    };

    fn marks(events: i64, jobs: i64) -> ListMarks {
        let mut marks = ListMarks::default();
        marks.0[0].sum = Some(events);
        marks.0[3].sum = Some(jobs);
        marks
    }

    #[test]
    fn what_a_look_finds_is_reported_by_its_list_and_a_look_that_failed_by_all_of_them_once() {
        let reports = watch::Sender::new(Reports::default());
        let away = || Err(StoreError::Unavailable { doing: "look" });
        let mut known = None;
        for (looked, expected) in [
            (Ok(marks(1, 0)), List::ALL.to_vec()),
            (Ok(marks(1, 0)), vec![]),
            (Ok(marks(2, 0)), vec![List::Events]),
            (Ok(marks(3, 1)), vec![List::Events, List::Jobs]),
            (away(), List::ALL.to_vec()),
            (away(), vec![]),
            (Ok(marks(3, 1)), List::ALL.to_vec()),
            (Ok(marks(3, 2)), vec![List::Jobs]),
        ] {
            let seen = *reports.borrow();
            known = tell(&reports, known.as_ref(), looked);
            assert_eq!(reports.borrow().since(&seen), expected);
        }
    }

    #[test]
    fn a_database_that_is_away_at_the_first_look_is_reported_too() {
        let reports = watch::Sender::new(Reports::default());
        let known = tell(&reports, None, Err(StoreError::Unavailable { doing: "look" }));
        assert_eq!(known, None);
        assert!(reports.borrow().is_ready);
    }

    #[tokio::test]
    async fn looks_begin_with_the_first_stream_of_an_organisation_and_end_with_the_last() {
        let folder = std::env::temp_dir().join(format!("hookswitch-streams-{}", uuid::Uuid::now_v7()));
        let url = format!("sqlite:{}", folder.join("store.db").display());
        let store = store::create(&url, Arc::new(SystemClock)).await.expect("a store");
        let tasks = TaskTracker::new();
        let streams = Streams::new(store, tasks.clone(), 9, 2);
        let (a, b) = (OrgId::generate(), OrgId::generate());
        let open = |org| streams.open(org);
        let all = [open(a), open(a), open(b)];
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(open(a).err(), Some(Full::Organisation));
        assert_eq!(tasks.len(), 2, "one task an organisation");
        drop(all);
        tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await;
        assert!(ended.is_ok(), "nobody looks any more");
        assert!(streams.lock().orgs.is_empty() && streams.lock().count == 0);
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_list_that_got_empty_has_changed() {
        let full = ListMarks(
            [Mark {
                newest: None,
                sum: Some(1),
            }; List::ALL.len()],
        );
        let changed: Vec<List> = ListMarks::default().changed_since(&full).collect();
        assert_eq!(changed, List::ALL);
    }
}
