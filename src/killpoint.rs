//! Named steps between bytes read and effect recorded. A test kills the process exactly at one of
//! them, as `kill -9` does.
//!
//! Every room on the way of an event may report that it reached a step. **Invariant:** in a release
//! build no variable is read, no step is counted, and [`reach`] is empty.
//! `docs/decisions/0008-kill-points.md` says why the build profile decides, and no feature.
//!
//! In a debug build `TEST_KILL_AT=planned:3` ends the process with SIGKILL when it reaches
//! `planned` for the third time.

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal),+ $(,)?) => {
        /// Where a process can be killed, in the order in which an event gets there. Steps that no
        /// event reaches stand at the end.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Step { $($(#[$doc])* $step),+ }

        impl Step {
            pub const ALL: &'static [Self] = &[$(Self::$step),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$step => $name),+ }
            }
        }
    };
}

steps! {
    /// The whole body was read; nothing was decided.
    BytesRead = "bytes_read",
    /// A secret verifies it.
    Verified = "verified",
    /// Its group is written, and not fsynced.
    Appended = "appended",
    /// Its group is on the disk; neither publisher nor consumer knows it.
    Fsynced = "fsynced",
    /// The publish was confirmed; the sender has no answer yet.
    Confirmed = "confirmed",
    /// A batch was handed to the worker.
    Delivered = "delivered",
    /// Event and actions are written, the transaction is open.
    PlanWritten = "plan_written",
    /// The plan is committed, nothing is acked.
    Planned = "planned",
    /// The batch is acked.
    Acked = "acked",
    /// The claim is written, the transaction is open.
    ClaimWritten = "claim_written",
    /// The claim is committed, nothing went out.
    Claimed = "claimed",
    /// The request is about to be sent.
    SendBegun = "send_begun",
    /// The provider's answer was read.
    AnswerRead = "answer_read",
    /// The attempt has a record that nobody wrote yet.
    RecordBegun = "record_begun",
    /// The record is written, the transaction is open.
    RecordWritten = "record_written",
    /// The record is committed.
    Recorded = "recorded",
    /// Vapi has made an assistant, and no row knows its id.
    AssistantMade = "assistant_made",
}

/// Reports that this step was reached. Does not return when the test asked for the end here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn reach(_: Step) {}

/// Reports that this step was reached. Does not return when the test asked for the end here.
#[cfg(debug_assertions)]
pub fn reach(step: Step) {
    chosen::reach(step);
}

#[cfg(debug_assertions)]
mod chosen {
    use super::Step;
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    const VARIABLE: &str = "TEST_KILL_AT";

    struct Chosen {
        step: Step,
        /// How often the step may still be passed.
        left: AtomicU32,
    }

    static CHOSEN: LazyLock<Option<Chosen>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let parse = || {
            let (step, count) = text.split_once(':').unwrap_or((&text, "1"));
            let left = count.parse::<u32>().ok()?.checked_sub(1)?;
            Some(Chosen {
                step: *Step::ALL.iter().find(|known| known.as_str() == step)?,
                left: AtomicU32::new(left),
            })
        };
        // A test that names an unknown step would prove nothing.
        Some(parse().unwrap_or_else(|| {
            panic!("{VARIABLE}={text}: expected a step and how often it is reached, such as planned:3")
        }))
    });

    pub(super) fn reach(step: Step) {
        let Some(chosen) = CHOSEN.as_ref().filter(|chosen| chosen.step == step) else {
            return;
        };
        if chosen
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_err()
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // Run no further instruction, however long the signal takes.
            loop {
                std::thread::park();
            }
        }
    }
}
