//! `hookswitch doctor`: checks each thing that this installation needs, and names the cure.
//!
//! The command line enters. **Invariant:** a look changes nothing: no file, no topic, no row.

use super::app::event_bytes_max;
use crate::{
    config::{Environment, Settings},
    queue, store,
    telemetry::{Diagnosis, Verdict},
    vault::Keyring,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::{io::Write, process::ExitCode};

/// Each connection takes a file. With fewer files than this a burst of senders meets the limit.
const FILES_MIN: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// A development machine: risks for durability are warnings
    #[arg(long)]
    dev: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Serialize)]
struct Report {
    /// The worst of its checks.
    status: Verdict,
    checks: Vec<Diagnosis>,
}

pub(super) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = diagnose(&Environment::from_process(), args.dev).await;
    let report = Report {
        status: checks.iter().map(|check| check.status).max().unwrap_or(Verdict::Ok),
        checks,
    };
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        Format::Text => write(&report, &mut out)?,
    }
    Ok(if report.status == Verdict::Fail {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn write(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    for check in &report.checks {
        writeln!(
            out,
            "{:<4}  {:<22}  {}",
            check.status.as_str(),
            check.check,
            check.found
        )?;
        if !check.cure.is_empty() {
            writeln!(out, "      {:<22}  → {}", "", check.cure)?;
        }
    }
    Ok(())
}

/// All checks, in the order in which a start would meet them.
async fn diagnose(environment: &Environment, is_dev: bool) -> Vec<Diagnosis> {
    let settings = match Settings::load(environment) {
        Ok(settings) => settings,
        Err(error) => {
            return error
                .faults
                .iter()
                .map(|fault| Diagnosis::fail("settings", format!("{}: {}", fault.name, fault.problem), "correct it"))
                .collect();
        }
    };
    let mut checks = vec![
        Diagnosis::ok("settings", "all are understood"),
        keys(&settings).unless_dev(is_dev),
        tokens(&settings).unless_dev(is_dev),
        public_url(&settings),
        files(),
        database(&settings).await,
    ];
    let link = &settings.queue.queue_url;
    checks.extend(queue::diagnose(link, &settings.queue, event_bytes_max(&settings), is_dev).await);
    checks
}

fn keys(settings: &Settings) -> Diagnosis {
    const CHECK: &str = "keys";
    match Keyring::load(&settings.vault) {
        Ok(_) => Diagnosis::ok(CHECK, "the key-encryption keys can be used"),
        Err(error) => Diagnosis::fail(
            CHECK,
            error.to_string(),
            "make one with `hookswitch keys`, and set HOOKSWITCH_KEYRING",
        ),
    }
}

fn tokens(settings: &Settings) -> Diagnosis {
    const CHECK: &str = "tokens";
    if settings.admin.jwt_secret.is_none() && settings.admin.jwt_jwks_url.is_none() {
        return Diagnosis::fail(
            CHECK,
            "nobody can use the admin API",
            "set HOOKSWITCH_JWT_SECRET (at least 32 bytes) or HOOKSWITCH_JWT_JWKS_URL",
        );
    }
    if settings.admin.operator_jwt_secret.is_none() {
        return Diagnosis::warn(
            CHECK,
            "no operator can sign in: quarantine and pauses are out of reach",
            "set HOOKSWITCH_OPERATOR_JWT_SECRET",
        );
    }
    Diagnosis::ok(CHECK, "organisations and operators can sign in")
}

fn public_url(settings: &Settings) -> Diagnosis {
    const CHECK: &str = "public URL";
    match &settings.receiver.public_url {
        Some(url) => Diagnosis::ok(CHECK, url),
        None => Diagnosis::warn(
            CHECK,
            "it is not set: Twilio's signatures cannot be verified",
            "set HOOKSWITCH_PUBLIC_URL, such as https://hooks.example.com",
        ),
    }
}

fn files() -> Diagnosis {
    const CHECK: &str = "open files";
    // The process raises its soft limit up to the hard one by itself.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < FILES_MIN => Diagnosis::warn(
            CHECK,
            format!("at most {limit}: so many senders can be connected at once"),
            format!("raise the limit (ulimit -n, or LimitNOFILE of the service) to {FILES_MIN} or more"),
        ),
        Some(limit) => Diagnosis::ok(CHECK, format!("at most {limit}")),
        None => Diagnosis::ok(CHECK, "no limit"),
    }
}

async fn database(settings: &Settings) -> Diagnosis {
    const CHECK: &str = "database";
    match store::migration_status(&settings.store.database_url).await {
        Err(error) => Diagnosis::fail(
            CHECK,
            error.to_string(),
            "start the database, or correct HOOKSWITCH_DATABASE_URL",
        ),
        Ok(status) if !status.pending.is_empty() => Diagnosis::fail(
            CHECK,
            format!("{} migrations are pending", status.pending.len()),
            "run `hookswitch migrate`",
        ),
        Ok(status) => Diagnosis::ok(CHECK, format!("it answers, with {} migrations", status.applied.len())),
    }
}
