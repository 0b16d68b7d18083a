//! Twilio (stub).
use super::*;
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TwilioPlan {
    /// The account's auth token: HMAC-SHA1 where no settings header says otherwise.
    AuthToken,
    /// A webhook shared key, with its id `webhooks_sharedkey_…`.
    SharedKey { key: String },
}
pub(super) struct TwilioKey;
impl TwilioKey {
    pub(super) fn new(_plan: &TwilioPlan, _secret: &SecretBytes) -> Result<Self, Refusal> {
        unimplemented!()
    }
    pub(super) fn verify(&self, _request: &Request<'_>) -> Result<(), Refusal> {
        unimplemented!()
    }
}
pub(super) fn read(_request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    unimplemented!()
}
