//! Consent with PKCE, the exchange of a code, refresh and revocation
//! (docs:identity/protocols/oauth2/web-server, RFC 7636).

use super::*;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The answer of a token endpoint.
#[derive(Debug)]
pub struct Tokens {
    pub access_token: SecretBytes,
    /// Absent in the answer to a refresh: the former one stays.
    pub refresh_token: Option<SecretBytes>,
    pub expires_in: Duration,
    /// The granted scopes; absent where they did not change.
    pub scope: Option<String>,
    /// Google's own number of the account that granted it. Only the answer to a code has it.
    pub subject: Option<String>,
    /// The account's address, by which people know it.
    pub email: Option<String>,
}

/// Lifetimes that are believed: a token of no time is none, and one of years would never be
/// refreshed.
const EXPIRES_SECONDS: std::ops::RangeInclusive<u64> = 30..=86_400;

/// A PKCE verifier: 43 characters of 32 random bytes.
#[must_use]
pub fn verifier(random: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(random))
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// `{"error","error_description"}` (RFC 6749, section 5.2).
pub(super) fn problem(body: &[u8]) -> (Option<Box<str>>, String) {
    #[derive(Deserialize)]
    struct Problem {
        error: Option<Box<str>>,
        error_description: Option<String>,
    }
    serde_json::from_slice(body).map_or(
        (None, String::new()),
        |Problem {
             error,
             error_description,
         }| (error, error_description.unwrap_or_default()),
    )
}

impl GoogleClient {
    /// Where to send a person. `access_type=offline` with `prompt=consent`: without both, a
    /// reconnect gets no refresh token.
    #[must_use]
    pub fn consent_url(&self, state: &str, verifier: &str) -> Option<String> {
        let app = self.app()?;
        let scope = format!("{SCOPE_IDENTITY} {SCOPE_EVENTS} {SCOPE_FREE_BUSY}");
        let query = [
            ("client_id", app.client_id.as_str()),
            ("redirect_uri", &app.redirect_url),
            ("response_type", "code"),
            ("scope", &scope),
            ("access_type", "offline"),
            ("prompt", "consent"),
            ("state", state),
            ("code_challenge", &challenge(verifier)),
            ("code_challenge_method", "S256"),
        ];
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        Some(format!("{}?{}", self.consent_url, query.join("&")))
    }

    /// Turns a code into tokens.
    ///
    /// # Errors
    /// `Refused` with `invalid_grant` for a code that is wrong, used or of another verifier; see
    /// [`CallError`].
    pub async fn exchange(&self, code: &str, verifier: &str, deadline: Duration) -> Result<Tokens, CallError> {
        let Some(app) = self.app() else {
            return Err(self.tokens.no_answer("Google is not set up here"));
        };
        self.token(
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", &app.redirect_url),
                ("code_verifier", verifier),
            ],
            deadline,
        )
        .await
    }

    /// A new access token.
    ///
    /// # Errors
    /// `Refused` with `invalid_grant` where Google has revoked or forgotten the refresh token; see
    /// [`CallError`].
    pub async fn refresh(&self, refresh_token: &SecretBytes, deadline: Duration) -> Result<Tokens, CallError> {
        let token = std::str::from_utf8(refresh_token.expose_secret()).unwrap_or_default();
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)], deadline)
            .await
    }

    /// Takes back what was granted: of either token, both end. A token that Google knows no more is
    /// revoked already.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn revoke(&self, token: &SecretBytes, deadline: Duration) -> Result<(), CallError> {
        let text = std::str::from_utf8(token.expose_secret()).unwrap_or_default();
        match self
            .tokens
            .bytes(
                self.tokens.plain(Method::POST, "/revoke").form(&[("token", text)]),
                deadline,
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(CallError::Refused(ProviderRefusal {
                http_status: 400,
                code: Some(code),
                ..
            })) if &*code == "invalid_token" => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn token(&self, form: &[(&str, &str)], deadline: Duration) -> Result<Tokens, CallError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            refresh_token: Option<String>,
            expires_in: u64,
            scope: Option<String>,
            id_token: Option<String>,
        }
        let Some(app) = self.app() else {
            return Err(self.tokens.no_answer("Google is not set up here"));
        };
        let mut form = form.to_vec();
        form.extend([("client_id", app.client_id.as_str()), ("client_secret", app.secret())]);
        let granted: Granted = self
            .tokens
            .call(self.tokens.plain(Method::POST, "/token").form(&form), deadline)
            .await?;
        let is_usable =
            |token: &str| !token.is_empty() && token.len() <= 4096 && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_usable(&granted.access_token) || granted.refresh_token.as_deref().is_some_and(|token| !is_usable(token))
        {
            return Err(self.tokens.no_answer("the answer has no usable token"));
        }
        let identity = granted
            .id_token
            .map(Zeroizing::new)
            .and_then(|token| identity(&token, &app.client_id));
        let (subject, email) = identity.map_or((None, None), |found| (Some(found.sub), found.email));
        Ok(Tokens {
            access_token: granted.access_token.into(),
            refresh_token: granted.refresh_token.map(SecretBytes::from),
            expires_in: Duration::from_secs(
                granted
                    .expires_in
                    .clamp(*EXPIRES_SECONDS.start(), *EXPIRES_SECONDS.end()),
            ),
            scope: granted.scope,
            subject,
            email,
        })
    }
}

/// Whose account an ID token is of.
#[derive(Deserialize)]
struct Identity {
    sub: String,
    aud: String,
    email: Option<String>,
}

/// The account of an ID token. It came straight from Google's token endpoint over TLS, which
/// verifies its issuer (OpenID Connect Core, 3.1.3.7). The audience is checked all the same.
fn identity(id_token: &str, client_id: &str) -> Option<Identity> {
    let payload = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let mut claims: Identity = serde_json::from_slice(&payload).ok()?;
    claims.email = claims
        .email
        .filter(|email| email.len() <= 254 && email.bytes().all(|byte| byte.is_ascii_graphic()));
    (claims.aud == client_id && (1..=255).contains(&claims.sub.len())).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn a_challenge_is_the_hash_of_its_verifier() {
        let random = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
            240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        assert_eq!(&*verifier(&random), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(
            challenge(&verifier(&random)),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn only_an_id_token_that_is_ours_names_anyone() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(
            identity(
                &token(r#"{"sub":"1","aud":"us","iss":"x","email":"a@b.example"}"#),
                "us"
            )
            .map(|found| (found.sub, found.email)),
            Some(("1".to_owned(), Some("a@b.example".to_owned())))
        );
        let no_address = identity(&token(r#"{"sub":"1","aud":"us","email":"a b"}"#), "us").expect("an account");
        assert_eq!(no_address.email, None);
        for wrong in [
            token(r#"{"sub":"1","aud":"them"}"#),
            token(r#"{"sub":"","aud":"us"}"#),
            token(r#"{"aud":"us"}"#),
            "e30".to_owned(),
            String::new(),
        ] {
            assert!(identity(&wrong, "us").is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_was_granted_says_what_is_missing() {
        let missing = |scope: &str| {
            Granted::read(scope)
                .missing()
                .map(|text| text.split(':').next().unwrap_or_default())
        };
        assert_eq!(missing(&format!("openid {SCOPE_EVENTS} {SCOPE_FREE_BUSY}")), None);
        assert_eq!(missing("https://www.googleapis.com/auth/calendar"), None);
        assert_eq!(missing(SCOPE_EVENTS), Some("seeing when a calendar is free"));
        assert_eq!(missing(SCOPE_FREE_BUSY), Some("booking events"));
        assert_eq!(
            missing("openid https://www.googleapis.com/auth/calendar.events.owned.readonly"),
            Some("booking events and seeing when a calendar is free")
        );
    }
}
