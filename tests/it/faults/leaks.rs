//! An hour's worth of events in fast motion: memory, descriptors and threads are back afterwards.

use super::{
    Given,
    count::Counts,
    load::Event,
    process::Usage,
    world::{Wishes, World},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const SENDERS: usize = 64;

/// So many events; one of `each` is wanted by a rule and sends an SMS.
async fn send(world: &World, count: usize, each: usize, wanted: &[Event]) {
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let load = world.load.clone();
        let wanted: Vec<Event> = wanted.iter().skip(sender).step_by(SENDERS).cloned().collect();
        let plain: Vec<Event> = std::iter::repeat_with(|| load.fresh())
            .filter(|event| !event.is_wanted)
            .take(8)
            .collect();
        tasks.spawn(async move {
            let mut wanted = wanted.iter();
            for n in 0..count / SENDERS {
                let event = if n % each == 0 {
                    wanted.next().unwrap_or(&plain[0])
                } else {
                    &plain[n % plain.len()]
                };
                load.insist(event).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("senders do not panic");
    }
}

/// The least that is in use at rest. Looks for six seconds, and longer while there is more than
/// `expected`: a busy machine closes late.
async fn rest(world: &World, expected: Option<Usage>) -> Usage {
    world.quiet().await;
    // Idle connections to providers are kept for 4 s, those of senders until they go.
    let begun = Instant::now();
    let mut least = world.process().usage();
    let is_more = |least: &Usage| expected.is_some_and(|expected| least.descriptors > expected.descriptors);
    while begun.elapsed() < Duration::from_secs(6) || (is_more(&least) && begun.elapsed() < Duration::from_secs(30)) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let usage = world.process().usage();
        least.descriptors = least.descriptors.min(usage.descriptors);
        least.threads = least.threads.min(usage.threads);
        least.resident_kib = least.resident_kib.min(usage.resident_kib);
    }
    least
}

async fn run(given: &Given, events: usize) -> Counts {
    let world = World::start("an hour in fast motion", given, Wishes::default().callbacks(false)).await;
    // Caches, pools and buffers are filled once: that is no leak.
    let warm: Vec<Event> = (0..events / 1_000 + SENDERS)
        .map(|n| world.load.wanted_of(n % 3))
        .collect();
    send(&world, events / 5, 100, &warm).await;
    let before = rest(&world, None).await;
    let begun = Instant::now();
    let rounds = if events > 100_000 { 10 } else { 1 };
    for round in 0..rounds {
        let wanted: Vec<Event> = (0..events / rounds / 100 / 10 + SENDERS)
            .map(|n| world.load.wanted_of(n % 3))
            .collect();
        send(&world, events / rounds, 100, &wanted).await;
        if rounds > 1 {
            eprintln!(
                "     {:>9} events, {:>6.0} a second, {:?}",
                (round + 1) * events / rounds,
                ((round + 1) * events / rounds) as f64 / begun.elapsed().as_secs_f64(),
                world.process().usage()
            );
        }
    }
    let after = rest(&world, Some(before)).await;
    let figures = format!("{events} events; before {before:?}, after {after:?}");
    // A tenth, and for a short run what an allocator keeps anyway.
    assert!(
        after.descriptors <= before.descriptors + before.descriptors / 10,
        "{}: descriptors: {figures}",
        world.label()
    );
    assert!(
        after.threads <= before.threads + before.threads / 10 + 1,
        "{}: threads: {figures}",
        world.label()
    );
    assert!(
        after.resident_kib <= before.resident_kib + before.resident_kib / 10 + 4096,
        "{}: memory: {figures}",
        world.label()
    );
    world.final_counts().await.note(figures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_descriptors_and_threads_are_back() {
    run(
        &Given {
            backend: Arc::new(super::Embedded),
            seed: 1,
            is_quick: true,
        },
        4_000,
    )
    .await;
}

/// `scripts/faults --leaks` runs this. Without its variable there is nothing to do here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_in_fast_motion() {
    let Some(events) = std::env::var("FAULTS_LEAKS").ok().and_then(|text| text.parse().ok()) else {
        return super::not_run("an hour in fast motion", "scripts/faults --leaks");
    };
    let counts = run(
        &Given {
            backend: Arc::new(super::Embedded),
            seed: 1,
            is_quick: false,
        },
        events,
    )
    .await;
    println!(
        "\nsent {}, 200s {}, effects {}; {}\n",
        counts.sent, counts.taken, counts.effects, counts.note
    );
}
