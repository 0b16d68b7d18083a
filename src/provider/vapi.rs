//! Vapi's REST API (stub).
#[derive(Clone, Debug)]
pub struct VapiClient {}
