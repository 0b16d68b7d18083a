//! One request as JSON, in the form of the signature vectors.

use crate::{
    domain::{SecretBytes, Source, Timestamp},
    source::{Plan, Refusal, Request, SECRET_BYTES_MIN, SigningKey, plan_default},
};
use anyhow::{Context, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

pub(super) struct Case {
    pub(super) name: String,
    pub(super) request: Signed,
    pub(super) expect_valid: Option<bool>,
}

/// A request with everything that its verdict depends on; `near` changes one thing at a time.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) secret: SecretBytes,
    pub(super) plan: Plan,
    pub(super) now: Timestamp,
}

impl Signed {
    pub(super) fn verdict(&self) -> Result<(), Refusal> {
        let request = Request {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
        };
        SigningKey::for_diagnosis(&self.plan, &self.secret)?.verify(&request, self.now)
    }

    pub(super) fn secret_is_short(&self) -> bool {
        self.secret.len() < SECRET_BYTES_MIN || SigningKey::new(&self.plan, &self.secret).is_err()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The cases of a file: one object, or many under `cases`.
pub(super) fn read(source: Source, file: &[u8], clock_now: Timestamp) -> anyhow::Result<Vec<Case>> {
    ensure!(
        plan_default(source).is_some(),
        "webhooks of {source} are not served; vapi and twilio are"
    );
    let file: Value = serde_json::from_slice(file).context("not JSON")?;
    let cases = match &file {
        Value::Object(one) => match one.get("cases") {
            None => return Ok(vec![case(source, &file, 0, clock_now)?]),
            Some(Value::Array(cases)) => cases,
            Some(_) => bail!("`cases`: expected an array of requests"),
        },
        _ => bail!("expected an object: one request, or `cases` with many"),
    };
    ensure!(!cases.is_empty(), "`cases`: there is none");
    cases
        .iter()
        .enumerate()
        .map(|(at, value)| {
            case(source, value, at, clock_now).with_context(|| format!("case {} of `cases`{}", at + 1, called(value)))
        })
        .collect()
}

fn called(case: &Value) -> String {
    case["name"]
        .as_str()
        .map_or(String::new(), |name| format!(", {name:?}"))
}

fn case(source: Source, value: &Value, at: usize, clock_now: Timestamp) -> anyhow::Result<Case> {
    let fields = value
        .as_object()
        .context("expected an object with url, headers, body and secret")?;
    let plan = match fields.get("plan") {
        None | Some(Value::Null) => plan_default(source).context("`plan`: there is no default for this source")?,
        Some(plan) => {
            serde_json::from_value::<Plan>(plan.clone()).map_err(|error| anyhow::anyhow!("`plan`: {error}"))?
        }
    };
    ensure!(
        plan.source() == source,
        "`plan`: it is one of {}, not of {source}",
        plan.source()
    );
    let url = match text(fields, "url")? {
        Some(url) => url,
        None if source == Source::Twilio => bail!("`url` is missing: Twilio signs the URL as it requested it"),
        None => String::new(),
    };
    let request = Signed {
        method: text(fields, "method")?.unwrap_or_else(|| "POST".to_owned()),
        url,
        headers: headers(fields.get("headers").context("`headers` is missing")?)?,
        body: text(fields, "body")?.unwrap_or_default().into_bytes(),
        secret: text(fields, "secret")?.context("`secret` is missing")?.into(),
        plan,
        now: match fields.get("now") {
            None | Some(Value::Null) => clock_now,
            Some(now) => Timestamp::from_seconds(now.as_i64().context("`now`: expected whole seconds since 1970")?),
        },
    };
    Ok(Case {
        name: text(fields, "name")?.unwrap_or_else(|| format!("request {}", at + 1)),
        request,
        expect_valid: match text(fields, "expect")?.as_deref() {
            None => None,
            Some("valid") => Some(true),
            Some("invalid") => Some(false),
            Some(_) => bail!("`expect`: expected \"valid\" or \"invalid\""),
        },
    })
}

fn text(fields: &Map<String, Value>, name: &str) -> anyhow::Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => bail!("`{name}`: expected a text"),
    }
}

/// `{"name": "value"}`, or `{"name": ["value", "value"]}` where a header occurs more than once.
fn headers(value: &Value) -> anyhow::Result<HeaderMap> {
    let fields = value
        .as_object()
        .context("`headers`: expected an object of names and values")?;
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let parsed =
            HeaderName::try_from(name.as_str()).with_context(|| format!("`headers`: {name:?} is not a header name"))?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = value
                .as_str()
                .with_context(|| format!("`headers`: expected a text for {name:?}"))?;
            // The value may be a secret, so the error does not repeat it.
            let value = HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| anyhow::anyhow!("`headers`: the value of {name:?} cannot stand in a header"))?;
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}
