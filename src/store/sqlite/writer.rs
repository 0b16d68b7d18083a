//! The one writer: two lanes in, one transaction for many commands, answers after its commit (rule 15).

use super::StoreError;
use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Which commands go first. Claims, replies, records and configuration are urgent; plans and bulk work are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    Urgent,
    Bulk,
}

/// Commands in one transaction at most, and how long one may stay open for more of them to join.
const COMMANDS_MAX: usize = 256;
const TRANSACTION_MAX: Duration = Duration::from_millis(20);
/// Waiting commands a lane; beyond it callers wait, so that memory stays bounded.
const LANE_CAPACITY: usize = 1024;

/// Tells the caller how its command ended, once the commit (or its failure) is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Runs in the transaction. `Err` means that it has to be undone; the answer then already holds its own error.
type Command = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (Answer, bool)> + Send>;

pub(super) struct Writer {
    urgent: mpsc::Sender<Command>,
    bulk: mpsc::Sender<Command>,
    stop: Mutex<Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (urgent, urgent_rx) = mpsc::channel(LANE_CAPACITY);
        let (bulk, bulk_rx) = mpsc::channel(LANE_CAPACITY);
        let (stop, stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the store owns its writer and joins it in close()")]
        let task = tokio::spawn(run(connection, urgent_rx, bulk_rx, stopped));
        Self { urgent, bulk, stop: Mutex::new(Some((stop, task))) }
    }

    pub(super) async fn run<T, F>(&self, lane: Lane, doing: &'static str, command: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |connection| {
            Box::pin(async move {
                let result = command(connection).await;
                let good = result.is_ok();
                let answer: Answer = Box::new(move |committed| {
                    // A caller that went away wants no answer.
                    let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
                });
                (answer, good)
            })
        });
        let sender = match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        };
        sender.send(command).await.map_err(|_| StoreError::Unavailable { doing })?;
        answered.await.map_err(|_| StoreError::Unavailable { doing })?
    }

    /// Finishes the commands that are waiting, then closes the connection.
    pub(super) async fn close(&self) {
        if let Some((stop, task)) = self.stop.lock().await.take() {
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

async fn run(mut connection: SqliteConnection, mut urgent: mpsc::Receiver<Command>, mut bulk: mpsc::Receiver<Command>, mut stopped: oneshot::Receiver<()>) {
    let mut stopping = false;
    loop {
        let first = tokio::select! {
            biased;
            Some(command) = urgent.recv() => command,
            Some(command) = bulk.recv() => command,
            _ = &mut stopped, if !stopping => {
                // What is in the lanes is still done; what comes later is refused.
                urgent.close();
                bulk.close();
                stopping = true;
                continue;
            }
            else => break,
        };
        transaction(&mut connection, first, &mut urgent, &mut bulk).await;
    }
    let _ = connection.close().await;
}

async fn transaction(connection: &mut SqliteConnection, first: Command, urgent: &mut mpsc::Receiver<Command>, bulk: &mut mpsc::Receiver<Command>) {
    let mut answers: Vec<Answer> = Vec::new();
    let begun = Instant::now();
    let mut committed = execute(connection, "BEGIN IMMEDIATE").await;
    let mut next = Some(first);
    while let Some(command) = next.take() {
        if committed.is_ok() {
            committed = savepoint(connection, command, &mut answers).await;
        } else {
            // The transaction is broken: the command has not run, and its dropped answer says "not available".
            drop(command);
        }
        if committed.is_ok() && answers.len() < COMMANDS_MAX && begun.elapsed() < TRANSACTION_MAX {
            next = urgent.try_recv().or_else(|_| bulk.try_recv()).ok();
        }
    }
    if committed.is_ok() {
        committed = execute(connection, "COMMIT").await;
    }
    if committed.is_err() {
        let _ = execute(connection, "ROLLBACK").await;
    }
    for answer in answers {
        answer(committed.clone());
    }
}

async fn savepoint(connection: &mut SqliteConnection, command: Command, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
    execute(connection, "SAVEPOINT command").await?;
    let (answer, good) = command(connection).await;
    answers.push(answer);
    if !good {
        execute(connection, "ROLLBACK TO command").await?;
    }
    execute(connection, "RELEASE command").await
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement).execute(connection).await.map(drop).map_err(super::failed("begin, commit or roll back"))
}
