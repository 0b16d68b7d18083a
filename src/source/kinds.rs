//! The kinds of event that a source sends, as its documentation names them. A rule for another kind
//! would wait for ever.

use crate::domain::Source;

/// The kinds of a source; none where its webhooks cannot be received.
#[must_use]
pub const fn kinds(source: Source) -> &'static [&'static str] {
    match source {
        Source::Vapi => VAPI,
        Source::Twilio => TWILIO,
        Source::ElevenLabs | Source::Resend | Source::GoogleCalendar | Source::Standard => &[],
    }
}

/// The server messages of Vapi's OpenAPI document (`ServerMessage`), and `campaign.predial`.
const VAPI: &[&str] = &[
    "assistant-request",
    "assistant.speechStarted",
    "assistant.started",
    "call.artifact.upload",
    "call.delete.failed",
    "call.deleted",
    "call.endpointing.request",
    "campaign.predial",
    "chat.created",
    "chat.deleted",
    "conversation-update",
    "end-of-call-report",
    "function-call",
    "handoff-destination-request",
    "hang",
    "knowledge-base-request",
    "language-change-detected",
    "model-output",
    "phone-call-control",
    "session.created",
    "session.deleted",
    "session.updated",
    "speech-update",
    "status-update",
    "tool-calls",
    "transcript",
    "transcript[transcriptType=\"final\"]",
    "transfer-destination-request",
    "transfer-update",
    "user-interrupted",
    "voice-input",
    "voice-request",
];

/// The kinds that `twilio::read` tells apart.
const TWILIO: &[&str] = &[
    "call-status",
    "event-streams",
    "message-received",
    "message-status",
    "other",
    "recording-status",
    "voice-request",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_sample_is_of_a_kind() {
        for (source, folder) in [(Source::Vapi, "vapi"), (Source::Twilio, "twilio")] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("schemas/samples")
                .join(folder);
            let mut samples = 0;
            for entry in std::fs::read_dir(folder).expect("samples") {
                let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
                let stem = name.rsplit_once('.').expect("an ending").0;
                // `message-status.failed` is a sample of `message-status`.
                let is_kind = kinds(source)
                    .iter()
                    .any(|kind| stem == *kind || stem.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.')));
                assert!(is_kind, "{name}");
                samples += 1;
            }
            assert!(samples > 5);
        }
    }
}
