//! Processes of single roles: each does its part, and only that.

use super::{
    fleet::{Fleet, Shared},
    world::Wishes,
};
use std::sync::Arc;
use tokio::net::TcpStream;

async fn each_role_does_its_part(shared: Option<Arc<Shared>>) {
    let Some(shared) = shared else { return };
    let mut fleet = Fleet::start("single roles", &shared, Wishes::default()).await;
    let receiver = fleet.add("receiver", &[]).await;
    fleet.world.load.send_all(30).await;
    let worker = fleet.add("worker", &[]).await;
    fleet.world.load.send_all(10).await;
    let counts = fleet.world.final_counts().await;
    assert_eq!(counts.taken, 40);

    assert!(
        TcpStream::connect(worker.ingress()).await.is_err(),
        "no receiver, no ingress"
    );
    assert!(TcpStream::connect(worker.admin()).await.is_err());
    assert!(TcpStream::connect(receiver.ingress()).await.is_ok());
    assert!(TcpStream::connect(receiver.admin()).await.is_err());
    assert!(fleet.directory_of(&receiver).join("spool").exists());
    assert!(
        !fleet.directory_of(&worker).join("spool").exists(),
        "a worker publishes nothing and opens no spool"
    );
    let has = |checks: &[String], name: &str| checks.iter().any(|check| check == name);
    let (taking, working) = (receiver.checks().await, worker.checks().await);
    for (check, of_receiver, of_worker) in [
        ("ingress", true, false),
        ("spool", true, false),
        ("queue", true, true),
        ("worker", false, true),
        ("database", true, true),
    ] {
        assert_eq!(
            (has(&taking, check), has(&working, check)),
            (of_receiver, of_worker),
            "{check}"
        );
    }
    let admin = fleet.world.readiness().await.expect("it answers");
    assert!(!admin.to_string().contains("\"queue\""), "{admin}");
    assert_eq!(admin["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_does_its_part_over_rabbitmq() {
    each_role_does_its_part(Shared::over_rabbit().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_does_its_part_over_kafka() {
    each_role_does_its_part(Shared::over_kafka().await).await;
}

/// The system cuts a thread's name after 15 bytes.
const PRODUCERS_THREAD: &str = "producer pollin";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_receiver_has_a_producer_of_kafka() {
    let Some(shared) = Shared::over_kafka().await else {
        return;
    };
    let mut fleet = Fleet::start("single roles", &shared, Wishes::default()).await;
    let mut members = Vec::new();
    for (role, has_producer) in [("receiver", true), ("worker", false), ("receiver,worker", true)] {
        let member = fleet.add(role, &[]).await;
        let threads = member.process.threads();
        assert_eq!(
            threads.iter().any(|name| name == PRODUCERS_THREAD),
            has_producer,
            "{role}: {threads:?}"
        );
        members.push(member);
    }
    fleet.world.load.send_all(10).await;
    fleet.world.final_counts().await;
}
