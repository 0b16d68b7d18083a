//! What is measured and told: the catalogue of metrics, logs, health.
//!
//! Every room enters. **Invariant:** labels come from closed lists; no organisation, id, URL or error text is ever one.

pub mod catalogue;
