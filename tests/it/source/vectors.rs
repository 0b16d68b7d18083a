//! Every vector through the verifier, through the public API.

use hookswitch::{
    domain::{SecretBytes, Source, Timestamp},
    source::{Plan, Refusal, Request, SigningKey, plan_default},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

pub struct Case {
    pub name: String,
    pub method: String,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub secret: SecretBytes,
    pub plan: Plan,
    pub now: Timestamp,
    pub valid: bool,
}

impl Case {
    pub fn verdict(&self) -> Result<(), Refusal> {
        let request = Request {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
        };
        SigningKey::for_diagnosis(&self.plan, &self.secret)?.verify(&request, self.now)
    }
}

pub fn cases(source: Source) -> Vec<Case> {
    let path = format!("{}/tests/data/vectors/{source}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_slice(&std::fs::read(path).expect("the vectors are part of the checkout"))
        .expect("vectors are JSON");
    let text = |case: &Value, field: &str| {
        case[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} of {}", case["name"]))
            .to_owned()
    };
    file["cases"]
        .as_array()
        .expect("a list of cases")
        .iter()
        .map(|case| Case {
            name: text(case, "name"),
            method: text(case, "method"),
            url: text(case, "url"),
            headers: case["headers"]
                .as_object()
                .expect("headers are an object")
                .iter()
                .map(|(name, value)| {
                    (
                        name.parse::<HeaderName>().expect("a header name"),
                        HeaderValue::from_str(value.as_str().expect("text")).expect("a header value"),
                    )
                })
                .collect(),
            body: text(case, "body").into_bytes(),
            secret: text(case, "secret").into(),
            plan: case.get("plan").map_or_else(
                || plan_default(source).expect("a served source"),
                |plan| serde_json::from_value(plan.clone()).expect("a good plan"),
            ),
            now: Timestamp::from_seconds(case["now"].as_i64().expect("seconds")),
            valid: case["expect"] == "valid",
        })
        .collect()
}

fn every_vector_comes_out_as_expected(source: Source, count: usize) {
    let cases = cases(source);
    assert_eq!(cases.len(), count, "vectors of {source} went missing");
    let wrong: Vec<_> = cases
        .iter()
        .filter(|case| case.verdict().is_ok() != case.valid)
        .map(|case| (&case.name, case.verdict()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_vapi_vector_comes_out_as_expected() {
    every_vector_comes_out_as_expected(Source::Vapi, 20);
}

#[test]
fn every_twilio_vector_comes_out_as_expected() {
    every_vector_comes_out_as_expected(Source::Twilio, 53);
}
