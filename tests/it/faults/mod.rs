//! The fault suite: one installation of the real binary under load, a fault, and the count of what
//! was answered against what happened at the providers.
//!
//! Each case is generic over queue and store: it gets a [`Backend`] and a seed, makes a [`World`]
//! on it, and returns its counts. [`CASES`] is the table of the forty faults; a fault that
//! cannot be run here stands in [`NOT_RUN`] with the reason. A quick choice runs as tests;
//! `scripts/faults` runs all of it over many seeds and prints the table.

#![expect(
    clippy::disallowed_methods,
    reason = "each world owns its tasks: they end with its stop token or are joined"
)]

mod count;
mod disks;
mod edges;
#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod fleet;
mod kills;
mod leaks;
mod load;
mod process;
mod providers;
pub mod proxy;
mod redelivered;
#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod roles;
#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod rolling;
mod servers;
mod shim;
#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod stopped;
mod upgrade;
mod world;

use count::Counts;
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};
use world::{Ability, Backend, Embedded};

/// The arguments of a case.
#[derive(Clone)]
pub struct Given {
    pub backend: Arc<dyn Backend>,
    pub seed: u64,
    /// The short form, for every commit.
    pub is_quick: bool,
}

impl Given {
    /// As many as this, or fewer where it has to be quick.
    pub const fn many(&self, all: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { all }
    }
}

/// One fault of the forty.
pub struct Case {
    pub number: u8,
    pub name: &'static str,
    /// Abilities that its backend needs.
    pub needs: &'static [Ability],
    pub run: fn(Given) -> BoxFuture<'static, Counts>,
}

macro_rules! cases {
    ($($number:literal $(needs $($ability:ident)+)?: $name:literal => $run:path),+ $(,)?) => {
        &[$(Case {
            number: $number,
            name: $name,
            needs: &[$($(Ability::$ability),+)?],
            run: |given| Box::pin($run(given)),
        }),+]
    };
}

pub const CASES: &[Case] = cases![
    1: "killed at random under load" => kills::at_random,
    2: "killed between durable and 200" => kills::between_durable_and_answered,
    3: "killed at each step" => kills::at_each_step,
    4: "frozen past its leases" => kills::frozen_past_its_leases,
    5: "killed again and again" => kills::crash_loop,
    6: "SIGTERM in full load" => kills::sigterm_in_full_load,
    9 needs BrokerBehindProxy: "broker blackhole" => servers::silent_broker,
    10 needs BrokerBehindProxy: "confirm lost" => servers::lost_confirms,
    14 needs BrokerBehindProxy: "spool drain interrupted" => servers::flapping_broker,
    15 needs DatabaseServer: "Postgres is away" => servers::database_away,
    16 needs DatabaseServer: "COMMIT's reply lost" => servers::lost_commits,
    17: "the database is locked by another" => edges::locked_database,
    18 needs LocalFiles: "disk full under queue, store, log" => disks::full,
    19 needs LocalFiles: "an fsync fails once" => disks::failing_fsync,
    20 needs LocalFiles: "power loss" => disks::power_loss,
    21 needs LocalFiles: "flipped bit, torn tail, foreign file" => disks::damaged,
    22 needs LocalFiles: "each fsync takes 300 ms" => disks::slow_fsync,
    23: "the provider takes it and says nothing" => providers::accepts_and_drops,
    24: "429 with any Retry-After" => providers::rate_limited,
    25: "401, then the credential is mended" => providers::credential_refused,
    26: "503 storm and recovery" => providers::storm,
    27: "answers that are none" => providers::malformed,
    28: "redirects" => providers::redirected,
    29: "connections that close as they are used" => providers::closing_connections,
    30: "two hold one action" => kills::frozen_past_its_leases,
    31 needs LocalFiles: "the clock jumps an hour" => edges::clock_jumps,
    32: "wrong settings at a restart" => edges::wrong_settings,
    33: "keys and secrets rotate in flight" => edges::rotation,
    34: "the sender vanishes" => edges::vanishing_senders,
    35: "slow and idle connections" => edges::slowloris,
    36: "no descriptors left" => edges::descriptors,
    37: "one organisation floods, unknown senders flood" => edges::flood,
    39: "rules that fail, loop, and grow" => edges::poison,
    40: "overload, and no memory left" => edges::overload,
];

/// `(number, what, why not)`.
pub const NOT_RUN: &[(u8, &str, &str)] = &[
    (
        7,
        "rolling upgrade",
        "`scripts/faults --upgrade` builds an earlier revision for `faults::upgrade`",
    ),
    (
        8,
        "broker restart",
        "`faults::stopped` and `queue_amqp_broker` kill servers of their own under load",
    ),
    (
        11,
        "broker alarm, queue full",
        "`queue_amqp_broker` gives an alarm to a broker of its own",
    ),
    (
        12,
        "queue or topic deleted",
        "`queue_amqp_faults` and `queue_kafka_faults` delete their own",
    ),
    (
        13,
        "rebalance storm",
        "`queue_kafka::rebalances_under_load_lose_and_skip_nothing`, and `queue_amqp_shares`",
    ),
    (
        38,
        "OAuth refresh race",
        "`tests/it/credential_flow/refresh.rs` runs the race itself: one refresh over many instances",
    ),
];

/// Another one each day, the same all day: a failure can be run again as it is.
fn todays_seed() -> u64 {
    let today = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs() / 86_400);
    std::env::var("FAULTS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(today)
}

/// Runs a case of the table by its number, in its short form, with a seed of this run.
async fn quick(number: u8) {
    let case = CASES
        .iter()
        .find(|case| case.number == number)
        .expect("a case of the table");
    let counts = (case.run)(Given {
        backend: Arc::new(Embedded),
        seed: todays_seed(),
        is_quick: true,
    })
    .await;
    println!("{}", line(case.number, case.name, 1, &counts, "held"));
    assert!(counts.taken > 0, "a case that nothing was taken in shows nothing");
}

macro_rules! quick {
    ($($test:ident: $number:literal),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            quick($number).await;
        }
    )+};
}

quick! {
    killed_at_random: 1,
    killed_at_each_step: 3,
    frozen_past_its_leases: 4,
    sigterm_in_full_load: 6,
    disk_full: 18,
    failing_fsync: 19,
    power_loss: 20,
    damaged_files: 21,
    the_provider_takes_it_and_says_nothing: 23,
    rate_limited: 24,
    credential_refused: 25,
    the_sender_vanishes: 34,
    no_descriptors_left: 36,
}

#[test]
fn every_fault_is_run_or_its_absence_explained() {
    let listed: BTreeSet<u8> = CASES
        .iter()
        .map(|case| case.number)
        .chain(NOT_RUN.iter().map(|(number, _, _)| *number))
        .collect();
    assert_eq!(
        listed,
        (1..=40).collect(),
        "each of the forty stands in CASES or, with a reason, in NOT_RUN"
    );
}

fn line(number: u8, name: &str, seeds: usize, counts: &Counts, verdict: &str) -> String {
    format!(
        "{number:>3}  {name:<44} {seeds:>5} {:>8} {:>8} {:>8} {:>8} {:>8}  {verdict}{}{}",
        counts.sent,
        counts.taken,
        counts.effects,
        counts.attempts,
        counts.look_ups,
        if counts.note.is_empty() { "" } else { "; " },
        counts.note
    )
}

/// `scripts/faults` runs this: every case over so many seeds, with progress, and the table at the
/// end. Without its variable there is nothing to do here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(seeds) = number("FAULTS_SEEDS") else {
        return not_run("the whole fault suite", "scripts/faults --seeds N");
    };
    let (first, only) = (number("FAULTS_SEED").unwrap_or(1), std::env::var("FAULTS_ONLY").ok());
    let only: Option<Vec<u8>> = only.map(|text| {
        text.split(',')
            .filter_map(|number| number.trim().parse().ok())
            .collect()
    });
    let backend = backend().await;
    let mut table = format!(
        "{:>3}  {:<44} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        "no", "fault", "seeds", "sent", "200s", "effects", "attempts", "look-ups"
    );
    let mut failures = 0;
    for case in CASES
        .iter()
        .filter(|case| only.as_ref().is_none_or(|only| only.contains(&case.number)))
    {
        if let Some(ability) = case.needs.iter().find(|ability| !backend.can(**ability)) {
            let _ = writeln!(
                table,
                "{:>3}  {:<44} not run: {} cannot do {ability:?}",
                case.number,
                case.name,
                backend.name()
            );
            continue;
        }
        let (mut counts, mut verdict, mut done) = (Counts::default(), String::from("held"), 0);
        for seed in first..first + seeds {
            let begun = Instant::now();
            let given = Given {
                backend: self::backend().await,
                seed,
                is_quick: number("FAULTS_QUICK").is_some(),
            };
            let outcome = tokio::time::timeout(CASE_MAX, tokio::spawn((case.run)(given))).await;
            let said = match outcome {
                Ok(Ok(more)) => {
                    counts.add(&more);
                    done += 1;
                    "held".to_owned()
                }
                Ok(Err(panic)) => panic
                    .try_into_panic()
                    .map_or_else(|_| "cancelled".into(), |panic| text_of(&*panic)),
                Err(_) => format!("not done within {CASE_MAX:?}"),
            };
            eprintln!(
                "{:>3}  {:<44} seed {seed:>4}  {:>6.1} s  {said}",
                case.number,
                case.name,
                begun.elapsed().as_secs_f64()
            );
            if said != "held" {
                failures += 1;
                verdict = format!(
                    "BROKEN with seed {seed}: {}",
                    said.lines()
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take(200)
                        .collect::<String>()
                );
                break;
            }
        }
        let _ = writeln!(table, "{}", line(case.number, case.name, done, &counts, &verdict));
    }
    for (number, name, why) in NOT_RUN
        .iter()
        .filter(|(number, _, _)| only.as_ref().is_none_or(|only| only.contains(number)))
    {
        let _ = writeln!(table, "{number:>3}  {name:<44} not run: {why}");
    }
    println!(
        "\nFaults over {} with {seeds} seeds from {first}:\n{table}",
        backend.name()
    );
    assert_eq!(failures, 0, "a fault broke an invariant");
}

/// A backend that nothing stands on yet: the one that `FAULTS_BACKEND` names, or the embedded one.
async fn backend() -> Arc<dyn Backend> {
    let name = std::env::var("FAULTS_BACKEND").unwrap_or_else(|_| "embedded".into());
    #[cfg(all(feature = "rabbitmq", feature = "kafka"))]
    match name.as_str() {
        "rabbitmq" => {
            return fleet::Shared::over_rabbit()
                .await
                .expect("the URLs of scripts/services up");
        }
        "kafka" => {
            return fleet::Shared::over_kafka()
                .await
                .expect("the URLs of scripts/services up");
        }
        _ => {}
    }
    assert_eq!(name, "embedded", "FAULTS_BACKEND is embedded, rabbitmq or kafka");
    Arc::new(Embedded)
}

/// Says on the terminal that a test did nothing; past the test runner, which keeps the output of a
/// test that passes.
pub fn not_run(name: &str, how: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "\nNOT RUN: {name}; run {how}\n");
}

const CASE_MAX: Duration = Duration::from_mins(30);

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".into())
}
