//! How long an answer may take, on a monotonic clock from the receipt of the question.

use crate::source::VapiQuestion;
use std::time::{Duration, Instant};

/// The rest of the time that a sender waits for its answer, less the time on the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    deadline: Instant,
}

impl Budget {
    /// `received` is when the question's last byte arrived.
    #[must_use]
    pub fn of(question: VapiQuestion, received: Instant) -> Self {
        Self {
            deadline: received + total(question),
        }
    }

    #[must_use]
    pub const fn deadline(self) -> Instant {
        self.deadline
    }

    /// Zero once it is used up.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

/// Deadlines of docs.vapi.ai (server URL, events), less a margin for both ways.
const fn total(question: VapiQuestion) -> Duration {
    match question {
        // 7.5 s end to end, fixed; the docs advise to stay below 6.
        VapiQuestion::AssistantRequest => Duration::from_millis(5_500),
        // `server.timeoutSeconds`, by default 20 s.
        VapiQuestion::ToolCalls
        | VapiQuestion::FunctionCall
        | VapiQuestion::TransferDestinationRequest
        | VapiQuestion::HandoffDestinationRequest
        | VapiQuestion::CampaignPredial => Duration::from_secs(18),
        // Up to 10 s by the docs, with a caller who hears silence meanwhile.
        VapiQuestion::KnowledgeBaseRequest => Duration::from_secs(8),
        VapiQuestion::VoiceRequest => Duration::from_secs(5),
        // Asked anew at each transcript: a late answer answers nothing.
        VapiQuestion::CallEndpointingRequest => Duration::from_millis(500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_runs_from_the_receipt_and_ends_at_zero() {
        let received = Instant::now();
        let budget = Budget::of(VapiQuestion::AssistantRequest, received);
        assert_eq!(budget.left(received), Duration::from_millis(5_500));
        assert_eq!(
            budget.left(received + Duration::from_secs(5)),
            Duration::from_millis(500)
        );
        assert_eq!(budget.left(received + Duration::from_secs(9)), Duration::ZERO);
        assert!(
            budget.deadline() < received + Duration::from_millis(7_500),
            "Vapi gives up after 7.5 s"
        );
    }
}
