//! Figures of an organisation, from what the store counted: parts of an hour or a day, and the
//! whole.
//!
//! `api::statistics` asks. **Invariant:** an organisation's figures are counted once in [`FRESH`],
//! however many pages ask for them.

use crate::{
    domain::{ActionState, Clock, EventId, OrgId, Timestamp},
    store::{
        Store, StoreError,
        statistics::{ACTIONS_READ_MAX, Counted, CountedAction},
    },
};
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long figures are shown before they are counted again.
const FRESH: Duration = Duration::from_secs(10);
const KEPT_MAX: NonZeroUsize = NonZeroUsize::new(500).expect("is not zero");

/// The time that figures are about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Over {
    Hour,
    Day,
}

impl Over {
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// How many parts there are, and how long each is.
    #[must_use]
    pub const fn parts(self) -> (u32, Duration) {
        match self {
            Self::Hour => (60, Duration::from_mins(1)),
            Self::Day => (24, Duration::from_hours(1)),
        }
    }

    /// The begins of the parts, and the end of the last one, which is under way. They stand on
    /// round times, so that a part does not change while time goes on.
    pub(super) fn edges(self, now: Timestamp) -> Vec<Timestamp> {
        let (count, width) = self.parts();
        let end = self.begin(now) + width;
        (0..=count).rev().map(|back| end - width * back).collect()
    }

    /// The begin of the part that a moment lies in.
    pub(super) fn begin(self, at: Timestamp) -> Timestamp {
        let micros = i64::try_from(self.parts().1.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(at.as_micros().div_euclid(micros) * micros)
    }
}

/// Figures of the actions that were planned in a time, as they stand now.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Figures {
    pub from: Timestamp,
    pub events: u64,
    pub actions: u64,
    pub succeeded: u64,
    pub dead: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// From the receipt of the event to the success: half, and 95 of 100, took no longer.
    pub latency: Option<(Duration, Duration)>,
    /// Actions that had not gone out at the end, whenever they were planned. `None` where not all
    /// of them were read.
    pub backlog: Option<u64>,
}

/// Figures of each part of a time, and of the whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    pub until: Timestamp,
    pub parts: Vec<Figures>,
    pub total: Figures,
    /// Where there were too many actions to read: those that were planned before it are missing.
    pub counted_since: Option<Timestamp>,
    pub backlog: Vec<crate::store::statistics::Backlog>,
}

impl History {
    fn of(counted: Counted, edges: &[Timestamp], now: Timestamp) -> Self {
        let is_cut = counted.actions.len() >= ACTIONS_READ_MAX as usize;
        let counted_since = counted
            .actions
            .last()
            .filter(|_| is_cut)
            .map(|oldest| oldest.created_at);
        let backlogs = backlogs(&counted, edges);
        let mut parts = vec![Sum::default(); edges.len().saturating_sub(1)];
        let mut total = Sum::default();
        for action in &counted.actions {
            if let Some(part) = parts.get_mut(part_of(edges, action.created_at)) {
                part.add(action);
                total.add(action);
            }
        }
        let figures = parts
            .into_iter()
            .zip(edges.windows(2))
            .zip(counted.events)
            .zip(backlogs);
        let parts: Vec<Figures> = figures
            .map(|(((sum, edge), events), backlog)| Figures {
                backlog: Some(backlog).filter(|_| counted_since.is_none_or(|since| since < edge[1])),
                ..sum.figures(edge[0], events)
            })
            .collect();
        let events = parts.iter().map(|part| part.events).sum();
        Self {
            until: now,
            total: Figures {
                backlog: parts.last().and_then(|last| last.backlog),
                ..total.figures(edges.first().copied().unwrap_or(now), events)
            },
            parts,
            counted_since,
            backlog: counted.backlog,
        }
    }
}

/// The part that a moment lies in. A clock that is ahead of ours plans into the last one.
fn part_of(edges: &[Timestamp], at: Timestamp) -> usize {
    let begun = edges.partition_point(|edge| *edge <= at);
    begun.saturating_sub(1).min(edges.len().saturating_sub(2))
}

const fn is_open(state: ActionState) -> bool {
    matches!(
        state,
        ActionState::Pending | ActionState::Waiting | ActionState::Unknown | ActionState::Running
    )
}

/// Actions that had not gone out at the end of each part: from their plan on, until they ended. The
/// ledger has one state of an action, so one that was dead and was tried again has waited
/// throughout.
fn backlogs(counted: &Counted, edges: &[Timestamp]) -> Vec<u64> {
    let mut changes = vec![0_i64; edges.len().saturating_sub(1)];
    let mut change = |at: Timestamp, by: i64| {
        if let Some(part) = changes.get_mut(part_of(edges, at)) {
            *part += by;
        }
    };
    let ended = |action: &&CountedAction| !is_open(action.state);
    for action in &counted.actions {
        change(action.created_at, 1);
    }
    for action in counted.actions.iter().chain(&counted.earlier).filter(ended) {
        change(action.updated_at, -1);
    }
    let waits = |action: &&CountedAction| is_open(action.state) && action.state != ActionState::Running;
    let now: u64 = counted.backlog.iter().map(|backlog| backlog.count).sum();
    let of_the_time = counted.actions.iter().filter(waits).count() as u64;
    let earlier = counted.earlier.iter().filter(|action| !waits(action)).count() as u64;
    let mut open = i64::try_from(now.saturating_sub(of_the_time) + earlier).unwrap_or(i64::MAX);
    let at_the_end = changes.iter().map(|change| {
        open += change;
        u64::try_from(open).unwrap_or(0)
    });
    at_the_end.collect()
}

#[derive(Clone, Default)]
struct Sum {
    figures: Figures,
    latencies: Vec<Duration>,
}

impl Sum {
    fn add(&mut self, action: &CountedAction) {
        let figures = &mut self.figures;
        figures.actions += 1;
        let tries = action.claims.saturating_sub(action.look_ups);
        figures.retries += u64::from(tries.saturating_sub(1));
        match action.state {
            ActionState::Succeeded => {
                figures.succeeded += 1;
                self.latencies.push(action.updated_at.since(begun_at(action)));
            }
            ActionState::Dead => figures.dead += 1,
            _ => {}
        }
    }

    fn figures(mut self, from: Timestamp, events: u64) -> Figures {
        self.latencies.sort_unstable();
        Figures {
            from,
            events,
            latency: quantile(&self.latencies, 50).zip(quantile(&self.latencies, 95)),
            ..self.figures
        }
    }
}

/// The value that so many of a hundred do not pass.
fn quantile(sorted: &[Duration], of_a_hundred: usize) -> Option<Duration> {
    let place = (sorted.len() * of_a_hundred).div_ceil(100);
    sorted.get(place.saturating_sub(1)).copied()
}

/// When the event of an action was received, by its id. A replay begins when it is planned.
fn begun_at(action: &CountedAction) -> Timestamp {
    let received = received_at(action.event).filter(|_| action.series == 0);
    received.unwrap_or(action.created_at).min(action.created_at)
}

fn received_at(event: EventId) -> Option<Timestamp> {
    let (seconds, nanos) = event.as_uuid().get_timestamp()?.to_unix();
    let micros = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    Some(Timestamp::from_micros(micros + i64::from(nanos / 1_000)))
}

type Kept = Arc<tokio::sync::Mutex<Option<Arc<History>>>>;

/// Figures that were counted lately.
pub struct KeptHistory {
    kept: Mutex<LruCache<(OrgId, Over), Kept>>,
}

impl Default for KeptHistory {
    fn default() -> Self {
        Self {
            kept: Mutex::new(LruCache::new(KEPT_MAX)),
        }
    }
}

impl KeptHistory {
    /// Those who ask at once wait for one count.
    ///
    /// # Errors
    /// The store cannot count.
    pub async fn get(
        &self,
        store: &dyn Store,
        clock: &dyn Clock,
        org: OrgId,
        over: Over,
    ) -> Result<Arc<History>, StoreError> {
        let place = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(kept.get_or_insert_mut((org, over), Kept::default))
        };
        let mut place = place.lock().await;
        let now = clock.now();
        if let Some(known) = place
            .as_ref()
            .filter(|known| now.since(known.until) < FRESH && now >= known.until)
        {
            return Ok(Arc::clone(known));
        }
        let edges = over.edges(now);
        let counted = store.count_history(org, &edges).await?;
        let history = Arc::new(History::of(counted, &edges, now));
        *place = Some(Arc::clone(&history));
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::statistics::Backlog;
    use uuid::Uuid;

    const MINUTE: Duration = Duration::from_mins(1);
    /// 20 seconds into a minute.
    const NOW: Timestamp = Timestamp::from_seconds(6_000_020);

    fn event(at: Timestamp) -> EventId {
        let millis = u128::try_from(at.as_micros() / 1_000).expect("after 1970");
        EventId::from_uuid(Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62))
    }

    fn action(planned: Timestamp, state: ActionState, claims: u32) -> CountedAction {
        CountedAction {
            event: event(planned - Duration::from_secs(1)),
            state,
            series: 0,
            claims,
            look_ups: 0,
            created_at: planned,
            updated_at: planned + Duration::from_secs(u64::from(claims)),
        }
    }

    #[test]
    fn parts_stand_on_round_times_and_the_last_one_is_under_way() {
        for over in Over::ALL {
            let (count, width) = over.parts();
            let edges = over.edges(NOW);
            assert_eq!(edges.len(), count as usize + 1);
            assert!(edges.windows(2).all(|pair| pair[1].since(pair[0]) == width));
            assert!(edges[edges.len() - 2] <= NOW && NOW < edges[edges.len() - 1]);
            assert_eq!(
                edges[0].as_micros() % i64::try_from(width.as_micros()).expect("small"),
                0
            );
        }
    }

    #[test]
    fn an_action_counts_where_it_was_planned_with_what_came_of_it() {
        let edges = Over::Hour.edges(NOW);
        let begin = edges[58];
        let counted = Counted {
            events: (0..60)
                .map(|part| u64::from(part == 58) * 3 + u64::from(part == 0))
                .collect(),
            actions: vec![
                action(NOW, ActionState::Pending, 0),
                action(begin + MINUTE - Duration::from_micros(1), ActionState::Dead, 4),
                CountedAction {
                    look_ups: 2,
                    ..action(begin, ActionState::Succeeded, 4)
                },
                action(begin, ActionState::Succeeded, 1),
            ],
            ..Counted::default()
        };
        let history = History::of(counted, &edges, NOW);
        let seconds = Duration::from_secs;
        let expected = Figures {
            from: begin,
            events: 3,
            actions: 3,
            succeeded: 2,
            dead: 1,
            retries: 3 + 1,
            latency: Some((seconds(2), seconds(5))),
            // The dead one ended a few seconds later.
            backlog: Some(1),
        };
        assert_eq!(history.parts[58], expected);
        assert_eq!((history.parts[59].actions, history.parts[59].latency), (1, None));
        assert!(
            history.parts[1..58]
                .iter()
                .all(|part| part.actions == 0 && part.events == 0)
        );
        let total = Figures {
            from: edges[0],
            events: 4,
            actions: 4,
            ..expected
        };
        assert_eq!((&history.total, history.counted_since), (&total, None));
    }

    #[test]
    fn a_replay_and_an_id_without_a_time_count_from_the_plan() {
        let replayed = CountedAction {
            series: 1,
            ..action(NOW, ActionState::Succeeded, 1)
        };
        let foreign = CountedAction {
            event: EventId::from_uuid(Uuid::from_u128(u128::MAX)),
            ..action(NOW, ActionState::Succeeded, 1)
        };
        let late = CountedAction {
            event: event(NOW + MINUTE),
            ..action(NOW, ActionState::Succeeded, 1)
        };
        for one in [replayed, foreign, late] {
            assert_eq!(begun_at(&one), NOW);
        }
        assert_eq!(
            begun_at(&action(NOW, ActionState::Succeeded, 1)),
            NOW - Duration::from_secs(1)
        );
    }

    #[test]
    fn what_was_not_read_is_said() {
        let edges = Over::Day.edges(NOW);
        let oldest = NOW - MINUTE * 90;
        let mut actions = vec![action(NOW, ActionState::Dead, 1); ACTIONS_READ_MAX as usize];
        *actions.last_mut().expect("some") = action(oldest, ActionState::Dead, 1);
        let counted = Counted {
            events: vec![0; 24],
            actions,
            ..Counted::default()
        };
        let history = History::of(counted, &edges, NOW);
        assert_eq!(history.counted_since, Some(oldest));
        let is_known: Vec<bool> = history.parts.iter().map(|part| part.backlog.is_some()).collect();
        let first_known = edges.iter().position(|edge| *edge > oldest).expect("in the day") - 1;
        assert!(is_known[first_known..].iter().all(|is_known| *is_known));
        assert!(!is_known[..first_known].iter().any(|is_known| *is_known));
    }

    /// What had not gone out at the end of the last three parts of an hour.
    fn backlog_of(actions: Vec<CountedAction>, earlier: Vec<CountedAction>, now: u64) -> [u64; 3] {
        let counted = Counted {
            events: vec![0; 60],
            actions,
            earlier,
            backlog: vec![Backlog {
                state: ActionState::Waiting,
                count: now,
                oldest_at: NOW,
            }],
        };
        let parts = History::of(counted, &Over::Hour.edges(NOW), NOW).parts;
        let known: Vec<u64> = parts[57..].iter().map(|part| part.backlog.expect("known")).collect();
        known.try_into().expect("three parts")
    }

    #[test]
    fn an_action_is_backlog_from_its_plan_until_it_ends() {
        let one = |planned, state, ended| CountedAction {
            updated_at: ended,
            ..action(planned, state, 1)
        };
        let [before, first, second] = [57, 58, 59].map(|part| Over::Hour.edges(NOW)[part]);
        for (state, count) in [
            (ActionState::Succeeded, [1, 1, 0]),
            (ActionState::Dead, [1, 1, 0]),
            (ActionState::Parked, [1, 1, 0]),
            (ActionState::Cancelled, [1, 1, 0]),
            (ActionState::Suppressed, [1, 1, 0]),
        ] {
            assert_eq!(
                backlog_of(vec![one(before, state, second)], vec![], 0),
                count,
                "{state}"
            );
        }
        let waiting = one(first, ActionState::Waiting, second);
        assert_eq!(
            backlog_of(vec![waiting], vec![], 1),
            [0, 1, 1],
            "its next try changes nothing"
        );
        let running = one(first, ActionState::Running, first);
        assert_eq!(backlog_of(vec![running], vec![], 0), [0, 1, 1], "it has not gone out");
        let quick = one(first, ActionState::Succeeded, first);
        assert_eq!(
            backlog_of(vec![quick], vec![], 0),
            [0, 0, 0],
            "gone before the end of its part"
        );
    }

    #[test]
    fn the_backlog_of_a_time_has_what_was_planned_before_it() {
        let edges = Over::Hour.edges(NOW);
        let old = edges[0] - Duration::from_hours(8);
        let one = |state, ended| CountedAction {
            updated_at: ended,
            ..action(old, state, 1)
        };
        assert_eq!(backlog_of(vec![], vec![], 7), [7, 7, 7], "they wait all the time");
        let morning = one(ActionState::Succeeded, edges[58]);
        assert_eq!(backlog_of(vec![], vec![morning], 0), [1, 0, 0], "they went out in it");
        let waiting = one(ActionState::Waiting, edges[58]);
        assert_eq!(
            backlog_of(vec![], vec![waiting], 1),
            [1, 1, 1],
            "it is in the count of now"
        );
        let running = one(ActionState::Running, edges[58]);
        assert_eq!(
            backlog_of(vec![], vec![running], 0),
            [1, 1, 1],
            "it is in no count of now"
        );
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let all: Vec<Duration> = (1..=20).map(Duration::from_secs).collect();
        assert_eq!(quantile(&all, 50), Some(Duration::from_secs(10)));
        assert_eq!(quantile(&all, 95), Some(Duration::from_secs(19)));
        assert_eq!(quantile(&all[..1], 95), Some(Duration::from_secs(1)));
        assert_eq!(quantile(&[], 50), None);
    }
}
