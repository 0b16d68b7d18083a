//! (stub)

pub mod verify;
