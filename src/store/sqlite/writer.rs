//! The one writer: two lanes in, one transaction for many commands, answers after its commit
//! (invariant 15).
//!
//! **Invariant:** a command that fails, panics or whose caller went away never undoes another's,
//! and nobody is answered before the commit.

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

/// Commands in one transaction at most, and how long one may stay open for more of them to join.
const COMMANDS_MAX: usize = 256;
const TRANSACTION_MAX: Duration = Duration::from_millis(20);
/// Waiting commands a lane; beyond it callers wait, so that memory stays bounded.
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
    /// Without [`Writer::close`] the task still does what waits, and ends.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Writer {
    /// `lock` is let go when the connection is closed: nobody else opens the database while a
    /// command can still be written.
    pub(super) fn start(connection: SqliteConnection, lock: std::fs::File) -> std::io::Result<Self> {
        let (urgent, urgent_rx) = mpsc::channel(LANE_CAPACITY);
        let (bulk, bulk_rx) = mpsc::channel(LANE_CAPACITY);
        let (stop, task) = (CancellationToken::new(), TaskTracker::new());
        let lanes = Lanes {
            urgent: urgent_rx,
            bulk: bulk_rx,
        };
        let (stopped, running) = (stop.clone(), task.token());
        // A thread and runtime of its own: each statement is a hand-over to sqlx's thread and back,
        // and on a busy pool the way back waits for its turn.
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
                    // A caller that went away wants no answer.
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

    /// Outlives the store, to wait for a writer that nobody closed.
    #[cfg(test)]
    pub(super) fn task(&self) -> TaskTracker {
        self.task.clone()
    }

    /// Finishes the commands that are waiting, then closes the connection. Safe to call twice, and
    /// to give up waiting for.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.task.wait().await;
    }
}

/// The future's output, or `None` where it panicked: a fault in one command must not end the
/// writer, which serves everybody.
async fn caught<T>(future: impl Future<Output = T> + Send) -> Option<T> {
    let mut future = Box::pin(future);
    // The future is not polled again after a panic, and what it did to the connection is rolled
    // back.
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
                // What is in the lanes is still done; what comes later is refused.
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
    // Each statement is a hand-over to the database's thread: those that follow one another go
    // together. The commit releases the last savepoint.
    let mut state = execute(connection, "BEGIN IMMEDIATE; SAVEPOINT command").await;
    let mut next = Some(first);
    while let Some((command, lane)) = next.take() {
        if state.is_err() {
            // The transaction is broken: the command has not run, and its dropped answer says "not
            // available".
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
                // Urgent work without end must not starve the rest: each full transaction takes one
                // of the others along.
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

/// A failure here is never about one command's data, so it is never [`StoreError::Data`]: that
/// would have innocents set aside (invariant 15).
async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|_| StoreError::Unavailable {
            doing: "begin, commit or roll back",
        })
}
