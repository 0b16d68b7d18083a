//! `hookswitch dev`: everything in one process, a demo organisation, sandbox providers, and a
//! console that shows what happens.

mod console;
mod keys;
mod seed;

pub use seed::seed;

use super::{
    app::{App, Listeners, Options, Roles},
    dev_state::{DevState, random_hex},
    otlp::Otlp,
    samples::Sample,
    sandbox,
    send::Sender,
    serve, signals, token,
};
use crate::{
    admin::{self, Role},
    config::{AdminSettings, Environment, Settings},
    domain::{Clock, OrgId, SystemClock, create_private_directory, keep_private},
    lifecycle::Stage,
    store, telemetry,
    vault::Keyring,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where the database, the queue, the dev key and `dev.json` are kept
    #[arg(long, default_value = ".hookswitch")]
    data_dir: PathBuf,
    /// Ports N (webhooks), N+1 (admin API), N+2 (operations), N+3 (sandbox)
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..=65532))]
    port_base: u16,
    /// `json`: one line with URLs, tokens and ids, for scripts
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Send one sample by itself when everything is up
    #[arg(long)]
    demo: bool,
    /// Use the stand-in providers of a running `hookswitch sandbox` instead of ones of its own
    #[arg(long, value_name = "URL")]
    sandbox_url: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// The demo's ids: those of the payloads in `schemas/samples`, so that samples fit without asking.
const ASSISTANT: &str = "bd38a607-499f-45b3-acf8-adf2a1085da2";
const PHONE_NUMBER: &str = "+15552010100";
const CUSTOMER_NUMBER: &str = "+15552010188";
/// The sample that `--demo` sends.
const DEMO_SAMPLE: &str = "vapi/end-of-call-report";
/// How long the printed tokens open the sandbox's demo: what is printed is the same after a
/// restart.
const TOKEN_LIFE: Duration = Duration::from_hours(24 * 3650);

/// The settings that differ from production: limits above the load of benchmarks, and a sandbox on
/// loopback whose list shows a message at once.
///
/// An environment may override each.
#[must_use]
pub fn demo_settings(
    environment: &Environment,
    directory: &Path,
    port_base: u16,
    sandbox: &str,
    state: &DevState,
) -> Environment {
    let at = |offset: u16| format!("127.0.0.1:{}", port_base + offset);
    let file = |kind: &str, name: &str| format!("{kind}{}", directory.join(name).display());
    [
        ("HOOKSWITCH_INGRESS_ADDRESS", at(0)),
        ("HOOKSWITCH_ADMIN_ADDRESS", at(1)),
        ("HOOKSWITCH_ADMIN_ORIGINS", "loopback".to_owned()),
        ("HOOKSWITCH_ADMIN_REQUESTS_PER_MINUTE_MAX", "60000".to_owned()),
        ("HOOKSWITCH_OPERATIONS_ADDRESS", at(2)),
        ("HOOKSWITCH_PUBLIC_URL", format!("http://{}", at(0))),
        ("HOOKSWITCH_DATABASE_URL", file("sqlite:", "store.db")),
        ("HOOKSWITCH_QUEUE_URL", file("embedded:", "queue")),
        ("HOOKSWITCH_SPOOL_DIRECTORY", file("", "spool")),
        ("HOOKSWITCH_SPOOL_MAY_BE_VOLATILE", "true".to_owned()),
        ("HOOKSWITCH_DISK_FREE_BYTES_MIN", (64 << 20).to_string()),
        ("HOOKSWITCH_TWILIO_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_VAPI_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_HTTP_ALLOWED_NETWORKS", "127.0.0.0/8".to_owned()),
        ("HOOKSWITCH_HTTP_PLAIN_ALLOWED", "true".to_owned()),
        ("HOOKSWITCH_JWT_SECRET", state.jwt_secret.clone()),
        ("HOOKSWITCH_OPERATOR_JWT_SECRET", state.operator_jwt_secret.clone()),
        ("HOOKSWITCH_RECORD_UNWANTED_PER_SECOND_MAX", "50".to_owned()),
        ("HOOKSWITCH_ACTIONS_PER_DAY_MAX", "1000000000".to_owned()),
        ("HOOKSWITCH_ATTEMPTS_CONCURRENT_PER_ORG_MAX", "128".to_owned()),
        ("HOOKSWITCH_CLAIM_TURN_MAX", "128".to_owned()),
        ("HOOKSWITCH_CONNECTIONS_PER_ADDRESS_MAX", "10000".to_owned()),
        ("HOOKSWITCH_RESEND_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_ELEVENLABS_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_GOOGLE_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_GOOGLE_TOKEN_BASE_URL", sandbox.to_owned()),
        ("HOOKSWITCH_GOOGLE_CONSENT_URL", format!("{sandbox}/o/oauth2/v2/auth")),
        ("HOOKSWITCH_GOOGLE_CLIENT_ID", keys::GOOGLE_CLIENT.to_owned()),
        ("HOOKSWITCH_GOOGLE_CLIENT_SECRET", state.vapi_api_key.clone()),
        (
            "HOOKSWITCH_GOOGLE_REDIRECT_URL",
            google_redirect(&format!("http://{}", at(1))),
        ),
        ("HOOKSWITCH_SETTLE_SECONDS", "2".to_owned()),
        ("HOOKSWITCH_BACKOFF_SECONDS_MIN", "1".to_owned()),
        ("HOOKSWITCH_LOG_FORMAT", "human".to_owned()),
        ("HOOKSWITCH_LOG_LEVEL", "warn".to_owned()),
    ]
    .into_iter()
    .fold(environment.clone(), |all, (name, value)| {
        if all.get(name).is_some() {
            all
        } else {
            all.with(name, value)
        }
    })
}

pub(super) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let mut state = load_state(&args)?;
    let environment = demo_settings(
        &Environment::from_process(),
        &args.data_dir,
        args.port_base,
        &state.sandbox,
        &state,
    );
    let settings = Settings::load(&environment)?;
    let otlp = Otlp::start(&settings.telemetry, telemetry::start_logs(&settings.telemetry)?)?;
    let budget = settings.worker.drain_seconds;
    let stop = signals::watch(settings.worker.leave_seconds + budget)?;
    let app = tokio::select! {
        started = start(&args, settings) => started?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    // Only now the directory is ours: a second `dev` on it was refused, and changed nothing.
    state.save(&args.data_dir)?;
    let accounts = keys::accounts(&state, google_redirect(&state.admin));
    sandbox::register(&state.sandbox, &accounts).await?;
    if !state.is_seeded {
        seed(&state, app.store(), app.vault()).await?;
        state.is_seeded = true;
        state.save(&args.data_dir)?;
    }
    let code = admin::make_link(&**app.store(), state.org_id, Role::Owner, "dev", SystemClock.now()).await?;
    let sign_in = format!("{}/api/session/open?code={code}", state.admin);
    match args.format {
        Format::Json => println!("{}", state.line(&sign_in, keys::shown(&state))),
        Format::Human => {
            greet(&state, &args, &sign_in);
            let console = console::Console::new(app.store().clone(), state.clone())?;
            app.lifecycle()
                .start(Stage::Upkeep, console.run(app.lifecycle().soft(Stage::Upkeep)));
        }
    }
    if args.demo {
        let sample = Sample::find(DEMO_SAMPLE).context("the demo's sample is part of the binary")?;
        let answer = Sender::new(&state, None)?.send(sample).await?;
        if args.format == Format::Human {
            println!("sent    {DEMO_SAMPLE}  {}", answer.status);
        }
    }
    let ended = serve::until_stopped(app, stop, budget).await;
    if let Some(otlp) = otlp {
        otlp.flush().await;
    }
    ended
}

/// The directory's state, or a fresh one, with the URLs of this start.
fn load_state(args: &DevArgs) -> anyhow::Result<DevState> {
    create_private_directory(&args.data_dir)
        .with_context(|| format!("cannot make the data directory {}", args.data_dir.display()))?;
    // Queue and database see to their own files. A key that others could read is refused: it is to
    // be replaced.
    for path in [&args.data_dir, &args.data_dir.join(DevState::FILE)] {
        keep_private(path)
            .with_context(|| format!("cannot take the rights of others to read {} away", path.display()))?;
    }
    let mut state = match DevState::load(&args.data_dir)? {
        Some(state) => state,
        None => fresh_state()?,
    };
    let url = |offset: u16| format!("http://127.0.0.1:{}", args.port_base + offset);
    state.ingress = url(0);
    state.admin = url(1);
    state.operations = url(2);
    state.sandbox = args
        .sandbox_url
        .as_deref()
        .map_or_else(|| url(3), |given| given.trim_end_matches('/').to_owned());
    Ok(state)
}

/// Starts the process, and a sandbox of its own where no running one is named.
async fn start(args: &DevArgs, settings: Settings) -> anyhow::Result<App> {
    let keyring = Keyring::dev(&args.data_dir.join("dev.key"))?;
    let listeners = Listeners::bind(&settings, Roles::ALL).await?;
    let own_sandbox = match &args.sandbox_url {
        None => Some(
            sandbox::Own::bind(args.port_base + 3)
                .await
                .context("--port-base chooses the ports")?,
        ),
        Some(_) => None,
    };
    store::migrate(&settings.store.database_url, std::sync::Arc::new(SystemClock)).await?;
    let app = App::start(settings, keyring, listeners, Options::default()).await?;
    if let Some(sandbox) = own_sandbox {
        app.lifecycle()
            .start(Stage::Upkeep, sandbox.serve(app.lifecycle().soft(Stage::Upkeep)));
    }
    Ok(app)
}

fn google_redirect(admin: &str) -> String {
    format!("{admin}/api/integrations/google_calendar/callback")
}

fn fresh_state() -> anyhow::Result<DevState> {
    let org_id = OrgId::generate();
    let (jwt_secret, operator_jwt_secret) = (random_hex(32)?, random_hex(32)?);
    let admin = AdminSettings {
        jwt_secret: Some(jwt_secret.clone().into()),
        operator_jwt_secret: Some(operator_jwt_secret.clone().into()),
        ..AdminSettings::default()
    };
    let grant = token::Grant {
        subject: "dev",
        now: SystemClock.now(),
        valid_for: TOKEN_LIFE,
    };
    Ok(DevState {
        ingress: String::new(),
        admin: String::new(),
        operations: String::new(),
        sandbox: String::new(),
        admin_token: token::mint_org_token(&admin, org_id, Role::Owner, grant)?,
        operator_token: token::mint_operator_token(&admin, grant)?,
        org_id,
        assistant_id: ASSISTANT.to_owned(),
        phone_number: PHONE_NUMBER.to_owned(),
        vapi_secret: random_hex(24)?,
        twilio_account_sid: format!("AC{}", random_hex(16)?),
        twilio_auth_token: random_hex(16)?,
        customer_number: CUSTOMER_NUMBER.to_owned(),
        jwt_secret,
        operator_jwt_secret,
        vapi_api_key: random_hex(18)?,
        is_seeded: false,
    })
}

fn greet(state: &DevState, args: &DevArgs, sign_in: &str) {
    let more = if args.data_dir == Path::new(".hookswitch") {
        String::new()
    } else {
        format!(" --data-dir {}", args.data_dir.display())
    };
    println!("Hookswitch is up: receiver, worker, admin API and sandbox providers in one process. Ctrl-C stops it.");
    println!(
        "  webhooks     {}/webhooks/vapi   {}/webhooks/twilio",
        state.ingress, state.ingress
    );
    println!(
        "  admin API    {}   (Authorization: Bearer {})",
        state.admin, state.admin_token
    );
    println!("  dashboard    {sign_in}   (signs in once, within 15 minutes)");
    println!(
        "  operations   {}/metrics   {}/readyz",
        state.operations, state.operations
    );
    println!("  sandbox      {}/_requests   (docs/sandbox.md)", state.sandbox);
    if let Some(providers) = keys::shown(state).as_object() {
        println!("To connect at the sandbox, as bodies of POST /api/integrations/{{provider}}:");
        for (provider, bodies) in providers {
            for (kind, body) in bodies.as_object().into_iter().flatten() {
                println!("  {provider:<15} {kind:<7} {body}");
            }
        }
    }
    println!("  data         {}", args.data_dir.display());
    println!("Try, in another terminal:");
    println!("  cargo run --release -- send vapi/end-of-call-report{more}");
    println!();
}
