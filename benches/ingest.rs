//! Ingest beside its two baselines: `cargo bench --bench ingest`. The program is
//! `hookswitch bench ingest`; this runs it with its defaults.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    hookswitch::cli::run(hookswitch::cli::Arguments::parse_from([
        "hookswitch",
        "bench",
        "ingest",
        "--dir",
        "target/bench",
    ]))
}
