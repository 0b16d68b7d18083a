//! The sender's side: headers as Vapi and Twilio would make them.
//!
//! `cli::send`, the sandbox's status callbacks, the load generator and tests enter. A signer is
//! made once and used for many requests.

use super::{
    HmacAlgorithm, HmacKey, Refusal, Request,
    hmac::Signature,
    twilio::{Form, SETTINGS_HEADER, SIGNATURE_HEADER, SignedUrl},
    vapi::{Encoding, Scheme, VapiPlan, hmac_key},
};
use crate::domain::{SecretBytes, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

/// A header that is ready to be sent.
pub type SignedHeader = (HeaderName, HeaderValue);

const ASCII: &str = "prefixes, hex, base64 and digits are printable ASCII";

/// Signs as a Vapi custom credential does.
pub struct VapiSigner(Vapi);

enum Vapi {
    Hmac { scheme: Box<Scheme>, key: HmacKey },
    Bearer(SignedHeader),
}

impl VapiSigner {
    /// # Errors
    /// The secret is empty, or not in the form that the plan says.
    pub fn new(plan: &VapiPlan, secret: &SecretBytes) -> Result<Self, Refusal> {
        Ok(Self(match plan {
            VapiPlan::Hmac(plan) => {
                let scheme = plan.scheme();
                let key = hmac_key(&scheme, secret, 1)?;
                Vapi::Hmac {
                    scheme: Box::new(scheme),
                    key,
                }
            }
            VapiPlan::Bearer(plan) => {
                let value = zeroize::Zeroizing::new([plan.prefix().as_bytes(), secret.expose_secret()].concat());
                let mut value = HeaderValue::from_bytes(&value).map_err(|_| Refusal::SecretMalformed)?;
                value.set_sensitive(true);
                Vapi::Bearer((plan.header(), value))
            }
        }))
    }

    /// The headers for one request, besides its content type. The time is written in seconds.
    #[must_use]
    pub fn sign(&self, now: Timestamp, method: &str, url: &str, body: &[u8]) -> Vec<SignedHeader> {
        match &self.0 {
            Vapi::Bearer(header) => vec![header.clone()],
            Vapi::Hmac { scheme, key } => {
                let timestamp = now.as_seconds().to_string();
                let message_id = scheme
                    .message_id_header
                    .as_ref()
                    .map_or(String::new(), |_| message_id(&timestamp, body));
                let request = Request {
                    method,
                    url,
                    headers: &HeaderMap::new(),
                    body,
                };
                let signature = key.sign(scheme.parts(&request, timestamp.as_bytes(), message_id.as_bytes()));
                let mut headers = vec![(scheme.signature_header.clone(), value(&written(scheme, &signature)))];
                headers.extend(scheme.timestamp_header.clone().map(|name| (name, value(&timestamp))));
                headers.extend(scheme.message_id_header.clone().map(|name| (name, value(&message_id))));
                headers
            }
        }
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect(ASCII)
}

fn written(scheme: &Scheme, signature: &Signature) -> String {
    let mut text = String::with_capacity(scheme.signature_prefix.len() + 128);
    text.push_str(&scheme.signature_prefix);
    match scheme.encoding {
        Encoding::Hex => text.push_str(&hex::encode(signature.as_bytes())),
        Encoding::Base64 => BASE64.encode_string(signature.as_bytes(), &mut text),
    }
    text
}

/// The same for the same delivery, as a message id is over its retries.
fn message_id(timestamp: &str, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(timestamp).chain_update(body).finalize();
    format!("msg_{}", hex::encode(&digest[..12]))
}

/// Signs as Twilio does, with an account's auth token or with a webhook shared key.
pub struct TwilioSigner {
    key: HmacKey,
    settings: Option<HeaderValue>,
}

impl TwilioSigner {
    /// HMAC-SHA1 under the auth token.
    #[must_use]
    pub fn auth_token(token: &SecretBytes) -> Self {
        Self {
            key: HmacKey::new(HmacAlgorithm::Sha1, token.expose_secret()),
            settings: None,
        }
    }

    /// A shared key signs with SHA-1 or SHA-256 and says so in a header of its own.
    ///
    /// # Errors
    /// The id cannot stand in a header, or Twilio has no such algorithm.
    pub fn shared_key(id: &str, secret: &SecretBytes, algorithm: HmacAlgorithm) -> Result<Self, Refusal> {
        let name = match algorithm {
            HmacAlgorithm::Sha1 => "HMAC_SHA1",
            HmacAlgorithm::Sha256 => "HMAC_SHA256",
            HmacAlgorithm::Sha512 => return Err(Refusal::AlgorithmUnknown),
        };
        let settings =
            HeaderValue::from_str(&format!("key={id},algorithm={name}")).map_err(|_| Refusal::SecretMalformed)?;
        Ok(Self {
            key: HmacKey::new(algorithm, secret.expose_secret()),
            settings: Some(settings),
        })
    }

    /// The headers for a form of decoded pairs, posted to the URL as Twilio was given it (its
    /// fragment and user are not signed).
    #[must_use]
    pub fn sign_form<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, url: &str, params: &[(N, V)]) -> Vec<SignedHeader> {
        let mut pairs: Vec<(&[u8], &[u8])> = params
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        self.sign(url, pairs.into_iter().flat_map(|(name, value)| [name, value]))
    }

    /// The URL with `bodySHA256` appended, and the headers, for a JSON body.
    #[must_use]
    pub fn sign_json(&self, url: &str, body: &[u8]) -> (String, Vec<SignedHeader>) {
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}bodySHA256={}", hex::encode(Sha256::digest(body)));
        let headers = self.sign(&url, []);
        (url, headers)
    }

    fn sign<'p>(&self, url: &'p str, tail: impl IntoIterator<Item = &'p [u8]>) -> Vec<SignedHeader> {
        let [url, _] = SignedUrl::parse(url).variants();
        let parts: Vec<&[u8]> = url.iter().map(|part| part.as_bytes()).chain(tail).collect();
        let signature = self.key.sign(parts);
        let mut headers = vec![(SIGNATURE_HEADER, value(&BASE64.encode(signature.as_bytes())))];
        headers.extend(self.settings.clone().map(|settings| (SETTINGS_HEADER, settings)));
        headers
    }
}

/// One form, one signature: the value of `X-Twilio-Signature`. For many, keep a [`TwilioSigner`].
#[must_use]
pub fn sign_twilio(token: &SecretBytes, url: &str, params: &[(String, String)]) -> HeaderValue {
    let mut headers = TwilioSigner::auth_token(token).sign_form(url, params);
    headers.swap_remove(0).1
}

/// One request, its headers. For many, keep a [`VapiSigner`].
///
/// # Errors
/// As [`VapiSigner::new`].
pub fn sign_vapi(
    plan: &VapiPlan,
    secret: &SecretBytes,
    now: Timestamp,
    method: &str,
    url: &str,
    body: &[u8],
) -> Result<Vec<SignedHeader>, Refusal> {
    Ok(VapiSigner::new(plan, secret)?.sign(now, method, url, body))
}

/// The decoded pairs of a form, in their order; what is not UTF-8 is replaced. For forms of our
/// own: what came from outside is [`super::read`].
#[must_use]
pub fn form_pairs(body: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Form::parse(body.as_bytes()).map_or_else(Vec::new, |form| {
        form.pairs().map(|(name, value)| (text(name), text(value))).collect()
    })
}

/// A form as it goes over the wire: `application/x-www-form-urlencoded`, `+` for a space, capital
/// hex.
#[must_use]
pub fn form_body<N: AsRef<str>, V: AsRef<str>>(params: &[(N, V)]) -> String {
    let mut body = String::with_capacity(params.len() * 32);
    for (i, (name, value)) in params.iter().enumerate() {
        if i > 0 {
            body.push('&');
        }
        encode_into(&mut body, name.as_ref());
        body.push('=');
        encode_into(&mut body, value.as_ref());
    }
    body
}

fn encode_into(body: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => body.push(byte.into()),
            b' ' => body.push('+'),
            byte => body.extend([
                '%',
                HEX[usize::from(byte >> 4)].into(),
                HEX[usize::from(byte & 15)].into(),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Source,
        source::{Plan, SigningKey, TwilioPlan, plan_default},
    };

    fn headers(of: Vec<SignedHeader>) -> HeaderMap {
        of.into_iter().collect()
    }

    #[test]
    fn what_is_signed_verifies_under_every_plan() {
        let secret = SecretBytes::from("MDEyMzQ1Njc4OWFiY2RlZg==".to_owned());
        let now = Timestamp::from_seconds(1_800_000_000);
        let (url, body) = ("https://a.example/webhooks/vapi?x=1", br#"{"message":{}}"#);
        for plan in [
            r#"{"type":"hmac"}"#,
            r#"{"type":"hmac","algorithm":"sha1","signaturePrefix":"sha1=","payloadFormat":"{body}"}"#,
            r#"{"type":"hmac","algorithm":"sha512","signatureEncoding":"base64","payloadFormat":"{method} {url} {timestamp} {body}"}"#,
            r#"{"type":"hmac","payloadFormat":"{svix-id}.{timestamp}.{body}","messageIdHeader":"webhook-id","secretIsBase64":true}"#,
            r#"{"type":"bearer"}"#,
            r#"{"type":"bearer","headerName":"X-Vapi-Secret","bearerPrefixEnabled":false}"#,
        ] {
            let Plan::Vapi(vapi) = serde_json::from_str(plan).expect("a good plan") else {
                panic!("a Vapi plan")
            };
            let signed = headers(sign_vapi(&vapi, &secret, now, "POST", url, body).expect("a good secret"));
            let key = SigningKey::new(&Plan::Vapi(vapi), &secret).expect("a good secret");
            let request = Request {
                method: "POST",
                url,
                headers: &signed,
                body,
            };
            assert_eq!(key.verify(&request, now), Ok(()), "{plan}");
            assert!(
                key.verify(
                    &Request {
                        headers: &HeaderMap::new(),
                        ..request
                    },
                    now
                )
                .is_err(),
                "{plan}"
            );
        }
    }

    #[test]
    fn forms_and_json_of_twilio_verify() {
        let secret = SecretBytes::from("0fa54772703c5bf4938ad079a515af8b".to_owned());
        let params = [("To", "+15552010100"), ("Body", "a b&c=d+é%\r\n😊"), ("Empty", "")];
        let url = "https://user:pass@a.example:8443/webhooks/twilio?action=1#rc=5";
        let body = form_body(&params);
        assert_eq!(
            form_pairs(&body),
            params.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let shared = TwilioPlan::SharedKey {
            key: "webhooks_sharedkey_1".into(),
        };
        for (plan, signer) in [
            (
                plan_default(Source::Twilio).expect("a default"),
                TwilioSigner::auth_token(&secret),
            ),
            (
                Plan::Twilio(shared.clone()),
                TwilioSigner::shared_key("webhooks_sharedkey_1", &secret, HmacAlgorithm::Sha256).expect("a good id"),
            ),
            (
                Plan::Twilio(shared),
                TwilioSigner::shared_key("webhooks_sharedkey_1", &secret, HmacAlgorithm::Sha1).expect("a good id"),
            ),
        ] {
            let key = SigningKey::new(&plan, &secret).expect("a good secret");
            let signed = headers(signer.sign_form(url, &params));
            let request = Request {
                method: "POST",
                url,
                headers: &signed,
                body: body.as_bytes(),
            };
            assert_eq!(key.verify(&request, Timestamp::default()), Ok(()), "{plan:?}");
            assert!(
                key.verify(
                    &Request {
                        body: b"To=other",
                        ..request
                    },
                    Timestamp::default()
                )
                .is_err()
            );

            let (url, signed) = signer.sign_json("https://a.example/webhooks/twilio", b"[]");
            let mut signed = headers(signed);
            signed.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let request = Request {
                method: "POST",
                url: &url,
                headers: &signed,
                body: b"[]",
            };
            assert_eq!(key.verify(&request, Timestamp::default()), Ok(()), "{plan:?}");
            assert_eq!(
                key.verify(
                    &Request {
                        body: b"[1]",
                        ..request
                    },
                    Timestamp::default()
                ),
                Err(Refusal::BodyHashMismatch)
            );
        }
    }
}
