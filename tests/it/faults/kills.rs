//! Faults 1 to 6: processes that are killed, frozen, and stopped by a signal.

use super::{
    Given,
    count::Counts,
    load::Random,
    proxy::Mode,
    world::{Ability, Wishes, World, until},
};
use hookswitch::killpoint::Step;
use rustix::process::Signal;
use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const KILLED: Option<i32> = Some(9);

pub async fn at_random(given: Given) -> Counts {
    random_kills(given.clone(), given.many(50, 3)).await
}

/// Load without a break, and a kill at a moment of its own in each round.
pub async fn random_kills(given: Given, kills: usize) -> Counts {
    let mut world = World::start("killed at random", &given, Wishes::default()).await;
    let mut random = Random::new(given.seed);
    let mut running = world.load.run(200);
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        world.kill().await;
        slowest = slowest.max(world.launch().await);
        if kills > 50 && kill % 25 == 24 {
            eprintln!("     {:>5} of {kills} kills; {}", kill + 1, world.load.summary());
        }
        // So that neither the backlog nor the books grow without end.
        if kill % 100 == 99 {
            running.stop().await;
            world.quiet().await;
            running = world.load.run(200);
        }
    }
    running.stop().await;
    let counts = world.final_counts().await;
    counts.note(format!(
        "{kills} kills, ready again after {} ms at most",
        slowest.as_millis()
    ))
}

pub async fn between_durable_and_answered(given: Given) -> Counts {
    let mut world = World::start("killed between durable and 200", &given, Wishes::default()).await;
    let mut random = Random::new(given.seed);
    let rounds = given.many(10, 2);
    for _ in 0..rounds {
        killed_at(&mut world, Step::Confirmed, 1 + random.below(20)).await;
    }
    world
        .final_counts()
        .await
        .note(format!("{rounds} kills, what got no answer was sent again"))
}

/// Restarts the process with this kill point, sends until it is gone, and starts it again.
/// Everything that was sent is sent until it is taken.
async fn killed_at(world: &mut World, step: Step, count: u64) {
    if world.process.is_some() {
        world.kill().await;
    }
    // Not until it is ready: what the process before left behind may bring it to the step sooner.
    world.spawn(&[("TEST_KILL_AT", format!("{}:{count}", step.as_str()))]);
    let load = world.load.clone();
    // Sends without an end; those that are cut off are sent again below by their number. A higher
    // rate would make a backlog that says nothing about the step.
    let running = load.run(100);
    let status = world.ends(step.as_str()).await;
    assert_eq!(
        status.signal(),
        KILLED,
        "{}: {} ended the process with {status}; the log ends: {}",
        world.label(),
        step.as_str(),
        world.log_end()
    );
    world.launch().await;
    running.stop().await;
}

/// Each step inside of the process, and two that only others see.
pub async fn at_each_step(given: Given) -> Counts {
    let steps: Vec<_> = Step::ALL.iter().filter(|step| happens(**step, &given)).collect();
    let mut world = World::start("killed at each step", &given, Wishes::default()).await;
    let mut random = Random::new(given.seed);
    let rounds = given.many(3, 1);
    for _ in 0..rounds {
        for step in &steps {
            // Batches make the later steps rarer than events.
            killed_at(&mut world, **step, 1 + random.below(6)).await;
        }
        killed_when_answered(&mut world).await;
        killed_when_sent(&mut world).await;
    }
    let counts = world.final_counts().await;
    counts.note(format!("{} steps, {rounds} times each", steps.len() + 2))
}

/// Over a broker no event gets into a log of our own, and none makes an assistant anywhere.
fn happens(step: Step, given: &Given) -> bool {
    match step {
        Step::AssistantMade => false,
        Step::Appended | Step::Fsynced => given.backend.can(Ability::LocalFiles),
        _ => true,
    }
}

/// The sender has read its 200, and nobody else did anything yet.
async fn killed_when_answered(world: &mut World) {
    let event = world.load.wanted_of(1);
    world.load.insist(&event).await;
    world.kill().await;
    world.launch().await;
}

/// The provider has done it, and its answer is under way.
async fn killed_when_sent(world: &mut World) {
    world.quiet().await;
    world.proxy.set(Mode::HoldReplies);
    let (held, messages) = (world.proxy.replies_held(), world.sandbox.message_count());
    let event = world.load.wanted_of(2);
    world.load.insist(&event).await;
    until(
        || world.label(),
        "the provider's answer",
        || async { (world.proxy.replies_held() > held && world.sandbox.message_count() > messages).then_some(()) },
    )
    .await;
    world.kill().await;
    world.proxy.set(Mode::Pass);
    world.launch().await;
}

/// SIGSTOP while the provider's answers are under way, until every lease has ended. The attempts
/// that wake meet a fence.
pub async fn frozen_past_its_leases(given: Given) -> Counts {
    const LEASE: Duration = Duration::from_secs(2);
    let wishes = Wishes::default()
        .set("HOOKSWITCH_LEASE_SECONDS", 2)
        .set("HOOKSWITCH_ATTEMPT_SECONDS_MAX", 1);
    let mut world = World::start("frozen past its leases", &given, wishes).await;
    for _ in 0..given.many(5, 1) {
        let running = world.load.run(200);
        world.proxy.set(Mode::HoldReplies);
        let held = world.proxy.replies_held();
        until(
            || world.label(),
            "answers that are under way",
            || async { (world.proxy.replies_held() > held).then_some(()) },
        )
        .await;
        world.process().signal(Signal::STOP);
        // The test is about time that passes: no condition stands for it.
        tokio::time::sleep(LEASE * 2).await;
        world.proxy.set(Mode::Pass);
        world.process().signal(Signal::CONT);
        running.stop().await;
        world.quiet().await;
    }
    assert!(
        world.process.as_mut().is_some_and(|process| process.ended().is_none()),
        "it goes on after SIGCONT"
    );
    let counts = world.final_counts().await;
    assert!(
        counts.look_ups > 0 || world.seed % 2 == 1,
        "{}: what went out under a lease that ended is looked up",
        world.label()
    );
    counts
}

/// No round is long enough to finish anything, and none of them uses up a try.
pub async fn crash_loop(given: Given) -> Counts {
    let mut world = World::start(
        "killed again and again",
        &given,
        Wishes::default().set("HOOKSWITCH_ATTEMPTS_MAX", 3),
    )
    .await;
    let mut random = Random::new(given.seed);
    let running = world.load.run(200);
    let rounds = given.many(20, 4);
    for _ in 0..rounds {
        world.kill().await;
        world.spawn(&[]);
        // Some of them before anything is ready, some a moment after.
        tokio::time::sleep(Duration::from_millis(100 + random.below(900))).await;
    }
    world.ready().await;
    running.stop().await;
    let counts = world.final_counts().await;
    for org in &world.orgs {
        for state in ["dead", "parked"] {
            let page = world
                .get_as(&org.token, &format!("/api/actions?limit=1&state={state}"))
                .await
                .expect("the admin API answers");
            assert_eq!(
                page["data"].as_array().map(Vec::len),
                Some(0),
                "{}: a crash made an action {state}",
                world.label()
            );
        }
    }
    counts.note(format!("{rounds} kills"))
}

/// Load, an idle connection and a request that is half sent: it ends in time, with everything taken
/// done or kept.
pub async fn sigterm_in_full_load(given: Given) -> Counts {
    const END_MAX: Duration = Duration::from_secs(15);
    let mut world = World::start("SIGTERM in full load", &given, Wishes::default()).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..given.many(5, 1) {
        let running = world.load.run(300);
        let idle = TcpStream::connect(("127.0.0.1", world.base))
            .await
            .expect("ingress takes connections");
        let mut half = TcpStream::connect(("127.0.0.1", world.base))
            .await
            .expect("ingress takes connections");
        half.write_all(
            b"POST /webhooks/vapi HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: \
            100\r\n\r\n{\"mess",
        )
        .await
        .expect("sent");
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + 50).then_some(()) },
        )
        .await;
        let (status, took) = world.terminate().await;
        assert!(
            status.success(),
            "{}: it ended with {status}; the log ends: {}",
            world.label(),
            world.log_end()
        );
        assert!(took < END_MAX, "{}: it took {took:?} to end", world.label());
        slowest = slowest.max(took);
        drop((idle, half));
        world.launch().await;
        running.stop().await;
    }
    world
        .final_counts()
        .await
        .note(format!("ended after {} ms at most", slowest.as_millis()))
}

/// `scripts/faults --kills N`: kills at random, one world. Without its variable there is nothing to
/// do here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(kills) = number("FAULTS_KILLS") else {
        return super::not_run("the kills at random", "scripts/faults --kills N");
    };
    let seed = number("FAULTS_SEED").unwrap_or(1);
    let begun = Instant::now();
    let given = Given {
        backend: std::sync::Arc::new(super::Embedded),
        seed,
        is_quick: false,
    };
    let counts = random_kills(given, usize::try_from(kills).expect("a count")).await;
    println!(
        "\n{kills} kills at random over embedded, seed {seed}: sent {}, 200s {}, effects {}, attempts {}, look-ups {}; \
        nothing lost, nothing doubled; {:.0} s\n",
        counts.sent,
        counts.taken,
        counts.effects,
        counts.attempts,
        counts.look_ups,
        begun.elapsed().as_secs_f64()
    );
}
