//! CPU time of processes for each event: steadier than a rate on a machine that does other things.

use anyhow::Context;
use std::{fs, time::Duration};

/// Linux counts a process's time in hundredths of a second, whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// The processes of a run: this one, with server and load, and those that were named.
pub(super) struct Processes(Vec<String>);

impl Processes {
    pub(super) fn of(named: &[u32]) -> Self {
        let named = named.iter().map(u32::to_string);
        Self(std::iter::once("self".to_owned()).chain(named).collect())
    }

    /// Time of each so far, in user and kernel mode.
    pub(super) fn times(&self) -> anyhow::Result<Vec<Duration>> {
        self.0.iter().map(|process| time_of(process)).collect()
    }

    /// Microseconds an event of each since `before`.
    pub(super) fn since(&self, before: &[Duration], events: u64) -> anyhow::Result<Vec<f64>> {
        let times = self.times()?;
        let spent = times
            .iter()
            .zip(before)
            .map(|(now, before)| now.saturating_sub(*before));
        Ok(spent.map(|spent| spent.as_secs_f64() * 1e6 / events as f64).collect())
    }

    pub(super) fn line(&self, micros: &[f64]) -> String {
        let named = self.0.iter().map(|process| match process.as_str() {
            "self" => "here".to_owned(),
            process => format!("in process {process}"),
        });
        let each = named.zip(micros).map(|(name, micros)| format!("{micros:.1} µs {name}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn time_of(process: &str) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name of the program stands in brackets and may hold blanks. User and kernel time are the
    // twelfth and thirteenth field behind it.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(Ok(user)), Some(Ok(kernel))) = (ticks.next(), ticks.next()) else {
        anyhow::bail!("{path} has no times");
    };
    Ok(TICK * (user + kernel))
}
