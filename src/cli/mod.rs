//! (stub)

pub mod samples;
pub mod send;
pub mod token;
pub mod verify;
