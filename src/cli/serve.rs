//! `hookswitch serve`: receiver, worker and admin API on the settings of the environment.

use super::app::{App, Listeners, Options};
use crate::{
    config::{Environment, Settings},
    lifecycle::Drained,
    telemetry,
    vault::Keyring,
};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::{process::ExitCode, time::Duration};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Roles of this process; all when none is named. Embedded backends mean one process: they need
    /// all roles in it
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Role {
    Receiver,
    Worker,
    Admin,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&Environment::from_process())?;
    telemetry::start_logs(&settings.telemetry)?;
    let all = [Role::Receiver, Role::Worker, Role::Admin];
    if !args.roles.is_empty() && !all.iter().all(|role| args.roles.contains(role)) {
        bail!(
            "--role names some roles only, and the embedded queue and database belong to one process: leave --role out"
        );
    }
    let keyring = Keyring::load(&settings.vault).context("the key-encryption keys cannot be used")?;
    if settings.admin.jwt_secret.is_none() && settings.admin.jwt_jwks_url.is_none() {
        bail!(
            "nobody could use the admin API: set HOOKSWITCH_JWT_SECRET (at least 32 bytes) or HOOKSWITCH_JWT_JWKS_URL"
        );
    }
    let listeners = Listeners::bind(&settings).await?;
    let drain = settings.worker.drain_seconds;
    let app = App::start(settings, keyring, listeners, Options::default()).await?;
    tracing::info!(
        ingress = %app.addresses().ingress,
        admin = %app.addresses().admin,
        operations = %app.addresses().operations,
        "Hookswitch is ready"
    );
    until_stopped(app, drain).await
}

/// Waits for a signal or for a failure that is final, then drains for so long at most. A second
/// signal stops at once.
pub(super) async fn until_stopped(app: App, drain: Duration) -> anyhow::Result<ExitCode> {
    let failure = tokio::select! {
        () = signal() => None,
        reason = app.failed() => Some(reason),
    };
    let hard = app.lifecycle().hard();
    let drained = tokio::select! {
        drained = app.stop(drain) => drained,
        () = async { signal().await; hard.cancel(); std::future::pending().await } => unreachable!("the second arm \
            never ends"),
    };
    if let Some(reason) = failure {
        bail!("{reason}");
    }
    match drained {
        Drained::Clean => Ok(ExitCode::SUCCESS),
        Drained::CutOff(stage) => {
            bail!("stopped before {stage:?} was drained; what it had begun is found again at the next start")
        }
    }
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the default action of a signal ends the process, which is the next best
        // thing.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
