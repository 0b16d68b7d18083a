//! (stub)

pub mod token;
pub mod verify;
