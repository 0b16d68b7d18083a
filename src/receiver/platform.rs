//! The secrets that the platform's own accounts at the sources sign with.
//!
//! **Invariant 19:** such a secret verifies only what leads to routes that an operator gave to the
//! platform, and only by a signature over the body. A tenant that reads it in its own events can
//! forge no other tenant's.

use crate::{
    config::ReceiverSettings,
    domain::{SecretBytes, Source, Timestamp},
    source::{self, Request, SigningKey},
};
use secrecy::{ExposeSecret, SecretString};

/// A shorter secret could be guessed.
const SECRET_BYTES_MIN: usize = 16;

#[derive(Default)]
pub(super) struct PlatformKeys(Vec<(Source, SigningKey)>);

fn settings_of(settings: &ReceiverSettings) -> [(Source, &'static str, Option<&SecretString>); 2] {
    [
        (
            Source::Vapi,
            "HOOKSWITCH_PLATFORM_VAPI_SECRETS",
            settings.platform_vapi_secrets.as_ref(),
        ),
        (
            Source::Twilio,
            "HOOKSWITCH_PLATFORM_TWILIO_SECRETS",
            settings.platform_twilio_secrets.as_ref(),
        ),
    ]
}

/// Several are valid at once while one is rotated.
fn secrets(setting: Option<&SecretString>) -> impl Iterator<Item = &str> {
    let text = setting.map(ExposeSecret::expose_secret).unwrap_or_default();
    text.split(',').map(str::trim).filter(|secret| !secret.is_empty())
}

/// The settings whose secrets are too short.
pub(super) fn short_settings(settings: &ReceiverSettings) -> impl Iterator<Item = &'static str> {
    settings_of(settings)
        .into_iter()
        .filter(|(_, _, setting)| secrets(*setting).any(|secret| secret.len() < SECRET_BYTES_MIN))
        .map(|(_, name, _)| name)
}

impl PlatformKeys {
    pub(super) fn new(settings: &ReceiverSettings) -> Self {
        let mut keys = Vec::new();
        for (source, _, setting) in settings_of(settings) {
            let Some(plan) = source::plan_default(source).filter(source::Plan::signs_body) else {
                continue;
            };
            let made = secrets(setting).filter_map(|secret| {
                let secret = SecretBytes::from(secret.to_owned());
                SigningKey::new(&plan, &secret).ok()
            });
            keys.extend(made.map(|key| (source, key)));
        }
        Self(keys)
    }

    /// Tries each, so that the time of an answer does not tell which one it was.
    pub(super) fn verify(&self, source: Source, request: &Request<'_>, now: Timestamp) -> bool {
        let mut is_verified = false;
        for (_, key) in self.0.iter().filter(|(of, _)| *of == source) {
            is_verified |= key.verify(request, now).is_ok();
        }
        is_verified
    }
}
