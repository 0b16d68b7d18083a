//! Overload: an open loop at a multiple of the reached rate, from senders that do not wait for each
//! other.

use super::{ASSISTANT, SECRET, ingest, load, organisation};
use crate::{
    domain::{Clock, SystemClock},
    queue,
    telemetry::{Recorder, resident_bytes},
};
use clap::Args;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

#[derive(Debug, Args)]
pub(in crate::cli) struct OverloadArgs {
    /// Connections of the overload; the reached rate is measured with 256
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// How many times the reached rate
    #[arg(long, default_value_t = 5.0)]
    times: f64,
    /// Seconds of each run
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of a body
    #[arg(long, default_value_t = 2048)]
    body_bytes: usize,
}

const CONNECTIONS_BEFORE: usize = 256;

pub(super) async fn run(args: OverloadArgs, scratch: &Path) -> anyhow::Result<ExitCode> {
    let _recorder = Recorder::install();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, vault, _) = organisation(scratch, &clock).await?;
    let settings = ingest::settings();
    let queue = queue::connect(
        &format!("embedded:{}", scratch.join("queue").display()),
        &settings.queue,
        crate::cli::app::event_bytes_max(&settings),
        clock.clone(),
    )
    .await?;
    let server = ingest::Server::start(settings.receiver, queue, &store, &vault, &clock).await?;
    let load = load::Load {
        address: server.address,
        path: "/webhooks/vapi".to_owned(),
        assistant_id: ASSISTANT.to_owned(),
        key: Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?,
        kind: "status-update".to_owned(),
        body_bytes: args.body_bytes,
        connections: CONNECTIONS_BEFORE,
        rate: None,
        gives_up: false,
        duration: Duration::from_secs(args.seconds),
    };
    let before = load::run(load.clone()).await?;
    let reached = before.good_per_second();
    println!(
        "reached   {reached:>8.0}/s   {CONNECTIONS_BEFORE} connections, as fast as they are answered, {} MiB",
        mib()
    );
    let flood = load::Load {
        connections: args.connections,
        rate: Some(reached * args.times),
        gives_up: true,
        ..load.clone()
    };
    let during = load::run(flood).await?;
    report(&during, reached * args.times, args.connections);
    let after = load::run(load).await?;
    println!("after     {:>8.0}/s   {} MiB", after.good_per_second(), mib());
    println!("  goodput ÷ reached   {:>6.2}", during.good_per_second() / reached);
    println!("  after ÷ before      {:>6.2}", after.good_per_second() / reached);
    server.stop().await;
    Ok(if during.rude == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn report(during: &load::Report, offered: f64, connections: usize) {
    println!(
        "overload  {offered:>8.0}/s offered over {connections} connections, of which {} were not sent: every \
        connection of theirs was still waiting",
        during.missed
    );
    for (status, count) in &during.by_status {
        println!("            {status}: {count}");
    }
    let ms = |q: f64| during.taken.value_at_quantile(q) as f64 / 1e3;
    println!(
        "  taken   {:>8.0}/s   from when each was sent: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        during.good_per_second(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    println!("  memory of server and load together   {} MiB", mib());
    println!("  refusals other than 503 or 429 with Retry-After   {}", during.rude);
}

fn mib() -> u64 {
    resident_bytes().unwrap_or(0) >> 20
}
