//! The one writer: two lanes in, one transaction for many commands, answers after its commit
//! (invariant 15).
//!
//! **Invariant:** a command that fails, panics or loses its caller never undoes another, and no
//! caller gets an answer before the commit.

use super::{Lane, StoreError};
use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most commands in one transaction, and the time that it stays open for more to join.
const COMMANDS_MAX: usize = 256;
const TRANSACTION_MAX: Duration = Duration::from_millis(20);
/// Most waiting commands in a lane. Further callers wait, so that memory stays bounded.
const LANE_CAPACITY: usize = 1024;

/// Tells the caller how its command ended, once the commit (or its failure) is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Runs in the transaction. `false` means that it has to be undone; the answer then already holds
/// its own error.
type Command = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (Answer, bool)> + Send>;

pub(super) struct Writer {
    urgent: mpsc::Sender<Command>,
    bulk: mpsc::Sender<Command>,
    stop: CancellationToken,
    task: TaskTracker,
}

impl Drop for Writer {
    /// Without [`Writer::close`] the task still runs the waiting commands, and ends.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Writer {
    /// `lock` is released after the connection is closed, so that no other process opens the
    /// database while a command can still be written.
    pub(super) fn start(connection: SqliteConnection, lock: std::fs::File) -> std::io::Result<Self> {
        let (urgent, urgent_rx) = mpsc::channel(LANE_CAPACITY);
        let (bulk, bulk_rx) = mpsc::channel(LANE_CAPACITY);
        let (stop, task) = (CancellationToken::new(), TaskTracker::new());
        let lanes = Lanes {
            urgent: urgent_rx,
            bulk: bulk_rx,
        };
        let (stopped, running) = (stop.clone(), task.token());
        // The writer has its own thread and runtime. Each statement goes to sqlx's thread and back,
        // and on a busy pool the way back would wait.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                runtime.block_on(run(connection, lanes, stopped));
                drop(lock);
                drop(running);
            })?;
        task.close();
        Ok(Self {
            urgent,
            bulk,
            stop,
            task,
        })
    }

    /// `committed` runs after the commit, also when the caller went away meanwhile.
    pub(super) async fn run<T, F, C>(
        &self,
        lane: Lane,
        doing: &'static str,
        command: F,
        committed: C,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |connection| {
            Box::pin(async move {
                let panicked = StoreError::Data {
                    doing,
                    reason: "the command panicked".into(),
                };
                let result = caught(async move { command(connection).await })
                    .await
                    .unwrap_or(Err(panicked));
                let good = result.is_ok();
                let answer: Answer = Box::new(move |commit| {
                    let result = result.and_then(|value| commit.map(|()| value));
                    if let Ok(value) = &result {
                        committed(value);
                    }
                    // A caller that went away needs no answer.
                    let _ = answer.send(result);
                });
                (answer, good)
            })
        });
        let sender = match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        };
        sender
            .send(command)
            .await
            .map_err(|_| StoreError::Unavailable { doing })?;
        answered.await.map_err(|_| StoreError::Unavailable { doing })?
    }

    #[cfg(test)]
    pub(super) fn is_done(&self) -> bool {
        self.task.is_empty()
    }

    /// The tracker outlives the store, to wait for a writer that was not closed.
    #[cfg(test)]
    pub(super) fn task(&self) -> TaskTracker {
        self.task.clone()
    }

    /// Finishes the waiting commands, then closes the connection. Safe to call twice, and
    /// cancel-safe.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.task.wait().await;
    }
}

/// The future's output, or `None` where it panicked. A fault in one command must not end the
/// writer, which serves all callers.
async fn caught<T>(future: impl Future<Output = T> + Send) -> Option<T> {
    let mut future = Box::pin(future);
    // The future is not polled again after a panic, and its changes are rolled back.
    poll_fn(
        move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}

struct Lanes {
    urgent: mpsc::Receiver<Command>,
    bulk: mpsc::Receiver<Command>,
}

impl Lanes {
    fn try_next(&mut self) -> Option<(Command, Lane)> {
        let urgent = self.urgent.try_recv().map(|command| (command, Lane::Urgent));
        urgent
            .or_else(|_| self.bulk.try_recv().map(|command| (command, Lane::Bulk)))
            .ok()
    }
}

async fn run(mut connection: SqliteConnection, mut lanes: Lanes, stop: CancellationToken) {
    let mut stopping = false;
    loop {
        let first = tokio::select! {
            biased;
            Some(command) = lanes.urgent.recv() => (command, Lane::Urgent),
            Some(command) = lanes.bulk.recv() => (command, Lane::Bulk),
            () = stop.cancelled(), if !stopping => {
                // Commands in the lanes still run; later commands are refused.
                lanes.urgent.close();
                lanes.bulk.close();
                stopping = true;
                continue;
            }
            else => break,
        };
        transaction(&mut connection, first, &mut lanes).await;
    }
    let _ = connection.close().await;
}

async fn transaction(connection: &mut SqliteConnection, first: (Command, Lane), lanes: &mut Lanes) {
    let mut answers: Vec<Answer> = Vec::new();
    let begun = Instant::now();
    let mut has_bulk = false;
    // Each call goes to the database's thread, so statements that follow one another go together.
    // The commit releases the last savepoint.
    let mut state = execute(connection, "BEGIN IMMEDIATE; SAVEPOINT command").await;
    let mut next = Some(first);
    while let Some((command, lane)) = next.take() {
        if state.is_err() {
            // The transaction is broken. The command has not run, and its dropped answer means
            // "unavailable" to the caller.
            break;
        }
        has_bulk |= lane == Lane::Bulk;
        let (answer, good) = command(connection).await;
        answers.push(answer);
        if !good {
            state = execute(connection, "ROLLBACK TO command").await;
        }
        if state.is_ok() {
            next = if answers.len() < COMMANDS_MAX && begun.elapsed() < TRANSACTION_MAX {
                lanes.try_next()
            } else if has_bulk {
                None
            } else {
                // Endless urgent work must not starve the bulk lane, so each full transaction takes
                // one bulk command along.
                lanes.bulk.try_recv().ok().map(|command| (command, Lane::Bulk))
            };
        }
        if next.is_some() {
            // After a full disk or an I/O error SQLite may have rolled back everything by itself.
            // Then there is no savepoint, and every command of the group gets this error.
            state = execute(connection, "RELEASE command; SAVEPOINT command").await;
        }
    }
    if state.is_ok() {
        state = execute(connection, "COMMIT").await;
    }
    if state.is_err() {
        let _ = execute(connection, "ROLLBACK").await;
    }
    for answer in answers {
        answer(state.clone());
    }
}

/// A failure here is never about one command's data, so it is never [`StoreError::Data`]. Otherwise
/// good events would be stored as dead (invariant 15).
async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|_| StoreError::Unavailable {
            doing: "begin, commit or roll back",
        })
}
