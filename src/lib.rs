//! Hookswitch: webhooks of voice and telephony providers in, each organisation's provider actions
//! out, once in effect.
//!
//! Data takes one way: `receiver → queue → worker → attempt → action → provider`. It runs one way;
//! a lower floor never imports an upper one. `tests/tidy.rs` holds the table of floors below.
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | [`domain`] |
//! | 1 | [`config`], [`telemetry`], [`killpoint`] (where tests stop a process; empty in a release build) |
//! | 2 | [`source`], [`provider`], [`queue`], [`store`], [`listener`] |
//! | 3 | [`vault`], [`routing`] |
//! | 4 | [`action`], [`rule`] (it may import `action`), [`oauth`], [`jobs`] |
//! | 5 | [`attempt`] |
//! | 6 | [`reply`] |
//! | 7 | [`receiver`], [`worker`], [`admin`] |
//! | 8 | [`lifecycle`], [`sandbox`] |
//! | 9 | [`cli`] |

pub mod action;
pub mod admin;
pub mod assistants;
pub mod attempt;
pub mod cli;
pub mod config;
pub mod domain;
pub mod jobs;
pub mod killpoint;
pub mod lifecycle;
pub mod listener;
pub mod oauth;
pub mod provider;
pub mod queue;
pub mod receiver;
pub mod reply;
pub mod routing;
pub mod rule;
pub mod sandbox;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod vault;
pub mod worker;
