//! `hookswitch serve` as a process, with its log in a file.

use super::{
    PATIENCE, client,
    dev::{BINARY, Directory, port_base},
    until,
};
use hookswitch::{
    admin::Role,
    cli::token::{Grant, mint_operator_token, mint_org_token},
    config::AdminSettings,
    domain::{Clock, OrgId, SystemClock},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A key of the ring.
pub const KEY: &str = "0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa";

/// The secrets of tokens for its admin API: of organisations, and of operators.
pub const JWT: &str = "a secret of thirty-two characters";
pub const OPERATOR_JWT: &str = "another secret of thirty-two chars";

/// A token for its admin API: of an organisation's owner, or without one of an operator.
pub fn token(org: Option<OrgId>) -> String {
    let settings = AdminSettings {
        jwt_secret: Some(JWT.into()),
        operator_jwt_secret: Some(OPERATOR_JWT.into()),
        ..AdminSettings::default()
    };
    let grant = Grant {
        subject: "a person",
        now: SystemClock.now(),
        valid_for: Duration::from_mins(10),
    };
    let token = match org {
        Some(org) => mint_org_token(&settings, org, Role::Owner, grant),
        None => mint_operator_token(&settings, grant),
    };
    token.expect("a token")
}

/// A running `serve`. Ends with its owner.
pub struct Serve {
    child: Child,
    directory: Option<Directory>,
    base: u16,
}

impl Serve {
    /// Starts it with these settings beside those that every test needs.
    pub fn spawn(settings: &[(&str, String)]) -> Self {
        Self::spawn_in(Directory::new(), settings)
    }

    /// Brings the database up to date, and starts.
    pub fn spawn_in(directory: Directory, settings: &[(&str, String)]) -> Self {
        let url = format!("sqlite:{}", directory.path().join("store.db").display());
        let migrated = super::dev::run(&["migrate"], &[("HOOKSWITCH_DATABASE_URL", &url)]);
        assert!(migrated.status.success(), "{migrated:?}");
        Self::start_in(directory, settings)
    }

    /// Starts on whatever is there.
    pub fn start_in(directory: Directory, settings: &[(&str, String)]) -> Self {
        let base = port_base();
        let at = |offset: u16| format!("127.0.0.1:{}", base + offset);
        let mut environment = BTreeMap::from([
            ("HOOKSWITCH_INGRESS_ADDRESS", at(0)),
            ("HOOKSWITCH_ADMIN_ADDRESS", at(1)),
            ("HOOKSWITCH_OPERATIONS_ADDRESS", at(2)),
            (
                "HOOKSWITCH_DATABASE_URL",
                format!("sqlite:{}", directory.path().join("store.db").display()),
            ),
            (
                "HOOKSWITCH_QUEUE_URL",
                format!("embedded:{}", directory.path().join("queue").display()),
            ),
            ("HOOKSWITCH_DISK_FREE_BYTES_MIN", "1048576".to_owned()),
            ("HOOKSWITCH_KEYRING", KEY.to_owned()),
            ("HOOKSWITCH_PUBLIC_URL", format!("http://{}", at(0))),
            ("HOOKSWITCH_JWT_SECRET", JWT.to_owned()),
            ("HOOKSWITCH_OPERATOR_JWT_SECRET", OPERATOR_JWT.to_owned()),
        ]);
        environment.extend(settings.iter().cloned());
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.path().join("log"))
            .expect("a log file");
        let child = Command::new(BINARY)
            .arg("serve")
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary of this package starts");
        Self {
            child,
            directory: Some(directory),
            base,
        }
    }

    pub fn url(&self, offset: u16, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + offset)
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.as_ref().expect("taken at the end only").path()
    }

    /// Its files, for the next process.
    pub fn into_directory(mut self) -> Directory {
        self.directory.take().expect("taken at the end only")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// Status and body of `/readyz`; `None` while nothing answers.
    pub async fn readiness(&self) -> Option<(u16, Value)> {
        let answer = client().get(self.url(2, "/readyz")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Waits until `/readyz` answers with this status, and returns its body.
    pub async fn is_ready(&self, status: u16) -> Value {
        let what = format!("readiness {status}; the log: {}", self.log());
        until(&what, || async {
            let (found, body) = self.readiness().await?;
            (found == status).then_some(body)
        })
        .await
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child that was not waited for");
    }

    /// Waits for its end, and returns how long that took.
    pub async fn ended(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, begun.elapsed());
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for serve to end; its log: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
