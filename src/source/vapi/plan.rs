//! How Vapi signs: the shape of its own `authenticationPlan`, checked when it is saved, compiled
//! when a key is made of it.

use crate::source::HmacAlgorithm;
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Vapi's `authenticationPlan` without its secret, with our optional `replayWindowSeconds`. The
/// default is Vapi's own: HMAC-SHA256 in hex over `{timestamp}.{body}`, in `x-signature` with
/// `x-timestamp`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum VapiPlan {
    Hmac(HmacPlan),
    Bearer(BearerPlan),
}

impl Default for VapiPlan {
    fn default() -> Self {
        Self::Hmac(HmacPlan::default())
    }
}

/// Why a plan cannot be stored: the field, and its fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanFault {
    pub field: &'static str,
    pub problem: &'static str,
}

const fn fault(field: &'static str, problem: &'static str) -> PlanFault {
    PlanFault { field, problem }
}

/// `HMACAuthenticationPlan` of Vapi's API description. A value of this type has been checked: it
/// compiles.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "HmacPlanText", into = "HmacPlanText")]
pub struct HmacPlan {
    text: HmacPlanText,
}

/// The plan as it is written. `None` where Vapi's default stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HmacPlanText {
    pub algorithm: HmacAlgorithm,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_timestamp: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_encoding: Option<Encoding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_is_base64: Option<bool>,
    /// Both ways, inclusive. Default 300, at most 86,400; only where the payload format signs the
    /// timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_window_seconds: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lower case, as every common `hex` function writes it; other spellings never verify.
    #[default]
    Hex,
    /// The standard alphabet, with padding.
    Base64,
}

impl TryFrom<HmacPlanText> for HmacPlan {
    type Error = PlanFault;

    fn try_from(text: HmacPlanText) -> Result<Self, PlanFault> {
        text.scheme()?;
        Ok(Self { text })
    }
}

impl From<HmacPlan> for HmacPlanText {
    fn from(plan: HmacPlan) -> Self {
        plan.text
    }
}

/// The default of the replay window.
const REPLAY_WINDOW_DEFAULT: Duration = Duration::from_mins(5);

/// A plan, ready to use.
#[derive(Clone, Debug)]
pub(in crate::source) struct Scheme {
    pub(in crate::source) algorithm: HmacAlgorithm,
    pub(in crate::source) signature_header: HeaderName,
    pub(in crate::source) signature_prefix: Box<str>,
    pub(in crate::source) encoding: Encoding,
    /// The header's text is signed as it stands. `None`: the format names no `{timestamp}`.
    pub(in crate::source) timestamp_header: Option<HeaderName>,
    /// `None`: the format names no `{svix-id}`.
    pub(in crate::source) message_id_header: Option<HeaderName>,
    pub(in crate::source) segments: Vec<Segment>,
    pub(in crate::source) secret_is_base64: bool,
    pub(in crate::source) window: Duration,
}

/// A piece of the signed text. The format is cut once, when the plan is read, so braces inside a
/// body or a URL mean nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Segment {
    Literal(Box<str>),
    Body,
    Timestamp,
    Method,
    Url,
    MessageId,
}

impl HmacPlan {
    pub(in crate::source) fn scheme(&self) -> Scheme {
        self.text.scheme().expect("a plan is checked when it is made")
    }

    #[must_use]
    pub const fn text(&self) -> &HmacPlanText {
        &self.text
    }

    pub(in crate::source) fn signs_time(&self) -> bool {
        self.scheme().timestamp_header.is_some()
    }
}

impl HmacPlanText {
    fn scheme(&self) -> Result<Scheme, PlanFault> {
        let segments = self.segments()?;
        let signs_time = segments.contains(&Segment::Timestamp);
        let window = self.window(signs_time)?;
        let message_id_header = self.message_id_header(&segments)?;
        // A header that is not signed is checked, too: a typing error should not wait for the day
        // on which the format changes.
        let timestamp_header = header(
            "timestampHeader",
            self.timestamp_header.as_deref().unwrap_or("x-timestamp"),
        )?;
        let signature_prefix = self.signature_prefix.as_deref().unwrap_or_default();
        if signature_prefix.len() > 64 || !signature_prefix.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(fault(
                "signaturePrefix",
                "expected at most 64 printable ASCII characters",
            ));
        }
        let scheme = Scheme {
            algorithm: self.algorithm,
            signature_header: header(
                "signatureHeader",
                self.signature_header.as_deref().unwrap_or("x-signature"),
            )?,
            signature_prefix: signature_prefix.into(),
            encoding: self.signature_encoding.unwrap_or_default(),
            timestamp_header: signs_time.then_some(timestamp_header),
            message_id_header,
            segments,
            secret_is_base64: self.secret_is_base64.unwrap_or(false),
            window,
        };
        scheme.check_headers_differ()?;
        Ok(scheme)
    }

    /// The parts of the signed text, of which the body has to be one.
    fn segments(&self) -> Result<Vec<Segment>, PlanFault> {
        let include_timestamp = self.include_timestamp.unwrap_or(true);
        let format = self.payload_format.as_deref().unwrap_or(if include_timestamp {
            "{timestamp}.{body}"
        } else {
            "{body}"
        });
        let segments = cut(format)?;
        if !segments.contains(&Segment::Body) {
            return Err(fault(
                "payloadFormat",
                "it must contain {body}, else the signature does not cover what is sent",
            ));
        }
        if segments.contains(&Segment::Timestamp) && !include_timestamp {
            return Err(fault(
                "includeTimestamp",
                "it is false, but payloadFormat contains {timestamp}",
            ));
        }
        Ok(segments)
    }

    fn window(&self, signs_time: bool) -> Result<Duration, PlanFault> {
        if !signs_time && self.replay_window_seconds.is_some() {
            return Err(fault(
                "replayWindowSeconds",
                "payloadFormat does not sign {timestamp}, so a replay cannot be recognised by its age",
            ));
        }
        let window = self
            .replay_window_seconds
            .map_or(REPLAY_WINDOW_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
        if window.is_zero() || window > super::super::REPLAY_WINDOW_MAX {
            return Err(fault("replayWindowSeconds", "expected 1 to 86400"));
        }
        Ok(window)
    }

    fn message_id_header(&self, segments: &[Segment]) -> Result<Option<HeaderName>, PlanFault> {
        let is_signed = segments.contains(&Segment::MessageId);
        match &self.message_id_header {
            Some(name) => {
                let name = header("messageIdHeader", name)?;
                Ok(is_signed.then_some(name))
            }
            None if is_signed => Err(fault(
                "messageIdHeader",
                "payloadFormat contains {svix-id}: name the header that carries it",
            )),
            None => Ok(None),
        }
    }
}

impl Scheme {
    fn check_headers_differ(&self) -> Result<(), PlanFault> {
        let names = [
            Some(&self.signature_header),
            self.timestamp_header.as_ref(),
            self.message_id_header.as_ref(),
        ];
        for (i, name) in names.iter().enumerate() {
            if name.is_some() && names[..i].contains(name) {
                return Err(fault(
                    "signatureHeader",
                    "signature, timestamp and message id need a header each",
                ));
            }
        }
        Ok(())
    }
}

fn header(field: &'static str, name: &str) -> Result<HeaderName, PlanFault> {
    if name.len() > 128 {
        return Err(fault(field, "a header name has at most 128 characters"));
    }
    HeaderName::try_from(name).map_err(|_| fault(field, "not a valid header name"))
}

fn cut(format: &str) -> Result<Vec<Segment>, PlanFault> {
    if format.len() > 256 {
        return Err(fault("payloadFormat", "expected at most 256 characters"));
    }
    let mut segments = Vec::new();
    let mut rest = format;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            segments.push(Segment::Literal(rest[..open].into()));
        }
        let close = rest[open..]
            .find('}')
            .ok_or_else(|| fault("payloadFormat", "a { has no }"))?
            + open;
        segments.push(match &rest[open + 1..close] {
            "body" => Segment::Body,
            "timestamp" => Segment::Timestamp,
            "method" => Segment::Method,
            "url" => Segment::Url,
            "svix-id" => Segment::MessageId,
            _ => {
                return Err(fault(
                    "payloadFormat",
                    "unknown placeholder: expected {body}, {timestamp}, {method}, {url} or {svix-id}",
                ));
            }
        });
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() {
        segments.push(Segment::Literal(rest.into()));
    }
    Ok(segments)
}

/// `BearerAuthenticationPlan` of Vapi's API description; the old `server.secret` is
/// `{"headerName":"X-Vapi-Secret","bearerPrefixEnabled":false}`. A static secret: it covers
/// neither the body nor the time.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "BearerPlanText", into = "BearerPlanText")]
pub struct BearerPlan {
    text: BearerPlanText,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BearerPlanText {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_prefix_enabled: Option<bool>,
}

impl TryFrom<BearerPlanText> for BearerPlan {
    type Error = PlanFault;

    fn try_from(text: BearerPlanText) -> Result<Self, PlanFault> {
        text.header()?;
        Ok(Self { text })
    }
}

impl From<BearerPlan> for BearerPlanText {
    fn from(plan: BearerPlan) -> Self {
        plan.text
    }
}

impl BearerPlanText {
    fn header(&self) -> Result<HeaderName, PlanFault> {
        header("headerName", self.header_name.as_deref().unwrap_or("authorization"))
    }
}

impl BearerPlan {
    pub(in crate::source) fn header(&self) -> HeaderName {
        self.text.header().expect("a plan is checked when it is made")
    }

    /// The text before the token.
    pub(in crate::source) fn prefix(&self) -> &'static str {
        if self.text.bearer_prefix_enabled.unwrap_or(true) {
            "Bearer "
        } else {
            ""
        }
    }

    #[must_use]
    pub const fn text(&self) -> &BearerPlanText {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(plan: serde_json::Value) -> String {
        serde_json::from_value::<VapiPlan>(plan)
            .expect_err("the plan was taken")
            .to_string()
    }

    #[test]
    fn plans_that_cannot_be_kept_are_refused_by_field() {
        for (plan, field) in [
            (
                json!({"type":"hmac","payloadFormat":"{timestamp}"}),
                "payloadFormat: it must contain {body}",
            ),
            (
                json!({"type":"hmac","payloadFormat":"{body}{nonce}"}),
                "payloadFormat: unknown placeholder",
            ),
            (
                json!({"type":"hmac","payloadFormat":"{body"}),
                "payloadFormat: a { has no }",
            ),
            (
                json!({"type":"hmac","payloadFormat":"{svix-id}.{body}"}),
                "messageIdHeader",
            ),
            (
                json!({"type":"hmac","payloadFormat":"{timestamp}{body}","includeTimestamp":false}),
                "includeTimestamp",
            ),
            (
                json!({"type":"hmac","payloadFormat":"{body}","replayWindowSeconds":60}),
                "replayWindowSeconds",
            ),
            (
                json!({"type":"hmac","replayWindowSeconds":0}),
                "replayWindowSeconds: expected 1 to 86400",
            ),
            (
                json!({"type":"hmac","replayWindowSeconds":86401}),
                "replayWindowSeconds: expected 1 to 86400",
            ),
            (
                json!({"type":"hmac","signatureHeader":"x signature"}),
                "signatureHeader",
            ),
            (
                json!({"type":"hmac","signatureHeader":"X-Timestamp"}),
                "signatureHeader: signature, timestamp",
            ),
            (json!({"type":"hmac","signaturePrefix":"\n"}), "signaturePrefix"),
            (
                json!({"type":"hmac","secretKey":"do not keep me here"}),
                "unknown field `secretKey`",
            ),
            (json!({"type":"hmac","algorithm":"md5"}), "unknown variant `md5`"),
            (json!({"type":"bearer","headerName":""}), "headerName"),
            (json!({"type":"bearer","token":"x"}), "unknown field `token`"),
        ] {
            let said = problem(plan);
            assert!(said.contains(field), "expected {field:?} in {said:?}");
        }
        assert!(serde_json::from_value::<VapiPlan>(json!({"type":"hmac","replayWindowSeconds":86400})).is_ok());
    }

    #[test]
    fn a_plan_is_written_as_it_was_read() {
        for plan in [
            json!({"type":"hmac","algorithm":"sha256"}),
            json!({"type":"hmac","algorithm":"sha1","signatureHeader":"x-hub-signature","signaturePrefix":"sha1=","replayWindowSeconds":60}),
            json!({"type":"bearer","headerName":"X-Vapi-Secret","bearerPrefixEnabled":false}),
        ] {
            let read: VapiPlan = serde_json::from_value(plan.clone()).expect("a good plan");
            assert_eq!(serde_json::to_value(&read).expect("plans serialise"), plan);
        }
    }

    #[test]
    fn without_a_timestamp_the_default_format_is_the_body() {
        let plan: HmacPlan = serde_json::from_value(json!({"includeTimestamp":false})).expect("a good plan");
        assert_eq!(plan.scheme().segments, [Segment::Body]);
        assert!(!plan.signs_time());
        assert!(HmacPlan::default().signs_time());
    }
}
