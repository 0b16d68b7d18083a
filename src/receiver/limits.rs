//! The limits that a request meets before its body is believed: path, method, head, size, time.
//! Nothing is normalised.

use super::{answer::Cause, unknown_ids::peer_ip};
use crate::{
    domain::{EndpointId, Source},
    listener::{Networks, Peer},
};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Version, header, request};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// The parsed path of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WebhookPath {
    pub source: Source,
    pub endpoint: Option<EndpointId>,
}

/// Exactly `/webhooks/{source}` or `/webhooks/{source}/{endpoint}`, byte for byte.
fn webhook_path(path: &str) -> Option<WebhookPath> {
    let rest = path.strip_prefix("/webhooks/")?;
    let (source, endpoint) = rest
        .split_once('/')
        .map_or((rest, None), |(source, endpoint)| (source, Some(endpoint)));
    let source = match source {
        "vapi" => Source::Vapi,
        "twilio" => Source::Twilio,
        _ => return None,
    };
    let endpoint = endpoint.map(str::parse).transpose().ok()?;
    Some(WebhookPath { source, endpoint })
}

/// An endpoint's own URL with something added, so that its organisation sees the mistake.
fn nearest_path(path: &str) -> Option<WebhookPath> {
    let mut segments = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .skip_while(|s| *s != "webhooks");
    let (_, source, endpoint) = (segments.next()?, segments.next()?, segments.next()?);
    webhook_path(&format!("/webhooks/{source}/{endpoint}"))
}

/// Checks everything that the head alone decides, in the order of the answers' table.
pub(super) fn check_head(
    head: &request::Parts,
    path_bytes_max: usize,
    body_bytes_max: usize,
) -> Result<WebhookPath, (Cause, Option<WebhookPath>)> {
    let target = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if target.len() > path_bytes_max {
        return Err((Cause::PathTooLong, None));
    }
    // Both forms of the target that RFC 9112, section 3.2, lets a client send to a server.
    let is_origin_form = head.uri.scheme().is_none() && head.uri.authority().is_none();
    let path = if is_origin_form || matches!(head.uri.scheme_str(), Some("http" | "https")) {
        webhook_path(head.uri.path())
    } else {
        None
    };
    let path = path.ok_or_else(|| (Cause::NotFound, nearest_path(head.uri.path())))?;
    let refuse = |cause| Err((cause, Some(path)));
    if head.method != Method::POST {
        return refuse(Cause::MethodNotAllowed);
    }
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) || !is_host_valid(&head.headers) {
        return refuse(Cause::NotTheFormat);
    }
    if head.headers.get_all(header::CONTENT_TYPE).iter().nth(1).is_some() {
        return refuse(Cause::NotTheFormat);
    }
    if !is_content_type_accepted(path.source, &head.headers) || is_encoded(&head.headers) {
        return refuse(Cause::UnsupportedMediaType);
    }
    if content_length(&head.headers).is_some_and(|length| length > body_bytes_max as u64) {
        return refuse(Cause::TooLarge);
    }
    Ok(path)
}

/// A host with a port or without, or nothing (RFC 9112, section 3.2).
fn is_host_valid(headers: &HeaderMap) -> bool {
    headers.get(header::HOST).is_none_or(|host| {
        let host = host.as_bytes();
        host.is_empty() || (!host.contains(&b'@') && http::uri::Authority::try_from(host).is_ok())
    })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Signatures are over raw bytes, and nothing is ever inflated here.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The media types that the source documents, with no parameter but `charset=utf-8`.
fn is_content_type_accepted(source: Source, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let taken: &[&str] = match source {
        Source::Twilio => &["application/x-www-form-urlencoded", "application/json"],
        _ => &["application/json"],
    };
    taken.iter().any(|known| essence.eq_ignore_ascii_case(known)) && parts.all(is_utf8_charset)
}

fn is_utf8_charset(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return parameter.is_empty();
    };
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("charset")
        && (value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8"))
}

/// Limits the bytes of all bodies in memory together, so that many large ones cannot take all
/// memory.
#[derive(Debug)]
pub(super) struct BodyMemory {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl BodyMemory {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    const fn reserve(&self) -> BodyReservation<'_> {
        BodyReservation { memory: self, bytes: 0 }
    }
}

/// One request's part of the memory; given back when dropped.
#[derive(Debug)]
pub(super) struct BodyReservation<'h> {
    memory: &'h BodyMemory,
    bytes: usize,
}

impl BodyReservation<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Cause> {
        let before = self.memory.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.memory.bytes_max {
            Err(Cause::Unavailable)
        } else {
            Ok(())
        }
    }
}

impl Drop for BodyReservation<'_> {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How long a body may go on arriving after the soft stop.
const STOP_SECONDS: Duration = Duration::from_secs(1);

/// Collects a body, counting bytes as they arrive and never reading past the limit. A body that
/// came in one piece is not copied.
pub(super) async fn collect<'h>(
    body: Body,
    bytes_max: usize,
    seconds_max: Duration,
    peer: &Peer,
    memory: &'h BodyMemory,
) -> Result<(Bytes, BodyReservation<'h>), Cause> {
    let mut reservation = memory.reserve();
    let stopped = async {
        peer.stopping.cancelled().await;
        tokio::time::sleep(STOP_SECONDS).await;
    };
    let bytes = tokio::select! {
        biased;
        bytes = pieces(body, bytes_max, &mut reservation) => bytes?,
        () = tokio::time::sleep(seconds_max) => return Err(Cause::Timeout),
        () = stopped => return Err(Cause::Unavailable),
    };
    Ok((bytes, reservation))
}

async fn pieces(mut body: Body, bytes_max: usize, reservation: &mut BodyReservation<'_>) -> Result<Bytes, Cause> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        // Trailers are read and dropped: they never count as headers.
        let Ok(data) = frame.map_err(|_| Cause::NotTheFormat)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > bytes_max {
            return Err(Cause::TooLarge);
        }
        reservation.grow(data.len())?;
        match &mut rest {
            None if first.is_empty() => {
                first = data;
                if body.is_end_stream() {
                    break;
                }
            }
            None => {
                let mut joined = BytesMut::with_capacity((first.len() + data.len()).max(first.len() * 2));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
            Some(joined) => joined.extend_from_slice(&data),
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// The URL as the sender saw it: from the setting, else from a trusted proxy's headers, else from
/// the request itself (a development machine).
pub(super) fn public_url(setting: Option<&str>, trusted: &Networks, peer: &Peer, head: &request::Parts) -> String {
    let target = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if let Some(base) = setting {
        return [base, target].concat();
    }
    let is_from_proxy = trusted.contain(peer_ip(peer));
    let from_proxy = |name: &HeaderName| {
        let value = head.headers.get(name).filter(|_| is_from_proxy)?.to_str().ok()?;
        // The first value is the one that the outermost proxy saw.
        value.split(',').next().map(str::trim).filter(|value| !value.is_empty())
    };
    let scheme = from_proxy(&X_FORWARDED_PROTO)
        .filter(|scheme| matches!(*scheme, "http" | "https"))
        .unwrap_or("http");
    // The host of an absolute target counts in place of the header's (RFC 9112, section 3.2.2).
    let own = head.uri.authority().map(http::uri::Authority::as_str).or_else(|| {
        let host = head.headers.get(header::HOST)?;
        host.to_str().ok()
    });
    let own = own.unwrap_or_default();
    let host = from_proxy(&X_FORWARDED_HOST).unwrap_or(own);
    [scheme, "://", host, target].concat()
}

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn only_the_two_forms_of_a_path_lead_anywhere() {
        let id = "0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e";
        assert_eq!(
            webhook_path("/webhooks/vapi"),
            Some(WebhookPath {
                source: Source::Vapi,
                endpoint: None
            })
        );
        assert_eq!(
            webhook_path(&format!("/webhooks/twilio/{id}")),
            Some(WebhookPath {
                source: Source::Twilio,
                endpoint: Some(id.parse().unwrap())
            })
        );
        for text in [
            "",
            "/",
            "*",
            "/webhooks",
            "/webhooks/",
            "/webhooks//vapi",
            "//webhooks/vapi",
            "/webhooks/vapi/",
            "/webhooks/VAPI",
            "/Webhooks/vapi",
            "/webhooks/vapi;x",
            "/webhooks/vapi/../twilio",
            "/webhooks/%76api",
            "/webhooks/vapi%2F",
            "/webhooks/resend",
            "/webhooks/vapi/{0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e}",
            "/webhooks/vapi/0190a6e25b4c7c3a9d112f5a6b7c8d9e",
            "/webhooks/vapi/urn:uuid:0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e",
            "/webhooks/vapi/0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e/",
            "/webhooks/vapi/0190a6e2-5b4c-7c3a-9d11-2f5a6b7c8d9e;x",
            "/webhooks/vapi/0190a6e2%2D5b4c-7c3a-9d11-2f5a6b7c8d9",
            "/webhooks/vapi/x",
        ] {
            assert_eq!(webhook_path(text), None, "{text}");
        }
    }

    #[test]
    fn content_types_are_those_that_the_source_documents() {
        let check = |source, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_content_type_accepted(source, &headers)
        };
        for (source, value, taken) in [
            (Source::Vapi, "application/json", true),
            (Source::Vapi, "Application/JSON; Charset=\"UTF-8\"", true),
            (Source::Vapi, "application/json;", true),
            (Source::Vapi, "application/json; charset=utf-16", false),
            (Source::Vapi, "application/json; boundary=x", false),
            (Source::Vapi, "application/x-www-form-urlencoded", false),
            (Source::Vapi, "application/jsonx", false),
            (Source::Vapi, "text/plain", false),
            (Source::Vapi, "", false),
            (Source::Twilio, "application/x-www-form-urlencoded; charset=UTF-8", true),
            (Source::Twilio, "application/json", true),
            (Source::Twilio, "multipart/form-data; boundary=x", false),
        ] {
            assert_eq!(check(source, value), taken, "{source} {value}");
        }
        assert!(!is_content_type_accepted(Source::Vapi, &HeaderMap::new()));
    }

    #[test]
    fn the_url_is_the_senders_and_only_a_trusted_proxy_may_tell_another() {
        let head = |headers: &[(&str, &str)]| {
            let mut request = Request::post("/webhooks/twilio?b=2&a=%2F");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        };
        let peer = |ip: &str| Peer {
            address: format!("{ip}:9").parse().unwrap(),
            stopping: tokio_util::sync::CancellationToken::new(),
        };
        let trusted = Networks::parse(&["10.0.0.0/8".to_owned()]).unwrap();
        let forwarded = [
            ("host", "inner"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "hooks.example, inner"),
        ];
        for (setting, from, headers, url) in [
            (
                Some("https://set.example"),
                "10.0.0.1",
                &forwarded[..],
                "https://set.example/webhooks/twilio?b=2&a=%2F",
            ),
            (
                None,
                "10.0.0.1",
                &forwarded[..],
                "https://hooks.example/webhooks/twilio?b=2&a=%2F",
            ),
            (
                None,
                "203.0.113.1",
                &forwarded[..],
                "http://inner/webhooks/twilio?b=2&a=%2F",
            ),
            (
                None,
                "10.0.0.1",
                &forwarded[..1],
                "http://inner/webhooks/twilio?b=2&a=%2F",
            ),
            (
                None,
                "10.0.0.1",
                &[("host", "inner"), ("x-forwarded-proto", "gopher")],
                "http://inner/webhooks/twilio?b=2&a=%2F",
            ),
        ] {
            assert_eq!(
                public_url(setting, &trusted, &peer(from), &head(headers)),
                url,
                "{setting:?} {from} {headers:?}"
            );
        }
    }

    #[test]
    fn bodies_in_memory_have_one_limit_together() {
        let memory = BodyMemory::new(10);
        let mut first = memory.reserve();
        assert_eq!(first.grow(6), Ok(()));
        let mut second = memory.reserve();
        assert_eq!(second.grow(4), Ok(()), "at the limit");
        assert_eq!(second.grow(1), Err(Cause::Unavailable), "one over it");
        drop(first);
        assert_eq!(second.grow(1), Ok(()));
        drop(second);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }
}
