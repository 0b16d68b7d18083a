//! Signals of a long-running command: the first asks it to stop, the second ends it at once.
//!
//! **Invariant:** a process that was asked to stop ends by its deadline, even where something
//! hangs. A separate thread watches, because the threads of the runtime may be blocked.

use anyhow::Context;
use std::{process::exit, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was ended at its deadline.
const EXIT_STUCK: i32 = 3;
/// Time for a stop that was cut off at its deadline to return by itself.
const GRACE: Duration = Duration::from_secs(1);

/// Watches SIGTERM, SIGINT and SIGHUP from here on. The first signal cancels the token. A second
/// one ends the process at once, with 128 plus the signal's number. The deadline, `drain_seconds`
/// after the first signal, ends it too.
pub(super) fn watch(drain_seconds: Duration) -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for signals")?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::register().context("cannot watch for signals")?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let (name, _) = signals.next().await;
                tracing::info!(
                    signal = name,
                    "Stopping, within {} seconds",
                    drain_seconds.as_secs_f64()
                );
                stopping.cancel();
                tokio::select! {
                    (name, number) = signals.next() => {
                        tracing::warn!(signal = name, "Ended at once by a second signal");
                        exit(128 + number)
                    }
                    () = tokio::time::sleep(drain_seconds + GRACE) => {
                        tracing::error!("Ended because the stop did not come to its end within its deadline");
                        exit(EXIT_STUCK)
                    }
                }
            });
        })
        .context("cannot watch for signals")?;
    Ok(stop)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Name and number of the next signal.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.hangup.recv() => ("SIGHUP", SignalKind::hangup().as_raw_value()),
        }
    }
}
