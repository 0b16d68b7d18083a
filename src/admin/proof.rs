//! Proving a claim to an assistant or a number: the claimer's own credential reads it at the
//! provider (invariant 18).

use crate::{
    admin::{
        state::Answer,
        web::problem::{Code, Problem},
    },
    provider::CallError,
};
use std::time::Duration;

/// Time for one reading. Two readings fit below the deadline of a request: the reading of the
/// claimer and that of the holder.
pub const READ_MAX: Duration = Duration::from_secs(4);

/// Whether a credential reads a thing now.
pub enum Readable<T> {
    Yes(T),
    /// The provider answered that the credential does not have it, or there is no credential.
    No,
    /// The provider could not be asked. That says nothing about the claim.
    Unknown(Problem),
}

/// A credential that the provider refuses reads nothing. After any other error the result is
/// unknown.
pub fn refused_or_unknown<T>(error: &CallError) -> Readable<T> {
    match error {
        CallError::Refused(refused) if matches!(refused.http_status, 401 | 403) => Readable::No,
        error => Readable::Unknown(Problem::unreachable(error)),
    }
}

/// The result of reading with the holder's own credential. A credential that this installation
/// cannot open shows no claim, so the claimer's proof stands. A key that one organisation lacks
/// must not stop another one.
///
/// # Errors
/// Any other problem, because it says nothing about the claim.
pub fn of_holder<T>(read: Answer<Readable<T>>) -> Answer<Readable<T>> {
    match read {
        Err(problem) if problem.code == Code::Undecryptable => Ok(Readable::No),
        read => read,
    }
}

/// The same answer whether or not another organisation holds it, so that the answer reveals
/// nothing.
pub fn not_readable(field: &'static str) -> Problem {
    Problem::field(
        Code::NotReadable,
        field,
        "is not read by your own credential at the provider",
    )
    .detail(
        "Your organisation's own credential cannot read it at the provider. Check the id, and that the \
            provider is connected.",
    )
}

/// Does not name the other organisation.
pub fn held_elsewhere() -> Problem {
    Problem::new(Code::HeldElsewhere).detail(
        "Another organisation holds it, and its own credential still reads it at \
        the provider. It has to let it go first.",
    )
}
