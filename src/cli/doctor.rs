//! `hookswitch doctor`: checks each thing that this installation needs, and names the cure.
//!
//! The command line enters. **Invariant:** a look changes nothing: no file, no topic, no row.

use super::app::event_bytes_max;
use crate::{
    config::{Environment, Settings},
    domain::{CLOCK_OFFSET_CLAIM_MAX, SystemClock},
    queue, store,
    telemetry::{Diagnosis, Verdict},
    vault::Keyring,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::{io::Write, process::ExitCode, time::Duration};

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
        lease(&settings),
    ];
    checks.extend(database(&settings).await);
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

/// The room that a lease leaves beside an exchange; with less of it attempts are given back.
const LEASE_ROOM: Duration = Duration::from_secs(10);

fn lease(settings: &Settings) -> Diagnosis {
    const CHECK: &str = "lease";
    let (lease, attempt) = (settings.worker.lease_seconds, settings.worker.attempt_seconds_max);
    let found = format!(
        "a claim holds for {} s, an exchange takes up to {} s",
        lease.as_secs(),
        attempt.as_secs()
    );
    if lease < attempt + LEASE_ROOM {
        return Diagnosis::warn(
            CHECK,
            found,
            "set HOOKSWITCH_LEASE_SECONDS to HOOKSWITCH_ATTEMPT_SECONDS_MAX and 10 seconds or more",
        );
    }
    Diagnosis::ok(CHECK, found)
}

async fn database(settings: &Settings) -> Vec<Diagnosis> {
    const CHECK: &str = "database";
    let url = &settings.store.database_url;
    let away = |error: store::ConnectError| {
        let cure = "start the database, or correct HOOKSWITCH_DATABASE_URL";
        vec![Diagnosis::fail(CHECK, error.to_string(), cure)]
    };
    let status = match store::migration_status(url).await {
        Err(error) => return away(error),
        Ok(status) => status,
    };
    if !status.pending.is_empty() {
        let found = format!("{} migrations are pending", status.pending.len());
        return vec![Diagnosis::fail(CHECK, found, "run `hookswitch migrate`")];
    }
    let look = match store::look(url, &SystemClock).await {
        Err(error) => return away(error),
        Ok(look) => look,
    };
    let answers = format!("it answers, with {} migrations", status.applied.len());
    vec![
        Diagnosis::ok(CHECK, answers),
        clock(look.clock_offset_micros),
        leases(look.ended_leases),
    ]
}

/// Beyond [`CLOCK_OFFSET_CLAIM_MAX`] nothing is claimed (invariant 16).
fn clock(offset_micros: Option<i64>) -> Diagnosis {
    const CHECK: &str = "clock";
    let Some(offset) = offset_micros else {
        return Diagnosis::ok(CHECK, "the database is a file: it has no clock of its own");
    };
    let found = format!("the database's clock is {:.3} s from ours", offset as f64 / 1e6);
    if Duration::from_micros(offset.unsigned_abs()) > CLOCK_OFFSET_CLAIM_MAX {
        return Diagnosis::fail(
            CHECK,
            format!("{found}: no worker claims an action"),
            "correct the wrong clock: see time synchronisation on both machines (timedatectl, chronyc tracking)",
        );
    }
    Diagnosis::ok(CHECK, found)
}

fn leases(ended: u64) -> Diagnosis {
    const CHECK: &str = "leases";
    if ended > 0 {
        return Diagnosis::warn(
            CHECK,
            format!("{ended} actions run under leases that ended more than a minute ago"),
            "start a worker: it looks their outcomes up before anything is sent again",
        );
    }
    Diagnosis::ok(CHECK, "none has ended unnoticed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_keeps_workers_from_claiming_fails() {
        let limit = i64::try_from(CLOCK_OFFSET_CLAIM_MAX.as_micros()).expect("small");
        for (offset, verdict) in [
            (None, Verdict::Ok),
            (Some(limit), Verdict::Ok),
            (Some(limit + 1), Verdict::Fail),
            (Some(-limit - 1), Verdict::Fail),
        ] {
            assert_eq!(clock(offset).status, verdict, "{offset:?}");
        }
    }

    #[test]
    fn a_lease_without_room_beside_an_exchange_is_a_warning() {
        let mut settings = Settings::default();
        assert_eq!(lease(&settings).status, Verdict::Ok);
        settings.worker.lease_seconds = settings.worker.attempt_seconds_max + Duration::from_secs(9);
        assert_eq!(lease(&settings).status, Verdict::Warn);
    }
}
