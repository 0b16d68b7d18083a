//! Authentication: by a bearer token, or by the cookie of a session that a token began. Where both
//! come, the token counts alone.
//!
//! **Invariant:** the organisation of every request comes from its token or session. A token of an
//! organisation that is unknown or inactive gets 401. While the organisation cannot be looked up,
//! the answer is 503, never 401. A cookie writes nothing without its CSRF header.

use super::{
    cors::Origins,
    jwks::{Jwks, KeyLookup},
    operator_session::{OperatorKeys, OperatorTicket},
    problem::{Code, Problem},
    session::{self, Cookie, Ticket},
    token::{self, Expected, Key, Member, Role, TokenError, UnverifiedToken},
};
use crate::{
    admin::AdminState,
    config::{AdminSettings, Fault},
    domain::{Clock, OrgId, Timestamp},
    listener::{Peer, caller_of},
    store::{Store, StoreError},
};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{HeaderMap, header, request};
use jsonwebtoken::{Algorithm, DecodingKey};
use lru::LruCache;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fmt,
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub const SECRET_BYTES_MIN: usize = 32;

/// The source of the keys that sign the tokens of organisations.
enum OrgKeys {
    Secret(Key),
    Jwks(Jwks),
}

/// Verifies tokens.
pub struct Tokens {
    org_keys: OrgKeys,
    org_expected: Expected,
    operator_keys: Option<OperatorKeys>,
    clock: Arc<dyn Clock>,
}

/// The caller of a request, identified once, before anything else is done.
#[derive(Clone)]
pub enum Identity {
    Caller(Caller),
    Operator(OperatorCaller),
}

/// An operator of the installation.
#[derive(Clone)]
pub struct OperatorCaller {
    pub name: OperatorName,
    /// When the token or the session ends.
    pub expires_at: Timestamp,
    /// The session, where the proof is its cookie and not a token.
    pub ticket: Option<OperatorTicket>,
}

/// An operator as the audit names one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorName {
    pub subject: String,
    /// Where the request came from.
    pub address: Option<IpAddr>,
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)
    }
}

/// The owner of a bearer token.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Bearer {
    Member { member: Member, expires_at: Timestamp },
    Operator { subject: String, expires_at: Timestamp },
}

/// The proof of identity that a member of an organisation gave.
#[derive(Clone)]
pub enum Credentials {
    Token,
    Cookie(Ticket),
}

/// A member of an organisation, of any role.
#[derive(Clone)]
pub struct Caller {
    pub member: Member,
    /// When the token or the session ends.
    pub expires_at: Timestamp,
    pub credentials: Credentials,
}

impl Caller {
    /// Why the caller may read no more, as far as the time tells.
    pub fn expired(&self, now: Timestamp) -> Option<&'static str> {
        let (ends_at, reason) = match self.credentials {
            Credentials::Token => (self.expires_at + token::LEEWAY, "token_ended"),
            Credentials::Cookie(_) => (self.expires_at, "session_ended"),
        };
        (now >= ends_at).then_some(reason)
    }

    /// Why the caller may read no more, for an answer that goes on. While the store cannot be
    /// asked, what was known stays true.
    pub async fn ended(&self, state: &AdminState) -> Option<&'static str> {
        if let Some(reason) = self.expired(state.now()) {
            return Some(reason);
        }
        if let Credentials::Cookie(ticket) = &self.credentials
            && let Ok(None) = state.store.find_session(ticket.org, ticket.hash()).await
        {
            return Some("session_ended");
        }
        let is_active = state.known_orgs.is_active(self.member.org).await;
        matches!(is_active, Ok(false)).then_some("organisation_inactive")
    }
}

/// The faults in the settings of tokens: no key or two keys, a secret under 32 bytes, or one secret
/// or audience for both kinds of token.
#[must_use]
pub fn check_settings(settings: &AdminSettings) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, problem: &str| {
        faults.push(Fault {
            name: name.to_owned(),
            problem: problem.to_owned(),
        });
    };
    let is_short = |secret: &SecretString| secret.expose_secret().len() < SECRET_BYTES_MIN;
    let short = "has fewer than 32 bytes; make one with `openssl rand -hex 32`";
    match (&settings.jwt_secret, &settings.jwt_jwks_url) {
        (Some(_), Some(_)) => fault(
            "HOOKSWITCH_JWT_SECRET",
            "is set beside HOOKSWITCH_JWT_JWKS_URL; keep one of them, so that one algorithm is pinned",
        ),
        (Some(secret), None) if is_short(secret) => fault("HOOKSWITCH_JWT_SECRET", short),
        (None, Some(url)) if !url.starts_with("https://") => {
            fault("HOOKSWITCH_JWT_JWKS_URL", "must begin with https://");
        }
        (None, None) => fault(
            "HOOKSWITCH_JWT_SECRET",
            "is not set, nor is HOOKSWITCH_JWT_JWKS_URL: without one of them nobody can use the admin API",
        ),
        (Some(_), None) | (None, Some(_)) => {}
    }
    if settings.operator_jwt_secret.as_ref().is_some_and(is_short) {
        fault("HOOKSWITCH_OPERATOR_JWT_SECRET", short);
    }
    if let (Some(org), Some(operator)) = (&settings.jwt_secret, &settings.operator_jwt_secret)
        && org.expose_secret() == operator.expose_secret()
    {
        fault(
            "HOOKSWITCH_OPERATOR_JWT_SECRET",
            "is the same as HOOKSWITCH_JWT_SECRET; operators need a key of their own",
        );
    }
    if let Err(problem) = Origins::parse(&settings.admin_origins) {
        fault("HOOKSWITCH_ADMIN_ORIGINS", &problem);
    }
    if settings.jwt_audience == settings.operator_jwt_audience {
        fault(
            "HOOKSWITCH_OPERATOR_JWT_AUDIENCE",
            "is the same as HOOKSWITCH_JWT_AUDIENCE; operators need an audience of their own",
        );
    }
    faults
}

impl Tokens {
    /// `jwks` serves where a URL of keys is set.
    ///
    /// # Errors
    /// See [`check_settings`].
    pub fn new(settings: &AdminSettings, jwks: Option<Jwks>, clock: Arc<dyn Clock>) -> Result<Self, Vec<Fault>> {
        let faults = check_settings(settings);
        let key = |secret: &SecretString| Key {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.expose_secret().as_bytes()),
        };
        let org_keys = match (&settings.jwt_secret, jwks) {
            (Some(secret), _) => Some(OrgKeys::Secret(key(secret))),
            (None, Some(jwks)) => Some(OrgKeys::Jwks(jwks)),
            (None, None) => None,
        };
        match org_keys {
            Some(org_keys) if faults.is_empty() => Ok(Self {
                org_keys,
                org_expected: Expected {
                    issuer: settings.jwt_issuer.clone(),
                    audience: settings.jwt_audience.clone(),
                },
                operator_keys: OperatorKeys::new(settings),
                clock,
            }),
            _ => Err(faults),
        }
    }

    /// The owner of a token: a member of an organisation or an operator. Each kind has its own key.
    async fn bearer(&self, token: &str) -> Result<Bearer, Problem> {
        let refused = |refused: TokenError| Problem::new(Code::Unauthenticated).detail(sentence(refused));
        let now = self.clock.now();
        let token = token::parse(token).map_err(refused)?;
        if let Some(keys) = &self.operator_keys
            && token.is_signed_by(&keys.key)
        {
            let (subject, expires_at) = token::operator(&token, &keys.token, now).map_err(refused)?;
            return Ok(Bearer::Operator { subject, expires_at });
        }
        if !self.is_signed_for_an_organisation(&token).await? {
            return Err(refused(TokenError::NotValid));
        }
        let (member, expires_at) = token::member(&token, &self.org_expected, now).map_err(refused)?;
        Ok(Bearer::Member { member, expires_at })
    }

    /// The keys of operators' sessions. `None`: this installation has no operators.
    pub const fn operator_keys(&self) -> Option<&OperatorKeys> {
        self.operator_keys.as_ref()
    }

    async fn is_signed_for_an_organisation(&self, token: &UnverifiedToken<'_>) -> Result<bool, Problem> {
        match &self.org_keys {
            OrgKeys::Secret(key) => Ok(token.is_signed_by(key)),
            OrgKeys::Jwks(jwks) => match &token.key_id {
                None => Ok(false),
                Some(key_id) => match jwks.find(key_id).await {
                    KeyLookup::Key(key) => Ok(token.is_signed_by(&key)),
                    KeyLookup::Unknown => Ok(false),
                    KeyLookup::Unavailable => Err(Problem::new(Code::TokenKeysUnavailable)),
                },
            },
        }
    }
}

fn sentence(refused: TokenError) -> String {
    let text = refused.to_string();
    let (first, rest) = text.split_at(1);
    format!("{}{rest}.", first.to_uppercase())
}

/// Organisations and whether they are active. Loaded again after each change of the configuration
/// and every few seconds.
pub struct KnownOrgs {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    known: Mutex<LruCache<OrgId, KnownOrg>>,
}

#[derive(Clone, Copy)]
struct KnownOrg {
    is_active: bool,
    at: Timestamp,
    /// The version of the configuration at that time.
    version: i64,
}

impl KnownOrgs {
    const KEPT_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("is not zero");
    const FRESH: Duration = Duration::from_secs(5);

    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            known: Mutex::new(LruCache::new(Self::KEPT_MAX)),
        }
    }

    /// Forgets an organisation, so that the next request loads it.
    pub fn forget(&self, org: OrgId) {
        self.lock().pop(&org);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<OrgId, KnownOrg>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the organisation exists and is active. While the database is away, the last known
    /// answer stays valid.
    async fn is_active(&self, org: OrgId) -> Result<bool, StoreError> {
        let version = *self.store.config_changes().borrow();
        let now = self.clock.now();
        let known = self.lock().get(&org).copied();
        if let Some(known) = known
            && known.version == version
            && now.since(known.at) < Self::FRESH
        {
            return Ok(known.is_active);
        }
        match (self.store.find_organisation(org).await, known) {
            (Ok(found), _) => {
                let is_active = found.as_ref().is_some_and(|found| found.is_active);
                if found.is_some() {
                    self.lock().put(
                        org,
                        KnownOrg {
                            is_active,
                            at: now,
                            version,
                        },
                    );
                }
                Ok(is_active)
            }
            (Err(StoreError::Unavailable { .. }), Some(known)) => Ok(known.is_active),
            (Err(error), _) => Err(error),
        }
    }
}

/// The owner of the token of a request, if it has one.
async fn bearer(headers: &HeaderMap, state: &AdminState) -> Result<Bearer, Problem> {
    let missing = || {
        Problem::new(Code::Unauthenticated)
            .detail("Send one Authorization header: Bearer and a token. Or sign in with POST /api/session.")
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing());
    };
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    state.tokens.bearer(token).await
}

/// The address that a request came from, as far as the trusted proxies tell.
pub fn address_of(parts: &request::Parts, state: &AdminState) -> Option<IpAddr> {
    let peer = parts.extensions.get::<Peer>()?;
    Some(caller_of(peer, &parts.headers, &state.trusted_proxies))
}

/// The caller of a request, by token or by cookie.
///
/// # Errors
/// 401 and 403 as the documentation of the API says; 503 where it cannot be found out.
pub async fn identify(parts: &request::Parts, state: &AdminState) -> Result<Identity, Problem> {
    let address = address_of(parts, state);
    let cookie = session::cookie(&parts.headers).filter(|_| !parts.headers.contains_key(header::AUTHORIZATION));
    let mut caller = match cookie {
        Some(Cookie::Operator(ticket)) => return session::operator(parts, state, ticket).map(Identity::Operator),
        Some(Cookie::Member(ticket)) => {
            let (member, expires_at) = session::member(parts, state, &ticket).await?;
            Caller {
                member,
                expires_at,
                credentials: Credentials::Cookie(ticket),
            }
        }
        None => match bearer(&parts.headers, state).await? {
            Bearer::Member { member, expires_at } => Caller {
                member,
                expires_at,
                credentials: Credentials::Token,
            },
            Bearer::Operator { subject, expires_at } => {
                return Ok(Identity::Operator(OperatorCaller {
                    name: OperatorName { subject, address },
                    expires_at,
                    ticket: None,
                }));
            }
        },
    };
    caller.member.address = address;
    if state.known_orgs.is_active(caller.member.org).await? {
        Ok(Identity::Caller(caller))
    } else {
        Err(Problem::new(Code::Unauthenticated)
            .detail("The token is good, but its organisation does not exist here or is not active."))
    }
}

/// The result of [`identify`], which `respond` put beside the request.
fn identity(parts: &request::Parts) -> Result<Identity, Problem> {
    let found = parts.extensions.get::<Result<Identity, Problem>>();
    found.cloned().unwrap_or(Err(Problem::new(Code::Internal)))
}

fn caller(parts: &request::Parts) -> Result<Caller, Problem> {
    match identity(parts)? {
        Identity::Caller(caller) => Ok(caller),
        Identity::Operator(_) => {
            Err(Problem::new(Code::Unauthenticated)
                .detail("This needs a token of an organisation, not of an operator."))
        }
    }
}

/// Any role of an organisation: may read.
pub struct Reader(pub Member);

/// Owner, admin or member: may retry, cancel and resolve actions, and replay events.
pub struct Retrier(pub Member);

/// Owner or admin: may configure the organisation.
pub struct Manager(pub Member);

/// The owner: may connect and disconnect accounts at providers.
pub struct Connector(pub Member);

/// An operator of the installation. A token of an organisation gets 404 at these paths.
pub struct Operator(pub OperatorName);

/// The member whose bearer token a request carries, for a route that accepts another proof as well.
pub fn member_of(parts: &request::Parts, roles: &[Role]) -> Result<Member, Problem> {
    let Caller { member, .. } = caller(parts)?;
    if roles.contains(&member.role) {
        return Ok(member);
    }
    let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
    Err(Problem::new(Code::Forbidden).detail(format!("This needs the role {roles}.")))
}

/// For a route that serves any role of an organisation, and needs to know when the caller's time
/// ends.
impl FromRequestParts<Arc<AdminState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Arc<AdminState>) -> Result<Self, Problem> {
        caller(parts)
    }
}

/// For the routes that serve organisations and operators alike.
impl FromRequestParts<Arc<AdminState>> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Arc<AdminState>) -> Result<Self, Problem> {
        identity(parts)
    }
}

/// For a route that answers alike with and without a session. An expired cookie counts as none. A
/// cookie without its CSRF header is refused.
impl OptionalFromRequestParts<Arc<AdminState>> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Arc<AdminState>) -> Result<Option<Self>, Problem> {
        match identity(parts) {
            Ok(identity) => Ok(Some(identity)),
            Err(problem) if problem.code == Code::Unauthenticated => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}

macro_rules! extractor {
    ($name:ident, $($role:ident)+) => {
        impl FromRequestParts<Arc<AdminState>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut request::Parts, _: &Arc<AdminState>) -> Result<Self, Problem> {
                member_of(parts, &[$(Role::$role),+]).map(Self)
            }
        }
    };
}
extractor!(Reader, Owner Admin Member Viewer);
extractor!(Retrier, Owner Admin Member);
extractor!(Manager, Owner Admin);
extractor!(Connector, Owner);

impl FromRequestParts<Arc<AdminState>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &Arc<AdminState>) -> Result<Self, Problem> {
        match identity(parts)? {
            Identity::Operator(operator) => Ok(Self(operator.name)),
            Identity::Caller(_) => Err(Problem::not_found()),
        }
    }
}
