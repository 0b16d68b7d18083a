//! A process that is killed while it spools, drains and is direct.

use super::broker::{Broker, House, Treatment, open, settings};
use crate::{
    conformance::queue::{DEADLINE, Limits, event, id_of},
    queue_embedded::Scratch,
};
use hookswitch::{
    domain::{EventId, OrgId},
    queue::EventQueue,
};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

const CHILD: &str = "HOOKSWITCH_TEST_SPOOL_CHILD";

/// A broker that fails often, so that the process is killed while it spools, drains and is direct.
async fn flapping(place: &Path) -> House {
    let (broker_place, spool_place) = (Scratch(place.join("broker")), Scratch(place.join("spool")));
    let broker = Broker::open(&broker_place.0, Limits::default()).await;
    let publishes = AtomicUsize::new(0);
    broker.follow(move |_| match publishes.fetch_add(1, Ordering::Relaxed) % 60 {
        20..30 => Treatment::Refuse,
        45 => Treatment::LoseConfirm,
        _ => Treatment::Take,
    });
    let queue = open(&broker, settings(&spool_place.0)).await;
    House {
        broker,
        queue,
        spool_place,
        broker_place,
    }
}

/// Not a test of its own: the process that the next one starts and kills. Says `confirmed ID` after
/// each confirm.
#[test]
fn child_that_spools_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let house = flapping(Path::new(&directory)).await;
        let senders = (0..8).map(|sender| {
            let queue = &house.queue;
            async move {
                let org = OrgId::generate();
                loop {
                    let event = event(org, &format!("call-{sender}"), "x");
                    if queue.publish(&event).await.is_ok() {
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "confirmed {}", id_of(&event))
                            .and_then(|()| out.flush())
                            .expect("the parent reads");
                    }
                }
            }
        });
        futures_util::future::join_all(senders).await;
    });
}

#[tokio::test]
async fn every_confirmed_event_survives_a_process_that_is_killed_while_it_spools() {
    let place = Scratch::new();
    let directory = place.0.clone();
    let confirmed = tokio::task::spawn_blocking(move || {
        let mut confirmed = HashSet::new();
        for round in 0..4 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "queue_spool::kill::child_that_spools_until_it_is_killed",
                    "--nocapture",
                ])
                .env(CHILD, &directory)
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap();
            let mut lines = 0;
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let Ok(line) = line else { break };
                let Some(id) = line
                    .strip_prefix("confirmed ")
                    .and_then(|id| id.parse::<EventId>().ok())
                else {
                    continue;
                };
                confirmed.insert(id);
                lines += 1;
                // Killed at another moment each round.
                if lines == 150 + round * 83 {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
        }
        confirmed
    })
    .await
    .unwrap();
    assert!(confirmed.len() >= 4 * 150, "{}", confirmed.len());

    let house = flapping(&place.0).await;
    house.broker.treat_all(Treatment::Take);
    tokio::time::timeout(DEADLINE, house.queue.drained())
        .await
        .expect("the spool drains");
    let stored: HashSet<_> = house.broker.stored().await.iter().map(|envelope| envelope.id).collect();
    let lost: Vec<_> = confirmed.difference(&stored).collect();
    assert!(lost.is_empty(), "{} confirmed events are lost", lost.len());
}
