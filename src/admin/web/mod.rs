//! HTTP, without any resource: tokens, bodies, pages, entity tags, refusals, and the form of
//! answers.

pub mod auth;
pub mod body;
pub mod etag;
pub mod jwks;
pub mod page;
pub mod problem;
pub mod respond;
pub mod token;
pub mod view;
