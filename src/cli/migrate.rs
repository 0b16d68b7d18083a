//! `hookswitch migrate`: the one command that changes a schema. `serve` never does; `dev` does it
//! at its start.

use crate::{
    config::{Environment, Settings},
    domain::SystemClock,
    store,
};
use clap::Args;
use std::{io::Write, process::ExitCode, sync::Arc};

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Change nothing: list what is applied and what is pending; exit code 1 while something is
    #[arg(long)]
    status: bool,
}

pub(super) async fn run(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let url = Settings::load(&Environment::from_process())?.store.database_url;
    let before = store::migration_status(&url).await?;
    let mut out = std::io::stdout().lock();
    if args.status {
        for name in &before.applied {
            writeln!(out, "applied  {name}")?;
        }
        for name in &before.pending {
            writeln!(out, "pending  {name}")?;
        }
        for name in &before.newer {
            writeln!(out, "newer    {name} (a newer release's; this binary runs beside it)")?;
        }
        return Ok(if before.pending.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    store::migrate(&url, Arc::new(SystemClock)).await?;
    for name in &before.pending {
        writeln!(out, "applied  {name}")?;
    }
    if before.pending.is_empty() {
        writeln!(out, "The schema is up to date.")?;
    }
    Ok(ExitCode::SUCCESS)
}
