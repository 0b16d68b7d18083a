//! A process of the binary under test, which may be killed, frozen and starved.

use super::world::PATIENCE;
use std::{
    fs,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

/// A process of the binary under test. Ends with its owner.
pub struct Process(Child);

impl Process {
    pub const fn of(child: Child) -> Self {
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("a child that was not waited for");
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }

    pub async fn wait(&mut self, what: &str) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "waited {PATIENCE:?} for the process to end: {what}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The names of its threads.
    #[cfg(all(feature = "rabbitmq", feature = "kafka"))]
    pub fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    }

    /// Open descriptors, threads, resident bytes.
    pub fn usage(&self) -> Usage {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace()
                .nth(1)
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Usage {
            descriptors,
            threads: field("Threads:"),
            resident_kib: field("VmRSS:"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub descriptors: usize,
    pub threads: u64,
    pub resident_kib: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that was stopped has to go too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
