//! Metrics with their catalogue, logs, health, and the listener that shows them.
//!
//! Every room enters. **Invariant:** labels come from closed lists; no organisation, id, URL or
//! error text is ever one.

pub mod catalogue;
mod diagnosis;
mod health;
mod operations;
pub mod otlp;
mod recorder;
mod tracing;

pub use self::tracing::{LogError, check_settings, start_logs, subscriber};
pub use diagnosis::{Diagnosis, Verdict};
pub use health::{Checks, Finding, Standing};
pub use operations::Operations;
pub use recorder::Recorder;

/// Sets the gauges that concern the process as a whole.
pub fn gather_gauges() {
    catalogue::BUILD_INFO.set(1.0, &[env!("CARGO_PKG_VERSION")]);
    if let Some(bytes) = resident_bytes() {
        catalogue::PROCESS_RESIDENT_BYTES.set(bytes as f64, &[]);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The look itself has one open.
        catalogue::PROCESS_DESCRIPTORS.set(open.count().saturating_sub(1) as f64, &[]);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(max) = limit.current {
        catalogue::PROCESS_DESCRIPTORS_MAX.set(max as f64, &[]);
    }
}

/// This process, as it reports itself: the name of its host and its number there.
#[must_use]
pub fn instance_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}

/// Resident memory of this process, from Linux; `None` on other systems.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kib << 10)
}
