//! `hookswitch spool`: looks at a spool's directory, or publishes its events when its receiver is
//! gone for good.

use crate::{
    config::{Environment, Settings},
    domain::{Clock, SystemClock},
    queue::{self, EventQueue, SpoolQueue, SpoolSettings},
    telemetry,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

#[derive(Debug, Args)]
pub(super) struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Shows the events of a spool. Its receiver has to be stopped: the directory belongs to one
    /// process
    List {
        /// The spool's directory; without it the one of HOOKSWITCH_SPOOL_DIRECTORY
        directory: Option<PathBuf>,
    },
    /// Publishes the events of a spool to the broker of HOOKSWITCH_QUEUE_URL, for a receiver that
    /// does not come back
    Drain {
        /// The spool's directory; without it the one of HOOKSWITCH_SPOOL_DIRECTORY
        directory: Option<PathBuf>,
        /// Gives up after so many seconds; what is left stays in the directory
        #[arg(long, default_value_t = 300)]
        seconds_max: u64,
    },
}

pub(super) async fn run(args: SpoolArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&Environment::from_process())?;
    telemetry::start_logs(&settings.telemetry)?;
    let event_bytes_max = super::app::event_bytes_max(&settings);
    let mut spool = SpoolSettings::new(&settings.queue, event_bytes_max);
    // This command only reads or empties the directory, so it may be volatile.
    spool.may_be_volatile = true;
    match args.command {
        SpoolCommand::List { directory } => {
            spool.directory = existing(directory, spool.directory)?;
            list(spool).await
        }
        SpoolCommand::Drain { directory, seconds_max } => {
            spool.directory = existing(directory, spool.directory)?;
            spool.drain_seconds_max = Duration::from_secs(seconds_max);
            drain(&settings, spool, event_bytes_max).await
        }
    }
}

/// The directory to open. A missing directory is a mistyped path, not an empty spool.
fn existing(named: Option<PathBuf>, default: PathBuf) -> anyhow::Result<PathBuf> {
    let directory = named.unwrap_or(default);
    if directory.is_dir() {
        return Ok(directory);
    }
    bail!("{} is not a directory", directory.display())
}

async fn list(settings: SpoolSettings) -> anyhow::Result<ExitCode> {
    let directory = settings.directory.clone();
    let log = queue::LogQueue::open(&directory, settings.log, Arc::new(SystemClock)).await?;
    let state = log.state();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} events, {} bytes in {}",
        state.events,
        state.bytes,
        directory.display()
    )?;
    if let Some(oldest) = state.oldest_received_at {
        let age = SystemClock.now().since(oldest);
        writeln!(out, "the oldest was received {} s ago", age.as_secs())?;
    }
    let dead = queue::dead_entries(&directory)?;
    for file in &dead {
        writeln!(out, "dead: {}", file.display())?;
    }
    log.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn drain(settings: &Settings, spool: SpoolSettings, event_bytes_max: usize) -> anyhow::Result<ExitCode> {
    let url = &settings.queue.queue_url;
    if url.starts_with("embedded:") {
        bail!("HOOKSWITCH_QUEUE_URL names no broker: an embedded queue has no spool");
    }
    let clock = Arc::new(SystemClock);
    let broker = queue::connect(url, &settings.queue, event_bytes_max, clock.clone()).await?;
    let directory = spool.directory.clone();
    let queue = SpoolQueue::open(broker, spool, clock).await?;
    let before = queue.spool().context("the queue has a spool")?.events;
    // Closing waits for the drain.
    queue.close().await;
    let left = queue.spool().context("the queue has a spool")?.events;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} of {before} events were published", before - left.min(before))?;
    if left > 0 {
        bail!("{left} events are left in {}", directory.display());
    }
    Ok(ExitCode::SUCCESS)
}
