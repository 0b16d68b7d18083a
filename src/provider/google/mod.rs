//! Google: consent and tokens ([`oauth`]), and the calendar ([`calendar`]).
//!
//! **Invariant:** tokens are values that are passed to each call; a client keeps none.

pub mod calendar;
pub mod oauth;

use super::{CallError, ProviderRefusal, api::Api, http::HttpClient};
use crate::domain::SecretBytes;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;

/// Booking on calendars that the person owns.
pub const SCOPE_EVENTS: &str = "https://www.googleapis.com/auth/calendar.events.owned";
/// Seeing when they are free.
pub const SCOPE_FREE_BUSY: &str = "https://www.googleapis.com/auth/calendar.freebusy";
/// The scope that gives a lasting number of the account, and no other data of the person.
const SCOPE_IDENTITY: &str = "openid email";

/// The registration of this installation at Google.
#[derive(Clone)]
pub struct GoogleApp {
    pub client_id: String,
    pub client_secret: SecretString,
    /// Where Google sends people back to: exactly as it is registered there.
    pub redirect_url: String,
}

impl std::fmt::Debug for GoogleApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoogleApp")
            .field("client_id", &self.client_id)
            .field("redirect_url", &self.redirect_url)
            .finish_non_exhaustive()
    }
}

impl GoogleApp {
    fn secret(&self) -> &str {
        self.client_secret.expose_secret()
    }
}

#[derive(Clone, Debug)]
pub struct GoogleClient {
    /// `None`: the operator has not set it up.
    app: Option<GoogleApp>,
    consent_url: String,
    tokens: Api,
    calendar: Api,
    refresh_before: Duration,
}

/// Where Google is, and how long before its end a token is refreshed.
#[derive(Debug)]
pub struct GoogleUrls {
    pub consent: String,
    pub tokens: String,
    pub calendar: String,
    pub refresh_before: Duration,
}

impl GoogleClient {
    #[must_use]
    pub fn new(app: Option<GoogleApp>, urls: GoogleUrls, http: &HttpClient) -> Self {
        Self {
            app,
            consent_url: urls.consent,
            tokens: Api::new(urls.tokens, http.clone(), oauth::problem),
            calendar: Api::new(urls.calendar, http.clone(), calendar::problem),
            refresh_before: urls.refresh_before,
        }
    }

    #[must_use]
    pub const fn refresh_before(&self) -> Duration {
        self.refresh_before
    }

    /// Our registration at Google, where it is set up.
    #[must_use]
    pub const fn app(&self) -> Option<&GoogleApp> {
        self.app.as_ref()
    }
}

/// The granted part of the scopes that were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub events: bool,
    pub free_busy: bool,
}

impl Granted {
    /// People can untick boxes: Google says what was left
    /// (docs:identity/protocols/oauth2/web-server).
    #[must_use]
    pub fn read(scope: &str) -> Self {
        let has = |wanted: &[&str]| scope.split(' ').any(|granted| wanted.contains(&granted));
        const ALL: &str = "https://www.googleapis.com/auth/calendar";
        const EVENTS: &str = "https://www.googleapis.com/auth/calendar.events";
        Self {
            events: has(&[SCOPE_EVENTS, EVENTS, ALL]),
            free_busy: has(&[SCOPE_FREE_BUSY, ALL]),
        }
    }

    /// Which of our features are taken away; `None`: none.
    #[must_use]
    pub const fn missing(self) -> Option<&'static str> {
        match (self.events, self.free_busy) {
            (true, true) => None,
            (true, false) => Some("seeing when a calendar is free: the box was not ticked on Google's page"),
            (false, true) => Some("booking events: the box was not ticked on Google's page"),
            (false, false) => {
                Some("booking events and seeing when a calendar is free: no box was ticked on Google's page")
            }
        }
    }
}

/// A text as a query or form carries it.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes every text");
        }
    }
    out
}
