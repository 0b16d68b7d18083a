//! Faults 23 to 29: providers that drop, refuse, storm, babble, redirect and hang up.

use super::{
    Given,
    count::Counts,
    proxy::{Mode, Then},
    world::{Wishes, World, until},
};
use hookswitch::{
    domain::Provider,
    sandbox::{Drop, Fault},
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

fn twilio() -> Fault {
    Fault::of(Provider::Twilio).method("POST")
}

pub async fn accepts_and_drops(given: Given) -> Counts {
    let world = World::start(
        "accepts and drops",
        &given,
        Wishes::default()
            .callbacks(false)
            .set("HOOKSWITCH_ATTEMPT_SECONDS_MAX", 1),
    )
    .await;
    let count = given.many(60, 10);
    world.sandbox.add_fault(
        twilio()
            .times(u32::try_from(count).expect("small"))
            .dropping(Drop::AfterAccept),
    );
    world.load.send_all(count * 2).await;
    world.quiet().await;
    // The same from the wire: its answers get lost, it is slow, and it is not to be reached without
    // anyone saying so.
    for mode in [
        Mode::DropReplies,
        Mode::Delay(Duration::from_millis(200)),
        Mode::Blackhole,
    ] {
        world.proxy.set(mode);
        let connections = world.proxy.connections();
        for _ in 0..3 {
            world.load.insist(&world.load.wanted_of(1)).await;
        }
        until(
            || world.label(),
            "a call",
            || async { (world.proxy.connections() > connections).then_some(()) },
        )
        .await;
        world.proxy.set(Mode::Reset);
        world.proxy.set(Mode::Pass);
        world.quiet().await;
    }
    let counts = world.final_counts().await;
    assert!(
        counts.look_ups >= count as u64,
        "{}: {} look-ups for {count} unknown outcomes",
        world.label(),
        counts.look_ups
    );
    counts
}

pub async fn rate_limited(given: Given) -> Counts {
    let world = World::start("429", &given, Wishes::default()).await;
    for value in [
        json!(1),
        json!("Mon, 01 Jan 2024 00:00:00 GMT"),
        json!(1_000_000_000),
        json!("soon"),
        json!("-1"),
        json!("1.5"),
        json!(""),
    ] {
        let mut fault = twilio().times(3).status(429);
        fault.retry_after = Some(value);
        world.sandbox.add_fault(fault);
    }
    world.load.send_all(given.many(120, 30)).await;
    world.final_counts().await
}

pub async fn credential_refused(given: Given) -> Counts {
    const RESUMES_MAX: Duration = Duration::from_secs(5);
    /// Attempts of one organisation at once.
    const AT_ONCE: u32 = 16;
    let wishes = Wishes::default().set("HOOKSWITCH_ATTEMPTS_CONCURRENT_PER_ORG_MAX", AT_ONCE);
    let world = World::start("401, then mended", &given, wishes).await;
    let org = world.orgs[1].clone();
    let mut fault = Fault::of(Provider::Twilio).status(401);
    fault.path = Some(org.account.clone());
    world.sandbox.add_fault(fault);
    let events: Vec<_> = (0..given.many(60, 40)).map(|_| world.load.wanted_of(1)).collect();
    for event in &events {
        world.load.insist(event).await;
    }
    let parked = || async {
        world
            .actions(&org.token)
            .await
            .iter()
            .filter(|action| action["state"] == "parked")
            .count()
    };
    until(
        || world.label(),
        "all of them to be parked",
        || async { (parked().await == events.len()).then_some(()) },
    )
    .await;
    let refused = world
        .sandbox
        .requests(Provider::Twilio)
        .iter()
        .filter(|request| request.path.contains(&org.account) && request.status == Some(401))
        .count();
    // The calls that were under way when the first one was refused, and no other.
    assert!(
        refused <= AT_ONCE as usize,
        "{}: {refused} calls with a credential that is refused",
        world.label()
    );
    assert!(
        world
            .actions(&org.token)
            .await
            .iter()
            .all(|action| action["attempts_counted"] == 0),
        "{}: a refused credential uses up no try",
        world.label()
    );
    // The others are not held up.
    world.load.send_all(20).await;
    world.sandbox.clear_faults();
    let mended = json!({ "account_sid": org.account, "auth_token": org.auth_token, "phone_number": org.number });
    world.post_as(&org.token, "/api/integrations/twilio", mended).await;
    let begun = Instant::now();
    until(
        || world.label(),
        "what was parked to go on",
        || async { (parked().await == 0).then_some(()) },
    )
    .await;
    assert!(
        begun.elapsed() < RESUMES_MAX,
        "{}: it went on after {:?}",
        world.label(),
        begun.elapsed()
    );
    world.final_counts().await.note(format!(
        "{refused} calls were refused; resumed after {} ms",
        begun.elapsed().as_millis()
    ))
}

pub async fn storm(given: Given) -> Counts {
    let world = World::start(
        "503 storm",
        &given,
        Wishes::default().set("HOOKSWITCH_ATTEMPTS_MAX", 30),
    )
    .await;
    world.sandbox.add_fault(twilio().status(503));
    let running = world.load.run(100);
    // A storm is time that passes.
    tokio::time::sleep(Duration::from_secs(given.many(8, 3) as u64)).await;
    running.stop().await;
    let refused = world.sandbox.request_count(Provider::Twilio);
    let wanted = world
        .load
        .calls()
        .values()
        .filter(|sent| sent.is_wanted && sent.taken > 0)
        .count();
    world.sandbox.clear_faults();
    let counts = world.final_counts().await;
    counts.note(format!("{refused} calls into the storm for {wanted} actions"))
}

pub async fn malformed(given: Given) -> Counts {
    let mut wishes = Wishes::default().callbacks(false);
    wishes = wishes
        .set("HOOKSWITCH_ATTEMPT_SECONDS_MAX", 1)
        .set("HOOKSWITCH_ATTEMPTS_MAX", 100);
    let world = World::start("answers that are none", &given, wishes).await;
    let answers: Vec<(&[u8], Then)> = vec![
        (b"", Then::Close),
        (b"", Then::Silence),
        (b"\x00\xff\x00\xffnot http\r\n\r\n", Then::Close),
        (
            b"HTTP/1.1 201 Created\r\ncontent-length: 1000\r\n\r\n{\"sid\":",
            Then::Close,
        ),
        (
            b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnull",
            Then::Silence,
        ),
        (b"HTTP/1.0 201 Created\r\n\r\n<html>", Then::Close),
        (
            b"HTTP/1.1 201 Created\r\ncontent-length: 1073741824\r\n\r\n",
            Then::Flood,
        ),
        (b"HTTP/1.1 201 Created\r\n\r\n", Then::Flood),
        (b"HTTP/1.1 201 Created\r\n\r\n", Then::Drip(Duration::from_millis(50))),
        (
            b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
            Then::Silence,
        ),
        (
            b"HTTP/1.1 201 Created\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00",
            Then::Close,
        ),
    ];
    let before = world.process().usage();
    for (answer, then) in answers {
        world.proxy.set(Mode::Instead(answer.into(), then));
        let connections = world.proxy.connections();
        for _ in 0..given.many(5, 2) {
            world.load.insist(&world.load.wanted_of(1)).await;
        }
        until(
            || world.label(),
            "a call",
            || async { (world.proxy.connections() > connections).then_some(()) },
        )
        .await;
    }
    let after = world.process().usage();
    world.proxy.set(Mode::Reset);
    world.proxy.set(Mode::Pass);
    assert!(
        after.resident_kib < before.resident_kib + (100 << 10),
        "{}: {} KiB before, {} KiB after",
        world.label(),
        before.resident_kib,
        after.resident_kib
    );
    world.final_counts().await
}

pub async fn redirected(given: Given) -> Counts {
    let world = World::start("redirects", &given, Wishes::default().callbacks(false)).await;
    let sentinel = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = sentinel.local_addr().expect("bound");
    let visits = Arc::new(AtomicUsize::new(0));
    let visited = visits.clone();
    let watching = tokio::spawn(async move {
        while sentinel.accept().await.is_ok() {
            visited.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut events = 0;
    for status in [301, 302, 303, 307, 308] {
        for target in [
            format!("http://{address}/"),
            format!("http://localhost:{}/", address.port()),
            "http://169.254.169.254/latest/meta-data/".into(),
        ] {
            let answer = format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            world.proxy.set(Mode::Instead(answer.into_bytes().into(), Then::Close));
            world.load.insist(&world.load.wanted_of(1)).await;
            events += 1;
            until(
                || world.label(),
                "the redirect to be met",
                || async {
                    let actions = world.actions(&world.orgs[1].token).await;
                    let met = actions
                        .iter()
                        .filter(|action| action["state"] == "dead" || action["state"] == "unknown")
                        .count();
                    (met == events).then_some(())
                },
            )
            .await;
        }
    }
    world.proxy.set(Mode::Pass);
    assert_eq!(
        visits.load(Ordering::SeqCst),
        0,
        "{}: a redirect was followed",
        world.label()
    );
    // A person, who knows better, sends what is dead once more.
    for action in world
        .actions(&world.orgs[1].token)
        .await
        .iter()
        .filter(|action| action["state"] == "dead")
    {
        assert_eq!(action["cause"], "redirect_not_followed", "{}: {action}", world.label());
        let path = format!("/api/actions/{}/retry", action["id"].as_str().expect("an id"));
        world.post_as(&world.orgs[1].token, &path, json!({})).await;
    }
    let counts = world.final_counts().await;
    watching.abort();
    counts.note("the sentinel saw no connection")
}

pub async fn closing_connections(given: Given) -> Counts {
    let world = World::start(
        "closing connections",
        &given,
        Wishes::default().callbacks(false).set("HOOKSWITCH_ATTEMPTS_MAX", 50),
    )
    .await;
    // Just when the next request may come along the kept connection.
    for after in [1, 5, 20] {
        world.proxy.set(Mode::CloseIdle(Duration::from_millis(after)));
        world.load.send_all(given.many(100, 20)).await;
        world.quiet().await;
    }
    for after in [0, 10, 200] {
        world.proxy.set(Mode::CutReplies(after));
        world.load.send_all(given.many(20, 5)).await;
    }
    world.proxy.set(Mode::Pass);
    world.final_counts().await
}
