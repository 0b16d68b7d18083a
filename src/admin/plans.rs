//! Signing secrets and their plans: reading them from a request, checking them, sealing them.

use crate::{
    admin::{
        state::{AdminState, Answer},
        web::{
            body,
            problem::{Code, Problem},
            view::last_four,
        },
    },
    domain::{EndpointId, OrgId, SecretBytes, SecretId, Source},
    source::{
        self, BearerPlan, BearerPlanText, HmacPlan, HmacPlanText, Plan, PlanFault, SigningKey, TwilioPlan, VapiPlan,
    },
    store::endpoints::NewSecret,
    vault::{Purpose, VaultError},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

const SECRET_BYTES_MAX: usize = 512;

/// Every plan by which Vapi uses one secret. They are its default plan, HMAC-SHA256 over the body
/// alone in `x-vapi-signature`, the plain secret in `X-Vapi-Secret`, and a bearer token.
pub fn of_vapi() -> Vec<Plan> {
    let hmac = HmacPlanText {
        signature_header: Some("x-vapi-signature".into()),
        payload_format: Some("{body}".into()),
        ..HmacPlanText::default()
    };
    let plain = BearerPlanText {
        header_name: Some("x-vapi-secret".into()),
        bearer_prefix_enabled: Some(false),
    };
    vec![
        Plan::Vapi(VapiPlan::default()),
        Plan::Vapi(VapiPlan::Hmac(
            HmacPlan::try_from(hmac).expect("a header and a format that are known"),
        )),
        Plan::Vapi(VapiPlan::Bearer(
            BearerPlan::try_from(plain).expect("a header that is known"),
        )),
        Plan::Vapi(VapiPlan::Bearer(
            BearerPlan::try_from(BearerPlanText::default()).expect("the default is a plan"),
        )),
    ]
}

/// The plans of an endpoint's secret: the plan of the request, or the default plans of the source
/// that sign over the body.
///
/// # Errors
/// The source is not served, or a field of the plan is wrong: which one.
pub fn read(source: Source, plan: Option<Value>) -> Answer<Vec<Plan>> {
    let Some(default) = source::plan_default(source) else {
        return Err(Problem::field(
            Code::InvalidField,
            "source",
            "expected vapi or twilio: the others cannot be received in this version",
        ));
    };
    let Some(plan) = plan else {
        return Ok(if source == Source::Vapi {
            of_vapi().into_iter().take(2).collect()
        } else {
            vec![default]
        });
    };
    let plan = match source {
        Source::Vapi => Plan::Vapi(read_vapi(plan)?),
        _ => Plan::Twilio(body::parse_value::<TwilioPlan>("plan", plan)?),
    };
    Ok(vec![plan])
}

fn read_vapi(plan: Value) -> Answer<VapiPlan> {
    let kind = || Problem::field(Code::SecretInvalid, "plan.type", "expected hmac or bearer");
    let fault = |fault: PlanFault| Problem::field(Code::SecretInvalid, format!("plan.{}", fault.field), fault.problem);
    let Value::Object(mut fields) = plan else {
        return Err(kind());
    };
    match fields.remove("type").as_ref().and_then(Value::as_str) {
        Some("hmac") => {
            let text = body::parse_value::<HmacPlanText>("plan", Value::Object(fields))?;
            HmacPlan::try_from(text).map(VapiPlan::Hmac).map_err(fault)
        }
        Some("bearer") => {
            let text = body::parse_value::<BearerPlanText>("plan", Value::Object(fields))?;
            BearerPlan::try_from(text).map(VapiPlan::Bearer).map_err(fault)
        }
        _ => Err(kind()),
    }
}

/// Seals a signing secret, after a check that the plan can verify with it.
///
/// # Errors
/// The problem of the field `secret`.
pub async fn seal(
    state: &AdminState,
    org: OrgId,
    endpoint: Option<EndpointId>,
    source: Source,
    plan: &Plan,
    secret: &SecretString,
) -> Answer<NewSecret> {
    // A secret that is pasted or read from a file ends in a line break; no sender signs with it.
    let text = secret.expose_secret().trim();
    if text.len() > SECRET_BYTES_MAX {
        return Err(Problem::field(
            Code::SecretInvalid,
            "secret",
            format!("is longer than {SECRET_BYTES_MAX} bytes"),
        ));
    }
    SigningKey::new(plan, &SecretBytes::from(text.to_owned()))
        .map_err(|refusal| Problem::field(Code::SecretInvalid, "secret", refusal.to_string()))?;
    let sealed = state
        .vault
        .seal(org, Purpose::SigningSecret(source), text.as_bytes())
        .await?;
    let plan = serde_json::to_string(plan).expect("a plan is texts and numbers");
    Ok(NewSecret {
        id: SecretId::generate(),
        org,
        endpoint,
        source,
        plan,
        sealed,
        last_four: last_four(text),
    })
}

/// Valid signing secrets of one organisation and source at most. Each is tried on each request that
/// no earlier one verifies, so their number bounds the work of a request.
pub const SECRETS_PER_SOURCE_MAX: usize = 128;

/// Refuses `added` further signing secrets of a source when they would be too many.
pub async fn check_room(state: &AdminState, org: OrgId, source: Source, added: usize) -> Answer<()> {
    let mut valid = state.store.list_secrets(org, source, None).await?.len();
    let endpoints = state.store.list_endpoints(org, None, u32::MAX >> 1).await?;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.source == source) {
        valid += state.store.list_secrets(org, source, Some(endpoint.id)).await?.len();
    }
    if valid + added <= SECRETS_PER_SOURCE_MAX {
        return Ok(());
    }
    Err(Problem::new(Code::LimitReached).detail(format!(
        "This source has {valid} of {SECRETS_PER_SOURCE_MAX} valid signing secrets, and {added} more do not fit. \
            Delete an endpoint, or wait until former secrets end."
    )))
}

/// 32 random bytes, of which a secret is made.
///
/// # Errors
/// The system has no randomness.
pub fn random_bytes() -> Answer<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Problem::from(VaultError::NoRandomness))?;
    Ok(bytes)
}
