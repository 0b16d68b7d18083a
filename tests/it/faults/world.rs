//! One installation under faults: the real binary as a process, stand-ins that outlive it,
//! organisations of its own, and what each of them may see.
//!
//! A world is no `TestApp`: its process is killed, frozen and starved, so that nothing of it may
//! live in the process of the test.

use super::{
    Given,
    load::Load,
    process::Process,
    proxy::{Proxied, Proxy},
};
use crate::support::{client, dev::Directory};
use async_trait::async_trait;
use hookswitch::sandbox::{Accounts, Sandbox, SandboxConfig, SandboxState, TwilioAccount};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a condition may take on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(90);
const JWT_SECRET: &str = "an-organisations-jwt-secret-of-32-bytes-or-more";
const OPERATOR_SECRET: &str = "an-operators-jwt-secret-of-32-bytes-or-more-too";
pub const KEY: &str = "6a1f6f1c7d0f4f0e9b3b5c2d8e7a4916c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0";
/// How an endpoint of a test signs: the body alone.
pub const PLAN: &str = r#"{"type":"hmac","algorithm":"sha256","includeTimestamp":false,"payloadFormat":"{body}","signatureHeader":"x-vapi-signature"}"#;

/// A queue and a store for a world to stand on. A production backend is one more of these, and
/// every case runs over it that its abilities allow.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Settings that lead a process to it. `place` is the world's directory; a backend that is a
    /// server uses it for a prefix of its own.
    fn settings(&self, place: &Path) -> BTreeMap<String, String>;
    /// Whether it can be harmed in this way.
    fn can(&self, ability: Ability) -> bool;
    /// Makes it ready for a world.
    async fn prepare(&self, _place: &Path) {}
    /// Stands the server that a setting leads to behind a proxy.
    async fn behind(&self, setting: &'static str, stop: CancellationToken) -> Proxied {
        Proxied::at(&self.settings(Path::new(""))[setting], stop).await
    }
    /// A transaction of somebody else, which keeps every writer out until it is dropped.
    async fn lock_database(&self, place: &Path) -> Lock;
}

/// Ends with its connection.
pub struct Lock(#[expect(dead_code, reason = "it is held and dropped")] pub Box<dyn Send + Sync>);

/// An ability that a case needs of its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ability {
    /// Its files lie in the world's directory: they can be damaged, filled up, and lose what was
    /// not synced.
    LocalFiles,
    /// Its database is a server, which a proxy may stand before.
    DatabaseServer,
    /// Its broker may stand behind a proxy.
    BrokerBehindProxy,
}

/// The embedded log and SQLite.
pub struct Embedded;

#[async_trait]
impl Backend for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn settings(&self, place: &Path) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "HOOKSWITCH_DATABASE_URL".into(),
                format!("sqlite:{}", place.join("store.db").display()),
            ),
            (
                "HOOKSWITCH_QUEUE_URL".into(),
                format!("embedded:{}", place.join("queue").display()),
            ),
        ])
    }

    fn can(&self, ability: Ability) -> bool {
        ability == Ability::LocalFiles
    }

    async fn lock_database(&self, place: &Path) -> Lock {
        let options = SqliteConnectOptions::new().filename(place.join("store.db"));
        let mut other = SqliteConnection::connect_with(&options)
            .await
            .expect("the database opens");
        sqlx::raw_sql("BEGIN IMMEDIATE")
            .execute(&mut other)
            .await
            .expect("a lock");
        Lock(Box::new(other))
    }
}

/// An organisation, with secrets that nobody else may ever use.
#[derive(Clone)]
pub struct Org {
    pub id: String,
    pub token: String,
    pub endpoint: String,
    pub secret: String,
    pub account: String,
    pub auth_token: String,
    pub number: String,
}

pub struct World {
    pub seed: u64,
    pub case: &'static str,
    pub backend: Arc<dyn Backend>,
    pub place: Directory,
    pub sandbox: SandboxState,
    /// Between the process and its providers.
    pub proxy: Proxy,
    pub sandbox_url: String,
    pub orgs: Vec<Org>,
    pub load: Arc<Load>,
    pub process: Option<Process>,
    roles: Option<&'static str>,
    /// The program that is started next.
    pub binary: PathBuf,
    pub settings: BTreeMap<String, String>,
    pub http: reqwest::Client,
    pub base: u16,
    _stop: DropGuard,
}

/// Settings that differ from one case to the next.
#[derive(Default)]
pub struct Wishes {
    pub settings: Vec<(&'static str, String)>,
    /// Whether status callbacks end unknown outcomes; without them each one is looked up. `None`:
    /// the seed decides.
    pub callbacks: Option<bool>,
    /// The roles of the world's own process; not said: all.
    pub roles: Option<&'static str>,
    /// Another program than the one under test.
    pub binary: Option<PathBuf>,
}

impl Wishes {
    pub fn set(mut self, name: &'static str, value: u32) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    pub const fn roles(mut self, roles: &'static str) -> Self {
        self.roles = Some(roles);
        self
    }

    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    pub const fn callbacks(mut self, are_posted: bool) -> Self {
        self.callbacks = Some(are_posted);
        self
    }
}

impl World {
    pub async fn lock_database(&self) -> Lock {
        self.backend.lock_database(self.place.path()).await
    }

    /// A world with its organisations, up and ready.
    pub async fn start(case: &'static str, given: &Given, wishes: Wishes) -> Self {
        let (backend, seed) = (given.backend.clone(), given.seed);
        let place = Directory::new();
        backend.prepare(place.path()).await;
        let is_calling_back = wishes.callbacks.unwrap_or(seed % 2 == 1);
        let config = SandboxConfig {
            is_calling_back,
            requests_max: 400_000,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::bind("127.0.0.1:0".parse().expect("an address"), config)
            .await
            .expect("a free port");
        let sandbox_address = sandbox.address().expect("bound");
        let (state, stop) = (sandbox.state(), CancellationToken::new());
        drop(tokio::spawn(sandbox.run(stop.clone())));
        let proxy = Proxy::start(sandbox_address, stop.clone()).await;
        let base = crate::support::dev::port_base();
        let sandbox_url = format!("http://{sandbox_address}");
        let mut settings = backend.settings(place.path());
        for (name, value) in [
            ("HOOKSWITCH_INGRESS_ADDRESS", format!("127.0.0.1:{base}")),
            ("HOOKSWITCH_ADMIN_ADDRESS", format!("127.0.0.1:{}", base + 1)),
            ("HOOKSWITCH_OPERATIONS_ADDRESS", format!("127.0.0.1:{}", base + 2)),
            ("HOOKSWITCH_PUBLIC_URL", format!("http://127.0.0.1:{base}")),
            ("HOOKSWITCH_TWILIO_BASE_URL", format!("http://{}", proxy.address())),
            ("HOOKSWITCH_VAPI_BASE_URL", sandbox_url.clone()),
            ("HOOKSWITCH_HTTP_ALLOWED_NETWORKS", "127.0.0.0/8".into()),
            ("HOOKSWITCH_HTTP_PLAIN_ALLOWED", "true".into()),
            ("HOOKSWITCH_KEYRING", KEY.into()),
            ("HOOKSWITCH_JWT_SECRET", JWT_SECRET.into()),
            ("HOOKSWITCH_OPERATOR_JWT_SECRET", OPERATOR_SECRET.into()),
            ("HOOKSWITCH_DISK_FREE_BYTES_MIN", "1".into()),
            ("HOOKSWITCH_QUEUE_SEGMENT_BYTES", (1 << 20).to_string()),
            ("HOOKSWITCH_ACTIONS_PER_DAY_MAX", "1000000000".into()),
            ("HOOKSWITCH_SETTLE_SECONDS", "0.5".into()),
            ("HOOKSWITCH_BACKOFF_SECONDS_MIN", "0.2".into()),
            ("HOOKSWITCH_BACKOFF_SECONDS_MAX", "2".into()),
            ("HOOKSWITCH_BREAKER_SECONDS", "1".into()),
            ("HOOKSWITCH_ATTEMPT_SECONDS_MAX", "3".into()),
            ("HOOKSWITCH_LEASE_SECONDS", "8".into()),
            ("HOOKSWITCH_LOG_FORMAT", "json".into()),
            ("HOOKSWITCH_LOG_LEVEL", "warn".into()),
        ] {
            settings.insert(name.into(), value);
        }
        settings.extend(
            wishes
                .settings
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        let mut world = Self {
            seed,
            case,
            backend,
            place,
            sandbox: state,
            proxy,
            sandbox_url,
            orgs: Vec::new(),
            load: Arc::new(Load::new(seed, base)),
            process: None,
            roles: wishes.roles,
            binary: wishes.binary.unwrap_or_else(binary),
            settings,
            http: client(),
            base,
            _stop: stop.drop_guard(),
        };
        world.migrate();
        world.launch().await;
        for number in 0..3 {
            let org = world.organisation(number).await;
            world.load.know(&org);
            world.orgs.push(org);
        }
        world
    }

    pub fn url(&self, offset: u16, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + offset)
    }

    pub fn log(&self) -> PathBuf {
        self.place.path().join("process.log")
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Brings the database to the schema of the binary.
    pub fn migrate(&self) {
        const URL: &str = "HOOKSWITCH_DATABASE_URL";
        let migrated = Command::new(&self.binary)
            .arg("migrate")
            .env(URL, &self.settings[URL])
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        assert!(migrated.status.success(), "{migrated:?}");
    }

    /// Starts the process and says nothing of whether it comes up.
    pub fn spawn(&mut self, more: &[(&str, String)]) {
        assert!(
            self.process.as_mut().is_none_or(|process| process.ended().is_some()),
            "one process at a time"
        );
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .args(self.roles.iter().flat_map(|roles| ["--role", roles]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env_remove("RUST_BACKTRACE");
        command
            .envs(&self.settings)
            .envs(more.iter().map(|(name, value)| (*name, value)));
        self.process = Some(Process::of(command.spawn().expect("the binary of this package starts")));
    }

    /// Starts the process and waits until it is ready. Returns how long that took.
    pub async fn launch(&mut self) -> Duration {
        self.launch_with(&[]).await
    }

    pub async fn launch_with(&mut self, more: &[(&str, String)]) -> Duration {
        let begun = Instant::now();
        self.spawn(more);
        self.ready().await;
        begun.elapsed()
    }

    pub async fn ready(&mut self) {
        let url = self.url(2, "/readyz");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(answer) = self.http.get(&url).send().await
                && answer.status() == 200
            {
                return;
            }
            if let Some(status) = self.process.as_mut().expect("spawned").ended() {
                panic!(
                    "{}: the process ended with {status} instead of getting ready; its log ends: {}",
                    self.label(),
                    self.log_end()
                );
            }
            assert!(
                Instant::now() < end,
                "{}: not ready within {PATIENCE:?}; the log ends: {}",
                self.label(),
                self.log_end()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log_end(&self) -> String {
        let text = self.log_text();
        text[text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at)..].to_owned()
    }

    pub fn label(&self) -> String {
        format!(
            "[{} over {}, seed {}: {}]",
            self.case,
            self.backend.name(),
            self.seed,
            self.load.summary()
        )
    }

    /// `kill -9`, and the process is gone.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("a process runs");
        process.signal(rustix::process::Signal::KILL);
        process.wait("after SIGKILL").await;
    }

    /// SIGTERM; what it ended with, and after how long.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let mut process = self.process.take().expect("a process runs");
        process.signal(rustix::process::Signal::TERM);
        (process.wait("after SIGTERM").await, begun.elapsed())
    }

    /// Waits for an end that the process comes to by itself.
    pub async fn ends(&mut self, what: &str) -> ExitStatus {
        let status = self.process.as_mut().expect("a process runs").wait(what).await;
        self.process = None;
        status
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a process runs")
    }

    pub async fn organisation(&self, number: usize) -> Org {
        let id = uuid::Uuid::now_v7().to_string();
        let (account, auth_token) = (format!("AC{}", random_hex(16)), random_hex(16));
        // The same seed gives the same numbers; ids and secrets may differ.
        let phone = format!("+1555201{:04}", number + 1);
        let known = TwilioAccount::new(&account, &auth_token).with_number(&phone);
        self.sandbox.register(Accounts {
            accounts: vec![known],
            ..Accounts::default()
        });
        let org = Org {
            token: token(
                "hookswitch",
                "hookswitch-admin",
                JWT_SECRET,
                &json!({ "app_metadata": { "org_id": id, "role": "owner" } }),
            ),
            endpoint: String::new(),
            secret: random_hex(24),
            id,
            account,
            auth_token,
            number: phone,
        };
        self.post_as(
            &operator(),
            "/operator/organizations",
            json!({ "id": org.id, "name": format!("Organisation {number}") }),
        )
        .await;
        let twilio = json!({ "account_sid": org.account, "auth_token": org.auth_token, "phone_number": org.number });
        self.post_as(&org.token, "/api/integrations/twilio", twilio).await;
        let plan: Value = serde_json::from_str(PLAN).expect("JSON");
        let endpoint = json!({ "source": "vapi", "name": "calls", "secret": org.secret, "plan": plan });
        let made = self.post_as(&org.token, "/api/endpoints", endpoint).await;
        let destination = json!({ "name": "sink", "url": format!("{}/sink/{}", self.sandbox_url, org.id) });
        self.post_as(&org.token, "/api/destinations", destination).await;
        let sms = json!({
            "name": "text the caller", "source": "vapi", "event_type": "end-of-call-report",
            "action": "twilio.send_sms",
            "parameters": { "to": "{{ message.customer.number }}", "body": "call {{ message.call.id }}" },
        });
        self.post_as(&org.token, "/api/rules", sms).await;
        if number == 0 {
            let post = json!({
                "name": "tell the \
                organisation", "source": "vapi", "event_type": "end-of-call-report", "action": "http.post",
                "parameters": { "destination": "sink", "body": { "call": "{{ message.call.id }}" } },
            });
            self.post_as(&org.token, "/api/rules", post).await;
        }
        Org {
            endpoint: made["id"].as_str().expect("an id").to_owned(),
            ..org
        }
    }

    pub async fn post_as(&self, token: &str, path: &str, body: Value) -> Value {
        let answer = self
            .http
            .post(self.url(1, path))
            .bearer_auth(token)
            .json(&body)
            .send()
            .await
            .expect("the admin API answers");
        let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap_or_default());
        assert!(status.is_success(), "{}: POST {path}: {status} {answer}", self.label());
        answer
    }

    /// `None` where it does not answer with 200 now.
    pub async fn get_as(&self, token: &str, path: &str) -> Option<Value> {
        let answer = self.http.get(self.url(1, path)).bearer_auth(token).send().await.ok()?;
        if answer.status() == 200 {
            answer.json().await.ok()
        } else {
            None
        }
    }

    /// One metric, summed over its labels. `None` while nobody answers.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self
            .http
            .get(self.url(2, "/metrics"))
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        Some(crate::support::metric_sum(&text, name))
    }

    pub async fn readiness(&self) -> Option<Value> {
        self.http
            .get(self.url(2, "/readyz"))
            .send()
            .await
            .ok()?
            .json()
            .await
            .ok()
    }
}

/// The binary of this package, or another build of it.
pub fn binary() -> PathBuf {
    std::env::var_os("FAULTS_BINARY").map_or_else(|| crate::support::dev::BINARY.into(), PathBuf::from)
}

/// Waits until `look` gives something; `world` says what was going on when it never does.
pub async fn until<T, F: Future<Output = Option<T>>>(
    label: impl Fn() -> String,
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{}: waited {PATIENCE:?} for {what}", label());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).expect("the system gives randomness");
    hex::encode(random)
}

/// An operator's token.
pub fn operator() -> String {
    token(
        "hookswitch-operator",
        "hookswitch-operator",
        OPERATOR_SECRET,
        &json!({ "hookswitch_role": "operator" }),
    )
}

fn token(issuer: &str, audience: &str, secret: &str, own: &Value) -> String {
    let mut claims =
        json!({ "iss": issuer, "aud": audience, "sub": "faults", "iat": 1_700_000_000, "exp": 4_000_000_000_u64 });
    claims
        .as_object_mut()
        .expect("an object")
        .extend(own.as_object().expect("an object").clone());
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}
