//! Notices a queue that gives nothing, and says how long to wait for it.

use lapin::types::ShortString;
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait before a queue that stays silent gets another connection. Each one disturbs the
/// queues that deliver.
const PATIENCE_MAX: Duration = Duration::from_mins(10);

/// How long a silent queue is waited for. Another connection that changes nothing doubles it.
pub(super) struct Patience {
    first: Duration,
    now: Duration,
    /// The queue that was silent last.
    lost: Option<ShortString>,
}

impl Patience {
    pub const fn new(first: Duration) -> Self {
        Self {
            first,
            now: first,
            lost: None,
        }
    }

    pub const fn now(&self) -> Duration {
        self.now
    }

    pub fn lost(&mut self, queue: &ShortString) {
        if self.lost.as_ref() == Some(queue) {
            self.now = (self.now * 2).min(PATIENCE_MAX);
        } else {
            *self = Self::new(self.first);
            self.lost = Some(queue.clone());
        }
    }

    pub fn delivered(&mut self, queue: &ShortString) {
        if self.lost.as_ref() == Some(queue) {
            *self = Self::new(self.first);
        }
    }
}

/// Since when each queue has given no answer, or has had ready events and delivered nothing.
pub(super) struct Watch {
    own: Vec<Silence>,
    /// Ready events in the queues of other workers.
    pub others: u64,
}

struct Silence {
    since: Instant,
    ready: u64,
}

impl Watch {
    pub fn new(queues: usize) -> Self {
        let silence = |_| Silence {
            since: Instant::now(),
            ready: 0,
        };
        Self {
            own: (0..queues).map(silence).collect(),
            others: 0,
        }
    }

    pub fn ready(&self) -> u64 {
        self.others + self.own.iter().map(|silence| silence.ready).sum::<u64>()
    }

    pub fn delivered(&mut self, queue: usize) {
        self.own[queue].since = Instant::now();
    }

    /// A count that goes down shows another process that consumes the queue.
    pub fn counted(&mut self, queue: usize, ready: u64, is_full: bool) {
        let silence = &mut self.own[queue];
        if ready == 0 || is_full || ready < silence.ready {
            silence.since = Instant::now();
        }
        silence.ready = ready;
    }

    pub fn silent_for(&self, time: Duration) -> impl Iterator<Item = usize> {
        let silent = self.own.iter().enumerate();
        silent.filter_map(move |(number, silence)| (silence.since.elapsed() > time).then_some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn silent(watch: &Watch) -> Vec<usize> {
        watch.silent_for(30 * SECOND).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_silent_when_it_does_not_answer_or_delivers_nothing_of_what_it_holds() {
        let mut watch = Watch::new(4);
        for _ in 0..31 {
            tokio::time::advance(SECOND).await;
            watch.counted(0, 5, false);
            watch.counted(1, 0, false);
            watch.counted(2, 5, true);
        }
        assert_eq!(
            silent(&watch),
            [0, 3],
            "queue 1 is empty, the worker has all it may have of queue 2"
        );
        watch.delivered(0);
        assert_eq!(silent(&watch), [3]);
        tokio::time::advance(31 * SECOND).await;
        watch.counted(0, 4, false);
        assert!(!silent(&watch).contains(&0), "another process consumes it");
        assert_eq!(watch.ready(), 9);
    }

    #[test]
    fn another_connection_that_changes_nothing_comes_later_each_time() {
        let (one, two) = ("one".into(), "two".into());
        let mut patience = Patience::new(30 * SECOND);
        patience.lost(&one);
        assert_eq!(patience.now(), 30 * SECOND);
        patience.lost(&one);
        assert_eq!(patience.now(), 60 * SECOND);
        patience.delivered(&two);
        assert_eq!(patience.now(), 60 * SECOND);
        for _ in 0..20 {
            patience.lost(&one);
        }
        assert_eq!(patience.now(), PATIENCE_MAX);
        patience.delivered(&one);
        assert_eq!(patience.now(), 30 * SECOND);
    }
}
