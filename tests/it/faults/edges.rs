//! Faults 17, 31 to 37, 39 and 40: the database's lock, clocks, settings, keys, senders,
//! descriptors, floods, rules, memory.

use super::{
    Given,
    count::Counts,
    load::Random,
    proxy::reset,
    shim::Shim,
    world::{KEY, PLAN, Wishes, World, random_hex, until},
};
use crate::support::wire::Wire;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Somebody else's transaction keeps every writer out for longer than SQLite waits.
pub async fn locked_database(given: Given) -> Counts {
    let mut world = World::start("locked database", &given, Wishes::default()).await;
    let lock = world.lock_database().await;
    let running = world.load.run(100);
    // The test is about time that passes: SQLite gives up after 5 s.
    tokio::time::sleep(Duration::from_secs(given.many(20, 7) as u64)).await;
    let (_, taken) = world.load.taken();
    assert!(
        taken > 100,
        "{}: ingress goes on while the database is locked",
        world.label()
    );
    assert_eq!(
        world.load.answers().keys().copied().collect::<Vec<_>>(),
        [200],
        "{}: nobody is refused",
        world.label()
    );
    let slow = world.load.percentile(0.99);
    assert!(
        slow < Duration::from_secs(2),
        "{}: an answer took {slow:?}",
        world.label()
    );
    drop(lock);
    running.stop().await;
    assert!(world.process.as_mut().is_some_and(|process| process.ended().is_none()));
    world.final_counts().await
}

/// An hour ahead and back while it works: nothing expires, nothing goes out twice, and the leases
/// that jumped are looked up.
pub async fn clock_jumps(given: Given) -> Counts {
    let mut world = World::start("clock jumps", &given, Wishes::default().callbacks(false)).await;
    let shim = Shim::new(&world, false);
    world.terminate().await;
    world.launch_with(&shim.environment()).await;
    let jumps: &[i64] = if given.is_quick {
        &[3600, 0]
    } else {
        &[3600, 0, -3600, 0, 1, -1, 600, 0]
    };
    for seconds in jumps {
        let running = world.load.run(100);
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + 50).then_some(()) },
        )
        .await;
        shim.ask(&format!("clock * add {seconds}"));
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load after the jump",
            || async { (world.load.taken().1 > before + 50).then_some(()) },
        )
        .await;
        running.stop().await;
    }
    shim.ask("");
    // Actions that were planned while the clock was ahead are due when the time has come. That it
    // comes is seen by going there.
    shim.ask("clock * add 7300");
    let counts = world.final_counts().await;
    for org in &world.orgs {
        let dead = world
            .actions(&org.token)
            .await
            .into_iter()
            .filter(|action| action["state"] == "dead")
            .collect::<Vec<_>>();
        assert!(dead.is_empty(), "{}: {dead:?}", world.label());
    }
    counts
}

/// Settings are read once, at the start: there is nothing to reload, and what is wrong keeps a
/// process from starting.
pub async fn wrong_settings(given: Given) -> Counts {
    let mut world = World::start("wrong settings", &given, Wishes::default()).await;
    let running = world.load.run(100);
    for (name, value) in [
        ("HOOKSWITCH_BODY_BYTES_MAX", "plenty"),
        ("HOOKSWITCH_BODY_BYTE_MAX", "1"),
        ("HOOKSWITCH_QUEUE_URL", "embedded:"),
        ("HOOKSWITCH_DATABASE_URL", "oracle:x"),
        ("HOOKSWITCH_KEYRING", "half-writ"),
        ("HOOKSWITCH_INGRESS_ADDRESS", "nowhere"),
    ] {
        let (_, before) = world.load.taken();
        until(
            || world.label(),
            "load",
            || async { (world.load.taken().1 > before + 10).then_some(()) },
        )
        .await;
        world.kill().await;
        let before = world.log_text().len();
        world.spawn(&[(name, value.to_owned())]);
        let status = world.ends("with a wrong setting").await;
        let log = world.log_text()[before..].to_owned();
        let names = log.contains(name) || (name == "HOOKSWITCH_KEYRING" && log.contains("key 1 of the ring"));
        assert!(!status.success() && names, "{}: {name}: {status}: {log}", world.label());
        world.launch().await;
    }
    running.stop().await;
    world.final_counts().await
}

/// A new key first and the old one behind it; a new signing secret with an overlap; and the old key
/// taken out too early.
pub async fn rotation(given: Given) -> Counts {
    let mut world = World::start("rotation", &given, Wishes::default()).await;
    let fresh = random_hex(32);
    let running = world.load.run(150);
    let (_, before) = world.load.taken();
    until(
        || world.label(),
        "load",
        || async { (world.load.taken().1 > before + 50).then_some(()) },
    )
    .await;
    world.kill().await;
    world
        .launch_with(&[("HOOKSWITCH_KEYRING", format!("{fresh},{KEY}"))])
        .await;
    for org in 0..3 {
        let (old, secret) = (world.orgs[org].secret.clone(), random_hex(24));
        let path = format!("/api/endpoints/{}", world.orgs[org].endpoint);
        let tag = world
            .http
            .get(world.url(1, &path))
            .bearer_auth(&world.orgs[org].token)
            .send()
            .await
            .expect("an answer")
            .headers()["etag"]
            .clone();
        let rotation = json!({
            "secret": secret,
            "plan": serde_json::from_str::<Value>(PLAN).expect("JSON"),
            "overlap_seconds": 3600,
        });
        let request = world
            .http
            .post(world.url(1, &format!("{path}/secrets")))
            .bearer_auth(&world.orgs[org].token)
            .header("if-match", tag)
            .json(&rotation);
        assert_eq!(request.send().await.expect("an answer").status(), 201);
        // The old one verifies as well, until its end.
        let event = world.load.wanted_of(org);
        world.load.insist(&event).await;
        world.load.sign_with(org, &secret);
        world.orgs[org].secret = secret;
        world.load.insist(&world.load.wanted_of(org)).await;
        assert_ne!(old, world.orgs[org].secret);
    }
    running.stop().await;
    world.quiet().await;
    world.kill().await;
    // Nothing opens: nobody's genuine event is refused as if it were forged.
    world.spawn(&[("HOOKSWITCH_KEYRING", random_hex(32))]);
    let event = world.load.wanted_of(0);
    let answer = loop {
        if world.process.as_mut().is_none_or(|process| process.ended().is_some()) {
            break 0;
        }
        if let Some(status) = world.load.send(&event).await {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        matches!(answer, 0 | 503),
        "{}: without its key an event gets {answer}; the log ends: {}",
        world.label(),
        world.log_end()
    );
    if answer != 0 {
        world.kill().await;
    }
    world.process = None;
    world
        .launch_with(&[("HOOKSWITCH_KEYRING", format!("{fresh},{KEY}"))])
        .await;
    world.load.insist(&event).await;
    world.final_counts().await.note(if answer == 0 {
        "without its keys it does not start"
    } else {
        "without its keys: 503"
    })
}

fn request(world: &World, event: &super::load::Event) -> Vec<u8> {
    let org = &world.orgs[event.org];
    let signature = crate::support::hooks::sign(&org.secret, &event.body);
    let head = format!(
        "POST /webhooks/vapi/{} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-vapi-signature: \
        {signature}\r\ncontent-length: {}\r\n\r\n",
        org.endpoint,
        event.body.len()
    );
    [head.as_bytes(), &event.body].concat()
}

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(("127.0.0.1", world.base))
        .await
        .expect("ingress takes connections")
}

/// Resets after the head, in the body, and before the answer; then each is sent again.
pub async fn vanishing_senders(given: Given) -> Counts {
    let world = World::start("senders vanish", &given, Wishes::default()).await;
    let mut random = Random::new(given.seed);
    let before = world.process().usage();
    let mut events = Vec::new();
    for round in 0..given.many(200, 40) {
        let event = world.load.wanted_of(round % 3);
        let bytes = request(&world, &event);
        let body_at = bytes.len() - event.body.len();
        let end = match round % 4 {
            0 => body_at,
            1 => body_at + usize::try_from(random.below(event.body.len() as u64)).expect("fits"),
            2 => usize::try_from(random.below(body_at as u64)).expect("fits"),
            _ => bytes.len(),
        };
        let mut stream = connect(&world).await;
        stream.write_all(&bytes[..end]).await.expect("sent");
        if random.chance(50) {
            reset(&stream);
        }
        drop(stream);
        events.push(event);
    }
    for event in &events {
        world.load.insist(event).await;
    }
    until(
        || world.label(),
        "connections to be given back",
        || async { (world.process().usage().descriptors <= before.descriptors + 12).then_some(()) },
    )
    .await;
    world.final_counts().await
}

/// Many sockets that send a byte now and then, or nothing.
pub async fn slowloris(given: Given) -> Counts {
    let wishes = Wishes::default()
        .set("HOOKSWITCH_HEAD_SECONDS_MAX", 2)
        .set("HOOKSWITCH_BODY_SECONDS_MAX", 2);
    let world = World::start("slow connections", &given, wishes).await;
    let before = world.process().usage();
    let mut sockets = Vec::new();
    for number in 0..given.many(1_500, 300) {
        let mut stream = connect(&world).await;
        let part: &[u8] = match number % 3 {
            0 => b"",
            1 => b"POST /webhooks/va",
            _ => {
                b"POST /webhooks/vapi HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: \
                500\r\n\r\n{"
            }
        };
        let _ = stream.write_all(part).await;
        sockets.push(stream);
    }
    world.load.percentile(1.0);
    world.load.send_all(100).await;
    let slow = world.load.percentile(0.99);
    assert!(
        slow < Duration::from_secs(2),
        "{}: others waited {slow:?}",
        world.label()
    );
    let begun = Instant::now();
    futures_util::future::join_all(sockets.iter_mut().map(|socket| async {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest))
            .await
            .expect("it is closed");
    }))
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{}: closed after {:?}",
        world.label(),
        begun.elapsed()
    );
    drop(sockets);
    until(
        || world.label(),
        "descriptors to be given back",
        || async { (world.process().usage().descriptors <= before.descriptors + 12).then_some(()) },
    )
    .await;
    world
        .final_counts()
        .await
        .note(format!("others' p99 {} ms", slow.as_millis()))
}

/// Lowers a limit of the live process, and returns what it was. Its upper end stays: only root may
/// raise that again.
fn limit_to(world: &World, resource: Resource, value: u64) -> Rlimit {
    let maximum = rustix::process::getrlimit(resource).maximum;
    prlimit(
        Some(world.process().pid()),
        resource,
        Rlimit {
            current: Some(value),
            maximum,
        },
    )
    .expect("a limit of a child of ours")
}

/// A real limit on the live process, and more connections than it has descriptors for. A sender
/// that is connected is served meanwhile, also through new segments of the log, and the others are
/// served when some connections go.
pub async fn descriptors(given: Given) -> Counts {
    const SERVES_WITHIN: Duration = Duration::from_secs(5);
    // A segment holds about thirty events: several are begun while nothing else can be opened.
    let wishes = Wishes::default().set("HOOKSWITCH_QUEUE_SEGMENT_BYTES", 1 << 16);
    let world = World::start("no descriptors left", &given, wishes).await;
    let mut connected = Wire::new(connect(&world).await);
    assert_eq!(post(&world, &mut connected).await, 200);
    let open = world.process().usage().descriptors as u64;
    let limit = limit_to(&world, Resource::Nofile, open + 40);
    let mut sockets = Vec::new();
    for _ in 0..300 {
        // Those that are not accepted wait in the kernel.
        sockets.push(connect(&world).await);
    }
    until(
        || world.label(),
        "every descriptor to be taken",
        || async { (world.process().usage().descriptors as u64 >= open + 40).then_some(()) },
    )
    .await;
    let mut served = 0;
    while served < given.many(400, 150) && post(&world, &mut connected).await == 200 {
        served += 1;
    }
    // Two segments hold fewer.
    assert!(
        served >= 80,
        "{}: the sender that was connected got {served} answers",
        world.label()
    );
    drop((sockets, connected));
    let begun = Instant::now();
    // Each of these connects anew.
    world.load.send_all(16).await;
    let served_after = begun.elapsed();
    assert!(
        served_after < SERVES_WITHIN,
        "{}: it served again after {served_after:?}",
        world.label()
    );
    // Under the limit still, it can write its database.
    world.load.send_all(given.many(1_000, 200)).await;
    prlimit(Some(world.process().pid()), Resource::Nofile, limit).expect("its own limit");
    world
        .final_counts()
        .await
        .note(format!("served again after {} ms", served_after.as_millis()))
}

/// An event that no rule wants, so that no call to a provider competes for a descriptor.
async fn post(world: &World, connected: &mut Wire) -> u16 {
    connected.send(&request(world, &world.load.unwanted())).await;
    let answer = connected.answer().await;
    answer.expect("an answer on a connection that stands").status
}

/// One organisation sends twenty times as much as the others together, and unknown senders send
/// what leads nowhere.
pub async fn flood(given: Given) -> Counts {
    let world = World::start("floods", &given, Wishes::default()).await;
    let load = &world.load;
    let events: Vec<_> = (0..given.many(2_000, 300)).map(|_| load.wanted_of(0)).collect();
    let few: Vec<_> = (0..30).map(|n| load.wanted_of(1 + n % 2)).collect();
    let unknown = async {
        for n in 0..200_u32 {
            let body = format!(
                "{{\"message\":{{\"type\":\"end-of-call-report\",\
                 \"call\":{{\"id\":\"{n}\",\"assistantId\":\"{n:032}\"}}}}}}"
            );
            let post = world
                .http
                .post(world.url(0, "/webhooks/vapi"))
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await;
            let status = post.expect("an answer").status().as_u16();
            assert!(
                matches!(status, 401 | 429 | 503),
                "{}: an unknown sender got {status}",
                world.label()
            );
        }
    };
    let flooding = futures_util::future::join_all(events.chunks(events.len().div_ceil(20)).map(|chunk| async move {
        for event in chunk {
            load.insist(event).await;
        }
    }));
    let others = async {
        let mut slowest = Duration::ZERO;
        for event in &few {
            let begun = Instant::now();
            load.insist(event).await;
            until(
                || world.label(),
                "the others' SMS",
                || async {
                    world
                        .sandbox
                        .messages()
                        .iter()
                        .any(|message| message.body.ends_with(&event.call))
                        .then_some(())
                },
            )
            .await;
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let ((), _, slowest) = tokio::join!(unknown, flooding, others);
    assert!(
        slowest < Duration::from_secs(10),
        "{}: another organisation waited {slowest:?}",
        world.label()
    );
    world.final_counts().await.note(format!(
        "others' slowest way from post to SMS {} ms",
        slowest.as_millis()
    ))
}

/// Rules that fail on an event, loop over it, or grow without end: a dead letter with a reason, and
/// the neighbours go out.
pub async fn poison(given: Given) -> Counts {
    let mut world = World::start("poison", &given, Wishes::default()).await;
    let bodies = [
        "{{ message.nobody.number }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ 'a' * 100000000 }}",
        "{{ message.call.id * 1000000 }}",
    ];
    let before = world.process().usage();
    let mut made = 0;
    for (number, body) in bodies.iter().enumerate() {
        let rule = json!({
            "name": format!("poison {number}"), "source": "vapi", "event_type": "end-of-call-report",
            "action": "twilio.send_sms",
            "parameters": { "to": "+15552010188", "body": body },
        });
        let answer = world
            .http
            .post(world.url(1, "/api/rules"))
            .bearer_auth(&world.orgs[1].token)
            .json(&rule)
            .send()
            .await
            .expect("an answer");
        // Rules that can be seen to be wrong are refused when they are saved.
        made += usize::from(answer.status() == 201);
    }
    let begun = Instant::now();
    world.load.send_all(given.many(200, 60)).await;
    world.quiet().await;
    let dead: Vec<_> = world
        .actions(&world.orgs[1].token)
        .await
        .into_iter()
        .filter(|action| action["state"] == "dead")
        .collect();
    assert!(
        made > 0 && !dead.is_empty(),
        "{}: {made} rules were saved, {} dead letters",
        world.label(),
        dead.len()
    );
    for action in &dead {
        assert!(
            matches!(action["cause"].as_str(), Some("template_failed" | "template_limit")),
            "{}: {action}",
            world.label()
        );
    }
    let after = world.process().usage();
    assert!(
        after.resident_kib < before.resident_kib + (200 << 10),
        "{}: {before:?}, then {after:?}",
        world.label()
    );
    assert!(world.process.as_mut().is_some_and(|process| process.ended().is_none()));
    world.final_counts().await.note(format!(
        "{} dead letters of {made} rules, {:.1} s",
        dead.len(),
        begun.elapsed().as_secs_f64()
    ))
}

/// Far more at once than it can take, then no memory at all: it is shed or taken, and what was
/// taken outlives the end.
pub async fn overload(given: Given) -> Counts {
    let wishes = Wishes::default()
        .set("HOOKSWITCH_REQUESTS_MAX", 16)
        .set("HOOKSWITCH_CONNECTIONS_MAX", 200);
    let mut world = World::start("overload", &given, wishes).await;
    let events: Vec<_> = (0..given.many(3_000, 600)).map(|_| world.load.fresh()).collect();
    let before = world.process().usage();
    futures_util::future::join_all(events.iter().map(|event| world.load.send(event))).await;
    let after = world.process().usage();
    let answers = world.load.answers();
    assert!(
        answers.keys().all(|status| matches!(status, 200 | 429 | 503)),
        "{}",
        world.label()
    );
    assert!(
        after.resident_kib < before.resident_kib + (150 << 10),
        "{}: {before:?}, then {after:?}",
        world.label()
    );
    let running = world.load.run(200);
    // Not a byte more than it has: the next allocation ends it, or the kernel would.
    limit_to(&world, Resource::As, 1 << 20);
    let end = Instant::now() + Duration::from_secs(5);
    while world.process.as_mut().is_some_and(|process| process.ended().is_none()) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended_by_itself = world.process.as_mut().is_some_and(|process| process.ended().is_some());
    if !ended_by_itself {
        // It got along with what it had. The OOM killer does not ask.
        world.process().signal(Signal::KILL);
        world.ends("after SIGKILL").await;
    }
    world.process = None;
    world.launch().await;
    running.stop().await;
    world.final_counts().await.note(if ended_by_itself {
        "ended when memory did"
    } else {
        "lived without memory, was killed"
    })
}
