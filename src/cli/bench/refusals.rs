//! Refusals: whether the time of a 401 shows an unknown sender that an organisation is known. The
//! causes alternate on each connection, so that a drift affects all of them.

use super::{ASSISTANT, ingest, load::read_answer, organisation, sinks};
use crate::domain::{Clock, EndpointId, SystemClock};
use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

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
}

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
    let server = ingest::Server::start(settings, Arc::new(sinks::Drop), &store, &vault, &clock).await?;
    println!(
        "{} refusals of each cause, {} connections, {} bytes of body\n",
        args.count * args.connections,
        args.connections,
        args.body_bytes
    );
    let mut connections = JoinSet::new();
    for number in 0..args.connections {
        let (address, count, body_bytes) = (server.address, args.count, args.body_bytes);
        connections.spawn(async move { connection(address, number, count, body_bytes).await });
    }
    let mut seen = empty()?;
    while let Some(done) = connections.join_next().await {
        for (all, one) in seen.iter_mut().zip(done??) {
            all.add(one)?;
        }
    }
    server.stop().await;
    for (cause, times) in CAUSES.iter().zip(&seen) {
        let ms = |q: f64| times.value_at_quantile(q) as f64 / 1e3;
        println!(
            "  {cause:<34} p10 {:>7.3} ms   p50 {:>7.3} ms   p90 {:>7.3} ms   p99 {:>7.3} ms",
            ms(0.1),
            ms(0.5),
            ms(0.9),
            ms(0.99)
        );
    }
    let ratio = |n: usize, q: f64| seen[n].value_at_quantile(q) as f64 / seen[0].value_at_quantile(q) as f64;
    println!(
        "  nowhere ÷ known: assistant p50 {:.3}, p99 {:.3}; endpoint p50 {:.3}, p99 {:.3}",
        ratio(1, 0.5),
        ratio(1, 0.99),
        ratio(2, 0.5),
        ratio(2, 0.99)
    );
    Ok(ExitCode::SUCCESS)
}

/// Microseconds, by cause.
type Seen = [Histogram<u64>; CAUSES.len()];

fn empty() -> anyhow::Result<Seen> {
    Ok([Histogram::new(3)?, Histogram::new(3)?, Histogram::new(3)?])
}

async fn connection(address: SocketAddr, number: usize, count: usize, body_bytes: usize) -> anyhow::Result<Seen> {
    let mut seen = empty()?;
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(4096);
    for n in 0..count * CAUSES.len() {
        let cause = (n + number) % CAUSES.len();
        let request = request(cause, body_bytes);
        let begun = Instant::now();
        stream.write_all(&request).await?;
        let status = read_answer(&mut stream, &mut answer).await?;
        seen[cause].record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX))?;
        anyhow::ensure!(status == 401, "{} got {status}, not 401", CAUSES[cause]);
        // Answers come in waves, one for each shared look at the routes. Without this pause each
        // connection would always have the same place in a wave.
        tokio::time::sleep(Duration::from_micros(u64::try_from(n * 7919 % 20_011)?)).await;
    }
    Ok(seen)
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
    let body = format!(
        r#"{{"message":{{"type":"status-update","call":{{"id":"{}","assistantId":"{assistant}"}},"filler":"{}"}}}}"#,
        uuid::Uuid::now_v7(),
        "x".repeat(body_bytes.saturating_sub(200))
    );
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nx-vapi-signature: {}\r\ncontent-length: \
        {}\r\n\r\n",
        "5a".repeat(32),
        body.len()
    );
    [head, body].concat().into_bytes()
}
