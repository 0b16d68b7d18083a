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
    fn edges(self, now: Timestamp) -> Vec<Timestamp> {
        let (count, width) = self.parts();
        let micros = i64::try_from(width.as_micros()).unwrap_or(i64::MAX);
        let begun = now.as_micros().div_euclid(micros) * micros;
        let end = Timestamp::from_micros(begun.saturating_add(micros));
        (0..=count).rev().map(|back| end - width * back).collect()
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
        let mut parts = vec![Sum::default(); edges.len().saturating_sub(1)];
        let mut total = Sum::default();
        for action in &counted.actions {
            let at = edges.partition_point(|edge| *edge <= action.created_at);
            // A clock that is ahead of ours plans into the last part.
            if let Some(part) = parts.get_mut(at.saturating_sub(1).min(edges.len().saturating_sub(2))) {
                part.add(action);
                total.add(action);
            }
        }
        let figures = parts.into_iter().zip(edges).zip(counted.events);
        let parts: Vec<Figures> = figures
            .map(|((sum, from), events)| sum.figures(*from, events))
            .collect();
        let events = parts.iter().map(|part| part.events).sum();
        Self {
            until: now,
            total: total.figures(edges.first().copied().unwrap_or(now), events),
            parts,
            counted_since: counted
                .actions
                .last()
                .filter(|_| is_cut)
                .map(|oldest| oldest.created_at),
            backlog: counted.backlog,
        }
    }
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
            events: (0..60).map(|part| u64::from(part == 58) * 3).collect(),
            actions: vec![
                action(NOW, ActionState::Pending, 0),
                action(begin + MINUTE - Duration::from_micros(1), ActionState::Dead, 4),
                action(begin, ActionState::Succeeded, 1),
                CountedAction {
                    look_ups: 2,
                    ..action(begin, ActionState::Succeeded, 4)
                },
            ],
            backlog: vec![],
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
        };
        assert_eq!(history.parts[58], expected);
        assert_eq!((history.parts[59].actions, history.parts[59].latency), (1, None));
        assert!(
            history.parts[..58]
                .iter()
                .all(|part| part.actions == 0 && part.events == 0)
        );
        let total = Figures {
            from: edges[0],
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
            backlog: vec![],
        };
        assert_eq!(History::of(counted, &edges, NOW).counted_since, Some(oldest));
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
