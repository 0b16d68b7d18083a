//! How often events were delivered in vain: a count in the mark, beside the acked position.
//!
//! The consumer that is about to hand out the first record behind that position has the mark saved
//! with a count that is one higher. A mark of a later position begins the count anew.

use super::{
    consumed::InVain,
    shared::{Shared, lock},
};
use crate::queue::DELIVERED_AHEAD_MAX;

pub(super) struct Redeliveries {
    /// Consumers before this one that had events from here on and acked none.
    in_vain: u32,
    /// Records to come that an earlier consumer may have had.
    left: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was handed out.
    Begun,
    /// This consumer is counted, and acked nothing at this position.
    Noted(u64),
    MovedOn,
}

impl Redeliveries {
    pub const fn after(in_vain: u32) -> Self {
        Self {
            in_vain,
            left: DELIVERED_AHEAD_MAX,
            state: State::Begun,
        }
    }

    pub fn is_to_be_noted(&self) -> bool {
        self.state == State::Begun
    }

    /// Counts this consumer before it hands anything out: a worker that ends at once was counted.
    pub async fn note(&mut self, shared: &Shared) {
        let position = {
            let mut consumed = lock(&shared.consumed);
            let position = consumed.acked();
            let consumers = self.in_vain.saturating_add(1);
            consumed.in_vain = InVain { position, consumers };
            position
        };
        // A disk without room for the mark holds no delivery up: events may count too few.
        let _ = shared.request_mark().await;
        self.state = State::Noted(position);
    }

    /// The count of the next record that is handed out.
    pub const fn next(&mut self) -> u32 {
        if self.left == 0 {
            return 0;
        }
        self.left -= 1;
        self.in_vain
    }

    /// After an ack. The first one that moves the acked position is saved soon: a process that is
    /// killed again and again, and gets on each time, counts nothing in vain.
    pub fn moved(&mut self, shared: &Shared) {
        if let State::Noted(position) = self.state
            && lock(&shared.consumed).acked() > position
        {
            self.state = State::MovedOn;
            drop(shared.request_mark());
        }
    }
}
