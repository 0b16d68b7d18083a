//! What proving a claim at the provider can come to (invariant 18).

use crate::{
    admin::web::problem::{Code, Problem},
    provider::CallError,
};
use std::time::Duration;

/// Time for one reading. Two fit below the deadline of a request: the claimer's and the holder's.
pub const READ_MAX: Duration = Duration::from_secs(4);

/// Whether a credential reads a thing now.
pub enum Reads<T> {
    Yes(T),
    /// The provider was asked and said no, or there is no credential to ask with.
    No,
    /// It could not be asked: says nothing about the claim.
    Unknown(Problem),
}

/// A key that the provider refuses reads nothing; anything else that went wrong leaves it open.
pub fn refused_or_unknown<T>(error: &CallError) -> Reads<T> {
    match error {
        CallError::Refused(refused) if matches!(refused.http_status, 401 | 403) => Reads::No,
        error => Reads::Unknown(Problem::unreachable(error)),
    }
}

/// One answer, whoever else holds it, and whether a credential is there or not.
pub fn not_readable() -> Problem {
    Problem::new(Code::NotReadable).detail(
        "Your organisation's own credential cannot read it at the provider. Check the id, and that the \
            provider is connected.",
    )
}

/// Says nothing of who.
pub fn held_elsewhere() -> Problem {
    Problem::new(Code::HeldElsewhere).detail(
        "Another organisation holds it, and its own credential still reads it at \
        the provider. It has to let it go first.",
    )
}
