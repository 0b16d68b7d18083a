//! Sample webhooks, one of each kind, inside the binary: `schemas/samples` as it stands.
//!
//! `admin` shows them for rules to be tried on; `cli` fills them with ids of their own and sends
//! them. **Invariant:** a sample is named after its source and its kind, and what tells siblings of
//! a kind apart comes behind a dot.

use super::kinds;
use crate::domain::Source;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// `vapi/end-of-call-report`.
    pub name: &'static str,
    pub source: Source,
    /// JSON, or a form.
    pub text: &'static str,
}

impl Sample {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SAMPLES.iter().find(|sample| sample.name == name)
    }

    /// The kind of its event: `message-status` of `twilio/message-status.failed`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let stem = self.name.split_once('/').map_or(self.name, |(_, stem)| stem);
        let is_of = |kind: &&str| stem == *kind || stem.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'));
        let all = kinds(self.source).iter().copied();
        all.filter(is_of).max_by_key(|kind| kind.len()).unwrap_or(stem)
    }
}

const fn vapi(name: &'static str, text: &'static str) -> Sample {
    Sample {
        name,
        source: Source::Vapi,
        text,
    }
}

const fn twilio(name: &'static str, text: &'static str) -> Sample {
    Sample {
        name,
        source: Source::Twilio,
        text,
    }
}

/// By name.
pub const SAMPLES: &[Sample] = &[
    vapi(
        "vapi/assistant-request",
        include_str!("../../schemas/samples/vapi/assistant-request.json"),
    ),
    vapi(
        "vapi/assistant.speechStarted",
        include_str!("../../schemas/samples/vapi/assistant.speechStarted.json"),
    ),
    vapi(
        "vapi/assistant.started",
        include_str!("../../schemas/samples/vapi/assistant.started.json"),
    ),
    vapi(
        "vapi/call.artifact.upload",
        include_str!("../../schemas/samples/vapi/call.artifact.upload.json"),
    ),
    vapi(
        "vapi/call.delete.failed",
        include_str!("../../schemas/samples/vapi/call.delete.failed.json"),
    ),
    vapi(
        "vapi/call.deleted",
        include_str!("../../schemas/samples/vapi/call.deleted.json"),
    ),
    vapi(
        "vapi/call.endpointing.request",
        include_str!("../../schemas/samples/vapi/call.endpointing.request.json"),
    ),
    vapi(
        "vapi/campaign.predial",
        include_str!("../../schemas/samples/vapi/campaign.predial.json"),
    ),
    vapi(
        "vapi/chat.created",
        include_str!("../../schemas/samples/vapi/chat.created.json"),
    ),
    vapi(
        "vapi/chat.deleted",
        include_str!("../../schemas/samples/vapi/chat.deleted.json"),
    ),
    vapi(
        "vapi/conversation-update",
        include_str!("../../schemas/samples/vapi/conversation-update.json"),
    ),
    vapi(
        "vapi/end-of-call-report",
        include_str!("../../schemas/samples/vapi/end-of-call-report.json"),
    ),
    vapi(
        "vapi/function-call",
        include_str!("../../schemas/samples/vapi/function-call.json"),
    ),
    vapi(
        "vapi/handoff-destination-request",
        include_str!("../../schemas/samples/vapi/handoff-destination-request.json"),
    ),
    vapi("vapi/hang", include_str!("../../schemas/samples/vapi/hang.json")),
    vapi(
        "vapi/knowledge-base-request",
        include_str!("../../schemas/samples/vapi/knowledge-base-request.json"),
    ),
    vapi(
        "vapi/language-change-detected",
        include_str!("../../schemas/samples/vapi/language-change-detected.json"),
    ),
    vapi(
        "vapi/model-output",
        include_str!("../../schemas/samples/vapi/model-output.json"),
    ),
    vapi(
        "vapi/phone-call-control",
        include_str!("../../schemas/samples/vapi/phone-call-control.json"),
    ),
    vapi(
        "vapi/session.created",
        include_str!("../../schemas/samples/vapi/session.created.json"),
    ),
    vapi(
        "vapi/session.deleted",
        include_str!("../../schemas/samples/vapi/session.deleted.json"),
    ),
    vapi(
        "vapi/session.updated",
        include_str!("../../schemas/samples/vapi/session.updated.json"),
    ),
    vapi(
        "vapi/speech-update",
        include_str!("../../schemas/samples/vapi/speech-update.json"),
    ),
    vapi(
        "vapi/status-update",
        include_str!("../../schemas/samples/vapi/status-update.json"),
    ),
    vapi(
        "vapi/status-update.ended",
        include_str!("../../schemas/samples/vapi/status-update.ended.json"),
    ),
    vapi(
        "vapi/tool-calls",
        include_str!("../../schemas/samples/vapi/tool-calls.json"),
    ),
    vapi(
        "vapi/transcript",
        include_str!("../../schemas/samples/vapi/transcript.json"),
    ),
    vapi(
        "vapi/transfer-destination-request",
        include_str!("../../schemas/samples/vapi/transfer-destination-request.json"),
    ),
    vapi(
        "vapi/transfer-update",
        include_str!("../../schemas/samples/vapi/transfer-update.json"),
    ),
    vapi(
        "vapi/user-interrupted",
        include_str!("../../schemas/samples/vapi/user-interrupted.json"),
    ),
    vapi(
        "vapi/voice-input",
        include_str!("../../schemas/samples/vapi/voice-input.json"),
    ),
    vapi(
        "vapi/voice-request",
        include_str!("../../schemas/samples/vapi/voice-request.json"),
    ),
    twilio(
        "twilio/call-status",
        include_str!("../../schemas/samples/twilio/call-status.form"),
    ),
    twilio(
        "twilio/event-streams",
        include_str!("../../schemas/samples/twilio/event-streams.json"),
    ),
    twilio(
        "twilio/message-received",
        include_str!("../../schemas/samples/twilio/message-received.form"),
    ),
    twilio(
        "twilio/message-received.media",
        include_str!("../../schemas/samples/twilio/message-received.media.form"),
    ),
    twilio(
        "twilio/message-received.stop",
        include_str!("../../schemas/samples/twilio/message-received.stop.form"),
    ),
    twilio(
        "twilio/message-received.whatsapp",
        include_str!("../../schemas/samples/twilio/message-received.whatsapp.form"),
    ),
    twilio(
        "twilio/message-status",
        include_str!("../../schemas/samples/twilio/message-status.form"),
    ),
    twilio(
        "twilio/message-status.failed",
        include_str!("../../schemas/samples/twilio/message-status.failed.form"),
    ),
    twilio(
        "twilio/recording-status",
        include_str!("../../schemas/samples/twilio/recording-status.form"),
    ),
    twilio(
        "twilio/voice-request",
        include_str!("../../schemas/samples/twilio/voice-request.form"),
    ),
    twilio(
        "twilio/voice-request.gather",
        include_str!("../../schemas/samples/twilio/voice-request.gather.form"),
    ),
];
