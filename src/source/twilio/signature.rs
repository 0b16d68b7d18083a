//! `X-Twilio-Signature`: the URL, then the sorted pairs of the form, HMAC-SHA1 under the auth
//! token; or HMAC-SHA256 and SHA-1 under a shared key.

use super::{
    super::{HmacAlgorithm, HmacKey, Refusal, Request, SECRET_BYTES_MAX, only_header},
    Form, SignedUrl, TwilioPlan, is_form,
};
use crate::domain::SecretBytes;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::HeaderName;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(in crate::source) const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("x-twilio-signature");
pub(in crate::source) const SETTINGS_HEADER: HeaderName =
    HeaderName::from_static("x-twilio-webhooks-signature-settings");

pub(in crate::source) struct TwilioKey {
    sha1: HmacKey,
    sha256: HmacKey,
    /// The id of the shared key; `None` for an auth token.
    shared_key: Option<Box<[u8]>>,
}

impl TwilioKey {
    pub(in crate::source) fn new(plan: &TwilioPlan, secret: &SecretBytes, bytes_min: usize) -> Result<Self, Refusal> {
        let secret = secret.expose_secret();
        if secret.len() < bytes_min.max(1) {
            return Err(Refusal::SecretTooShort);
        }
        if secret.len() > SECRET_BYTES_MAX {
            return Err(Refusal::SecretMalformed);
        }
        Ok(Self {
            sha1: HmacKey::new(HmacAlgorithm::Sha1, secret),
            sha256: HmacKey::new(HmacAlgorithm::Sha256, secret),
            shared_key: match plan {
                TwilioPlan::AuthToken => None,
                TwilioPlan::SharedKey { key } => Some(key.as_bytes().into()),
            },
        })
    }

    pub(in crate::source) fn verify(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let signature = only_header(request.headers, &SIGNATURE_HEADER, Refusal::SignatureRepeated)?
            .ok_or(Refusal::SignatureMissing)?;
        let key = self.key_for(request)?;
        let len = key.algorithm().signature_bytes();
        let mut decoded = [0; 64];
        if signature.len() != len.div_ceil(3) * 4 || BASE64.decode_slice(signature, &mut decoded) != Ok(len) {
            return Err(Refusal::SignatureMalformed);
        }
        let signature = &decoded[..len];
        let url = SignedUrl::parse(request.url);
        let matches = |tail: &[&[u8]]| {
            url.variants().iter().any(|url| {
                key.verify(
                    url.iter().map(|part| part.as_bytes()).chain(tail.iter().copied()),
                    signature,
                )
            })
        };

        if request.method != "POST" {
            // The URL holds everything. A body would be unsigned.
            return match (request.body.is_empty(), matches(&[])) {
                (_, false) => Err(Refusal::SignatureMismatch),
                (false, true) => Err(Refusal::BodyHashMismatch),
                (true, true) => Ok(()),
            };
        }
        let body_hash = url.query("bodySHA256");
        if is_form(request.headers) && (body_hash.is_none() || !request.body.is_empty()) {
            let form = Form::parse(request.body).ok_or(Refusal::SignatureMismatch)?;
            if matches(&form.signed_parts()) {
                return Ok(());
            }
            if body_hash.is_none() {
                return Err(Refusal::SignatureMismatch);
            }
        }
        // The URL alone is signed, so both checks are needed: a URL with its signature could be
        // replayed with another body.
        if !matches(&[]) {
            return Err(Refusal::SignatureMismatch);
        }
        let hashed = hex::encode(Sha256::digest(request.body));
        if body_hash.is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(hashed.as_bytes()))) {
            Ok(())
        } else {
            Err(Refusal::BodyHashMismatch)
        }
    }

    /// Which algorithm the request is signed with. The header may be forged; the secret is needed
    /// all the same.
    fn key_for(&self, request: &Request<'_>) -> Result<&HmacKey, Refusal> {
        let Some(settings) = only_header(request.headers, &SETTINGS_HEADER, Refusal::SignatureRepeated)? else {
            // Without the header the auth token signs, so a shared key has no part in it.
            return if self.shared_key.is_some() {
                Err(Refusal::OtherKey)
            } else {
                Ok(&self.sha1)
            };
        };
        let (mut key, mut algorithm) = (None, None);
        for setting in settings.split(|&b| b == b',') {
            let setting = setting.trim_ascii();
            let slot = if let Some(value) = setting.strip_prefix(b"key=") {
                (&mut key, value)
            } else if let Some(value) = setting.strip_prefix(b"algorithm=") {
                (&mut algorithm, value)
            } else {
                continue;
            };
            if slot.0.replace(slot.1).is_some() {
                return Err(Refusal::AlgorithmUnknown);
            }
        }
        if self.shared_key.as_deref().is_some_and(|expected| key != Some(expected)) {
            return Err(Refusal::OtherKey);
        }
        match algorithm {
            // A header that names a key alone leaves the algorithm at its default.
            None if key.is_some() => Ok(&self.sha1),
            Some(b"HMAC_SHA1") => Ok(&self.sha1),
            Some(b"HMAC_SHA256") => Ok(&self.sha256),
            _ => Err(Refusal::AlgorithmUnknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sign::TwilioSigner;
    use http::HeaderMap;

    /// Twilio names the signing key, and the algorithm only where it is not the default.
    #[test]
    fn a_settings_header_without_an_algorithm_means_sha1() {
        const URL: &str = "https://hooks.example/webhooks/twilio";
        let secret = SecretBytes::from("0123456789abcdef0123456789abcdef".to_owned());
        let shared = TwilioPlan::SharedKey {
            key: "webhooks_sharedkey_1".to_owned(),
        };
        let verify = |plan: &TwilioPlan, settings: &'static str| {
            let mut headers: HeaderMap = TwilioSigner::auth_token(&secret)
                .sign_form(URL, &[("a", "b")])
                .into_iter()
                .collect();
            headers.insert(SETTINGS_HEADER, http::HeaderValue::from_static(settings));
            TwilioKey::new(plan, &secret, 16).expect("a key").verify(&Request {
                method: "POST",
                url: URL,
                headers: &headers,
                body: b"a=b",
            })
        };
        for plan in [&shared, &TwilioPlan::AuthToken] {
            for settings in ["key=webhooks_sharedkey_1", " key=webhooks_sharedkey_1 , version=1"] {
                assert_eq!(verify(plan, settings), Ok(()), "{plan:?} {settings}");
            }
            for settings in [
                "",
                "version=1",
                "key=webhooks_sharedkey_1,algorithm=",
                "key=webhooks_sharedkey_1,key=b",
            ] {
                assert!(verify(plan, settings).is_err(), "{plan:?} {settings}");
            }
        }
        assert_eq!(verify(&shared, "key=another"), Err(Refusal::OtherKey));
    }
}
