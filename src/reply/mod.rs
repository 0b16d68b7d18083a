//! Answers to the questions that some webhooks are: what the sender waits for while a person is on
//! the line.
//!
//! `receiver` enters. Until organisations can have answers of their own, each question gets the
//! smallest answer that its sender accepts and that does the least harm. **Invariant:** an answer
//! is always valid for its question, and never later than its [`Budget`].

mod budget;
mod vapi;

pub use budget::Budget;

use crate::source::VapiQuestion;
use bytes::Bytes;

/// The body of a 200.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub content_type: &'static str,
    pub body: Bytes,
}

/// The honest minimal answer: valid, and says that nothing was done.
#[must_use]
pub fn minimal_answer(question: VapiQuestion, body: &[u8]) -> Reply {
    vapi::minimal_answer(question, body)
}
