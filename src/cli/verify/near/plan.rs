//! Changes of the plan: another way to sign than the endpoint is configured for.

use super::{Change, Signed, change};
use crate::source::{
    BearerPlan, BearerPlanText, Encoding, HmacAlgorithm, HmacPlan, HmacPlanText, Plan, TwilioPlan, VapiPlan,
};
use http::{HeaderName, HeaderValue};

pub(super) fn changes(request: &Signed, changes: &mut Vec<Change>) {
    match &request.plan {
        Plan::Vapi(VapiPlan::Hmac(plan)) => {
            hmac_plans(request, plan.text(), changes);
            bearer_plans(request, changes);
        }
        Plan::Vapi(VapiPlan::Bearer(_)) => {
            bearer_plans(request, changes);
            change(request, changes, "with Vapi's default HMAC plan", |request| {
                request.plan = Plan::Vapi(VapiPlan::default());
            });
        }
        Plan::Twilio(plan) => twilio_plans(request, plan, changes),
    }
}

fn hmac_plans(request: &Signed, text: &HmacPlanText, changes: &mut Vec<Change>) {
    let mut with = |hint: String, edit: &dyn Fn(&mut HmacPlanText)| {
        let mut text = text.clone();
        edit(&mut text);
        // A change that makes an invalid plan is no near miss.
        if let Ok(plan) = HmacPlan::try_from(text) {
            change(request, changes, hint, |request| {
                request.plan = Plan::Vapi(VapiPlan::Hmac(plan));
            });
        }
    };
    if text.signature_prefix.is_some() {
        with(
            "without signaturePrefix in the plan: the signature comes without it".to_owned(),
            &|plan| plan.signature_prefix = None,
        );
    }
    for prefix in ["sha256=", "sha1=", "sha512=", "v1=", "v1,", "Bearer "] {
        with(format!("with signaturePrefix {prefix:?} in the plan"), &|plan| {
            plan.signature_prefix = Some(prefix.to_owned());
        });
    }
    for (encoding, name) in [(Encoding::Hex, "hex"), (Encoding::Base64, "base64")] {
        with(format!("with signatureEncoding {name:?} in the plan"), &|plan| {
            plan.signature_encoding = Some(encoding);
        });
    }
    for (algorithm, name) in [
        (HmacAlgorithm::Sha1, "sha1"),
        (HmacAlgorithm::Sha256, "sha256"),
        (HmacAlgorithm::Sha512, "sha512"),
    ] {
        with(format!("with algorithm {name:?} in the plan"), &|plan| {
            plan.algorithm = algorithm;
        });
    }
    for base64 in [true, false] {
        with(format!("with secretIsBase64 {base64} in the plan"), &|plan| {
            plan.secret_is_base64 = Some(base64);
        });
    }
    payload_formats(&mut with);
    plan_headers(request, text, &mut with);
}

fn payload_formats(with: &mut impl FnMut(String, &dyn Fn(&mut HmacPlanText))) {
    for format in [
        "{body}",
        "{timestamp}.{body}",
        "{timestamp}{body}",
        "{timestamp}:{body}",
        "{body}.{timestamp}",
        "{body}{timestamp}",
    ] {
        with(format!("with payloadFormat {format:?} in the plan"), &|plan| {
            plan.payload_format = Some(format.to_owned());
            plan.include_timestamp = Some(format.contains("{timestamp}"));
            if !format.contains("{timestamp}") {
                plan.replay_window_seconds = None;
            }
        });
    }
}

fn plan_headers(request: &Signed, text: &HmacPlanText, with: &mut impl FnMut(String, &dyn Fn(&mut HmacPlanText))) {
    for name in request.headers.keys() {
        with(
            format!("with signatureHeader {:?} in the plan", name.as_str()),
            &|plan| plan.signature_header = Some(name.to_string()),
        );
        with(
            format!("with timestampHeader {:?} in the plan", name.as_str()),
            &|plan| plan.timestamp_header = Some(name.to_string()),
        );
        if text.message_id_header.is_some() {
            with(
                format!("with messageIdHeader {:?} in the plan", name.as_str()),
                &|plan| plan.message_id_header = Some(name.to_string()),
            );
        }
    }
}

fn bearer_plans(request: &Signed, changes: &mut Vec<Change>) {
    for name in request.headers.keys() {
        for prefix in [false, true] {
            let text = BearerPlanText {
                header_name: Some(name.to_string()),
                bearer_prefix_enabled: Some(prefix),
            };
            if let Ok(plan) = BearerPlan::try_from(text) {
                let hint = format!(
                    "with a bearer plan of headerName {:?} and bearerPrefixEnabled {prefix}",
                    name.as_str()
                );
                change(request, changes, hint, |request| {
                    request.plan = Plan::Vapi(VapiPlan::Bearer(plan));
                });
            }
        }
    }
}

const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");

fn twilio_plans(request: &Signed, plan: &TwilioPlan, changes: &mut Vec<Change>) {
    if matches!(plan, TwilioPlan::SharedKey { .. }) {
        change(request, changes, "with the plan auth_token", |request| {
            request.plan = Plan::Twilio(TwilioPlan::AuthToken);
        });
    }
    let key = match plan {
        TwilioPlan::SharedKey { key } => format!("key={key},"),
        TwilioPlan::AuthToken => String::new(),
    };
    for algorithm in ["HMAC_SHA256", "HMAC_SHA1"] {
        if let Ok(value) = HeaderValue::from_str(&format!("{key}algorithm={algorithm}")) {
            let hint = format!("with algorithm={algorithm} in the header X-Twilio-Webhooks-Signature-Settings");
            change(request, changes, hint, |request| {
                drop(request.headers.insert(SETTINGS, value));
            });
        }
    }
    for (kind, value) in [
        ("a form", "application/x-www-form-urlencoded"),
        ("JSON", "application/json"),
    ] {
        let hint = format!("with the content type of {kind}: {value}");
        change(request, changes, hint, |request| {
            drop(
                request
                    .headers
                    .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(value)),
            );
        });
    }
    for method in ["GET", "POST"] {
        change(request, changes, format!("with the method {method}"), |request| {
            method.clone_into(&mut request.method);
        });
    }
}
