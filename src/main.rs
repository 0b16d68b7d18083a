//! The binary: arguments in, errors out with their chain, never a stack trace.

use clap::Parser;
use std::process::ExitCode;

/// Measured beside glibc's and mimalloc: `docs/decisions/0014-allocator.md`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hookswitch::cli::run(hookswitch::cli::Arguments::parse())
}
