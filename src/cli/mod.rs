//! The command line: the only place that builds concrete backends.
//!
//! `main` enters. **Invariant:** a failure is one paragraph that says what to do, never a stack
//! trace.

mod actions;
mod app;
mod bench;
pub mod dev;
pub mod dev_state;
mod doctor;
mod health;
mod import;
pub mod keys;
mod migrate;
mod operator;
mod otlp;
mod pause;
mod queue;
mod recover;
pub mod samples;
pub mod sandbox;
pub mod send;
mod serve;
mod signals;
mod spool;
pub mod token;
pub mod verify;

pub use app::{Addresses, App, Listeners, Options, Roles, StoredLeases};

use clap::{Parser, Subcommand};
use std::{process::ExitCode, time::Duration};

#[derive(Debug, Parser)]
#[command(
    name = "hookswitch",
    version,
    about = "Webhooks of voice and telephony providers in, each organisation's provider actions out, once in effect"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything in one process on embedded defaults, with a demo organisation and sandbox
    /// providers
    Dev(dev::DevArgs),
    /// Start receiver, worker and admin API
    Serve(serve::ServeArgs),
    /// Bring the database's schema up to date, or say what is pending
    Migrate(migrate::MigrateArgs),
    /// List each thing that this installation stands on, how it stands, and the cure; exit code 1
    /// when one fails
    Doctor(doctor::DoctorArgs),
    /// Ask the process on this machine whether it is ready: exit code 0 when it is. For health
    /// checks of containers, whose image has no other client
    Health,
    /// Look at a receiver's spool, or publish its events
    Spool(spool::SpoolArgs),
    /// Look at events that could not be planned, and put them back
    Queue(queue::QueueArgs),
    /// Sign a sample as its provider would, and post it to a running `dev`
    Send(send::SendArgs),
    /// Say why a webhook does not verify
    Verify(verify::VerifyArgs),
    /// Run the stand-in providers alone
    Sandbox(sandbox::SandboxArgs),
    /// Make a token for the admin API
    Token(token::TokenArgs),
    /// Decide unknown outcomes, and cancel many actions at once
    Actions(actions::ActionsArgs),
    /// Let no attempt begin for everything, an organisation, a provider or a rule; without one of
    /// them: list what is paused
    Pause(pause::PauseArgs),
    /// Let attempts begin again
    Resume(pause::ResumeArgs),
    /// After the database was put back from a backup, with every process stopped: look up what may
    /// have been sent since, before anything is sent again
    Recover(recover::RecoverArgs),
    /// Take over organisations, credentials and assistants of the earlier system
    Import(import::ImportArgs),
    /// Make key-encryption keys, name them, and change the key that seals
    Keys(keys::KeysArgs),
    /// Measure this machine: ingest and actions, each beside its baseline
    Bench(bench::BenchArgs),
}

/// Time for blocking calls to end after the command has.
const SHUTDOWN_MAX: Duration = Duration::from_millis(500);

/// Runs the command to its end.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    install_crypto_provider();
    let outcome = match arguments.command {
        Command::Verify(args) => verify::run(&args),
        Command::Token(args) => token(&args),
        command => runtime().and_then(|runtime| {
            let outcome = runtime.block_on(async {
                match command {
                    Command::Dev(args) => dev::run(args).await,
                    Command::Serve(args) => serve::run(args).await,
                    Command::Migrate(args) => migrate::run(&args).await,
                    Command::Doctor(args) => doctor::run(&args).await,
                    Command::Health => health::run().await,
                    Command::Spool(args) => spool::run(args).await,
                    Command::Queue(args) => queue::run(args).await,
                    Command::Keys(args) => keys::run(args).await,
                    Command::Import(args) => import::run(args).await,
                    Command::Recover(args) => recover::run(&args).await,
                    Command::Actions(args) => actions::run(args).await,
                    Command::Pause(args) => pause::pause(args).await,
                    Command::Resume(args) => pause::resume(args).await,
                    Command::Send(args) => send::run(&args).await,
                    Command::Sandbox(args) => sandbox::run(&args).await,
                    Command::Bench(args) => bench::run(args).await,
                    Command::Verify(_) | Command::Token(_) => Ok(ExitCode::SUCCESS),
                }
            });
            // A blocking call that hangs, such as the resolver's, does not delay the end of the
            // process.
            runtime.shutdown_timeout(SHUTDOWN_MAX);
            outcome
        }),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("hookswitch: {error}");
        for cause in error.chain().skip(1) {
            eprintln!("  because: {cause}");
        }
        ExitCode::FAILURE
    })
}

/// The one TLS and crypto provider. Idempotent: tests call it too.
pub fn install_crypto_provider() {
    // An error says that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn token(args: &token::TokenArgs) -> anyhow::Result<ExitCode> {
    let settings = crate::config::Settings::load(&crate::config::Environment::from_process())?;
    token::run(args, &settings.admin, &crate::domain::SystemClock).map(|()| ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
