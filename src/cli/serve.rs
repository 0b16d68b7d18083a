//! `hookswitch serve`: receiver, worker and admin API on the settings of the environment.

use super::{
    app::{App, Listeners, Options, Roles},
    otlp::Otlp,
    signals,
};
use crate::{
    admin,
    config::{ConfigError, Environment, Fault, Settings, TelemetrySettings},
    lifecycle::Drained,
    listener,
    provider::Providers,
    receiver, store, telemetry,
    vault::Keyring,
};
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Roles of this process, named once each or as a list with commas; all when none is named
    #[arg(long = "role", value_enum, value_delimiter = ',')]
    roles: Vec<Role>,
    /// Judge the settings, tell every fault, and start nothing
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Role {
    Receiver,
    Worker,
    Admin,
}

impl ServeArgs {
    fn roles(&self) -> Roles {
        let has = |role| self.roles.is_empty() || self.roles.contains(&role);
        Roles {
            receiver: has(Role::Receiver),
            worker: has(Role::Worker),
            admin: has(Role::Admin),
        }
    }
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let environment = Environment::from_process();
    let judged = judge(&environment);
    if args.check {
        let _ = judged?;
        println!("The settings can be used.");
        return Ok(ExitCode::SUCCESS);
    }
    let (settings, _) = Settings::read(&environment);
    let outbox = match telemetry::start_logs(&settings.telemetry) {
        Ok(outbox) => outbox,
        Err(_) => telemetry::start_logs(&TelemetrySettings::default())?,
    };
    let otlp = Otlp::start(&settings.telemetry, outbox)?;
    let ended = match judged {
        Ok(judged) => start(&args, judged).await,
        Err(faults) => Err(faults.into()),
    };
    // A line of the log's format: a pipeline that reads JSON drops any other.
    let code = ended.unwrap_or_else(|error| {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        tracing::error!(because = causes.join(": "), "hookswitch ends: {error}");
        ExitCode::FAILURE
    });
    if let Some(otlp) = otlp {
        otlp.flush().await;
    }
    Ok(code)
}

/// Reads the settings, and has each room judge its own: all faults at once.
fn judge(environment: &Environment) -> Result<(Settings, Keyring), ConfigError> {
    let (settings, mut faults) = Settings::read(environment);
    let mut fault = |name: &str, problem: String| {
        // A URL that does not parse was reported already.
        faults.push(Fault {
            name: name.to_owned(),
            problem,
        });
    };
    let keyring = Keyring::load(&settings.vault);
    if let Err(error) = &keyring {
        fault("HOOKSWITCH_KEYRING", error.to_string());
    }
    if let Err(error) = telemetry::check_settings(&settings.telemetry) {
        fault("HOOKSWITCH_LOG_LEVEL", error.to_string());
    }
    if let Err(error) = store::shown(&settings.store.database_url) {
        fault("HOOKSWITCH_DATABASE_URL", error.to_string());
    }
    for error in receiver::check_settings(&settings.receiver) {
        fault(error.setting(), error.to_string());
    }
    if let Err(error) = Providers::new(&settings.provider, None) {
        faults.extend(error.faults);
    }
    faults.extend(admin::check_settings(&settings.admin));
    match keyring {
        Ok(keyring) if faults.is_empty() => Ok((settings, keyring)),
        _ => Err(ConfigError { faults }),
    }
}

async fn start(args: &ServeArgs, (settings, keyring): (Settings, Keyring)) -> anyhow::Result<ExitCode> {
    let roles = args.roles();
    roles.check(&settings)?;
    if settings.receiver.public_url.is_none() {
        tracing::warn!(
            "HOOKSWITCH_PUBLIC_URL is not set: signatures over the URL are compared with the request's own headers, \
            and messages are sent without a status callback, so that an outcome nobody answered is looked up instead"
        );
    }
    let budget = settings.worker.drain_seconds;
    let stop = signals::watch(settings.worker.leave_seconds + budget)?;
    let listeners = Listeners::bind(&settings, roles).await?;
    let (database, queue) = (store::shown(&settings.store.database_url)?, shown_queue(&settings));
    let (connections_max, files_max) = (settings.receiver.connections_max, listener::raise_file_limit());
    let app = tokio::select! {
        started = App::start(settings, keyring, listeners, Options { roles, ..Options::default() }) => started?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let keys: Vec<_> = app.vault().key_ids().into_iter().map(|key| key.0).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        roles = %roles,
        ingress = app.addresses().ingress.map(tracing::field::display),
        admin = app.addresses().admin.map(tracing::field::display),
        operations = %app.addresses().operations,
        database,
        queue = app.queue().is_some().then_some(queue),
        keys = keys.join(","),
        organisations = app.routes().organisations_len(),
        routes = app.routes().routes_len(),
        connections_max = app.addresses().ingress.map(|_| connections_max),
        files_max,
        "Hookswitch is ready"
    );
    until_stopped(app, stop, budget).await
}

/// The queue's URL as people look for it: an absolute path. Never a user or a password.
fn shown_queue(settings: &Settings) -> String {
    let url = &settings.queue.queue_url;
    match url.split_once(':') {
        Some(("embedded", path)) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
            format!("embedded:{}", path.display())
        }
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{}", host.trim_start_matches('/'))
        }
        None => String::new(),
    }
}

/// Waits for the signal to stop or for a failure that is final, then drains within `budget`.
pub(super) async fn until_stopped(app: App, stop: CancellationToken, budget: Duration) -> anyhow::Result<ExitCode> {
    let failure = tokio::select! {
        () = stop.cancelled() => None,
        reason = app.failed() => Some(reason),
    };
    let begun = Instant::now();
    let drained = app.stop(budget).await;
    if let Some(reason) = failure {
        bail!("{reason}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    // Closed by now: what is left needs this directory again, so the process does not end as if all
    // were well (invariant 12).
    if let Some(spool) = app
        .queue()
        .and_then(|queue| queue.spool())
        .filter(|spool| spool.events > 0)
    {
        bail!(
            "the spool still holds {} events in {}: start the receiver on this directory again, or publish them with \
            `hookswitch spool drain`",
            spool.events,
            spool.directory.display()
        );
    }
    match drained {
        Drained::Clean => tracing::info!(seconds, "Stopped; everything that was begun has ended"),
        Drained::CutOff(stage) => tracing::warn!(
            seconds,
            "Stopped at the deadline of {} seconds before {stage} had ended; what was cut off is found again at the \
            next start",
            budget.as_secs_f64()
        ),
    }
    Ok(ExitCode::SUCCESS)
}
