//! Sessions of operators in browsers: an operator's token becomes a cookie.
//!
//! No table has them, because a session of a table belongs to an organisation. The cookie is a
//! token of its own, signed with the operators' key for an audience of its own. **Invariant:** it
//! is of no use as a bearer token, and a bearer token is of no use as a cookie. Both end with the
//! key.

use super::token::{self, Expected, Key};
use crate::{
    config::AdminSettings,
    domain::{Fingerprint, INSTALLATION, Timestamp},
    vault::Vault,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Shorter than an organisation's, because signing out cannot end a copy of the cookie.
pub const OPERATOR_SESSION_LIFE: Duration = Duration::from_hours(1);
/// Browsers keep no cookie above 4 KiB.
const TICKET_BYTES_MAX: usize = 3 << 10;

/// The operators' key, and the audiences that it is used for.
pub struct OperatorKeys {
    pub(super) key: Key,
    pub(super) token: Expected,
    session: Expected,
    signing: EncodingKey,
}

/// The content of an operator's cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorTicket(String);

impl OperatorTicket {
    /// A text with the three parts of a token. [`OperatorKeys::open`] checks them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_ticket = text.len() <= TICKET_BYTES_MAX && text.split('.').count() == 3;
        is_ticket.then(|| Self(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of the header that writes need beside this cookie.
    pub fn csrf(&self, vault: &Vault) -> String {
        vault.fingerprint(INSTALLATION, &self.csrf_text()).0.to_string()
    }

    pub fn is_csrf(&self, vault: &Vault, shown: &str) -> bool {
        vault.is_fingerprint_of(&Fingerprint(shown.into()), INSTALLATION, &self.csrf_text())
    }

    fn csrf_text(&self) -> Vec<u8> {
        [b"csrf:operator:".as_slice(), &Sha256::digest(&self.0)].concat()
    }
}

impl OperatorKeys {
    /// `None` without a secret of operators.
    pub fn new(settings: &AdminSettings) -> Option<Self> {
        let secret = settings.operator_jwt_secret.as_ref()?.expose_secret().as_bytes();
        let expected = |audience| Expected {
            issuer: settings.operator_jwt_issuer.clone(),
            audience,
        };
        Some(Self {
            key: Key {
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            },
            token: expected(settings.operator_jwt_audience.clone()),
            session: expected(format!("{}/session", settings.operator_jwt_audience)),
            signing: EncodingKey::from_secret(secret),
        })
    }

    /// A session of an operator. `None`: the system gives no randomness, or the name is too long
    /// for a cookie.
    pub fn begin(&self, subject: &str, expires_at: Timestamp) -> Option<OperatorTicket> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let claims = json!({
            "iss": self.session.issuer,
            "aud": self.session.audience,
            "sub": subject,
            "exp": expires_at.as_seconds(),
            "jti": hex::encode(random),
            "hookswitch_role": "operator",
        });
        let text = encode(&Header::default(), &claims, &self.signing).ok()?;
        OperatorTicket::parse(&text)
    }

    /// The operator of a session that has not ended, and its end.
    pub fn open(&self, ticket: &OperatorTicket, now: Timestamp) -> Option<(String, Timestamp)> {
        let token = token::parse(&ticket.0).ok()?;
        if !token.is_signed_by(&self.key) {
            return None;
        }
        let found = token::operator(&token, &self.session, now).ok()?;
        // Our own clock made the end, so that it needs no leeway.
        Some(found).filter(|(_, expires_at)| *expires_at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str, audience: &str) -> OperatorKeys {
        let settings = AdminSettings {
            operator_jwt_secret: Some(secret.into()),
            operator_jwt_audience: audience.to_owned(),
            ..AdminSettings::default()
        };
        OperatorKeys::new(&settings).expect("a secret")
    }

    #[test]
    fn a_session_opens_until_its_end_by_its_own_key_and_audience() {
        let (now, hour) = (Timestamp::from_seconds(1_000), Duration::from_hours(1));
        let own = keys("a-secret-of-operators-with-32-bytes", "operators");
        let ticket = own.begin("Zoë", now + hour).expect("randomness");
        assert_eq!(own.open(&ticket, now), Some(("Zoë".to_owned(), now + hour)));
        assert_eq!(own.open(&ticket, now + hour), None, "its end has no leeway");
        assert!(ticket != own.begin("Zoë", now + hour).expect("randomness"));
        let changed = keys("another-secret-of-operators-32-bytes", "operators");
        assert_eq!(changed.open(&ticket, now), None, "the key was changed");
        let elsewhere = keys("a-secret-of-operators-with-32-bytes", "others");
        assert_eq!(elsewhere.open(&ticket, now), None, "another installation");
        let long = "x".repeat(4_000);
        assert!(own.begin(&long, now + hour).is_none(), "no browser keeps such a cookie");
    }
}
