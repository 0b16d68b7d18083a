//! Sessions of people in browsers: a bearer token, or a link that was made for one person, becomes
//! a cookie.
//!
//! **Invariant:** the cookie alone changes nothing. A write needs the header `X-CSRF-Token` beside
//! it, which only a page of this origin, or of a listed one, can learn and send. The store has
//! hashes: who reads the database cannot make a cookie.

use super::{
    auth::{OperatorCaller, OperatorName, address_of},
    cors::{self, is_loopback_host},
    operator_session::OperatorTicket,
    problem::{Code, Problem},
    token::{Member, Role},
};
use crate::{
    admin::AdminState,
    domain::{Fingerprint, OrgId, Timestamp},
    store::{
        Store, StoreError,
        audit::{AuditEntry, Changes},
        callers::{Hash, Session},
    },
    vault::Vault,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, time::Duration};
use uuid::Uuid;

/// The longest that a session lasts. One that a token began ends with the token.
pub const SESSION_LIFE: Duration = Duration::from_hours(12);
/// How long a link may wait for its use.
pub const LINK_LIFE: Duration = Duration::from_mins(15);
pub const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
/// Only an answer over https may set a cookie of this prefix, and no other host can set one for
/// this host.
const COOKIE_SECURE: &str = "__Host-hookswitch_session";
/// On the loopback interface, where `dev` speaks plain http.
const COOKIE_LOOPBACK: &str = "hookswitch_session";
const SECRET_BYTES: usize = 32;

/// A cookie of a session: of an organisation's person, or of an operator. A browser has one.
#[derive(Clone, PartialEq, Eq)]
pub enum Cookie {
    Member(Ticket),
    Operator(OperatorTicket),
}

impl Cookie {
    fn parse(text: &str) -> Option<Self> {
        let member = Ticket::parse(text).map(Self::Member);
        member.or_else(|| OperatorTicket::parse(text).map(Self::Operator))
    }
}

/// The content of a cookie and of a link: the organisation, so that the look-up stays within it,
/// and a random secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    pub org: OrgId,
    secret: [u8; SECRET_BYTES],
}

impl Ticket {
    /// # Errors
    /// The system gives no randomness.
    pub fn generate(org: OrgId) -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self { org, secret })
    }

    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16 + SECRET_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (org, secret) = bytes.split_at(16);
        Some(Self {
            org: OrgId::from_uuid(Uuid::from_slice(org).ok()?),
            secret: secret.try_into().ok()?,
        })
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = self.org.as_uuid().as_bytes().to_vec();
        bytes.extend_from_slice(&self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[must_use]
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.secret).into()
    }

    /// The value of the header that writes need beside this cookie.
    #[must_use]
    pub fn csrf(&self, vault: &Vault) -> String {
        vault.fingerprint(self.org, &self.csrf_text()).0.to_string()
    }

    fn is_csrf(&self, vault: &Vault, shown: &str) -> bool {
        vault.is_fingerprint_of(&Fingerprint(shown.into()), self.org, &self.csrf_text())
    }

    fn csrf_text(&self) -> Vec<u8> {
        [b"csrf:".as_slice(), &self.hash()].concat()
    }
}

/// Makes a link that signs one person in, once, within [`LINK_LIFE`]. Returns the code that
/// `GET /api/session/open` takes.
///
/// # Errors
/// The database is away, or the system gives no randomness.
pub async fn make_link(
    store: &dyn Store,
    org: OrgId,
    role: Role,
    subject: &str,
    now: Timestamp,
) -> Result<String, StoreError> {
    let ticket = Ticket::generate(org).map_err(|_| StoreError::Unavailable {
        doing: "make a link: the system gives no randomness",
    })?;
    let link = Session {
        org,
        token_hash: ticket.hash(),
        is_link: true,
        subject: subject.to_owned(),
        role: role.as_str().to_owned(),
        created_at: now,
        expires_at: now + LINK_LIFE,
    };
    let audit = AuditEntry {
        org,
        at: now,
        actor: subject.to_owned(),
        verb: "create",
        target_kind: "link",
        target_id: "sign-in".to_owned(),
        changes: Changes::default(),
        address: None,
    };
    store.begin_session(link, audit).await?;
    Ok(ticket.text())
}

/// The cookie of a session that a request shows, if it has the right form.
#[must_use]
pub fn cookie(headers: &HeaderMap) -> Option<Cookie> {
    let wanted = if is_loopback(headers) {
        COOKIE_LOOPBACK
    } else {
        COOKIE_SECURE
    };
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted);
    let mut values = cookies.map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Cookie::parse(value),
        // Two cookies of one name: somebody else wrote one of them.
        _ => None,
    }
}

/// `Set-Cookie` for the text of a session, or, without one, against it.
#[must_use]
pub fn set_cookie(headers: &HeaderMap, session: Option<(&str, Duration)>) -> HeaderValue {
    let is_loopback = is_loopback(headers);
    let name = if is_loopback { COOKIE_LOOPBACK } else { COOKIE_SECURE };
    let (value, seconds) = session.map_or(("", 0), |(text, life)| (text, life.as_secs()));
    let mut text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    if !is_loopback {
        let _ = write!(text, "; Secure");
    }
    HeaderValue::from_str(&text).expect("names, numbers and base64 are visible ASCII")
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// Whether the browser reached this API by a loopback name. Such a connection needs no TLS; every
/// other one has it, or browsers drop the cookie.
fn is_loopback(headers: &HeaderMap) -> bool {
    let name = host(headers).and_then(|host| host.parse::<http::uri::Authority>().ok());
    name.is_some_and(|name| is_loopback_host(name.host()))
}

/// The person whose session the request's cookie is.
///
/// # Errors
/// 401 where there is no such session, 403 where a write lacks what a page of another site cannot
/// send.
pub async fn member(parts: &Parts, state: &AdminState, ticket: &Ticket) -> Result<(Member, Timestamp), Problem> {
    let ended = || Problem::new(Code::Unauthenticated).detail("The session has ended. Sign in again.");
    let session = state
        .store
        .find_session(ticket.org, ticket.hash())
        .await?
        .ok_or_else(ended)?;
    check_page(parts, state, |shown| ticket.is_csrf(&state.vault, shown))?;
    let role = Role::find(&session.role).ok_or_else(ended)?;
    let member = Member {
        org: session.org,
        role,
        subject: session.subject,
        address: None,
    };
    Ok((member, session.expires_at))
}

/// The operator whose session the request's cookie is.
///
/// # Errors
/// As [`member`].
pub fn operator(parts: &Parts, state: &AdminState, ticket: OperatorTicket) -> Result<OperatorCaller, Problem> {
    let ended = || Problem::new(Code::Unauthenticated).detail("The session has ended. Sign in again.");
    let keys = state.tokens.operator_keys().ok_or_else(ended)?;
    let (subject, expires_at) = keys.open(&ticket, state.now()).ok_or_else(ended)?;
    check_page(parts, state, |shown| ticket.is_csrf(&state.vault, shown))?;
    let address = address_of(parts, state);
    Ok(OperatorCaller {
        name: OperatorName { subject, address },
        expires_at,
        ticket: Some(ticket),
    })
}

fn check_page(parts: &Parts, state: &AdminState, is_csrf: impl Fn(&str) -> bool) -> Result<(), Problem> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let refused = |detail: &str| Err(Problem::new(Code::CsrfInvalid).detail(detail));
    if parts.headers.contains_key(header::ORIGIN) {
        let is_known = cors::origin_of(&parts.headers).is_some_and(|origin| {
            let own = origin.split_once("://").map(|(_, rest)| rest);
            state.origins.may_use_cookies(origin) || own.is_some() && own == host(&parts.headers)
        });
        if !is_known {
            return refused("A page of this origin may not write with the cookie of a session.");
        }
    }
    let mut shown = parts.headers.get_all(CSRF_HEADER).iter();
    match (shown.next().and_then(|value| value.to_str().ok()), shown.next()) {
        (Some(shown), None) if is_csrf(shown) => Ok(()),
        _ => refused("A write with the cookie of a session needs the header X-CSRF-Token; GET /api/me has its value."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("ASCII"));
        headers.insert(header::COOKIE, cookie.parse().expect("ASCII"));
        headers
    }

    #[test]
    fn a_cookie_is_read_by_the_name_that_its_host_demands() {
        let ticket = Ticket::generate(OrgId::generate()).expect("randomness");
        let text = ticket.text();
        let is_read = |host: &str, pairs: &str| {
            cookie(&headers(host, pairs)).is_some_and(|read| read == Cookie::Member(ticket.clone()))
        };
        assert!(is_read("127.0.0.1:8081", &format!("a=b; hookswitch_session={text}")));
        assert!(is_read("[::1]:8081", &format!("hookswitch_session={text}")));
        assert!(is_read("api.example.com", &format!("__Host-hookswitch_session={text}")));
        assert!(!is_read("api.example.com", &format!("hookswitch_session={text}")));
        assert!(!is_read("localhost.example.com", &format!("hookswitch_session={text}")));
        assert!(!is_read(
            "127.0.0.1",
            &format!("hookswitch_session={text}; hookswitch_session=x")
        ));
        assert!(!is_read("127.0.0.1", &format!("hookswitch_session={text}A")));
        assert!(!is_read("127.0.0.1", "hookswitch_session="));
    }

    #[test]
    fn only_a_loopback_host_gets_a_cookie_without_secure() {
        let ticket = Ticket::generate(OrgId::generate()).expect("randomness");
        let set = |host: &str| {
            let value = set_cookie(&headers(host, ""), Some((&ticket.text(), SESSION_LIFE)));
            value.to_str().expect("ASCII").to_owned()
        };
        for text in [set("localhost:8081"), set("api.example.com")] {
            for part in ["; Path=/;", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
                assert!(text.contains(part), "{text}");
            }
        }
        assert!(!set("localhost:8081").contains("Secure"));
        assert!(set("api.example.com").starts_with("__Host-") && set("api.example.com").ends_with("; Secure"));
    }
}
