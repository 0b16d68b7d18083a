//! Contracts of the traits with more than one backend, generic over them, by public API only.

pub mod queue;
pub mod store;
pub mod store_audit;
pub mod store_callers;
pub mod store_endpoints;
pub mod store_grants;
pub mod store_ledger;
pub mod store_marks;
pub mod store_quarantine;
pub mod store_rotation;
pub mod store_routes;
pub mod store_settings;
pub mod store_statistics;
pub mod store_versions;
