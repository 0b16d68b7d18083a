//! The one HTTP client (stub).
/// Sends requests with connect, read and total deadlines, no redirects, no proxies, bounded answers, and an address guard.
#[derive(Clone, Debug)]
pub struct HttpClient {}
