//! Ingest: the same accept loop, the same verification; only the sink differs.

use super::{ASSISTANT, SECRET, cpu::Processes, load, organisation, sides::Sides};
use crate::{
    cli::dev_state::DevState,
    config::{ReceiverSettings, Settings},
    domain::{Clock, SystemClock},
    lifecycle::{Lifecycle, Stage},
    listener,
    queue::{Disk, EventQueue, LogQueue, LogSettings, RealDisk},
    receiver::{Receiver, ReceiverParts},
    routing::RouteTable,
    store::Store,
    telemetry::Recorder,
    vault::Vault,
};
use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct IngestArgs {
    /// Connections, one line of the table each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    connections: Vec<usize>,
    /// Seconds of load a sink and round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; sinks take turns, so that a drifting machine drifts for all of them. An even number
    /// lets each follow each other one
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Bytes of a body
    #[arg(long, default_value_t = 2048)]
    body_bytes: usize,
    /// Requests a second in all, open loop; not set: as fast as they are answered
    #[arg(long)]
    rate: Option<f64>,
    /// Measure this queue in the place of the embedded one: kafka://host:port, which keeps a topic
    /// of the run, or amqp://…
    #[arg(long)]
    queue_url: Option<String>,
    /// Processes whose CPU time for each event is shown too, such as the broker's
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    cpu_of: Vec<u32>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    #[arg(long, default_value = ".hookswitch")]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests a second in all, open loop; not set: as fast as they are answered
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 2048)]
    body_bytes: usize,
    /// The kind of message: `end-of-call-report` is what the demo's rules act on
    #[arg(long, default_value = "status-update")]
    kind: String,
}

/// Rates and latencies of one sink over all rounds.
#[derive(Default)]
struct Column {
    per_second: Vec<f64>,
    latency: Vec<String>,
    /// Microseconds an event of each process.
    cpu: Vec<Vec<f64>>,
}

impl Column {
    /// The median of the rounds, of each process.
    fn cpu(&self) -> Vec<f64> {
        let processes = self.cpu.first().map_or(0, Vec::len);
        let of = |process| median(&self.cpu.iter().map(|round| round[process]).collect::<Vec<_>>());
        (0..processes).map(of).collect()
    }
}

pub(super) async fn run(args: IngestArgs, scratch: &Path) -> anyhow::Result<ExitCode> {
    let _recorder = Recorder::install();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, vault, _) = organisation(scratch, &clock).await?;
    let sides = Sides::of(args.queue_url.as_deref())?;
    let processes = Processes::of(&args.cpu_of);
    println!(
        "{} bytes of body, unique signed events (HMAC-SHA256), {} s × {} rounds, load on the same cores\n",
        args.body_bytes, args.seconds, args.rounds
    );
    for connections in &args.connections {
        let mut columns: [Column; 3] = Default::default();
        for round in 0..args.rounds {
            // A broker still works on what the side before left to it, so each side follows each
            // other.
            let order = if round % 2 == 0 { [0, 1, 2] } else { [0, 2, 1] };
            for sink in order {
                let column = &mut columns[sink];
                let directory = scratch.join(format!("{connections}-{round}-{sink}"));
                std::fs::create_dir_all(&directory)?;
                let limit = crate::cli::app::event_bytes_max(&settings());
                let queue = sides.open(sink, &directory, &settings().queue, limit, &clock).await?;
                let before = processes.times()?;
                let report = measure(&args, *connections, queue, &store, &vault, &clock).await?;
                column.cpu.push(processes.since(&before, report.answered)?);
                column.per_second.push(report.per_second());
                column.latency.push(report.latency_line());
                anyhow::ensure!(
                    report.all_good(),
                    "{}: not every answer was 200: {:?}",
                    sides.names()[sink],
                    report.by_status
                );
                std::fs::remove_dir_all(&directory)?;
            }
        }
        print(*connections, &sides, &columns, &processes);
        if args.rate.is_none() {
            let env = Env {
                store: &store,
                vault: &vault,
                clock: &clock,
            };
            let rate = median(&columns[2].per_second);
            if matches!(sides, Sides::Embedded) {
                at_half(&args, *connections, rate, scratch, &env).await?;
            } else {
                let limit = crate::cli::app::event_bytes_max(&settings());
                let queue = sides.open(2, scratch, &settings().queue, limit, &clock).await?;
                let report = measure_half(&args, *connections, rate, queue, &env).await?;
                println!("  at half of that, from when each was due: {}\n", report.latency_line());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(connections: usize, sides: &Sides, columns: &[Column; 3], processes: &Processes) {
    let medians = columns.each_ref().map(|column| median(&column.per_second));
    println!("{connections} connections");
    for (sink, column) in columns.iter().enumerate() {
        let spread = column
            .per_second
            .iter()
            .map(|rate| format!("{rate:.0}"))
            .collect::<Vec<_>>()
            .join(", ");
        println!(
            "  {:<30} {:>8.0}/s   ({spread})   last round: {}",
            sides.names()[sink],
            medians[sink],
            column.latency.last().map_or("", String::as_str)
        );
        println!("  {:<30} CPU an event: {}", "", processes.line(&column.cpu()));
    }
    for side in [1, 0] {
        let ratio = format!("hookswitch ÷ {}", sides.names()[side]);
        println!("  {ratio:<44} {:>6.2}", medians[2] / medians[side]);
    }
}

/// The machine's disk, with the time of each fsync of the log.
pub(super) struct TimedDisk(Mutex<Histogram<u64>>);

impl TimedDisk {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self(Mutex::new(Histogram::new(3)?))))
    }

    /// In milliseconds.
    fn quantile(&self, q: f64) -> f64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .value_at_quantile(q) as f64
            / 1e3
    }
}

impl Disk for TimedDisk {
    fn sync(&self, file: &File, path: &Path) -> std::io::Result<()> {
        let begun = Instant::now();
        RealDisk.sync(file, path)?;
        if path.extension().is_some_and(|extension| extension == "seg") {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

/// The p99 of the answer at half of the reached rate, from when each request was due, beside the
/// p99 of the same run's fsyncs.
async fn at_half(
    args: &IngestArgs,
    connections: usize,
    rate: f64,
    scratch: &Path,
    env: &Env<'_>,
) -> anyhow::Result<()> {
    let directory = scratch.join(format!("{connections}-half"));
    let disk = TimedDisk::new()?;
    let queue = LogQueue::open_on(
        disk.clone(),
        &directory,
        LogSettings::new(&settings().queue, crate::cli::app::event_bytes_max(&settings())),
        env.clock.clone(),
    )
    .await?;
    let report = measure_half(args, connections, rate, Arc::new(queue), env).await?;
    println!(
        "  at half of that, {:.0}/s, from when each was due: {}",
        rate / 2.0,
        report.latency_line()
    );
    println!(
        "  fsync in that run: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n",
        disk.quantile(0.5),
        disk.quantile(0.99),
        disk.quantile(1.0)
    );
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn measure_half(
    args: &IngestArgs,
    connections: usize,
    rate: f64,
    queue: Arc<dyn EventQueue>,
    env: &Env<'_>,
) -> anyhow::Result<load::Report> {
    let half = IngestArgs {
        rate: Some(rate / 2.0),
        ..args.clone()
    };
    let report = measure(&half, connections, queue, env.store, env.vault, env.clock).await?;
    anyhow::ensure!(
        report.all_good(),
        "at half the rate not every answer was 200: {:?}",
        report.by_status
    );
    Ok(report)
}

/// The parts that every run needs.
struct Env<'e> {
    store: &'e Arc<dyn Store>,
    vault: &'e Arc<Vault>,
    clock: &'e Arc<dyn Clock>,
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Limits above the load, so that no limit is measured.
pub(super) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.queue.disk_free_bytes_min = Some(64 << 20);
    settings.receiver.connections_per_address_max = 10_000;
    settings
}

/// A receiver behind the usual listener, on a port of its own.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    queue: Arc<dyn EventQueue>,
    lifecycle: Lifecycle,
}

impl Server {
    pub(super) async fn start(
        settings: ReceiverSettings,
        queue: Arc<dyn EventQueue>,
        store: &Arc<dyn Store>,
        vault: &Arc<Vault>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let routes = RouteTable::load(store.clone(), clock.clone()).await?;
        let parts = ReceiverParts {
            routes: routes.clone(),
            vault: vault.clone(),
            queue: queue.clone(),
            store: store.clone(),
            clock: clock.clone(),
            settings,
        };
        let receiver = Receiver::new(parts)?;
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let lifecycle = Lifecycle::default();
        lifecycle.start(Stage::Upkeep, routes.run(lifecycle.soft(Stage::Upkeep)));
        lifecycle.start(
            Stage::Intake,
            listener::serve(
                socket,
                receiver.router(),
                receiver.limits(),
                lifecycle.soft(Stage::Intake),
                lifecycle.hard(),
            ),
        );
        Ok(Self {
            address,
            queue,
            lifecycle,
        })
    }

    pub(super) async fn stop(self) {
        self.lifecycle.drain(Duration::from_secs(5)).await;
        self.queue.close().await;
    }
}

async fn measure(
    args: &IngestArgs,
    connections: usize,
    queue: Arc<dyn EventQueue>,
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<load::Report> {
    let server = Server::start(settings().receiver, queue, store, vault, clock).await?;
    let load = load::Load {
        address: server.address,
        path: "/webhooks/vapi".to_owned(),
        assistant_id: ASSISTANT.to_owned(),
        key: Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?,
        kind: "status-update".to_owned(),
        body_bytes: args.body_bytes,
        connections,
        rate: args.rate,
        gives_up: false,
        duration: Duration::from_secs(args.seconds),
    };
    let report = load::run(load).await?;
    server.stop().await;
    Ok(report)
}

/// Resident memory from the server's own `/metrics`; `None` where no server answers.
async fn resident_mib(operations: &str) -> Option<f64> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .ok()?;
    let text = client
        .get(format!("{operations}/metrics"))
        .send()
        .await
        .ok()?
        .text()
        .await
        .ok()?;
    let bytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("hookswitch_process_resident_bytes "))?
        .parse()
        .ok()?;
    Some(bytes / f64::from(1 << 20))
}

pub(super) async fn load_dev(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let state = DevState::load_started(&args.data_dir)?;
    let address: SocketAddr = state
        .ingress
        .trim_start_matches("http://")
        .parse()
        .context("the ingress URL in dev.json is not an address")?;
    anyhow::ensure!(address.ip().is_loopback(), "load goes to loopback only");
    let load = load::Load {
        address,
        path: "/webhooks/vapi".to_owned(),
        assistant_id: state.assistant_id,
        key: Hmac::<Sha256>::new_from_slice(state.vapi_secret.as_bytes())?,
        kind: args.kind,
        body_bytes: args.body_bytes,
        connections: args.connections,
        rate: args.rate,
        gives_up: false,
        duration: Duration::from_secs(args.seconds),
    };
    let report = load::run(load).await?;
    println!(
        "{} answers in {:.1} s: {:.0}/s",
        report.answered,
        report.elapsed.as_secs_f64(),
        report.per_second()
    );
    for (status, count) in &report.by_status {
        println!("  {status}: {count}");
    }
    println!("  from when each was due: {}", report.latency_line());
    if let Some(mib) = resident_mib(&state.operations).await {
        println!("  memory of `dev` with its worker and sandbox, after the load: {mib:.0} MiB");
    }
    Ok(if report.all_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
