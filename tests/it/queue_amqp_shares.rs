//! Two worker processes share RabbitMQ's queues out by rows of the store (invariant 26).

use crate::{
    conformance::queue::{delivered, event},
    support::{amqp::AmqpPlace, postgres::PostgresDatabase, until},
};
use hookswitch::{
    cli::StoredLeases,
    domain::{OrgId, SystemClock},
    queue::{AmqpQueue, AmqpSettings, EventQueue},
    store,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

const CHILD: &str = "HOOKSWITCH_TEST_SHARES_CHILD";
const QUEUES: u16 = 4;
const SUBJECTS: usize = 16;

fn settings(prefix: &str) -> AmqpSettings {
    AmqpSettings {
        prefix: prefix.to_owned(),
        queues: QUEUES,
        share_period: Duration::from_secs(1),
        ..AmqpSettings::default()
    }
}

/// Not a test of its own: the process that the next one starts and kills. Says
/// `got SUBJECT NUMBER TIME` for each delivery, and acks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_consumes_its_share_until_it_is_killed() {
    let Ok(reported) = std::env::var(CHILD) else { return };
    let [amqp, prefix, postgres] = &*reported.split(' ').collect::<Vec<_>>() else {
        panic!("three words are expected");
    };
    let store = store::connect(postgres, Arc::new(SystemClock)).await.expect("a store");
    let queue = AmqpQueue::open(amqp, settings(prefix)).await.expect("a queue");
    queue.share_by(Arc::new(StoredLeases::new(store, prefix)));
    let mut deliveries = queue.consume().await.expect("a consumer");
    loop {
        let batch = deliveries.next_batch(16).await.expect("a batch");
        for one in &batch {
            let envelope = delivered(one);
            let (subject, body) = (&envelope.subject.0, String::from_utf8_lossy(&envelope.body));
            let at = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_micros();
            let mut out = std::io::stdout().lock();
            writeln!(out, "got {subject} {body} {at}")
                .and_then(|()| out.flush())
                .expect("the parent reads");
        }
        let tags: Vec<_> = batch.iter().map(|one| one.tag).collect();
        deliveries.ack(&tags).await.expect("acks are no error");
    }
}

#[derive(Clone)]
struct Got {
    subject: String,
    number: u64,
    at: u128,
}

/// A worker process, and what it said it got, in its order.
struct Worker {
    child: Child,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Worker {
    fn start(place: &AmqpPlace, database: &PostgresDatabase) -> Self {
        let reported = format!("{} {} {}", place.url(), place.settings().prefix, database.url());
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "queue_amqp_shares::child_that_consumes_its_share_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, reported)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("it starts");
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (lines, noted) = (BufReader::new(child.stdout.take().expect("piped")), got.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let ["got", subject, number, at] = &*line.split(' ').collect::<Vec<_>>() {
                    noted.lock().unwrap().push(Got {
                        subject: (*subject).to_owned(),
                        number: number.parse().expect("a number"),
                        at: at.parse().expect("a time"),
                    });
                }
            }
        });
        Self { child, got }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The subjects that it got since a point of its list.
    fn subjects_since(&self, from: usize) -> BTreeSet<String> {
        self.got().split_off(from).into_iter().map(|got| got.subject).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes one more event of each subject.
async fn publish_round(queue: &AmqpQueue, org: OrgId, number: &mut u64) {
    *number += 1;
    for subject in 0..SUBJECTS {
        let event = event(org, &format!("call-{subject}"), format!("{number}"));
        queue.publish(&event).await.expect("it is confirmed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_consume_half_each_and_one_takes_over_when_the_other_is_killed() {
    let Some(place) = AmqpPlace::new(QUEUES) else { return };
    let Some(database) = PostgresDatabase::new().await else {
        return;
    };
    let queue = place.open().await;
    let (org, mut number) = (OrgId::generate(), 0);
    let (first, mut second) = (Worker::start(&place, &database), Worker::start(&place, &database));

    // Each gets events of half of the queues, and none of the other's.
    let sent = Mutex::new(&mut number);
    until("an even share of the queues", || async {
        let (from_first, from_second) = (first.got().len(), second.got().len());
        let mut number = { **sent.lock().unwrap() };
        publish_round(&queue, org, &mut number).await;
        **sent.lock().unwrap() = number;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (one, two) = (first.subjects_since(from_first), second.subjects_since(from_second));
        let is_whole = one.len() + two.len() == SUBJECTS && one.is_disjoint(&two);
        (is_whole && !one.is_empty() && !two.is_empty()).then_some(())
    })
    .await;

    second.child.kill().expect("it runs");
    second.child.wait().expect("it was killed");
    for _ in 0..5 {
        publish_round(&queue, org, &mut number).await;
    }
    // The lease of the one that was killed ends after 15 seconds.
    until("the first worker to take over", || async {
        let last = first.got().into_iter().filter(|got| got.number == number);
        (last.map(|got| got.subject).collect::<BTreeSet<_>>().len() == SUBJECTS).then_some(())
    })
    .await;

    // The order within a subject held over both changes of its worker, and nothing is missing.
    let mut all = [first.got(), second.got()].concat();
    all.sort_by_key(|got| got.at);
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for got in all {
        let numbers = seen.entry(got.subject).or_default();
        if !numbers.contains(&got.number) {
            numbers.push(got.number);
        }
    }
    assert_eq!(seen.len(), SUBJECTS);
    for (subject, numbers) in seen {
        assert_eq!(numbers, (1..=number).collect::<Vec<_>>(), "{subject}");
    }
}
