//! The form in which a GET is answered: 304 where the caller has it already, compressed where that
//! is worth it.
//!
//! **Invariant:** only what a GET reads is compressed. An answer that shows a secret is the answer
//! to a POST.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use std::io::Write;

/// Below it, a packet holds the answer either way.
const COMPRESSED_BYTES_MIN: usize = 1 << 10;
const JSON: &str = "application/json";

/// Completes the answer to a GET that was sent with `asked`.
pub async fn represent(asked: &HeaderMap, response: Response) -> Response {
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes() == JSON.as_bytes());
    if response.status() != StatusCode::OK || !is_json {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        // Its bytes are in memory already.
        return Response::from_parts(head, Body::empty());
    };
    let bytes = collected.to_bytes();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers
        .insert(header::VARY, HeaderValue::from_static("accept-encoding, origin"));
    // A resource with a version has the tag of its version.
    if !head.headers.contains_key(header::ETAG) {
        let tag = weak_tag(&bytes);
        let is_known = knows(asked, &tag);
        head.headers.insert(header::ETAG, tag);
        if is_known {
            head.status = StatusCode::NOT_MODIFIED;
            head.headers.remove(header::CONTENT_TYPE);
            return Response::from_parts(head, Body::empty());
        }
    }
    if bytes.len() < COMPRESSED_BYTES_MIN || !takes_gzip(asked) {
        return Response::from_parts(head, Body::from(bytes));
    }
    head.headers
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(head, Body::from(compress(&bytes)))
}

/// A tag of the text itself. Weak, because the compressed answer has the same.
fn weak_tag(bytes: &Bytes) -> HeaderValue {
    let hash = hex::encode(Sha256::digest(bytes));
    HeaderValue::from_str(&format!("W/\"{}\"", &hash[..32])).expect("hex in quotes")
}

fn knows(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |text: &str| text.trim().trim_start_matches("W/").to_owned();
    let tag = tag.to_str().map(opaque).unwrap_or_default();
    asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|shown| shown.trim() == "*" || opaque(shown) == tag)
}

/// Whether `gzip` is named with a weight above 0.
fn takes_gzip(asked: &HeaderMap) -> bool {
    asked
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            is_gzip && weight.is_none_or(|text| text.parse::<f32>().is_ok_and(|weight| weight > 0.0))
        })
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all that memory holds");
    encoder.finish().expect("a vector takes all that memory holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("ASCII"))])
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        for (value, takes) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("identity", false),
            ("x-gzip", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&asks(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
    }

    #[test]
    fn a_tag_matches_weak_or_strong_alone_or_in_a_list() {
        let tag = HeaderValue::from_static("W/\"abc\"");
        for (value, is_known) in [
            ("W/\"abc\"", true),
            ("\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"ab\"", false),
            ("abc", false),
        ] {
            assert_eq!(knows(&asks(header::IF_NONE_MATCH, value), &tag), is_known, "{value}");
        }
    }
}
