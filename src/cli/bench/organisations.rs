//! Many organisations in one process: the time of `GET /api/integrations/status` over real HTTP,
//! and the hit rate of the cache of credentials where few organisations cause most of the work.

use super::{audit, load::read_answer};
use crate::{
    admin::{self, AdminNeeds, AdminState, Role},
    attempt::{Backoff, Engine, EngineSettings, Policy},
    cli::token::{Grant, mint_org_token},
    config::Settings,
    domain::{Clock, IntegrationState, OrgId, Provider, SystemClock},
    jobs::Jobs,
    listener::{self, Limits},
    provider::Providers,
    store::{
        self, Store,
        credentials::{Expects, NewCredential},
    },
    vault::{CacheStats, Keyring, Purpose, Vault},
};
use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde_json::json;
use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Debug, Args)]
pub(in crate::cli) struct OrganisationsArgs {
    /// Organisations, each with a credential
    #[arg(long, default_value_t = 10_000)]
    organisations: usize,
    /// Requests for the status of an organisation, each of another one
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Connections that send them
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Looks for a credential, after as many that warm the cache
    #[arg(long, default_value_t = 200_000)]
    looks: usize,
    /// Exponent of the Zipf distribution of the looks
    #[arg(long, default_value_t = 1.0)]
    exponent: f64,
}

const JWT_SECRET: &str = "a secret of the benchmark, 32+ bytes";

pub(super) async fn run(args: OrganisationsArgs, scratch: &Path) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut settings = Settings::default();
    settings.admin.jwt_secret = Some(JWT_SECRET.into());
    let url = format!("sqlite:{}", scratch.join("store.db").display());
    let store = store::create(&url, clock.clone()).await?;
    let vault = Arc::new(Vault::new(Keyring::dev(&scratch.join("dev.key"))?, store.clone()));
    let begun = Instant::now();
    let organisations = make(&store, &vault, args.organisations).await?;
    println!(
        "{} organisations with a credential each, in SQLite (made in {:.0} s)\n",
        organisations.len(),
        begun.elapsed().as_secs_f64()
    );
    let times = status(&args, &settings, &store, &vault, &clock, &organisations).await?;
    let ms = |q: f64| times.value_at_quantile(q) as f64 / 1e3;
    println!(
        "  GET /api/integrations/status, {} requests over {} connections, organisations in random order:\n    p50 \
         {:.2} ms   p90 {:.2} ms   p99 {:.2} ms   most {:.2} ms   (aim: p99 below 100 ms)",
        times.len(),
        args.connections,
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0)
    );
    let engine = engine(&settings, &store, &vault, &clock)?;
    let zipf = Zipf::new(organisations.len(), args.exponent);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    println!(
        "  Cache of credentials, {} looks each, Zipf {:.1} over {} organisations:",
        args.looks,
        args.exponent,
        organisations.len()
    );
    for (label, aim) in [("cold", ""), ("warm", "   (aim: above 95%)")] {
        let before = engine.cache_stats();
        for _ in 0..args.looks {
            let org = organisations[zipf.pick(random.number())];
            anyhow::ensure!(
                engine.has_credential(org, Provider::Twilio).await,
                "the credential of organisation {org} could not be loaded"
            );
        }
        let CacheStats {
            hits,
            misses,
            entries,
            entries_max,
            ..
        } = engine.cache_stats();
        let (hits, misses) = (hits - before.hits, misses - before.misses);
        let rate = hits as f64 / (hits + misses).max(1) as f64 * 100.0;
        println!("    {label}: {rate:.1}% hits, {misses} misses, {entries} of {entries_max} entries{aim}");
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn make(store: &Arc<dyn Store>, vault: &Arc<Vault>, count: usize) -> anyhow::Result<Vec<OrgId>> {
    // Many at once share the fsync of a commit.
    futures_util::stream::iter(0..count)
        .map(|number| one(store, vault, number))
        .buffer_unordered(128)
        .try_collect()
        .await
}

async fn one(store: &Arc<dyn Store>, vault: &Vault, number: usize) -> anyhow::Result<OrgId> {
    let (org, now) = (OrgId::generate(), SystemClock.now());
    let account = format!("AC{number:032x}");
    store
        .create_organisation(org, "Measured", audit(org, now, "create", "organisation"))
        .await?;
    let credential = json!({ "account_sid": account, "auth_token": "5a".repeat(16), "phone_number": "+12025550199" });
    let new = NewCredential {
        org,
        provider: Provider::Twilio,
        name: String::new(),
        sealed: vault
            .seal(
                org,
                Purpose::Credential(Provider::Twilio),
                credential.to_string().as_bytes(),
            )
            .await?,
        state: IntegrationState::Connected,
        missing: None,
        account_id: Some(account),
        account_name: None,
        account_fingerprint: None,
        last_four: None,
        verified_at: Some(now),
        expects: Expects::Anything,
    };
    store
        .save_credential(new, audit(org, now, "connect", "credential"))
        .await?;
    Ok(org)
}

fn engine(
    settings: &Settings,
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Engine> {
    let settings_of_engine = EngineSettings {
        policy: Policy {
            backoff: Backoff {
                min: settings.worker.backoff_seconds_min,
                max: settings.worker.backoff_seconds_max,
            },
            attempts_max: settings.worker.attempts_max,
            look_up_delay: settings.worker.settle_seconds,
        },
        deadline: Duration::from_secs(10),
        margin: Duration::from_secs(1),
        public_url: None,
        credentials_max: settings.vault.credentials_cached_max,
        credentials_time_to_live: settings.vault.credential_cache_seconds,
    };
    Ok(Engine::new(
        settings_of_engine,
        store.clone(),
        vault.clone(),
        Providers::new(&settings.provider, None)?,
        clock.clone(),
        Box::new(|| 0.5),
    ))
}

/// Microseconds of each request.
async fn status(
    args: &OrganisationsArgs,
    settings: &Settings,
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    clock: &Arc<dyn Clock>,
    organisations: &[OrgId],
) -> anyhow::Result<Histogram<u64>> {
    let needs = AdminNeeds {
        store: store.clone(),
        vault: vault.clone(),
        providers: Providers::new(&settings.provider, None)?,
        clock: clock.clone(),
        public_url: None,
        drop_credentials: Arc::new(|_| {}),
        cache_stats: Arc::new(Vec::new),
        queue_events: Arc::new(|| None),
        tasks: TaskTracker::new(),
        jobs: Jobs::new(store.clone()),
        jwks: None,
        refresher: None,
    };
    let router = admin::router(AdminState::new(settings, needs)?);
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let (address, stop) = (socket.local_addr()?, CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(listener::serve(
        socket,
        router,
        Limits::default(),
        stop.clone(),
        stop.clone(),
    ));
    let mut connections = JoinSet::new();
    for number in 0..args.connections {
        let mut random = Random(0x2545_f491_4f6c_dd1d ^ number as u64);
        let count = args.requests / args.connections.max(1);
        let mut requests = Vec::with_capacity(count);
        for _ in 0..count {
            let at = usize::try_from(random.bits() % organisations.len() as u64)?;
            requests.push(request(settings, organisations[at])?);
        }
        connections.spawn(connection(address, requests));
    }
    let mut all = Histogram::new(3)?;
    while let Some(done) = connections.join_next().await {
        all.add(done??)?;
    }
    stop.cancel();
    tasks.shutdown().await;
    Ok(all)
}

fn request(settings: &Settings, org: OrgId) -> anyhow::Result<Vec<u8>> {
    let grant = Grant {
        subject: "bench",
        now: SystemClock.now(),
        valid_for: Duration::from_hours(1),
    };
    let token = mint_org_token(&settings.admin, org, Role::Viewer, grant)?;
    let text =
        format!("GET /api/integrations/status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
    Ok(text.into_bytes())
}

async fn connection(address: SocketAddr, requests: Vec<Vec<u8>>) -> anyhow::Result<Histogram<u64>> {
    let mut seen = Histogram::new(3)?;
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(8192);
    for request in requests {
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let status = read_answer(&mut stream, &mut answer).await?;
        seen.record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))?;
        anyhow::ensure!(
            status == 200,
            "the status of an organisation answered {status}, not 200"
        );
    }
    Ok(seen)
}

/// Ranks with a weight of `1 / rank ^ exponent`.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for upto in &mut sums {
            *upto /= sum;
        }
        Self(sums)
    }

    /// The rank of a number in `[0, 1)`.
    fn pick(&self, number: f64) -> usize {
        self.0.partition_point(|upto| *upto <= number).min(self.0.len() - 1)
    }
}

/// xorshift64*: the same looks in every run.
struct Random(u64);

impl Random {
    const fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in `[0, 1)`.
    fn number(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_zipf_says() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut random = Random(7);
        let mut first = 0_u32;
        for _ in 0..100_000 {
            first += u32::from(zipf.pick(random.number()) == 0);
        }
        // 1 / H(1000) = 0.1336.
        assert!((12_900..13_900).contains(&first), "{first}");
        assert_eq!((zipf.pick(0.0), zipf.pick(0.999_999_999)), (0, 999));
    }
}
