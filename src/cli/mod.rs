//! (stub)

pub mod samples;
pub mod send;
pub mod sandbox;
pub mod token;
pub mod verify;
