//! HTTP, without any resource: tokens, bodies, pages, entity tags, refusals, and the form of
//! answers.

pub mod auth;
pub mod body;
pub mod cors;
pub mod etag;
pub mod idempotency;
pub mod jwks;
pub mod operator_session;
pub mod page;
pub mod problem;
pub mod rate;
pub mod represent;
pub mod respond;
pub mod session;
pub mod token;
pub mod view;
