//! (stub)

pub mod samples;
pub mod sandbox;
pub mod send;
pub mod token;
pub mod verify;
