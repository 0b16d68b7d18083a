//! Signatures and readings of webhooks over the published and computed vectors, and over whole
//! payloads.

mod hostile;
mod payloads;
mod send;
mod vectors;
mod verify;
