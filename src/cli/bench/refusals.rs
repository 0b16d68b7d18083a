//! Refusals: whether the time of a 401 shows an unknown sender that an organisation is known, and
//! how long an event waits that the platform's own account signed. Both wait for looks at the
//! routes. The causes alternate on each connection, so that a drift affects all of them.

use super::{
    ASSISTANT, ingest,
    load::{connect, read_answer},
    organisation, sinks,
};
use crate::{
    domain::{Clock, EndpointId, SecretBytes, Source, SystemClock},
    source::{self, Plan, sign::VapiSigner},
};
use clap::Args;
use hdrhistogram::Histogram;
use std::{
    fmt::Write,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, task::JoinSet};

#[derive(Debug, Args)]
pub(in crate::cli) struct RefusalsArgs {
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Refusals of each cause on each connection
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Bytes of a body
    #[arg(long, default_value_t = 2048)]
    body_bytes: usize,
    /// Connections with events that the platform signed
    #[arg(long, default_value_t = 8)]
    signed_connections: usize,
}

const PLATFORM: &str = "a secret of the platform's own account";

const CAUSES: [&str; 3] = [
    "a known assistant, a wrong secret",
    "an assistant that leads nowhere",
    "an endpoint that leads nowhere",
];

pub(super) async fn run(args: RefusalsArgs, scratch: &Path) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, vault, _) = organisation(scratch, &clock).await?;
    let mut settings = ingest::settings().receiver;
    // Above the load, so that the answers are 401 and not 429.
    settings.unknown_per_second_max = u32::MAX;
    settings.platform_vapi_secrets = Some(PLATFORM.into());
    let server = ingest::Server::start(settings, Arc::new(sinks::Drop), &store, &vault, &clock).await?;
    println!(
        "{} refusals of each cause, {} connections, {} bytes of body\n",
        args.count * args.connections,
        args.connections,
        args.body_bytes
    );
    println!("refusals alone");
    show(&refusals(server.address, &args).await?);
    println!("\nevents that the platform signed, alone");
    let alone = signed_events(server.address, &args).await?;
    show_one("signed by the platform", &alone);
    println!("\nboth at once");
    let (refused, beside) = tokio::try_join!(refusals(server.address, &args), signed_events(server.address, &args))?;
    show(&refused);
    show_one("signed by the platform", &beside);
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn refusals(address: SocketAddr, args: &RefusalsArgs) -> anyhow::Result<Seen> {
    let mut connections = JoinSet::new();
    for number in 0..args.connections {
        let (count, body_bytes) = (args.count, args.body_bytes);
        connections.spawn(async move { connection(address, number, count, body_bytes).await });
    }
    let mut seen = empty()?;
    while let Some(done) = connections.join_next().await {
        for (all, one) in seen.iter_mut().zip(done??) {
            all.add(one)?;
        }
    }
    Ok(seen)
}

fn show(seen: &Seen) {
    for (cause, times) in CAUSES.iter().zip(seen) {
        show_one(cause, times);
    }
    let ratio = |n: usize, q: f64| seen[n].value_at_quantile(q) as f64 / seen[0].value_at_quantile(q) as f64;
    println!(
        "  nowhere ÷ known: assistant p50 {:.3}, p99 {:.3}; endpoint p50 {:.3}, p99 {:.3}",
        ratio(1, 0.5),
        ratio(1, 0.99),
        ratio(2, 0.5),
        ratio(2, 0.99)
    );
}

fn show_one(name: &str, times: &Histogram<u64>) {
    let ms = |q: f64| times.value_at_quantile(q) as f64 / 1e3;
    println!(
        "  {name:<34} p10 {:>7.3} ms   p50 {:>7.3} ms   p90 {:>7.3} ms   p99 {:>7.3} ms",
        ms(0.1),
        ms(0.5),
        ms(0.9),
        ms(0.99)
    );
}

async fn signed_events(address: SocketAddr, args: &RefusalsArgs) -> anyhow::Result<Histogram<u64>> {
    let mut connections = JoinSet::new();
    for _ in 0..args.signed_connections {
        let (count, body_bytes) = (args.count, args.body_bytes);
        connections.spawn(async move { signed_connection(address, count, body_bytes).await });
    }
    let mut seen = Histogram::new(3)?;
    while let Some(done) = connections.join_next().await {
        seen.add(done??)?;
    }
    Ok(seen)
}

/// Events of an assistant that leads nowhere yet: they wait in quarantine. The way to one that the
/// platform has a route for is the same.
async fn signed_connection(address: SocketAddr, count: usize, body_bytes: usize) -> anyhow::Result<Histogram<u64>> {
    let Some(Plan::Vapi(plan)) = source::plan_default(Source::Vapi) else {
        anyhow::bail!("Vapi has a default plan");
    };
    let signer = VapiSigner::new(&plan, &SecretBytes::from(PLATFORM.to_owned()))?;
    let mut seen = Histogram::new(3)?;
    let mut stream = connect(address).await?;
    let mut answer = Vec::with_capacity(4096);
    for n in 0..count {
        let body = body(&uuid::Uuid::now_v7().to_string(), body_bytes);
        let signed = signer.sign(SystemClock.now(), "POST", "/webhooks/vapi", body.as_bytes());
        let mut headers = String::new();
        for (name, value) in signed {
            write!(headers, "{name}: {}\r\n", value.to_str()?)?;
        }
        let request = written("/webhooks/vapi", &headers, &body);
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let status = read_answer(&mut stream, &mut answer).await?;
        seen.record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))?;
        anyhow::ensure!(status == 200, "an event that the platform signed got {status}, not 200");
        pause(n).await?;
    }
    Ok(seen)
}

/// Microseconds, by cause.
type Seen = [Histogram<u64>; CAUSES.len()];

fn empty() -> anyhow::Result<Seen> {
    Ok([Histogram::new(3)?, Histogram::new(3)?, Histogram::new(3)?])
}

async fn connection(address: SocketAddr, number: usize, count: usize, body_bytes: usize) -> anyhow::Result<Seen> {
    let mut seen = empty()?;
    let mut stream = connect(address).await?;
    let mut answer = Vec::with_capacity(4096);
    for n in 0..count * CAUSES.len() {
        let cause = (n + number) % CAUSES.len();
        let request = request(cause, body_bytes);
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let status = read_answer(&mut stream, &mut answer).await?;
        seen[cause].record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))?;
        anyhow::ensure!(status == 401, "{} got {status}, not 401", CAUSES[cause]);
        pause(n).await?;
    }
    Ok(seen)
}

/// Answers come in waves, one for each shared look at the routes. Without this pause each
/// connection would always have the same place in a wave.
async fn pause(n: usize) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_micros(u64::try_from(n * 7919 % 20_011)?)).await;
    Ok(())
}

fn request(cause: usize, body_bytes: usize) -> Vec<u8> {
    let assistant = if cause == 1 {
        uuid::Uuid::now_v7().to_string()
    } else {
        ASSISTANT.to_owned()
    };
    let path = if cause == 2 {
        format!("/webhooks/vapi/{}", EndpointId::generate())
    } else {
        "/webhooks/vapi".to_owned()
    };
    let signature = format!("x-vapi-signature: {}\r\n", "5a".repeat(32));
    written(&path, &signature, &body(&assistant, body_bytes))
}

fn body(assistant: &str, body_bytes: usize) -> String {
    format!(
        r#"{{"message":{{"type":"status-update","call":{{"id":"{}","assistantId":"{assistant}"}},"filler":"{}"}}}}"#,
        uuid::Uuid::now_v7(),
        "x".repeat(body_bytes.saturating_sub(200))
    )
}

fn written(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_str(), body].concat().into_bytes()
}
