//! An installation of several processes, each with roles of its own, on a shared Postgres and a
//! shared broker, behind a balancer.

use super::{
    Given,
    process::Process,
    proxy::{Proxied, Proxy},
    servers::QUEUE,
    world::{Ability, Backend, Lock, PATIENCE, Wishes, World},
};
use crate::support::{
    amqp::AmqpPlace,
    client,
    dev::port_base,
    kafka::{self, KafkaTopic},
    postgres::PostgresDatabase,
};
use async_trait::async_trait;
use rustix::process::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Postgres and a broker, with a database and names of the test's own.
pub struct Shared {
    database: PostgresDatabase,
    broker: Broker,
}

pub enum Broker {
    Rabbit(AmqpPlace),
    Kafka(KafkaTopic),
}

/// Queues or partitions: as many workers have something to do.
pub const PARTS: u16 = 4;

impl Shared {
    /// `None` where a server is missing.
    pub async fn over_rabbit() -> Option<Arc<Self>> {
        Self::over(Broker::Rabbit(AmqpPlace::new(PARTS)?)).await
    }

    /// `None` where a server is missing.
    pub async fn over_kafka() -> Option<Arc<Self>> {
        Self::over(Broker::Kafka(KafkaTopic::new(PARTS)?)).await
    }

    pub async fn over(broker: Broker) -> Option<Arc<Self>> {
        let database = PostgresDatabase::new().await?;
        Some(Arc::new(Self { database, broker }))
    }
}

#[async_trait]
impl Backend for Shared {
    fn name(&self) -> &'static str {
        match self.broker {
            Broker::Rabbit(_) => "Postgres and RabbitMQ",
            Broker::Kafka(_) => "Postgres and Kafka",
        }
    }

    fn settings(&self, place: &Path) -> BTreeMap<String, String> {
        let spool = place.join("spool").display().to_string();
        let mut settings = vec![
            ("HOOKSWITCH_DATABASE_URL", self.database.url()),
            ("HOOKSWITCH_SPOOL_DIRECTORY", spool),
            ("HOOKSWITCH_SPOOL_MAY_BE_VOLATILE", "true".into()),
        ];
        match &self.broker {
            Broker::Rabbit(place) => settings.extend([
                ("HOOKSWITCH_QUEUE_URL", place.url().to_owned()),
                ("HOOKSWITCH_AMQP_PREFIX", place.settings().prefix),
                ("HOOKSWITCH_AMQP_QUEUES", PARTS.to_string()),
            ]),
            Broker::Kafka(topic) => settings.extend([
                ("HOOKSWITCH_QUEUE_URL", topic.url.clone()),
                ("HOOKSWITCH_KAFKA_TOPIC", topic.settings.topic.clone()),
                ("HOOKSWITCH_KAFKA_GROUP", topic.settings.group.clone()),
                ("HOOKSWITCH_KAFKA_PARTITIONS", PARTS.to_string()),
            ]),
        }
        settings
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::LocalFiles => false,
            Ability::DatabaseServer => true,
            Ability::BrokerBehindProxy => match self.broker {
                Broker::Rabbit(_) => true,
                Broker::Kafka(_) => kafka::Server::may_have_listeners(),
            },
        }
    }

    /// Kafka tells its clients where it is: one of its own tells them the proxy's address.
    async fn behind(&self, setting: &'static str, stop: CancellationToken) -> Proxied {
        if setting != QUEUE || matches!(self.broker, Broker::Rabbit(_)) {
            return Proxied::at(&self.settings(Path::new(""))[setting], stop).await;
        }
        let listener = SocketAddr::from(([127, 0, 0, 1], port_base()));
        let proxy = Proxy::start(listener, stop).await;
        let address = proxy.address();
        let server = tokio::task::block_in_place(|| kafka::Server::start_behind(listener, address));
        Proxied {
            url: format!("kafka://{address}"),
            _server: Some(Box::new(server.expect("scripts/services starts a Kafka"))),
            proxy,
        }
    }

    async fn lock_database(&self, _place: &Path) -> Lock {
        let mut other = self.database.connect().await;
        sqlx::raw_sql("BEGIN; LOCK TABLE events, actions IN ACCESS EXCLUSIVE MODE")
            .execute(&mut other)
            .await
            .expect("a lock");
        Lock(Box::new(other))
    }
}

/// A world whose own process runs the admin API only, with receivers and workers beside it.
pub struct Fleet {
    pub world: World,
    balancer: Balancer,
    members: usize,
}

/// One process. Ends with its owner.
pub struct Member {
    pub name: String,
    pub process: Process,
    log: PathBuf,
    base: u16,
    http: reqwest::Client,
}

impl Fleet {
    pub async fn start(case: &'static str, shared: &Arc<Shared>, wishes: Wishes) -> Self {
        let given = Given {
            backend: shared.clone(),
            seed: super::todays_seed(),
            is_quick: true,
        };
        let world = World::start(case, &given, wishes.roles("admin")).await;
        let balancer = Balancer::start(world.base).await;
        Self {
            world,
            balancer,
            members: 0,
        }
    }

    /// Starts a process of these roles and waits until it is ready. Webhooks go to a receiver.
    pub async fn add(&mut self, roles: &str, more: &[(&str, String)]) -> Member {
        self.members += 1;
        let member = self.spawn(&format!("{roles}-{}", self.members), roles, more);
        member.is_ready().await;
        if roles.contains("receiver") {
            self.balancer.serve(&member);
        }
        member
    }

    /// The same name is the same directory, and so the same spool.
    pub fn spawn(&self, name: &str, roles: &str, more: &[(&str, String)]) -> Member {
        let base = port_base();
        let place = self.world.place.path().join(name);
        fs::create_dir_all(&place).expect("a directory");
        let log = place.join("log");
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(&self.world.binary);
        command
            .args(["serve", "--role", roles])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .env_remove("RUST_BACKTRACE")
            .envs(&self.world.settings)
            .env("HOOKSWITCH_INGRESS_ADDRESS", format!("127.0.0.1:{base}"))
            .env("HOOKSWITCH_ADMIN_ADDRESS", format!("127.0.0.1:{}", base + 1))
            .env("HOOKSWITCH_OPERATIONS_ADDRESS", format!("127.0.0.1:{}", base + 2))
            .env("HOOKSWITCH_SPOOL_DIRECTORY", place.join("spool"))
            .envs(more.iter().map(|(name, value)| (*name, value)));
        Member {
            name: name.to_owned(),
            process: Process::of(command.spawn().expect("the binary of this package starts")),
            log,
            base,
            http: client(),
        }
    }

    /// Ends a member as a rolling restart does it, and starts its successor.
    pub async fn replace(&mut self, mut member: Member, roles: &str, more: &[(&str, String)]) -> Member {
        member.process.signal(Signal::TERM);
        let status = member.process.wait("after SIGTERM").await;
        assert!(status.success(), "{}: {status}: {}", member.name, member.log_text());
        self.balancer.forget(&member);
        self.add(roles, more).await
    }

    /// `kill -9`. The successor has the same directory, and so the same spool.
    pub async fn kill_and_restart(&self, mut member: Member, roles: &str) -> Member {
        member.process.signal(Signal::KILL);
        member.process.wait("after SIGKILL").await;
        self.balancer.forget(&member);
        let member = self.spawn(&member.name, roles, &[]);
        member.is_ready().await;
        self.balancer.serve(&member);
        member
    }

    pub fn directory_of(&self, member: &Member) -> PathBuf {
        self.world.place.path().join(&member.name)
    }
}

impl Member {
    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + 2)
    }

    pub fn ingress(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base))
    }

    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base + 1))
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn is_ready(&self) {
        super::world::until(
            || format!("{}: {}", self.name, self.log_text()),
            "readiness",
            || async { (self.readiness().await?.0 == 200).then_some(()) },
        )
        .await;
    }

    /// Status and body of `/readyz`.
    pub async fn readiness(&self) -> Option<(u16, Value)> {
        let answer = self.http.get(self.url("/readyz")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// The names of its checks.
    pub async fn checks(&self) -> Vec<String> {
        let (_, body) = self.readiness().await.expect("it answers");
        let checks = body["checks"].as_array().expect("checks");
        checks
            .iter()
            .map(|check| check["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// One metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self
            .http
            .get(self.url("/metrics"))
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        Some(crate::support::metric_sum(&text, name))
    }
}

/// Stands in front of the receivers. Connections go by turns to those that say that they are
/// ready.
struct Balancer {
    targets: Targets,
    _stop: DropGuard,
}

type Targets = Arc<Mutex<Vec<Target>>>;

#[derive(Clone)]
struct Target {
    ingress: SocketAddr,
    readiness: String,
    is_ready: bool,
}

/// How often a balancer looks at a target. A target that is not ready any more gets nothing after
/// that.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

impl Balancer {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let (targets, stop) = (Targets::default(), CancellationToken::new());
        let (looked_at, looking) = (targets.clone(), stop.clone());
        drop(tokio::spawn(async move {
            looking.run_until_cancelled(look(looked_at)).await;
        }));
        let (ways, carrying) = (targets.clone(), stop.clone());
        drop(tokio::spawn(async move {
            let turn = AtomicUsize::new(0);
            let accept = async {
                loop {
                    if let Ok((sender, _)) = listener.accept().await {
                        let (targets, turn) = (ways.clone(), turn.fetch_add(1, Ordering::Relaxed));
                        drop(tokio::spawn(carry(sender, targets, turn)));
                    }
                }
            };
            carrying.run_until_cancelled(accept).await;
        }));
        Self {
            targets,
            _stop: stop.drop_guard(),
        }
    }

    fn serve(&self, member: &Member) {
        self.targets.lock().unwrap().push(Target {
            ingress: member.ingress(),
            readiness: member.url("/readyz"),
            is_ready: true,
        });
    }

    fn forget(&self, member: &Member) {
        self.targets
            .lock()
            .unwrap()
            .retain(|target| target.ingress != member.ingress());
    }
}

async fn look(targets: Targets) {
    let http = client();
    loop {
        let all = targets.lock().unwrap().clone();
        for target in all {
            let answer = http.get(&target.readiness).timeout(Duration::from_secs(2)).send().await;
            let is_ready = answer.is_ok_and(|answer| answer.status() == 200);
            for known in targets.lock().unwrap().iter_mut() {
                if known.ingress == target.ingress {
                    known.is_ready = is_ready;
                }
            }
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

async fn carry(mut sender: TcpStream, targets: Targets, turn: usize) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let ready: Vec<_> = {
            let targets = targets.lock().unwrap();
            targets.iter().filter(|target| target.is_ready).cloned().collect()
        };
        for n in 0..ready.len() {
            // A target that takes no connection has got no byte: another one gets it.
            if let Ok(mut receiver) = TcpStream::connect(ready[(turn + n) % ready.len()].ingress).await {
                let _ = (sender.set_nodelay(true), receiver.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut sender, &mut receiver).await;
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
