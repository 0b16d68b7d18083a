//! Sample webhooks, one of each kind, inside the binary: `schemas/samples/` says which values are
//! filled in.
//!
//! `send`, the load generator and tests enter. **Invariant:** no two rendered samples have an id of
//! a call, message or event in common.

pub use crate::source::samples::{SAMPLES, Sample};

use crate::{domain::Timestamp, source::sign::form_pairs};
use std::collections::HashMap;
use uuid::Uuid;

/// The values that fill a sample besides its own ids.
#[derive(Clone, Debug)]
pub struct SampleValues {
    pub assistant_id: String,
    pub phone_number: String,
    pub customer_number: String,
    pub twilio_account_sid: String,
}

/// A sample's body, filled, not yet signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    Json(String),
    /// Decoded pairs, in the order in which they are sent.
    Form(Vec<(String, String)>),
}

const ASSISTANT: &str = "bd38a607-499f-45b3-acf8-adf2a1085da2";
const ACCOUNT: &str = "AC5eed000000000000000000000000a001";
const PHONE_NUMBER: &str = "+15552010100";
const CUSTOMER_NUMBER: &str = "+15552010188";
/// Call, chat, session, contact.
const UUIDS: [&str; 4] = [
    "019cd315-6eae-70f9-b6da-b022f148ddde",
    "8345441f-7070-4be9-ba16-e75163f45411",
    "0cfc9b02-e13b-4dbd-9302-b613be0cf506",
    "87b6d252-6611-4498-b75d-96402398ebcf",
];
const TOOL_CALL: &str = "call_9d45f3d5fc409712359d0c74";
const SIDS: [&str; 5] = ["SM", "MM", "CA", "RE", "EZ"];
const SID_BYTES: usize = 34;
const TIMESTAMP: &str = "\"timestamp\":";

impl Sample {
    /// The body with ids of its own.
    #[must_use]
    pub fn render(&self, values: &SampleValues, now: Timestamp) -> Body {
        let fill = Fill::new(values);
        if self.text.starts_with(['{', '[']) {
            return Body::Json(fill.text(&at_time(self.text, now)));
        }
        Body::Form(
            form_pairs(self.text)
                .into_iter()
                .map(|(name, value)| (name, fill.text(&value)))
                .collect(),
        )
    }
}

/// The first timestamp of a Vapi body is the message's. No other field has the time of sending.
fn at_time(text: &str, now: Timestamp) -> String {
    let Some(at) = text.find(TIMESTAMP).map(|at| at + TIMESTAMP.len()) else {
        return text.to_owned();
    };
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return text.to_owned();
    }
    format!("{}{}{}", &text[..at], now.as_micros() / 1000, &text[at + digits..])
}

/// One request's values. A SID that occurs twice becomes the same SID twice.
struct Fill<'p> {
    plain: Vec<(&'static str, String)>,
    sids: std::cell::RefCell<HashMap<String, String>>,
    values: &'p SampleValues,
}

impl<'p> Fill<'p> {
    fn new(values: &'p SampleValues) -> Self {
        let mut plain: Vec<(&str, String)> = UUIDS.iter().map(|&uuid| (uuid, Uuid::now_v7().to_string())).collect();
        plain.push((TOOL_CALL, format!("call_{}", &Uuid::now_v7().simple().to_string()[8..])));
        Self {
            plain,
            sids: std::cell::RefCell::default(),
            values,
        }
    }

    fn text(&self, text: &str) -> String {
        let mut text = self.fresh_sids(text);
        let SampleValues {
            assistant_id,
            phone_number,
            customer_number,
            twilio_account_sid,
        } = self.values;
        let given = [
            (ASSISTANT, assistant_id),
            (ACCOUNT, twilio_account_sid),
            (PHONE_NUMBER, phone_number),
            (CUSTOMER_NUMBER, customer_number),
        ];
        for (from, to) in self.plain.iter().map(|(from, to)| (*from, to)).chain(given) {
            if text.contains(from) {
                text = text.replace(from, to);
            }
        }
        text
    }

    fn fresh_sids(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, sid)) = next_sid(rest) {
            filled.push_str(before);
            let mut sids = self.sids.borrow_mut();
            filled.push_str(
                sids.entry(sid.to_owned())
                    .or_insert_with(|| format!("{}{}", &sid[..2], Uuid::now_v7().simple())),
            );
            rest = &rest[before.len() + sid.len()..];
        }
        filled.push_str(rest);
        filled
    }
}

fn next_sid(text: &str) -> Option<(&str, &str)> {
    let is_sid = |at: &usize| {
        text.as_bytes().get(*at..at + SID_BYTES).is_some_and(|sid| {
            SIDS.iter().any(|kind| sid.starts_with(kind.as_bytes())) && sid[2..].iter().all(u8::is_ascii_hexdigit)
        })
    };
    let at = (0..text.len().saturating_sub(SID_BYTES - 1)).find(is_sid)?;
    Some((&text[..at], &text[at..at + SID_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Source;
    use crate::source::{Request, read};
    use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

    fn values() -> SampleValues {
        SampleValues {
            assistant_id: "asst-of-mine".into(),
            phone_number: "+15550009001".into(),
            customer_number: "+15550009002".into(),
            twilio_account_sid: "AC00000000000000000000000000000abc".into(),
        }
    }

    #[test]
    fn every_sample_is_read_as_the_kind_that_it_is_named_after_and_has_ids_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for sample in SAMPLES {
            for round in 0..2 {
                let now = Timestamp::from_seconds(1_800_000_000 + round);
                let (content_type, body) = match sample.render(&values(), now) {
                    Body::Json(body) => ("application/json", body),
                    Body::Form(pairs) => (
                        "application/x-www-form-urlencoded",
                        crate::source::sign::form_body(&pairs),
                    ),
                };
                for place in UUIDS
                    .iter()
                    .chain(&[ASSISTANT, ACCOUNT, PHONE_NUMBER, CUSTOMER_NUMBER, TOOL_CALL])
                {
                    assert!(!body.contains(place), "{} still holds {place}", sample.name);
                }
                let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
                let request = Request {
                    method: "POST",
                    url: "https://a.example/webhooks/x",
                    headers: &headers,
                    body: body.as_bytes(),
                };
                let reading = read(sample.source, &request).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
                let kind = reading.event_type.kind();
                let (_, named) = sample.name.split_once('/').expect("source/kind");
                assert!(
                    named
                        .strip_prefix(kind)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
                    "{} is a {kind}",
                    sample.name
                );
                assert!(seen.insert(reading.dedupe_key), "{} repeats an id", sample.name);
                if sample.source == Source::Vapi {
                    assert_eq!(reading.time, Some(now), "{}", sample.name);
                }
                assert!(
                    !reading.routes.is_empty() || named == "campaign.predial",
                    "{} leads nowhere",
                    sample.name
                );
            }
        }
    }

    #[test]
    fn a_sid_that_occurs_twice_is_one_sid() {
        let Body::Form(pairs) = Sample::find("twilio/message-received")
            .expect("a sample")
            .render(&values(), Timestamp::default())
        else {
            panic!("a form")
        };
        let get = |wanted: &str| {
            pairs
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
                .expect("a parameter")
        };
        assert_eq!(get("MessageSid"), get("SmsSid"));
        assert_eq!(get("MessageSid").len(), SID_BYTES);
        assert_eq!(get("To"), "+15550009001");
    }
}
