//! SMS actions beside a bare HTTP client: `cargo bench --bench actions`. The program is
//! `hookswitch bench actions`; this runs it with its defaults.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    hookswitch::cli::run(hookswitch::cli::Arguments::parse_from([
        "hookswitch",
        "bench",
        "actions",
        "--dir",
        "target/bench",
    ]))
}
