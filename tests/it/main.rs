//! The one integration binary: whole ways through real edges. One module a concern, helpers in `support`.

mod admin;
mod conformance;
mod crash;
mod credential_flow;
mod envelope;
mod faults;
mod hostile;
mod ingress;
mod leaks;
mod ledger;
mod listener;
mod main_job;
mod operations;
mod outside;
mod providers;
mod queue_damage;
mod queue_embedded;
mod queue_faults;
mod routing;
mod sandbox;
mod source;
mod ssrf;
mod store_sqlite;
mod support;
mod vault;
mod worker;
