//! Faults 18 to 22: disks that are full, fail, are slow, lose what was not synced, and bring
//! something else back.

use super::{
    Given,
    count::Counts,
    load::Random,
    shim::Shim,
    world::{Embedded, PATIENCE, Wishes, World, until},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

async fn world(case: &'static str, given: &Given, keeps_undo: bool) -> (World, Shim) {
    let mut world = World::start(case, given, Wishes::default()).await;
    let shim = Shim::new(&world, keeps_undo);
    world.terminate().await;
    world.launch_with(&shim.environment()).await;
    (world, shim)
}

pub async fn full(given: Given) -> Counts {
    let (world, shim) = world("disk full", &given, false).await;
    let mut slowest = Duration::ZERO;
    for (what, takes) in [("/queue/", false), ("store.db", true), ("process.log", true)] {
        let running = world.load.run(100);
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + 20).then_some(()) },
        )
        .await;
        shim.ask(&format!("write {what} enospc"));
        if takes {
            // Events go into the queue, whatever the store and the log can hold.
            world.load.send_all(20).await;
        } else {
            until(
                || world.label(),
                "the first refusal",
                || async { (world.load.send(&world.load.fresh()).await == Some(503)).then_some(()) },
            )
            .await;
            // No 200 from there on.
            for _ in 0..20 {
                assert_eq!(
                    world.load.send(&world.load.fresh()).await,
                    Some(503),
                    "{}: {what} is full",
                    world.label()
                );
            }
        }
        shim.ask("");
        let healed = Instant::now();
        world.load.insist(&world.load.fresh()).await;
        slowest = slowest.max(healed.elapsed());
        running.stop().await;
        world.quiet().await;
    }
    assert!(
        slowest < Duration::from_secs(10),
        "{}: it healed after {slowest:?}",
        world.label()
    );
    world
        .final_counts()
        .await
        .note(format!("taken again after {} ms at most", slowest.as_millis()))
}

pub async fn failing_fsync(given: Given) -> Counts {
    let (mut world, shim) = world("fsync fails once", &given, false).await;
    for round in 0..given.many(5, 1) {
        let running = world.load.run(200);
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + 30).then_some(()) },
        )
        .await;
        shim.ask("fsync .seg eio 1");
        let status = world.ends("after an fsync that failed").await;
        assert!(
            status.code().is_some_and(|code| code != 0),
            "{}: round {round}: it ended with {status}",
            world.label()
        );
        assert!(
            world.log_text().contains("fsync"),
            "{}: the end is explained: {}",
            world.label(),
            world.log_end()
        );
        shim.ask("");
        world.launch_with(&shim.environment()).await;
        running.stop().await;
    }
    // SQLite's own: the commit fails, the work waits, and nothing is lost by it.
    let running = world.load.run(100);
    shim.ask("fsync store.db-wal eio 2");
    let (_, before) = world.load.taken();
    until(
        || world.label(),
        "load",
        || async { (world.load.taken().1 > before + 30).then_some(()) },
    )
    .await;
    shim.ask("");
    running.stop().await;
    world.final_counts().await
}

pub async fn power_loss(given: Given) -> Counts {
    let (mut world, shim) = world("power loss", &given, true).await;
    let mut random = Random::new(given.seed);
    let (cuts, mut lost) = (given.many(20, 3), 0);
    let running = world.load.run(200);
    for _ in 0..cuts {
        let (_, before) = world.load.taken();
        let more = 5 + random.below(60);
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + more).then_some(()) },
        )
        .await;
        world.kill().await;
        lost += shim.lose_power(&mut random);
        world.launch_with(&shim.environment()).await;
    }
    running.stop().await;
    world
        .final_counts()
        .await
        .note(format!("{cuts} cuts took {lost} writes back; directory entries stay"))
}

/// A backlog on the disk: the store takes nothing, and the process is killed.
async fn backlog(world: &mut World, shim: &Shim) {
    shim.ask("write store.db enospc");
    world.load.send_all(60).await;
    world.kill().await;
    shim.ask("");
}

fn segments(world: &World) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(world.place.path().join("queue"))
        .expect("a queue")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.retain(|path| path.extension().is_some_and(|it| it == "seg"));
    found.sort();
    found
}

/// Starts on damaged files: it ends by itself, and says which file.
async fn refuses(world: &mut World, file: &Path) {
    let before = world.log_text().len();
    world.spawn(&[]);
    let status = world.ends("on a damaged file").await;
    let log = world.log_text()[before..].to_owned();
    assert!(!status.success(), "{}: it ended with {status}", world.label());
    assert!(
        log.contains(&file.display().to_string()),
        "{}: the damaged file is named: {log}",
        world.label()
    );
}

pub async fn damaged(given: Given) -> Counts {
    let (mut world, shim) = world("damaged files", &given, false).await;
    let mut random = Random::new(given.seed);
    backlog(&mut world, &shim).await;
    let segment = segments(&world)
        .into_iter()
        .max_by_key(|path| fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte != 0).count()))
        .expect("one");
    let sound = fs::read(&segment).expect("a segment");
    let end = sound.iter().rposition(|byte| *byte != 0).expect("events are there");
    // A bit in the first half of what is there: records follow it, so that it is no torn tail.
    let mut flipped = sound.clone();
    flipped[80 + usize::try_from(random.below((end / 2) as u64)).expect("fits")] ^= 1 << random.below(8);
    fs::write(&segment, &flipped).expect("written");
    refuses(&mut world, &segment).await;
    assert!(
        fs::read(&segment).expect("a segment") == flipped,
        "{}: what is damaged is left as it is",
        world.label()
    );
    fs::write(&segment, &sound).expect("written");

    let foreign = world.place.path().join("queue/00000000099999999999.seg");
    fs::write(&foreign, b"#!/bin/sh\necho not a segment\n").expect("written");
    refuses(&mut world, &foreign).await;
    fs::remove_file(&foreign).expect("removed");

    let store = world.place.path().join("store.db");
    let whole = fs::read(&store).expect("the store");
    fs::write(
        &store,
        b"this is somebody's letter, and no database at all\n".repeat(100),
    )
    .expect("written");
    refuses(&mut world, &store).await;
    fs::write(&store, &whole).expect("written");

    // A group that was being written when the power went: behind the last record, half of one.
    let mut torn = fs::read(&segment).expect("a segment");
    let half = torn[64..64 + 200].to_vec();
    if end + 1 + half.len() < torn.len() {
        torn[end + 1..=end + half.len()].copy_from_slice(&half);
        torn[end + 150..].fill(0);
        fs::write(&segment, torn).expect("written");
    }
    world.launch().await;
    world
        .final_counts()
        .await
        .note("refused: a flipped bit, a foreign segment, a foreign database; cut: a torn tail")
}

pub async fn slow_fsync(given: Given) -> Counts {
    const SENDERS: usize = 64;
    let (world, shim) = world("slow fsync", &given, false).await;
    shim.ask("fsync .seg slow 300");
    let syncs = || async {
        world
            .metric("hookswitch_queue_fsync_seconds_count")
            .await
            .expect("it answers")
    };
    let before = syncs().await;
    let events: Vec<_> = (0..SENDERS * 5).map(|_| world.load.fresh()).collect();
    let (load, label) = (&world.load, &world);
    let (answered, slowest) = tokio::join!(
        futures_util::future::join_all(events.chunks(5).map(|chunk| async move {
            for event in chunk {
                assert_eq!(load.send(event).await, Some(200), "{}", label.label());
            }
        })),
        // Others are not held up by it.
        async {
            let mut slowest = Duration::ZERO;
            for _ in 0..10 {
                let begun = Instant::now();
                assert!(world.readiness().await.is_some());
                slowest = slowest.max(begun.elapsed());
            }
            slowest
        }
    );
    drop(answered);
    let per_sync = events.len() as f64 / (syncs().await - before).max(1.0);
    assert!(per_sync >= 20.0, "{}: {per_sync:.1} events a sync", world.label());
    assert!(slowest < PATIENCE / 20, "{}: readiness took {slowest:?}", world.label());
    shim.ask("");
    world.final_counts().await.note(format!("{per_sync:.0} events a sync"))
}

/// A segment that goes bad under a process that has not read it yet: no event behind it is planned,
/// and check, metric and log say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_read_while_it_runs_is_reported() {
    let given = Given {
        backend: Arc::new(Embedded),
        seed: 1,
        is_quick: true,
    };
    let world = World::start("a segment goes bad", &given, Wishes::default()).await;
    let lock = world.lock_database().await;
    // Nothing is planned meanwhile, so nothing is read.
    world.load.send_all(150).await;
    let segment = fs::read_dir(world.place.path().join("queue"))
        .expect("the queue")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .expect("a segment");
    let file = fs::File::options().write(true).open(&segment).expect("the segment");
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xFF; 64 << 10], 128 << 10).expect("written");
    drop(lock);

    let idle = "hookswitch_consumer_idle_with_backlog_seconds";
    until(
        || world.label(),
        "the metric of a consumer that is idle beside events",
        || async { world.metric(idle).await.filter(|seconds| *seconds > 1.0) },
    )
    .await;
    let ready = world.readiness().await.expect("an answer");
    let checks = ready["checks"].as_array().expect("checks");
    let queue = checks.iter().find(|check| check["name"] == "queue").expect("a check");
    assert_eq!(queue["status"], "degraded", "{ready}");
    // Events that are sent from here on are kept.
    world.load.insist(&world.load.fresh()).await;
    let log = world.log_text();
    let path = segment.display().to_string();
    assert!(
        log.lines().any(|line| line.contains("ERROR") && line.contains(&path)),
        "the log names the segment: {log}"
    );
}
