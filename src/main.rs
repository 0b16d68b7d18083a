//! The binary: arguments in, errors out with their chain, never a stack trace.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    hookswitch::cli::run(hookswitch::cli::Arguments::parse())
}
