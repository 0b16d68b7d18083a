//! Which web pages of other origins may read the answers of this API (CORS, by setting).
//!
//! **Invariant:** an origin is compared whole, byte for byte. Neither a part of it nor a pattern
//! matches. The answers to an origin that is not listed carry no header of CORS, so that its
//! browser keeps them from the page.

use super::problem::{Code, Problem};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};

/// The item of the setting that stands for every origin on the loopback interface.
const LOOPBACK: &str = "loopback";
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-none-match, idempotency-key, x-csrf-token");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, location, retry-after, x-request-id, ratelimit, ratelimit-policy, deprecation, www-authenticate",
);
/// How long a browser keeps the answer to a preflight. Chromium keeps none for longer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// The origins of the setting.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    exact: Vec<String>,
    any_loopback: bool,
}

/// The permissions of an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// Reads answers, with a bearer token or with the cookie of a session.
    Listed,
    /// Reads answers with a bearer token. The cookie of a session is not for every program that
    /// listens on some port of this machine.
    Loopback,
    No,
}

impl Origins {
    /// # Errors
    /// An item that is neither an origin as browsers send it nor `loopback`.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        let mut origins = Self::default();
        for item in items {
            if item == LOOPBACK {
                origins.any_loopback = true;
            } else if is_origin(item) {
                origins.exact.push(item.clone());
            } else {
                return Err(format!(
                    "expected origins such as https://app.example.com, in small letters and without a path, or \
                    {LOOPBACK}"
                ));
            }
        }
        Ok(origins)
    }

    fn trust(&self, origin: &str) -> Trust {
        if self.exact.iter().any(|listed| listed == origin) {
            Trust::Listed
        } else if self.any_loopback && is_loopback(origin) {
            Trust::Loopback
        } else {
            Trust::No
        }
    }

    /// Whether people may be sent back to a page of this origin.
    #[must_use]
    pub fn contains(&self, origin: &str) -> bool {
        self.trust(origin) != Trust::No
    }

    /// Whether a page of this origin may use the cookie of a session.
    #[must_use]
    pub fn may_use_cookies(&self, origin: &str) -> bool {
        self.trust(origin) == Trust::Listed
    }

    /// The answer to a preflight; `None` where the request is none. It needs no token: browsers
    /// send none with it.
    #[must_use]
    pub fn preflight(&self, request: &Parts) -> Option<Response> {
        let is_preflight =
            request.method == Method::OPTIONS && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = origin_of(&request.headers).filter(|_| is_preflight)?;
        if self.trust(origin) == Trust::No {
            let problem = Problem::new(Code::OriginNotAllowed).detail(
                "Pages of this origin may not use this API: the operator lists origins in HOOKSWITCH_ADMIN_ORIGINS.",
            );
            return Some(problem.into_response());
        }
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            (header::VARY, PREFLIGHT_VARY),
        ];
        Some((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// Adds the headers of CORS to an answer. `Vary` stands on every one: a cache in between must
    /// not give the answer for one origin to another.
    pub fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if !headers.contains_key(header::VARY) {
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = origin else { return };
        let trust = origin.to_str().map_or(Trust::No, |text| self.trust(text));
        if trust == Trust::No {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if trust == Trust::Listed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }
}

/// The origin that a request names, if it names exactly one.
#[must_use]
pub fn origin_of(headers: &HeaderMap) -> Option<&str> {
    one(headers, &header::ORIGIN)
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Scheme, host, and port where it is not the scheme's own: nothing behind them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let is_plain = rest.bytes().all(|byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
    });
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let own_port = if scheme == "https" { 443 } else { 80 };
    matches!(scheme, "https" | "http")
        && is_plain
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.port_u16() != Some(own_port)
        && !rest.ends_with(':')
}

fn is_loopback(origin: &str) -> bool {
    let host = origin
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.host().map(str::to_owned));
    is_origin(origin) && host.is_some_and(|host| is_loopback_host(&host))
}

/// `localhost` and the two addresses that every machine has for itself.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(items: &[&str]) -> Result<Origins, String> {
        Origins::parse(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_setting_that_no_browser_would_match_is_refused() {
        for good in [
            "https://app.example.com",
            "http://localhost:5173",
            "https://app.example.com:8443",
            "http://[::1]:3000",
            "loopback",
        ] {
            assert!(origins(&[good]).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://*.example.com",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://user@app.example.com",
            "https://app.example.com:",
            "ftp://app.example.com",
            "https://",
        ] {
            assert!(origins(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_matches_whole_or_not_at_all() {
        let listed = origins(&["https://good.example"]).expect("an origin");
        assert_eq!(listed.trust("https://good.example"), Trust::Listed);
        let dev = origins(&["loopback"]).expect("loopback");
        for origin in [
            "http://localhost:5173",
            "http://127.0.0.1:8081",
            "http://[::1]:1",
            "https://localhost",
        ] {
            assert_eq!(dev.trust(origin), Trust::Loopback, "{origin}");
            assert_eq!(listed.trust(origin), Trust::No, "{origin}");
        }
        for other in [
            "null",
            "",
            "*",
            "http://good.example",
            "https://good.example.evil",
            "https://good.example:8443",
            "https://evil-good.example",
            "https://sub.good.example",
            "https://GOOD.example",
            "https://good.example/",
            "http://localhost.evil",
            "http://127.0.0.1.evil",
            "http://localhost@evil",
            "http://localhost:1/x",
            "http://127.0.0.2",
        ] {
            assert_eq!(listed.trust(other), Trust::No, "{other}");
            assert_eq!(dev.trust(other), Trust::No, "{other}");
        }
    }
}
