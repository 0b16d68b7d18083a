//! (stub)
use super::*;
pub struct HttpPost;
#[async_trait]
#[allow(unused_variables)]
impl Action for HttpPost {
    fn kind(&self) -> ActionKind {
        ActionKind::HttpPost
    }
    fn on_unknown(&self) -> OnUnknown {
        unimplemented!()
    }
    fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        unimplemented!()
    }
    fn freeze(&self, rendered: Map<String, Value>) -> Result<FrozenRequest, ParameterError> {
        unimplemented!()
    }
    async fn send(&self, providers: &Providers, attempt: &Attempt<'_>) -> (Outcome, Detail) {
        unimplemented!()
    }
    async fn look_up(&self, providers: &Providers, attempt: &Attempt<'_>) -> (LookUp, Detail) {
        unimplemented!()
    }
}
