//! Vapi (stub).
use super::*;
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct VapiPlan {}
pub(super) struct VapiKey;
impl VapiKey {
    pub(super) fn new(_plan: &VapiPlan, _secret: &SecretBytes) -> Result<Self, Refusal> {
        unimplemented!()
    }
    pub(super) fn verify(&self, _request: &Request<'_>, _now: Timestamp) -> Result<(), Refusal> {
        unimplemented!()
    }
}
pub(super) fn read(_request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    unimplemented!()
}
