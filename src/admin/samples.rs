//! How full the queue was and how the caches of this process were used, in the minutes of its last
//! hour and the hours of its last day.
//!
//! `AdminState` takes a sample every ten seconds, and one whenever an operator asks. **Invariant:**
//! it keeps 60 minutes and 24 hours, however long the process runs.

use super::statistics::Over;
use crate::{domain::Timestamp, vault::CacheStats};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(10);

/// The looks at a cache in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    pub cache: &'static str,
    pub hits: u64,
    pub misses: u64,
}

/// A minute or an hour.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Part {
    pub from: Timestamp,
    /// The most events that a sample found in the queue. `None`: no sample, or no queue.
    pub queue_events: Option<u64>,
    pub caches: Vec<Use>,
}

impl Part {
    fn add(&mut self, queue_events: Option<u64>, uses: &[Use]) {
        self.queue_events = self.queue_events.max(queue_events);
        for one in uses {
            match self.caches.iter_mut().find(|known| known.cache == one.cache) {
                Some(known) => {
                    known.hits += one.hits;
                    known.misses += one.misses;
                }
                None => self.caches.push(*one),
            }
        }
    }
}

struct Ring {
    over: Over,
    parts: VecDeque<Part>,
}

impl Ring {
    const fn new(over: Over) -> Self {
        Self {
            over,
            parts: VecDeque::new(),
        }
    }

    fn add(&mut self, now: Timestamp, queue_events: Option<u64>, uses: &[Use]) {
        let from = self.over.begin(now);
        // A clock that was set back counts into the newest part.
        if self.parts.back().is_none_or(|newest| newest.from < from) {
            self.parts.push_back(Part {
                from,
                ..Part::default()
            });
        }
        while self.parts.len() > self.over.parts().0 as usize {
            self.parts.pop_front();
        }
        if let Some(newest) = self.parts.back_mut() {
            newest.add(queue_events, uses);
        }
    }

    /// All parts of the time that ends now. Those without a sample are empty.
    fn parts(&self, now: Timestamp) -> Vec<Part> {
        let edges = self.over.edges(now);
        let begins = edges.iter().take(edges.len().saturating_sub(1));
        let part = |from: &Timestamp| {
            let found = self.parts.iter().find(|part| part.from == *from);
            found.cloned().unwrap_or_else(|| Part {
                from: *from,
                ..Part::default()
            })
        };
        begins.map(part).collect()
    }
}

struct Taken {
    /// When the first sample was taken.
    since: Option<Timestamp>,
    /// The counts of the process at the last sample.
    counts: Vec<Use>,
    hour: Ring,
    day: Ring,
}

/// The samples of a process.
pub struct Samples(Mutex<Taken>);

impl Default for Samples {
    fn default() -> Self {
        Self(Mutex::new(Taken {
            since: None,
            counts: Vec::new(),
            hour: Ring::new(Over::Hour),
            day: Ring::new(Over::Day),
        }))
    }
}

impl Samples {
    /// Counts what the process did since the sample before.
    pub fn take(&self, now: Timestamp, queue_events: Option<u64>, caches: &[CacheStats]) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.since.get_or_insert(now);
        let counts: Vec<Use> = caches.iter().map(count).collect();
        let uses: Vec<Use> = counts.iter().map(|now| since(&taken.counts, now)).collect();
        taken.counts = counts;
        taken.hour.add(now, queue_events, &uses);
        taken.day.add(now, queue_events, &uses);
    }

    /// When sampling began, and the parts of the time that ends now, the oldest first.
    pub fn of(&self, over: Over, now: Timestamp) -> (Timestamp, Vec<Part>) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = match over {
            Over::Hour => &taken.hour,
            Over::Day => &taken.day,
        };
        (taken.since.unwrap_or(now), ring.parts(now))
    }
}

/// Takes a sample now and every ten seconds, until `stop`.
pub async fn run(mut take: impl FnMut(), stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => take(),
        }
    }
}

const fn count(stats: &CacheStats) -> Use {
    Use {
        cache: stats.name,
        hits: stats.hits,
        misses: stats.misses,
    }
}

fn since(before: &[Use], now: &Use) -> Use {
    let before = before.iter().find(|before| before.cache == now.cache);
    Use {
        hits: now.hits.saturating_sub(before.map_or(0, |before| before.hits)),
        misses: now.misses.saturating_sub(before.map_or(0, |before| before.misses)),
        ..*now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 seconds into a minute, which is 20 seconds into an hour.
    const NOW: Timestamp = Timestamp::from_seconds(7_200_020);
    const MINUTE: Duration = Duration::from_mins(1);

    fn cache(name: &'static str, hits: u64, misses: u64) -> CacheStats {
        CacheStats {
            name,
            hits,
            misses,
            entries: 1,
            entries_max: 9,
        }
    }

    fn used(cache: &'static str, hits: u64, misses: u64) -> Use {
        Use { cache, hits, misses }
    }

    #[test]
    fn a_part_has_its_deepest_queue_and_what_its_caches_were_asked() {
        let samples = Samples::default();
        samples.take(NOW, Some(3), &[cache("keys", 10, 5)]);
        samples.take(NOW + EVERY, Some(9), &[cache("keys", 14, 5)]);
        samples.take(NOW + EVERY * 2, Some(1), &[cache("keys", 14, 6), cache("routes", 2, 0)]);
        samples.take(NOW + MINUTE, None, &[cache("keys", 15, 6)]);
        let (since, hour) = samples.of(Over::Hour, NOW + MINUTE);
        assert_eq!((since, hour.len()), (NOW, 60));
        let first = Part {
            from: Over::Hour.begin(NOW),
            queue_events: Some(9),
            caches: vec![used("keys", 14, 6), used("routes", 2, 0)],
        };
        let second = Part {
            from: first.from + MINUTE,
            queue_events: None,
            caches: vec![used("keys", 1, 0)],
        };
        assert_eq!(hour[58..], [first.clone(), second]);
        assert!(hour[..58].iter().all(|part| part.caches.is_empty()));
        let (_, day) = samples.of(Over::Day, NOW + MINUTE);
        let whole = Part {
            caches: vec![used("keys", 15, 6), used("routes", 2, 0)],
            ..first
        };
        assert_eq!(day[23..], [whole]);
    }

    #[test]
    fn minutes_without_a_sample_are_empty_and_old_ones_go() {
        let samples = Samples::default();
        for minute in 0..200_u32 {
            samples.take(NOW + MINUTE * minute, Some(u64::from(minute)), &[]);
        }
        let later = NOW + MINUTE * 202;
        let (_, hour) = samples.of(Over::Hour, later);
        let depths: Vec<_> = hour.iter().map(|part| part.queue_events).collect();
        let kept = (143..200).map(Some).chain([None, None, None]);
        assert_eq!(depths, kept.collect::<Vec<_>>());
        let taken = samples.0.lock().expect("whole");
        assert_eq!((taken.hour.parts.len(), taken.day.parts.len()), (60, 4));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_count() {
        let samples = Samples::default();
        samples.take(NOW, Some(1), &[cache("keys", 1, 0)]);
        samples.take(NOW - MINUTE * 5, Some(2), &[cache("keys", 3, 0)]);
        let (_, hour) = samples.of(Over::Hour, NOW);
        assert_eq!((hour[59].queue_events, hour[59].caches[0].hits), (Some(2), 3));
    }
    #[tokio::test(start_paused = true)]
    async fn samples_are_taken_at_once_and_every_ten_seconds_until_the_stop() {
        let (stop, begun) = (CancellationToken::new(), tokio::time::Instant::now());
        let mut taken = Vec::new();
        let ending = stop.clone();
        let take = || {
            taken.push(begun.elapsed().as_secs());
            if taken.len() == 4 {
                ending.cancel();
            }
        };
        run(take, stop).await;
        assert_eq!(taken, [0, 10, 20, 30]);
    }
}
