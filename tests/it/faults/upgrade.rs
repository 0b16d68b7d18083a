//! Fault 7: an earlier revision of the project and this one, side by side under load. The schema is
//! brought up while the earlier one runs, all processes are replaced by new ones, these by earlier
//! ones again, and so on.
//!
//! `scripts/faults --upgrade` builds the earlier revision and runs this.

use super::{
    Given,
    count::Counts,
    load::Event,
    not_run, todays_seed,
    world::{Embedded, Wishes, World, binary, until},
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// Events a second.
const RATE: u32 = 40;
/// Events that have to be taken in each state of the installation.
const MORE: u64 = 60;

/// The binary of the earlier revision.
fn earlier() -> Option<PathBuf> {
    let binary = std::env::var_os("FAULTS_EARLIER").map(PathBuf::from);
    if binary.is_none() {
        not_run(
            "the rolling upgrade from an earlier revision",
            "scripts/faults --upgrade",
        );
    }
    binary
}

/// An event of this moment has its effect, and the load goes on.
async fn carries(world: &World) {
    let event = world.load.wanted_of(1);
    world.load.insist(&event).await;
    has_its_effect(world, &event).await;
    let before = world.load.taken().1;
    until(
        || world.label(),
        "the load to go on",
        || async { (world.load.taken().1 >= before + MORE).then_some(()) },
    )
    .await;
}

async fn has_its_effect(world: &World, event: &Event) {
    until(
        || format!("{}; the log ends: {}", world.label(), world.log_end()),
        "the effect of an event",
        || async { world.sms().contains_key(&event.call).then_some(()) },
    )
    .await;
}

/// What only this revision knows, and an earlier one has to live with: settings of an
/// organisation, an action that waits for the end of quiet hours, and a rule by new names.
struct Newer {
    org: usize,
    token: String,
}

impl Newer {
    async fn begin(world: &mut World) -> Self {
        let org = world.organisation(world.orgs.len()).await;
        world.load.know(&org);
        world.orgs.push(org.clone());
        let newer = Self {
            org: world.orgs.len() - 1,
            token: org.token,
        };
        // It is quiet now, and for hours.
        let hour = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() / 3_600;
        let quiet = json!({ "from": clock(hour + 23), "until": clock(hour + 12) });
        let settings = json!({ "time_zone": "UTC", "quiet_hours": quiet, "retention_days": 30 });
        let url = world.url(1, "/api/settings");
        let answer = world
            .http
            .patch(url)
            .bearer_auth(&newer.token)
            .json(&settings)
            .send()
            .await;
        assert_eq!(answer.expect("the admin API answers").status(), 200);
        let rule = json!({
            "name": "text by new names", "source": "vapi", "event_type": "status-update",
            "action": "twilio.send_sms", "when": "organisation.time_zone == 'UTC'", "ignores_quiet_hours": true,
            "parameters": { "to": "{{ message.customer.number }}", "body": "call {{ message.call.id }}" },
        });
        world.post_as(&newer.token, "/api/rules", rule).await;
        world.load.insist(&newer.event("end-of-call-report", false)).await;
        until(
            || world.label(),
            "an action that waits for the end of quiet hours",
            || async { Some(newer.waiting(world).await?.len() == 1).filter(|waits| *waits) },
        )
        .await;
        newer
    }

    fn event(&self, kind: &str, is_wanted: bool) -> Event {
        let call = uuid::Uuid::now_v7().to_string();
        let message = json!({ "message": {
            "type": kind, "timestamp": 1_773_068_003_417_u64, "status": "in-progress", "call": { "id": call },
            "customer": { "number": "+15550001111" },
        }});
        Event {
            call,
            org: self.org,
            is_wanted,
            body: serde_json::to_vec(&message).expect("JSON"),
        }
    }

    /// Sends an event that the rule by new names wants.
    async fn wanted(&self, world: &World) -> Event {
        let event = self.event("status-update", true);
        world.load.insist(&event).await;
        event
    }

    async fn waiting(&self, world: &World) -> Option<Vec<Value>> {
        let list = world.get_as(&self.token, "/api/actions?state=waiting").await?;
        list["data"].as_array().cloned()
    }

    /// The action still waits, and is taken back.
    async fn end(&self, world: &World) {
        let waiting = self.waiting(world).await.expect("the admin API answers");
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        assert_eq!(waiting[0]["cause"], "quiet_hours", "{waiting:?}");
        let id = waiting[0]["id"].as_str().expect("an id");
        world
            .post_as(&self.token, &format!("/api/actions/{id}/cancel"), json!({}))
            .await;
    }
}

fn clock(hour: u64) -> String {
    format!("{:02}:00", hour % 24)
}

fn report(world: &World, counts: &Counts) {
    println!("{}: {}, {counts:?}", world.backend.name(), world.load.summary());
}

/// One process at a time has the directory, so that an earlier one ends before a new one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_two_revisions_over_the_embedded_queue() {
    let Some(earlier) = earlier() else { return };
    let given = Given {
        backend: Arc::new(Embedded),
        seed: todays_seed(),
        is_quick: true,
    };
    let mut world = World::start("upgrade", &given, Wishes::default().binary(earlier.clone())).await;
    let load = world.load.run(RATE);
    carries(&world).await;
    for (binary, is_killed) in [
        (binary(), false),
        (earlier.clone(), false),
        (binary(), true),
        (earlier.clone(), true),
    ] {
        follow(&mut world, binary, is_killed).await;
        carries(&world).await;
    }
    load.stop().await;
    // The earlier revision has done everything, and its own API says so.
    let counts = world.final_counts().await;
    report(&world, &counts);

    let load = world.load.run(RATE);
    follow(&mut world, binary(), false).await;
    let newer = Newer::begin(&mut world).await;
    let first = newer.wanted(&world).await;
    has_its_effect(&world, &first).await;
    follow(&mut world, earlier, false).await;
    let second = newer.wanted(&world).await;
    carries(&world).await;
    follow(&mut world, binary(), false).await;
    has_its_effect(&world, &second).await;
    load.stop().await;
    newer.end(&world).await;
    let counts = world.final_counts().await;
    let answers: Vec<u16> = world.load.answers().into_keys().collect();
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    report(&world, &counts);
}

/// Ends the process, and starts another binary on the same directory. An earlier one finds nothing
/// to migrate.
async fn follow(world: &mut World, binary: PathBuf, is_killed: bool) {
    if is_killed {
        world.kill().await;
    } else {
        let (status, _) = world.terminate().await;
        assert!(
            status.success(),
            "{}: {status}; the log ends: {}",
            world.label(),
            world.log_end()
        );
    }
    world.binary = binary;
    world.migrate();
    world.launch().await;
}

#[cfg(all(feature = "rabbitmq", feature = "kafka"))]
mod over_brokers {
    use super::{
        super::{
            fleet::{Fleet, Member, Shared},
            world::{Wishes, binary},
        },
        Newer, RATE, carries, earlier, follow, has_its_effect, report,
    };
    use std::{path::Path, sync::Arc};

    /// Two of each, behind the balancer, and the admin API.
    struct Installation {
        fleet: Fleet,
        receivers: Vec<Member>,
        workers: Vec<Member>,
    }

    fn leaves() -> [(&'static str, String); 1] {
        [("HOOKSWITCH_LEAVE_SECONDS", "1".to_owned())]
    }

    impl Installation {
        async fn start(shared: &Arc<Shared>, earlier: &Path) -> Self {
            let wishes = Wishes::default().binary(earlier.to_owned());
            let mut fleet = Fleet::start("rolling upgrade", shared, wishes).await;
            let (mut receivers, mut workers) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                receivers.push(fleet.add("receiver", &leaves()).await);
                workers.push(fleet.add("worker", &leaves()).await);
            }
            Self {
                fleet,
                receivers,
                workers,
            }
        }

        async fn carries(&self) {
            carries(&self.fleet.world).await;
        }

        /// Replaces all processes, one after the other. In the middle all receivers are of the one
        /// revision, and all workers of the other.
        async fn roll(&mut self, binary: &Path, are_receivers_first: bool) {
            follow(&mut self.fleet.world, binary.to_owned(), false).await;
            for are_receivers in [are_receivers_first, !are_receivers_first] {
                let (members, role) = if are_receivers {
                    (&mut self.receivers, "receiver")
                } else {
                    (&mut self.workers, "worker")
                };
                for _ in 0..2 {
                    let member = self.fleet.replace(members.remove(0), role, &leaves()).await;
                    members.push(member);
                }
                self.carries().await;
            }
        }
    }

    async fn nothing_is_lost_between_two_revisions(shared: Option<Arc<Shared>>) {
        let (Some(earlier), Some(shared)) = (earlier(), shared) else {
            return;
        };
        let mut all = Installation::start(&shared, &earlier).await;
        let load = all.fleet.world.load.run(RATE);
        all.carries().await;
        all.fleet.world.binary = binary();
        all.fleet.world.migrate();
        all.carries().await;
        // Earlier workers take the events of new receivers, and new workers those of earlier ones.
        all.roll(&binary(), true).await;
        all.roll(&earlier, true).await;
        load.stop().await;
        // The earlier revision has done everything, and its own API says so.
        let counts = all.fleet.world.final_counts().await;
        report(&all.fleet.world, &counts);

        let load = all.fleet.world.load.run(RATE);
        all.roll(&binary(), false).await;
        let newer = Newer::begin(&mut all.fleet.world).await;
        let first = newer.wanted(&all.fleet.world).await;
        has_its_effect(&all.fleet.world, &first).await;
        all.roll(&earlier, false).await;
        let second = newer.wanted(&all.fleet.world).await;
        all.carries().await;
        all.roll(&binary(), true).await;
        has_its_effect(&all.fleet.world, &second).await;
        load.stop().await;
        newer.end(&all.fleet.world).await;
        let counts = all.fleet.world.final_counts().await;
        report(&all.fleet.world, &counts);
        let (answers, summary) = (all.fleet.world.load.answers(), all.fleet.world.load.summary());
        assert_eq!(answers.into_keys().collect::<Vec<_>>(), [200], "{summary}");
        assert_eq!(all.fleet.world.load.unanswered(), 0, "{summary}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_between_two_revisions_over_rabbitmq() {
        nothing_is_lost_between_two_revisions(Shared::over_rabbit().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_between_two_revisions_over_kafka() {
        nothing_is_lost_between_two_revisions(Shared::over_kafka().await).await;
    }
}
