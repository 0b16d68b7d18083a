//! `/api/phone-numbers`: which numbers lead to this organisation, each proven by its own credential
//! before it routes (invariant 18).

use crate::{
    admin::{
        Admin, AdminState, credentials,
        proof::{READ_MAX, Readable, held_elsewhere, not_readable, of_holder, refused_or_unknown},
        state::Answer,
        usable::Connected,
        web::{
            auth::{Manager, Reader},
            body::{self, Id},
            etag,
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{OrgId, Provider, RouteState, SmsAtVapi},
    provider::{Credential, is_e164},
    store::routes::{Displaces, NumberClaim, Proof},
};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/phone-numbers", get(list).post(create))
        .route("/api/phone-numbers/{number}", get(show).delete(delete))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct NumberView {
    number: String,
    provider: Provider,
    account_id: Option<String>,
    provider_number_id: Option<String>,
    state: RouteState,
    /// Whether its webhooks can be taken now, and why not.
    usable: bool,
    reason: Option<String>,
    proof: Option<&'static str>,
    proven_at: Option<Time>,
    /// `platform`: the platform's own account signs for it. Only an operator sets that.
    managed_by: Option<&'static str>,
    /// `smsEnabled` as Vapi said it when the number was last claimed here: whether Vapi set the
    /// number's SMS webhook at Twilio. `null`: not known.
    sms_enabled: Option<bool>,
    /// When Vapi was asked for that.
    sms_read_at: Option<Time>,
    /// Where texts to the number go by it.
    sms_hint: Option<&'static str>,
    version: i64,
    etag: String,
    created_at: Time,
}

const fn sms_hint(sms: SmsAtVapi) -> &'static str {
    match sms {
        SmsAtVapi::Enabled => {
            "Vapi answers texts to this number: when it was brought to Vapi, its SMS webhook at Twilio was pointed \
             there. To have texts here, set smsEnabled to false at Vapi, and the SMS webhook at Twilio to Hookswitch."
        }
        SmsAtVapi::Disabled => "Vapi leaves texts to this number alone. They go to its SMS webhook at Twilio.",
        SmsAtVapi::Absent => "Your key at Vapi reads no number of Twilio's with these digits, so Vapi takes no texts.",
    }
}

impl NumberView {
    fn new(state: &AdminState, connected: &Connected, row: NumberClaim) -> Self {
        let reason = connected.reason(row.provider).filter(|_| !row.is_platform_managed);
        Self {
            usable: reason.is_none() && row.state == RouteState::Live,
            reason,
            etag: tag(state, &row),
            number: row.number,
            provider: row.provider,
            account_id: row.account_id,
            provider_number_id: row.provider_number_id,
            state: row.state,
            proof: row.proof.map(Proof::as_str),
            proven_at: row.proven_at.map(Time),
            managed_by: row.is_platform_managed.then_some("platform"),
            sms_enabled: row.sms_at_vapi.and_then(|(sms, _)| match sms {
                SmsAtVapi::Enabled => Some(true),
                SmsAtVapi::Disabled => Some(false),
                SmsAtVapi::Absent => None,
            }),
            sms_read_at: row.sms_at_vapi.map(|(_, read_at)| Time(read_at)),
            sms_hint: row.sms_at_vapi.map(|(sms, _)| sms_hint(sms)),
            version: row.version,
            created_at: Time(row.created_at),
        }
    }
}

fn tag(state: &AdminState, row: &NumberClaim) -> String {
    etag::tag(
        &state.vault,
        row.org,
        "phone_number",
        format_args!("{}:{}", row.provider, row.number),
        row.version,
    )
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<NumberView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<String>::take(
        &mut params,
        &state.vault,
        Some(member.org),
        "phone_numbers",
        String::new(),
    )?;
    params.finish()?;
    let connected = Connected::load(&state, member.org).await?;
    let rows = state
        .store
        .list_numbers(member.org, page.after.as_deref(), page.count())
        .await?;
    Ok(Json(page.answer_whole(
        &state.vault,
        rows,
        |row| row.number.clone(),
        |row| NumberView::new(&state, &connected, row),
    )))
}

/// `?provider=`: one of the two routes that a number may be.
fn provider_of(uri: &Uri) -> Answer<Option<Provider>> {
    let mut params = Params::of(uri)?;
    let provider = match params.take("provider").as_deref() {
        None => None,
        Some("twilio") => Some(Provider::Twilio),
        Some("vapi") => Some(Provider::Vapi),
        Some(_) => {
            return Err(Problem::field(
                Code::InvalidQuery,
                "provider",
                "expected twilio or vapi",
            ));
        }
    };
    params.finish()?;
    Ok(provider)
}

pub async fn show(
    State(state): Admin,
    Reader(member): Reader,
    Id(number): Id<String>,
    uri: Uri,
) -> Answer<impl IntoResponse> {
    let provider = provider_of(&uri)?;
    let row = state
        .store
        .find_number(member.org, &number, provider)
        .await?
        .ok_or(Problem::not_found())?;
    let connected = Connected::load(&state, member.org).await?;
    let view = NumberView::new(&state, &connected, row);
    Ok(etag::tagged(view, |view| &view.etag))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNumber {
    number: String,
    /// The provider that has the number. Default `twilio`.
    #[serde(default)]
    provider: NumberProvider,
}

#[derive(Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum NumberProvider {
    #[default]
    Twilio,
    Vapi,
}

/// A number as its provider has it.
struct NumberAtProvider {
    /// The account that holds it, where the account is a part of the route.
    account_id: Option<String>,
    provider_number_id: String,
    /// What Vapi says of its texts, where Vapi was asked.
    sms: Option<SmsAtVapi>,
}

pub async fn create(
    State(state): Admin,
    Manager(member): Manager,
    body::Json(new): body::Json<NewNumber>,
) -> Answer<impl IntoResponse> {
    if !is_e164(&new.number) {
        return Err(Problem::field(
            Code::InvalidField,
            "number",
            "expected a number in E.164 form, such as +15551234567",
        ));
    }
    let provider = match new.provider {
        NumberProvider::Twilio => Provider::Twilio,
        NumberProvider::Vapi => Provider::Vapi,
    };
    // Beside each other, within the deadline of the request.
    let (read, sms) = tokio::join!(
        read(&state, member.org, provider, &new.number),
        ask_for_texts(&state, member.org, provider, &new.number),
    );
    let at_provider = match read? {
        Readable::Yes(found) => found,
        Readable::No => return Err(not_readable("number")),
        Readable::Unknown(problem) => return Err(problem),
    };
    let checked = check_holder(&state, member.org, provider, &new.number, &at_provider).await?;
    let before = state.store.find_number(member.org, &new.number, Some(provider)).await?;
    let now = state.now();
    let claim = NumberClaim {
        org: member.org,
        number: new.number.clone(),
        provider,
        account_id: at_provider.account_id,
        provider_number_id: Some(at_provider.provider_number_id),
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(now),
        is_platform_managed: false,
        sms_at_vapi: at_provider.sms.or(sms).map(|sms| (sms, now)),
        version: 1,
        created_at: now,
    };
    let audit = state.audit(&member, "prove", "phone_number", &new.number, &["number", "provider"]);
    state
        .store
        .prove_number(claim, Displaces::Checked(checked), audit)
        .await?;
    let row = state
        .store
        .find_number(member.org, &new.number, Some(provider))
        .await?
        .ok_or(Problem::not_found())?;
    let connected = Connected::load(&state, member.org).await?;
    Ok((
        etag::status_of(before.is_some()),
        etag::tagged(NumberView::new(&state, &connected, row), |view| &view.etag),
    ))
}

/// Refuses while the credential of another organisation still reads the same route.
async fn check_holder(
    state: &AdminState,
    org: OrgId,
    provider: Provider,
    number: &str,
    at_provider: &NumberAtProvider,
) -> Answer<Option<OrgId>> {
    let holder = state
        .store
        .find_number_holder(
            provider,
            number,
            at_provider.account_id.as_deref(),
            Some(&at_provider.provider_number_id),
        )
        .await?;
    let Some(holder) = holder.filter(|holder| *holder != org) else {
        return Ok(None);
    };
    match of_holder(read(state, holder, provider, number).await)? {
        Readable::Yes(theirs) if theirs.account_id == at_provider.account_id => Err(held_elsewhere()),
        // A holder that reads the number in another account has another route now. Its claim to
        // this route is stale.
        Readable::Yes(_) | Readable::No => Ok(Some(holder)),
        Readable::Unknown(problem) => Err(problem),
    }
}

/// Whether an organisation's own credential holds the number now.
async fn read(state: &AdminState, org: OrgId, provider: Provider, number: &str) -> Answer<Readable<NumberAtProvider>> {
    let Some(opened) = credentials::find(state, org, provider, "").await? else {
        return Ok(Readable::No);
    };
    let (_, credential) = opened.usable()?;
    let found = match &credential {
        Credential::Twilio(twilio) => state
            .providers
            .twilio
            .find_number(twilio, number, READ_MAX)
            .await
            .map(|found| {
                found.map(|found| NumberAtProvider {
                    account_id: Some(twilio.account_sid.clone()),
                    provider_number_id: found.sid,
                    sms: None,
                })
            }),
        Credential::Vapi(vapi) => state
            .providers
            .vapi
            .find_phone_number(vapi, number, READ_MAX)
            .await
            .map(|found| {
                found.map(|found| NumberAtProvider {
                    account_id: None,
                    provider_number_id: found.id,
                    sms: Some(found.sms),
                })
            }),
        _ => return Ok(Readable::No),
    };
    Ok(match found {
        Ok(Some(found)) => Readable::Yes(found),
        Ok(None) => Readable::No,
        Err(error) => refused_or_unknown(&error),
    })
}

/// What Vapi says of the texts of a number of Twilio, by the organisation's own key. `None`: Vapi
/// was not asked or did not answer. The claim stands on Twilio's word alone.
async fn ask_for_texts(state: &AdminState, org: OrgId, provider: Provider, number: &str) -> Option<SmsAtVapi> {
    if provider != Provider::Twilio {
        return None;
    }
    let opened = credentials::find(state, org, Provider::Vapi, "").await.ok()??;
    let Ok(Credential::Vapi(vapi)) = &opened.credential else {
        return None;
    };
    let found = state.providers.vapi.find_phone_number(vapi, number, READ_MAX).await;
    Some(found.ok()?.map_or(SmsAtVapi::Absent, |found| found.sms))
}

pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(number): Id<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let provider = provider_of(&uri)?;
    let row = state
        .store
        .find_number(member.org, &number, provider)
        .await?
        .ok_or(Problem::not_found())?;
    let version = etag::checked(&headers, &tag(&state, &row), row.version)?;
    let audit = state.audit(&member, "release", "phone_number", &number, &["state"]);
    let released = state
        .store
        .release_number(member.org, (&number, provider), version, audit);
    if released.await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}
