//! Vapi's questions. Every answer is a 200: any other status is ignored whole.

use super::Reply;
use crate::source::VapiQuestion;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const JSON: &str = "application/json";

/// The text that the caller hears when no assistant can be named.
const APOLOGY: &str = "I am sorry, this line cannot take your call right now. Please try again later.";
/// The text that the model reads for each tool that it asked for. One line: line breaks break
/// Vapi's parser.
const NOT_DONE: &str =
    "This tool is not set up, so nothing was done. Tell the caller that it cannot be done right now.";

pub(super) fn minimal_answer(question: VapiQuestion, body: &[u8]) -> Reply {
    let answer = match question {
        // With `error` alone the caller hears the text and the call ends. An assistant of our
        // choice would be worse.
        VapiQuestion::AssistantRequest => json!({ "error": APOLOGY }),
        VapiQuestion::ToolCalls => return reply(&tool_results(body)),
        VapiQuestion::FunctionCall => json!({ "result": NOT_DONE }),
        // The assistant stays on the line and goes on.
        VapiQuestion::TransferDestinationRequest => json!({ "error": "No destination for this transfer is set up." }),
        VapiQuestion::HandoffDestinationRequest => json!({ "error": "No destination for this handoff is set up." }),
        VapiQuestion::KnowledgeBaseRequest => json!({ "documents": [] }),
        // Vapi's own example: half a second after the caller falls silent.
        VapiQuestion::CallEndpointingRequest => json!({ "timeoutSeconds": 0.5 }),
        // No one has allowed the call to this person.
        VapiQuestion::CampaignPredial => json!({ "eligible": false }),
        VapiQuestion::VoiceRequest => return silence(body),
    };
    reply(&answer)
}

fn reply(answer: &impl Serialize) -> Reply {
    Reply {
        content_type: JSON,
        body: serde_json::to_vec(answer)
            .expect("text, lists and maps are JSON")
            .into(),
    }
}

#[derive(Deserialize)]
struct Body {
    message: Message,
}

/// The lists in which official examples name the tools that were asked for; read tolerantly, one
/// that cannot be read counts as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    #[serde(default)]
    tool_call_list: Value,
    #[serde(default)]
    tool_calls: Value,
    #[serde(default)]
    tool_with_tool_call_list: Value,
    #[serde(default)]
    sample_rate: Value,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'m> {
    tool_call_id: &'m str,
    name: &'m str,
    error: &'static str,
}

/// One result for each call, in the order in which they were asked for.
fn tool_results(body: &[u8]) -> Value {
    let message = serde_json::from_slice::<Body>(body).ok().map(|body| body.message);
    let results = message.as_ref().map(results_of).unwrap_or_default();
    if results.is_empty() {
        json!({ "error": NOT_DONE })
    } else {
        json!({ "results": results })
    }
}

fn results_of(message: &Message) -> Vec<ToolResult<'_>> {
    let list = |value: &'_ Value| value.as_array().is_some_and(|list| !list.is_empty());
    let (calls, nested) = if list(&message.tool_call_list) {
        (&message.tool_call_list, false)
    } else if list(&message.tool_calls) {
        (&message.tool_calls, false)
    } else {
        (&message.tool_with_tool_call_list, true)
    };
    let calls = calls.as_array().map(Vec::as_slice).unwrap_or_default();
    calls
        .iter()
        .filter_map(|tool| {
            let call = if nested { tool.get("toolCall")? } else { tool };
            let name = [call, tool].into_iter().find_map(|at| {
                text(at, "name").or_else(|| at.get("function").and_then(|function| text(function, "name")))
            });
            Some(ToolResult {
                tool_call_id: text(call, "id")?,
                name: name.unwrap_or("unknown"),
                error: NOT_DONE,
            })
        })
        .collect()
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A fifth of a second of silence, mono 16-bit PCM: no bytes at all would be an error of the voice.
fn silence(body: &[u8]) -> Reply {
    const SAMPLE_RATE_DEFAULT: u64 = 24_000;
    let asked = serde_json::from_slice::<Body>(body)
        .ok()
        .and_then(|body| body.message.sample_rate.as_u64());
    let sample_rate = asked
        .filter(|rate| (8_000..=48_000).contains(rate))
        .unwrap_or(SAMPLE_RATE_DEFAULT);
    let samples = usize::try_from(sample_rate / 5).expect("at most 9,600");
    Reply {
        content_type: "application/octet-stream",
        body: Bytes::from(vec![0; samples * 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: VapiQuestion, message: &Value) -> Value {
        let reply = minimal_answer(question, &serde_json::to_vec(&json!({ "message": message })).unwrap());
        assert_eq!(reply.content_type, "application/json");
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn every_tool_call_gets_one_result_in_order_whatever_shape_it_was_asked_in() {
        let wanted = json!({ "results": [
            { "toolCallId": "b", "name": "book", "error": NOT_DONE },
            { "toolCallId": "a", "name": "check", "error": NOT_DONE },
        ] });
        let official = json!([
            { "id": "b", "type": "function", "function": { "name": "book", "arguments": "{}" } },
            { "id": "a", "type": "function", "function": { "name": "check", "arguments": "{\"cut" } },
        ]);
        let flat =
            json!([{ "id": "b", "name": "book", "arguments": {} }, { "id": "a", "name": "check", "parameters": {} }]);
        let nested = json!([
            { "name": "book", "toolCall": { "id": "b", "parameters": {} } },
            { "type": "function", "function": { "name": "check" }, "toolCall": { "id": "a" } },
        ]);
        for message in [
            json!({ "toolCallList": official }),
            json!({ "toolCallList": flat }),
            json!({ "toolCalls": official }),
            json!({ "toolWithToolCallList": nested }),
            json!({ "toolCallList": [], "toolCalls": flat }),
            json!({ "toolCallList": official, "toolCalls": [{ "id": "other" }], "toolWithToolCallList": nested }),
        ] {
            assert_eq!(answer(VapiQuestion::ToolCalls, &message), wanted, "{message}");
        }
    }

    #[test]
    fn tool_calls_that_cannot_be_read_get_one_error_for_all() {
        for message in [
            json!({}),
            json!({ "toolCallList": 7 }),
            json!({ "toolCallList": [{ "name": "x" }] }),
            json!([]),
        ] {
            assert_eq!(
                answer(VapiQuestion::ToolCalls, &message),
                json!({ "error": NOT_DONE }),
                "{message}"
            );
        }
        assert_eq!(
            minimal_answer(VapiQuestion::ToolCalls, b"\xff{").body,
            json!({ "error": NOT_DONE }).to_string().as_bytes()
        );
    }

    #[test]
    fn what_a_model_or_a_caller_gets_to_hear_is_one_line() {
        for text in [NOT_DONE, APOLOGY] {
            assert!(!text.contains(['\n', '\r']));
        }
    }

    #[test]
    fn each_question_gets_the_least_harmful_valid_answer() {
        let none = json!({});
        assert_eq!(
            answer(VapiQuestion::AssistantRequest, &none),
            json!({ "error": APOLOGY })
        );
        assert_eq!(
            answer(VapiQuestion::KnowledgeBaseRequest, &none),
            json!({ "documents": [] })
        );
        assert_eq!(
            answer(VapiQuestion::CallEndpointingRequest, &none),
            json!({ "timeoutSeconds": 0.5 })
        );
        assert_eq!(
            answer(VapiQuestion::CampaignPredial, &none),
            json!({ "eligible": false })
        );
        assert_eq!(answer(VapiQuestion::FunctionCall, &none), json!({ "result": NOT_DONE }));
        for question in [
            VapiQuestion::TransferDestinationRequest,
            VapiQuestion::HandoffDestinationRequest,
        ] {
            assert!(answer(question, &none)["error"].is_string());
        }
    }

    #[test]
    fn a_voice_request_gets_silence_at_the_rate_it_asked_for() {
        for (rate, bytes) in [
            (json!(16_000), 6_400),
            (json!(8_000), 3_200),
            (json!(48_000), 19_200),
            (json!(1_000_000_000), 9_600),
            (json!("x"), 9_600),
        ] {
            let body =
                json!({ "message": { "type": "voice-request", "text": "Hello", "sampleRate": rate } }).to_string();
            let reply = minimal_answer(VapiQuestion::VoiceRequest, body.as_bytes());
            assert_eq!(
                (reply.body.len(), reply.content_type),
                (bytes, "application/octet-stream"),
                "{rate}"
            );
            assert!(reply.body.iter().all(|byte| *byte == 0));
        }
    }
}
