//! `hookswitch bench`: this machine's figures, each beside its baseline in the same run. Loopback
//! only.

mod actions;
#[cfg(feature = "rabbitmq")]
mod amqp;
mod backends;
mod cpu;
mod ingest;
#[cfg(feature = "kafka")]
mod kafka;
mod load;
mod organisations;
mod overload;
mod refusals;
mod sides;
mod sinks;

use crate::{
    domain::{Clock, Endpoint, EndpointId, OrgId, RouteState, SecretId, Source, SystemClock, Timestamp},
    store::{
        self, Store,
        audit::{AuditEntry, Changes},
        endpoints::NewSecret,
        routes::{AssistantClaim, Displaces, Proof},
    },
    vault::{Keyring, Purpose, Vault},
};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
    /// Where the files of the run are made and removed; it decides which disk is measured
    #[arg(long, global = true, default_value = ".hookswitch/bench")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Signed events to a durable 200, beside the same server that drops them and one with nothing
    /// but an append-only file
    Ingest(ingest::IngestArgs),
    /// SMS actions from the queue to the sandbox Twilio, beside a bare HTTP client's loop; and
    /// events that no rule wants
    Actions(actions::ActionsArgs),
    /// Five times the reached rate: how many are still taken and how long they wait, how the others
    /// are refused, and the memory
    Overload(overload::OverloadArgs),
    /// How long a 401 takes by its cause: a known organisation with a wrong secret, ids and
    /// endpoints that lead nowhere
    Refusals(refusals::RefusalsArgs),
    /// Many organisations: how long the status of integrations takes, and how many looks the cache
    /// of credentials serves
    Organisations(organisations::OrganisationsArgs),
    /// Load on a running `dev`, at a rate or as fast as it answers
    Load(ingest::LoadArgs),
}

pub(super) async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::make(&args.dir)?;
    println!("{}", machine());
    match args.what {
        What::Ingest(args) => ingest::run(args, scratch.path()).await,
        What::Actions(args) => actions::run(args, scratch.path()).await,
        What::Overload(args) => overload::run(args, scratch.path()).await,
        What::Refusals(args) => refusals::run(args, scratch.path()).await,
        What::Organisations(args) => organisations::run(args, scratch.path()).await,
        What::Load(args) => ingest::load_dev(args).await,
    }
}

/// A directory of this run, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: &Path) -> anyhow::Result<Self> {
        let path = parent.join(uuid::Uuid::now_v7().to_string());
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The machine of the figures.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("model name")
                    .and_then(|rest| rest.split_once(':'))
                    .map(|(_, name)| name.trim().to_owned())
            })
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let profile = if cfg!(debug_assertions) {
        "debug build: figures mean nothing"
    } else {
        "release build"
    };
    format!(
        "hookswitch {} · {cores} cores · {model} · {profile}",
        env!("CARGO_PKG_VERSION")
    )
}

/// The assistant and secret of the organisation that is measured.
const ASSISTANT: &str = "bd38a607-499f-45b3-acf8-adf2a1085da2";
const SECRET: &str = "d6706284aac1f6c0f0b7922d46e9af3cac8bc74fbd4bff11";
const PLAN: &str = r#"{"type":"hmac","algorithm":"sha256","includeTimestamp":false,"payloadFormat":"{body}","signatureHeader":"x-vapi-signature"}"#;

/// A store and vault with one organisation: one endpoint, one secret, one live assistant.
async fn organisation(directory: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<(Arc<dyn Store>, Arc<Vault>, OrgId)> {
    let url = format!("sqlite:{}", directory.join("store.db").display());
    organisation_in(&url, &directory.join("dev.key"), clock).await
}

/// The same in any database, under the key of a file.
async fn organisation_in(
    url: &str,
    key: &Path,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Arc<dyn Store>, Arc<Vault>, OrgId)> {
    let store = store::create(url, clock.clone()).await?;
    let key = Keyring::dev(key)?;
    let vault = Arc::new(Vault::new(key, store.clone()));
    let org = OrgId::generate();
    let now = SystemClock.now();
    store
        .create_organisation(org, "Measured", audit(org, now, "create", "organisation"))
        .await?;
    create_endpoint(&store, &vault, org, now).await?;
    prove_assistant(&store, org, now).await?;
    Ok((store, vault, org))
}

fn audit(org: OrgId, at: Timestamp, verb: &'static str, target_kind: &'static str) -> AuditEntry {
    AuditEntry {
        org,
        at,
        actor: "bench".to_owned(),
        verb,
        target_kind,
        target_id: String::new(),
        changes: Changes::default(),
        address: None,
    }
}

async fn create_endpoint(store: &Arc<dyn Store>, vault: &Vault, org: OrgId, now: Timestamp) -> anyhow::Result<()> {
    let endpoint = EndpointId::generate();
    let secret = NewSecret {
        id: SecretId::generate(),
        org,
        endpoint: Some(endpoint),
        source: Source::Vapi,
        plan: PLAN.to_owned(),
        sealed: vault
            .seal(org, Purpose::SigningSecret(Source::Vapi), SECRET.as_bytes())
            .await?,
        last_four: None,
    };
    let endpoint = Endpoint {
        id: endpoint,
        org,
        source: Source::Vapi,
        name: "Measured".to_owned(),
        is_active: true,
        ignored_types: Vec::new(),
        version: 1,
        created_at: now,
    };
    store
        .create_endpoint(endpoint, vec![secret], audit(org, now, "create", "endpoint"))
        .await?;
    Ok(())
}

async fn prove_assistant(store: &Arc<dyn Store>, org: OrgId, now: Timestamp) -> anyhow::Result<()> {
    let claim = AssistantClaim {
        org,
        assistant_id: ASSISTANT.to_owned(),
        role: None,
        name: None,
        state: RouteState::Live,
        proof: Some(Proof::MadeByUs),
        proven_at: Some(now),
        is_platform_managed: false,
        version: 1,
        created_at: now,
    };
    store
        .prove_assistant(claim, Displaces::Anyone, audit(org, now, "prove", "assistant"))
        .await?;
    Ok(())
}
