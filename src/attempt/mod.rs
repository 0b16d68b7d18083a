//! The one engine: it takes one claimed action through credential, lease, exchange, outcome and
//! backoff to one record. No other code sends.
//!
//! `worker` enters (and `reply`, for questions). **Invariant:** no byte goes out unless the row is
//! durably `running` under a fence, and the rest of its lease covers the whole exchange (invariant
//! 1).
//!
//! # States
//! Each transition names both states, and no other transition happens. The ledger checks the state
//! on the left, the code on the right decides.
//!
//! | from | to | when | by |
//! |---|---|---|---|
//! | – | `pending` | an event is planned | `Ledger::plan` |
//! | – | `dead` | its template failed, or the day's budget is used up | `Ledger::plan` |
//! | `pending`, `waiting` | `running` | due, and its organisation's turn | `Ledger::claim` |
//! | `pending`, `waiting` | `dead` (`expired`) | past `expires_at` at its turn | `Ledger::claim` |
//! | `unknown` | `running` (a look-up) | due, and its organisation's turn; expired or not | `Ledger::claim` |
//! | `running` | `succeeded` | accepted, or found by a look-up | [`Outcome::Succeeded`] |
//! | `running` | `waiting` | certainly not done, may be tried again | [`Outcome::Retry`] |
//! | `running` | `dead` | certainly not done and hopeless, or tries used up | [`Outcome::Dead`] |
//! | `running` | `parked` | the credential is missing, refused or closed | [`Outcome::Park`] |
//! | `running` | `suppressed` | the recipient opted out | [`Outcome::Suppressed`] |
//! | `running` | `unknown` | sent without an answer; or a look-up without a result, whatever stopped it | [`Outcome::Unknown`] |
//! | `running` | `pending` | cut off before the first byte, or proved absent by look-ups | [`Outcome::Interrupted`], [`Outcome::ProvedAbsent`] |
//! | `running` | `unknown` (`lease_ended`) | the lease ended, or its process died | `Ledger::expire_leases`, `abandon_leases` |
//! | `pending`, `waiting`, `parked` | `unknown` (`ambiguous`) | the database was restored from a backup | `Recoveries::doubt_open_actions` |
//! | – | `unknown` (`ambiguous`) | its event was received before a recovery | `Ledger::plan` |
//! | `unknown` (`lease_ended`) | `succeeded` | the answer came late, and nobody has claimed the row since | `Ledger::record` |
//! | `running` | `unknown` (`account_replaced`) | it may have gone out by an account that is not connected any more | a conclusion that asks a person |
//! | `running` | `unknown` (`ambiguous`) | the provider's id is another action's | `Ledger::record` |
//! | `parked` | `pending` | a newer version of the credential stands | `save_credential`, `Ledger::record` |
//! | `pending`, `running`, `waiting`, `unknown`, `parked` | `succeeded` (`called_back`) | the provider called back with our id in its URL | `Ledger::record_callback` |
//! | `dead`, `parked`, `suppressed`, `cancelled`, `waiting` | `pending` | a person: retry | `Ledger::retry` |
//! | `unknown` | `unknown`, due | a person: retry | `Ledger::retry` |
//! | `pending`, `waiting`, `parked` | `cancelled` | a person: cancel | `Ledger::cancel` |
//! | `unknown` | `succeeded` or `pending` | a person: it went out, or send it again | `Ledger::resolve` |

mod credentials;
mod outcome;
mod retry;
mod send;
#[cfg(test)]
mod tests;

pub use outcome::Policy;
pub use retry::Backoff;
pub use send::{Engine, EngineSettings, Leased};

#[cfg(doc)]
use crate::domain::Outcome;
