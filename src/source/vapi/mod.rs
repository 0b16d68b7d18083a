//! Vapi: its custom credentials (HMAC and bearer, with every option of its API description) and its
//! messages.
//!
//! A plan whose `payloadFormat` names no `{timestamp}`, and every bearer plan, has no replay
//! window. An attacker who replays the request could set an unsigned timestamp anew, so its header
//! is ignored. Only the dedupe key guards such plans. A bearer secret proves nothing about the
//! body; [`super::Plan::signs_body`] says so.

mod plan;
mod read;

pub use plan::{BearerPlan, BearerPlanText, Encoding, HmacPlan, HmacPlanText, PlanFault, VapiPlan};
pub(super) use plan::{Scheme, Segment};
pub(super) use read::read;

use super::{HmacKey, Refusal, Request, SECRET_BYTES_MAX, only_header};
use crate::domain::{SecretBytes, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;

pub(super) enum VapiKey {
    Hmac {
        scheme: Box<Scheme>,
        key: HmacKey,
    },
    /// The token is kept as a digest: comparing digests takes the same time whatever the lengths,
    /// and no plaintext stays in memory.
    Bearer {
        header: http::HeaderName,
        prefix: &'static str,
        token: [u8; 32],
    },
}

impl VapiKey {
    /// The least bytes of key are the caller's to choose, see [`super::SigningKey`].
    pub(super) fn new(plan: &VapiPlan, secret: &SecretBytes, bytes_min: usize) -> Result<Self, Refusal> {
        Ok(match plan {
            VapiPlan::Hmac(plan) => {
                let scheme = plan.scheme();
                let key = hmac_key(&scheme, secret, bytes_min)?;
                Self::Hmac {
                    scheme: Box::new(scheme),
                    key,
                }
            }
            VapiPlan::Bearer(plan) => {
                check_length(secret.expose_secret(), bytes_min)?;
                Self::Bearer {
                    header: plan.header(),
                    prefix: plan.prefix(),
                    token: Sha256::digest(secret.expose_secret()).into(),
                }
            }
        })
    }

    pub(super) fn verify(&self, request: &Request<'_>, now: Timestamp) -> Result<(), Refusal> {
        match self {
            Self::Hmac { scheme, key } => verify_hmac(scheme, key, request, now),
            Self::Bearer { header, prefix, token } => {
                let digest: [u8; 32] = Sha256::digest(token_of(request, header, prefix)?).into();
                if bool::from(digest.ct_eq(token)) {
                    Ok(())
                } else {
                    Err(Refusal::SignatureMismatch)
                }
            }
        }
    }

    /// The token that a request carries. A signature is none.
    pub(super) fn token_carried<'r>(&self, request: &Request<'r>) -> Option<&'r [u8]> {
        match self {
            Self::Hmac { .. } => None,
            Self::Bearer { header, prefix, .. } => token_of(request, header, prefix).ok(),
        }
    }
}

fn token_of<'r>(request: &Request<'r>, header: &http::HeaderName, prefix: &str) -> Result<&'r [u8], Refusal> {
    only_header(request.headers, header, Refusal::SignatureRepeated)?
        .ok_or(Refusal::SignatureMissing)?
        .strip_prefix(prefix.as_bytes())
        .ok_or(Refusal::SignatureMalformed)
}

pub(super) fn hmac_key(scheme: &Scheme, secret: &SecretBytes, bytes_min: usize) -> Result<HmacKey, Refusal> {
    if scheme.secret_is_base64 {
        let decoded = zeroize::Zeroizing::new(
            BASE64
                .decode(secret.expose_secret())
                .map_err(|_| Refusal::SecretMalformed)?,
        );
        check_length(&decoded, bytes_min)?;
        return Ok(HmacKey::new(scheme.algorithm, &decoded));
    }
    check_length(secret.expose_secret(), bytes_min)?;
    Ok(HmacKey::new(scheme.algorithm, secret.expose_secret()))
}

fn check_length(key: &[u8], bytes_min: usize) -> Result<(), Refusal> {
    match key.len() {
        len if len < bytes_min.max(1) => Err(Refusal::SecretTooShort),
        len if len > SECRET_BYTES_MAX => Err(Refusal::SecretMalformed),
        _ => Ok(()),
    }
}

fn verify_hmac(scheme: &Scheme, key: &HmacKey, request: &Request<'_>, now: Timestamp) -> Result<(), Refusal> {
    let signature = only_header(request.headers, &scheme.signature_header, Refusal::SignatureRepeated)?
        .ok_or(Refusal::SignatureMissing)?;
    let signature = signature
        .strip_prefix(scheme.signature_prefix.as_bytes())
        .ok_or(Refusal::SignatureMalformed)?;
    let mut decoded = [0; 64];
    let signature = decode(scheme, signature, &mut decoded).ok_or(Refusal::SignatureMalformed)?;

    let timestamp = match &scheme.timestamp_header {
        None => b"",
        Some(name) => {
            only_header(request.headers, name, Refusal::TimestampMalformed)?.ok_or(Refusal::TimestampMissing)?
        }
    };
    let message_id = match &scheme.message_id_header {
        None => b"",
        Some(name) => {
            only_header(request.headers, name, Refusal::MessageIdRepeated)?.ok_or(Refusal::MessageIdMissing)?
        }
    };
    if !key.verify(scheme.parts(request, timestamp, message_id), signature) {
        return Err(Refusal::SignatureMismatch);
    }
    if scheme.timestamp_header.is_some() {
        judge(timestamp, scheme.window, now)
    } else {
        Ok(())
    }
}

impl Scheme {
    /// The signed text, in pieces.
    pub(super) fn parts<'r>(
        &'r self,
        request: &'r Request<'r>,
        timestamp: &'r [u8],
        message_id: &'r [u8],
    ) -> impl Iterator<Item = &'r [u8]> {
        self.segments.iter().map(move |segment| match segment {
            Segment::Literal(text) => text.as_bytes(),
            Segment::Body => request.body,
            Segment::Timestamp => timestamp,
            Segment::Method => request.method.as_bytes(),
            Segment::Url => request.url.as_bytes(),
            Segment::MessageId => message_id,
        })
    }
}

fn decode<'b>(scheme: &Scheme, text: &[u8], into: &'b mut [u8; 64]) -> Option<&'b [u8]> {
    let len = scheme.algorithm.signature_bytes();
    match scheme.encoding {
        Encoding::Hex => {
            if text.len() != 2 * len || text.iter().any(u8::is_ascii_uppercase) {
                return None;
            }
            hex::decode_to_slice(text, &mut into[..len]).ok()?;
        }
        Encoding::Base64 => {
            if text.len() != len.div_ceil(3) * 4 || BASE64.decode_slice(text, into).ok()? != len {
                return None;
            }
        }
    }
    Some(&into[..len])
}

/// From this number on a timestamp counts milliseconds: as seconds it would lie in the year 5138,
/// as milliseconds in 1973.
const MILLISECONDS_FROM: u64 = 100_000_000_000;
/// From this number on it is neither: as milliseconds it would lie in the year 5138 too.
const MILLISECONDS_TO: u64 = 100_000_000_000_000;

/// Seconds or milliseconds, by size (Vapi does not document its unit), compared in that unit,
/// inclusive on both ends.
fn judge(text: &[u8], window: Duration, now: Timestamp) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > 14 || text[0] == b'0' || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::TimestampMalformed);
    }
    let number = text
        .iter()
        .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    let (now, window) = match number {
        0..MILLISECONDS_FROM => (now.as_seconds(), window.as_secs()),
        MILLISECONDS_FROM..MILLISECONDS_TO => (now.as_micros().div_euclid(1000), window.as_secs() * 1000),
        _ => return Err(Refusal::TimestampMalformed),
    };
    let (signed, window) = (number.cast_signed(), window.cast_signed());
    if now.saturating_sub(signed) > window {
        return Err(Refusal::TooOld);
    }
    if signed.saturating_sub(now) > window {
        return Err(Refusal::TooFarAhead);
    }
    Ok(())
}
