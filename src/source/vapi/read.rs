use super::super::{NotTheFormat, Reading, Request};
pub(in crate::source) fn read(_request: &Request<'_>) -> Result<Reading, NotTheFormat> {
    unimplemented!()
}
