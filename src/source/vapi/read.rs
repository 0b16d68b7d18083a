//! The ids and kind of a Vapi message.
//!
//! # Dedupe keys (invariant 8)
//! | kind | key, beside the kind |
//! |---|---|
//! | `end-of-call-report`, `assistant-request`, `call.deleted` | the call: they come once a call |
//! | `status-update` with status `ended` | the call and `ended` |
//! | `tool-calls` | the call; id, name and arguments of each tool call |
//! | all else | the call, chat, session or contact; `message.timestamp`; the message's own fields that stand in [`OWN`] |
//!
//! The whole body's hash where a part is absent. The bytes of a redelivery may differ, because
//! artifact URLs are presigned again. So only the ids of `artifact`, `call` and `assistant` are
//! parts of a key. Two messages of one kind can carry one timestamp, such as a token and the next,
//! or the caller's speech and the assistant's. Their own fields distinguish them. A conversation's
//! history is part of the key for the two questions that are about it. For other kinds it would
//! cost a hash of kilobytes.

use super::super::{
    AnswerKind, NotTheFormat, Reading, Request, VapiQuestion, key,
    key::KeyParts,
    scan::{self, Scan, Scanned, Slot, once},
};
use crate::domain::{EventType, RouteKey, RouteKind, Source, Timestamp};

/// A message's own fields that tell it from its siblings, in the order in which they are hashed.
const OWN: [&str; 21] = [
    "status",
    "role",
    "turn",
    "turnId",
    "transcriptType",
    "transcript",
    "text",
    "output",
    "input",
    "request",
    "language",
    "source",
    "sampleRate",
    "destination",
    "parameters",
    "functionCall",
    "campaignId",
    "contact",
    "artifacts",
    "messages",
    "messagesOpenAIFormatted",
];
/// From here on [`OWN`] is hashed for questions about the conversation only.
const OWN_HISTORY: usize = 19;

/// The three places in which tool calls stand; the first that holds any counts.
const TOOL_LISTS: [&str; 3] = ["toolCallList", "toolWithToolCallList", "toolCalls"];

/// The objects of a message whose ids are read. Each may occur once.
const OBJECTS: [&str; 5] = ["call", "assistant", "phoneNumber", "chat", "session"];

#[derive(Default)]
struct Seen<'a> {
    kind: Slot<'a>,
    timestamp: Slot<'a>,
    /// Whether each of [`OBJECTS`] was seen.
    objects: [bool; OBJECTS.len()],
    call_id: Slot<'a>,
    call_assistant: Slot<'a>,
    call_phone_number: Slot<'a>,
    assistant_id: Slot<'a>,
    phone_number_id: Slot<'a>,
    phone_number: Slot<'a>,
    chat_id: Slot<'a>,
    chat_assistant: Slot<'a>,
    session_id: Slot<'a>,
    session_assistant: Slot<'a>,
    session_phone_number: Slot<'a>,
    own: [Option<&'a str>; OWN.len()],
    tool_lists: [Option<&'a str>; TOOL_LISTS.len()],
}

pub(in crate::source) fn read(request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    let not_the_format = |reason| NotTheFormat {
        source_name: Source::Vapi,
        reason,
    };
    let mut seen = Seen::default();
    scan::document(request.body, |scan| seen.document(scan)).map_err(not_the_format)?;
    seen.reading(request.body).map_err(not_the_format)
}

impl<'a> Seen<'a> {
    fn document(&mut self, scan: &mut Scan<'a>) -> Scanned<()> {
        let mut message = false;
        if !scan.is_object() {
            return Err("the body is not a JSON object");
        }
        scan.object(|scan, name| {
            if name != "message" {
                return scan.skip();
            }
            once(&mut message)?;
            if !scan.is_object() {
                return Err("`message` is not an object");
            }
            scan.object(|scan, name| self.message_field(scan, name))
        })?;
        if message { Ok(()) } else { Err("there is no `message`") }
    }

    fn message_field(&mut self, scan: &mut Scan<'a>, name: &str) -> Scanned<()> {
        match name {
            "type" => self.kind.fill(scan),
            "timestamp" => self.timestamp.fill(scan),
            "call" | "assistant" | "phoneNumber" | "chat" | "session" => self.object(scan, name),
            _ => self.raw_field(scan, name),
        }
    }

    /// An object of the message whose ids are read.
    fn object(&mut self, scan: &mut Scan<'a>, object: &str) -> Scanned<()> {
        let at = OBJECTS.iter().position(|&known| known == object);
        once(&mut self.objects[at.ok_or("an object that is not read")?])?;
        match object {
            "call" => scan.object(|scan, name| match name {
                "id" => self.call_id.fill(scan),
                "assistantId" => self.call_assistant.fill(scan),
                "phoneNumberId" => self.call_phone_number.fill(scan),
                _ => scan.skip(),
            }),
            "assistant" => scan.object(|scan, name| match name {
                "id" => self.assistant_id.fill(scan),
                _ => scan.skip(),
            }),
            "phoneNumber" => scan.object(|scan, name| match name {
                "id" => self.phone_number_id.fill(scan),
                "number" => self.phone_number.fill(scan),
                _ => scan.skip(),
            }),
            "chat" => scan.object(|scan, name| match name {
                "id" => self.chat_id.fill(scan),
                "assistantId" => self.chat_assistant.fill(scan),
                _ => scan.skip(),
            }),
            _ => scan.object(|scan, name| match name {
                "id" => self.session_id.fill(scan),
                "assistantId" => self.session_assistant.fill(scan),
                "phoneNumberId" => self.session_phone_number.fill(scan),
                _ => scan.skip(),
            }),
        }
    }

    /// A list of tool calls, or a field that tells the message from its siblings.
    fn raw_field(&mut self, scan: &mut Scan<'a>, name: &str) -> Scanned<()> {
        let slot = if let Some(at) = TOOL_LISTS.iter().position(|&list| list == name) {
            &mut self.tool_lists[at]
        } else if let Some(at) = OWN.iter().position(|&own| own == name) {
            &mut self.own[at]
        } else {
            return scan.skip();
        };
        if slot.replace(scan.raw()?).is_some() {
            Err(scan::REPEATED)
        } else {
            Ok(())
        }
    }

    fn reading(&self, body: &[u8]) -> Scanned<Reading> {
        let kind = match self.kind.get() {
            Some(kind) => kind,
            // The one message whose schema does not require its type.
            None if self.tool_lists.iter().any(Option::is_some) => "tool-calls",
            None => return Err("`message.type` is missing"),
        };
        let ids = [&self.call_id, &self.chat_id, &self.session_id];
        let routes = [
            (RouteKind::VapiAssistant, &self.call_assistant),
            (RouteKind::VapiAssistant, &self.assistant_id),
            (RouteKind::VapiAssistant, &self.chat_assistant),
            (RouteKind::VapiAssistant, &self.session_assistant),
            (RouteKind::VapiPhoneNumber, &self.call_phone_number),
            (RouteKind::VapiPhoneNumber, &self.phone_number_id),
            (RouteKind::VapiPhoneNumber, &self.session_phone_number),
            (RouteKind::VapiNumber, &self.phone_number),
        ];
        if ids
            .iter()
            .copied()
            .chain(routes.iter().map(|(_, slot)| *slot))
            .filter_map(Slot::get)
            .any(|id| id.chars().any(char::is_control))
        {
            return Err("an id contains a control character");
        }

        let subject = ids.into_iter().find_map(Slot::get);
        let contact = self.contact_id()?;
        let subject = subject.or(contact.as_deref());
        let question = question(kind);
        let dedupe_key = self
            .dedupe_key(kind, question, subject)?
            .unwrap_or_else(|| key::of_body(Source::Vapi, body));
        let mut keys: Vec<RouteKey> = Vec::with_capacity(4);
        for (kind, slot) in routes {
            if let Some(id) = slot.get().filter(|id| id.len() <= RouteKey::BYTES_MAX)
                && !keys.iter().any(|key| key.kind == kind && &*key.value == id)
            {
                keys.push(RouteKey::new(kind, id));
            }
        }
        Ok(Reading {
            event_type: EventType::new(Source::Vapi, kind),
            routes: keys,
            subject: key::subject(subject, dedupe_key),
            dedupe_key,
            time: self.timestamp.get().and_then(milliseconds),
            answer: question.map_or(AnswerKind::VapiAck, AnswerKind::VapiQuestion),
        })
    }

    /// `contact.id` of a campaign's question, which has no call yet.
    fn contact_id(&self) -> Scanned<Option<String>> {
        let Some(contact) = self.own("contact") else {
            return Ok(None);
        };
        let mut id = Slot::default();
        scan::again(contact, |scan| {
            scan.object(|scan, name| if name == "id" { id.fill(scan) } else { scan.skip() })
        })?;
        Ok(id.get().map(str::to_owned))
    }

    fn own(&self, name: &str) -> Option<&'a str> {
        OWN.iter().position(|&own| own == name).and_then(|at| self.own[at])
    }

    fn dedupe_key(
        &self,
        kind: &str,
        question: Option<VapiQuestion>,
        subject: Option<&str>,
    ) -> Scanned<Option<crate::domain::DedupeKey>> {
        let Some(subject) = subject else { return Ok(None) };
        let once = |call: Option<&str>| KeyParts::new(Source::Vapi, "once a call").with(kind).with_some(call);
        let key = match kind {
            "end-of-call-report" | "assistant-request" | "call.deleted" => once(self.call_id.get()),
            "status-update" if self.own("status") == Some(r#""ended""#) => {
                once(self.call_id.get()).map(|key| key.with("ended"))
            }
            "tool-calls" => KeyParts::new(Source::Vapi, kind)
                .with_some(self.call_id.get().or(self.chat_id.get()))
                .map_or(Ok(None), |key| self.tool_calls(key))?,
            _ => KeyParts::new(Source::Vapi, "each")
                .with(kind)
                .with(subject)
                .with_some(self.timestamp.get())
                .map(|key| {
                    let about_history = matches!(
                        question,
                        Some(VapiQuestion::KnowledgeBaseRequest | VapiQuestion::CallEndpointingRequest)
                    );
                    let own = &self.own[..if about_history { OWN.len() } else { OWN_HISTORY }];
                    own.iter()
                        .zip(OWN)
                        .filter_map(|(value, name)| value.map(|value| (name, value)))
                        .fold(key, |key, (name, value)| key.with(name).with(value))
                }),
        };
        Ok(key.map(KeyParts::done))
    }

    /// Adds every tool call of the first list that holds any. `None`: there is none, or one has no
    /// id.
    fn tool_calls(&self, key: KeyParts) -> Scanned<Option<KeyParts>> {
        for list in self.tool_lists.iter().flatten() {
            let mut calls: Vec<ToolCall<'_>> = Vec::new();
            scan::again(list, |scan| {
                scan.array(|scan| {
                    let mut call = ToolCall::default();
                    scan.object(|scan, name| call.field(scan, name))?;
                    calls.push(call);
                    Ok(())
                })
            })?;
            if calls.is_empty() {
                continue;
            }
            return Ok(calls.iter().try_fold(key, |key, call| {
                Some(key.with_some(call.id.get())?.with(call.name()).with(call.arguments()))
            }));
        }
        Ok(None)
    }
}

/// A tool call in any of its official shapes: `{id, function: {name, arguments}}`,
/// `{id, name, arguments}`, `{id, name, parameters}`, or inside `toolCall` beside the tool's own
/// definition.
#[derive(Default)]
struct ToolCall<'a> {
    id: Slot<'a>,
    flat: Function<'a>,
    function: Function<'a>,
    nested: bool,
}

/// A name and arguments as they stand; the arguments are a JSON text in some shapes and an object
/// in others.
#[derive(Default)]
struct Function<'a> {
    name: Option<&'a str>,
    arguments: Option<&'a str>,
    parameters: Option<&'a str>,
}

impl<'a> Function<'a> {
    fn field(&mut self, scan: &mut Scan<'a>, name: &str) -> Scanned<()> {
        let slot = match name {
            "name" => &mut self.name,
            "arguments" => &mut self.arguments,
            "parameters" => &mut self.parameters,
            _ => return scan.skip(),
        };
        if slot.replace(scan.raw()?).is_some() {
            Err(scan::REPEATED)
        } else {
            Ok(())
        }
    }
}

impl<'a> ToolCall<'a> {
    fn field(&mut self, scan: &mut Scan<'a>, name: &str) -> Scanned<()> {
        match name {
            "toolCall" => {
                once(&mut self.nested)?;
                // The other fields beside it are the tool's definition.
                *self = Self {
                    nested: true,
                    ..Self::default()
                };
                scan.object(|scan, name| self.own_field(scan, name))
            }
            _ if self.nested => scan.skip(),
            _ => self.own_field(scan, name),
        }
    }

    fn own_field(&mut self, scan: &mut Scan<'a>, name: &str) -> Scanned<()> {
        match name {
            "id" => self.id.fill(scan),
            "function" => scan.object(|scan, name| self.function.field(scan, name)),
            _ => self.flat.field(scan, name),
        }
    }

    fn name(&self) -> &'a str {
        self.function.name.or(self.flat.name).unwrap_or_default()
    }

    fn arguments(&self) -> &'a str {
        let Self { function, flat, .. } = self;
        function
            .arguments
            .or(flat.arguments)
            .or(function.parameters)
            .or(flat.parameters)
            .unwrap_or_default()
    }
}

fn question(kind: &str) -> Option<VapiQuestion> {
    Some(match kind {
        "assistant-request" => VapiQuestion::AssistantRequest,
        "tool-calls" => VapiQuestion::ToolCalls,
        "transfer-destination-request" => VapiQuestion::TransferDestinationRequest,
        "handoff-destination-request" => VapiQuestion::HandoffDestinationRequest,
        "knowledge-base-request" => VapiQuestion::KnowledgeBaseRequest,
        "voice-request" => VapiQuestion::VoiceRequest,
        "call.endpointing.request" => VapiQuestion::CallEndpointingRequest,
        "campaign.predial" => VapiQuestion::CampaignPredial,
        "function-call" => VapiQuestion::FunctionCall,
        _ => return None,
    })
}

/// Milliseconds since the epoch, in plain digits or with a fraction, which is dropped.
fn milliseconds(text: &str) -> Option<Timestamp> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    if whole.len() > 14 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    whole
        .parse::<i64>()
        .ok()
        .map(|milliseconds| Timestamp::from_micros(milliseconds * 1000))
}
