//! `hookswitch dev` and `hookswitch sandbox` as processes: what a newcomer starts, what `kill -9`
//! ends.
//!
//! No `TestApp`: a newcomer starts the binary, so the test knows only its files, its sockets and
//! the line that it prints.

use super::{client, until};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_hookswitch");

/// A directory of its own, removed at the end.
pub struct Directory(std::path::PathBuf);

impl Directory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hookswitch-test-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).expect("a writable temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Four free ports in a row. Taken from a part of the range that the system does not hand out by
/// itself, spread by process id.
pub fn port_base() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..500 {
        let n = NEXT.fetch_add(1, Ordering::SeqCst);
        let base = 12_000
            + (n.wrapping_mul(4).wrapping_add(
                u16::try_from(std::process::id() % 4_000)
                    .expect("below 4000")
                    .wrapping_mul(4),
            )) % 18_000;
        if (base..base + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no four free ports in a row");
}

/// A child process that does not outlive its test, with everything that it wrote to its error
/// stream.
pub struct Process {
    child: Child,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Process {
    /// Starts the binary and reads its first line.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> (Self, String) {
        Self::start_by(Command::new(BINARY), arguments, environment)
    }

    fn start_by(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> (Self, String) {
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RUST_BACKTRACE");
        for (name, value) in environment {
            command.env(name, value);
        }
        let mut child = command.spawn().expect("the binary of this package starts");
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("a readable pipe");
        // Whatever else it prints has to go somewhere, or it blocks.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        (
            Self {
                child,
                stderr: Some(stderr),
            },
            line,
        )
    }

    /// `kill -9`: no drop, no flush, no goodbye.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child that was started");
        self.child.wait().expect("a child that was killed");
    }

    /// Memory that it has held in RAM at most since it began, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a child that runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("the system tells a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// SIGTERM, and how long it took to end.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child that was started");
    }

    /// Waits for its end, and returns how long that took.
    pub fn ended(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let status = self.child.wait().expect("a child that got a signal");
        (status, begun.elapsed())
    }

    /// Everything on the error stream, after the process ended.
    pub fn stderr(&mut self) -> String {
        self.stderr
            .take()
            .expect("read once")
            .join()
            .expect("the reader does not panic")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `dev --format json`.
pub struct Dev {
    pub process: Process,
    /// The line that it printed.
    pub state: Value,
}

impl Dev {
    pub async fn start(directory: &Path, base: u16, more: &[&str]) -> Self {
        Self::start_with(directory, base, more, &[]).await
    }

    pub async fn start_with(directory: &Path, base: u16, more: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(BINARY), directory, base, more, environment).await
    }

    /// The same by a command that ends in the binary.
    pub async fn start_by(
        command: Command,
        directory: &Path,
        base: u16,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let base = base.to_string();
        let mut arguments = vec![
            "dev",
            "--format",
            "json",
            "--data-dir",
            directory.to_str().expect("UTF-8"),
            "--port-base",
            &base,
        ];
        arguments.extend_from_slice(more);
        let (mut process, line) = Process::start_by(command, &arguments, environment);
        let Ok(state) = serde_json::from_str::<Value>(&line) else {
            process.kill();
            panic!(
                "dev printed {line:?} instead of its JSON line; its error stream: {}",
                process.stderr()
            );
        };
        let dev = Self { process, state };
        let ready = format!("{}/readyz", dev.get("operations"));
        until("readiness", || async {
            client()
                .get(&ready)
                .send()
                .await
                .ok()
                .filter(|answer| answer.status() == 200)
        })
        .await;
        dev
    }

    pub fn get(&self, name: &str) -> String {
        self.state[name]
            .as_str()
            .unwrap_or_else(|| panic!("dev's line has no {name}"))
            .to_owned()
    }

    /// A metric, with its labels where it has some, as `/metrics` shows it.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = client()
            .get(format!("{}/metrics", self.get("operations")))
            .send()
            .await
            .expect("metrics")
            .text()
            .await
            .expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("there is no {name}"))
            .parse()
            .expect("a number")
    }

    /// Requests that the sandbox saw at a provider, by `GET /_requests`.
    pub async fn requests(&self, provider: &str) -> Vec<Value> {
        requests(&self.get("sandbox"), provider).await
    }

    /// The SMS that the sandbox Twilio took.
    pub async fn sms(&self) -> Vec<Value> {
        let all = self.requests("twilio").await;
        all.into_iter()
            .filter(|r| {
                r["method"] == "POST"
                    && r["path"].as_str().is_some_and(|p| p.ends_with("/Messages.json"))
                    && r["status"] == 201
            })
            .collect()
    }

    pub async fn wait_for_sms(&self, count: usize) -> Vec<Value> {
        until(&format!("{count} SMS"), || async {
            Some(self.sms().await).filter(|sms| sms.len() >= count)
        })
        .await
    }

    /// `GET` of the admin API as the demo organisation.
    pub async fn admin(&self, path: &str) -> Value {
        let answer = client()
            .get(format!("{}{path}", self.get("admin")))
            .bearer_auth(self.get("admin_token"))
            .send()
            .await
            .expect("the admin API answers");
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// A change that is taken.
    pub async fn admin_patch(&self, path: &str, body: &Value) {
        let answer = client()
            .patch(format!("{}{path}", self.get("admin")))
            .bearer_auth(self.get("admin_token"))
            .json(body)
            .send()
            .await
            .expect("the admin API answers");
        assert!(answer.status().is_success(), "PATCH {path}: {}", answer.status());
    }

    pub async fn admin_post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = client()
            .post(format!("{}{path}", self.get("admin")))
            .bearer_auth(self.get("admin_token"))
            .json(body)
            .send()
            .await
            .expect("the admin API answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }
}

pub async fn requests(sandbox: &str, provider: &str) -> Vec<Value> {
    let answer = client()
        .get(format!("{sandbox}/_requests?provider={provider}"))
        .send()
        .await
        .expect("the sandbox answers");
    answer.json().await.expect("a JSON array")
}

/// `hookswitch sandbox` in a process of its own: what it saw outlives a kill of the rest.
pub struct SandboxProcess {
    /// Ends with this.
    _process: Process,
    pub url: String,
}

impl SandboxProcess {
    pub async fn start(port: u16) -> Self {
        let (process, _) = Process::start(&["sandbox", "--port", &port.to_string()], &[]);
        let url = format!("http://127.0.0.1:{port}");
        until("the sandbox", || async {
            client().get(format!("{url}/_requests")).send().await.ok()
        })
        .await;
        Self { _process: process, url }
    }
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null());
    for (name, value) in environment {
        command.env(name, value);
    }
    command.output().expect("the binary of this package starts")
}
