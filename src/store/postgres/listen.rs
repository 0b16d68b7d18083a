//! Changes of configuration by other processes. A notification is a hint; the version decides.

use super::{READ_VERSION, raise};
use sqlx::{PgPool, postgres::PgListener};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const CHANNEL: &str = "hookswitch_config";
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that says nothing for so long is asked whether it still stands, and has so long to
/// answer: a firewall or a server that died leaves no other sign.
const QUIET_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the goodbye to the server may take at a stop.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Listens until it is stopped. It reads the version once after each connection, so that a change
/// made while nobody listened is not lost. Each connection has a pool of its own, because one that
/// does not answer keeps its place in its pool.
pub(super) async fn run(connect: impl Fn() -> PgPool, changes: watch::Sender<i64>, stop: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    while !stop.is_cancelled() {
        let pool = connect();
        tokio::select! {
            () = stop.cancelled() => {
                let _ = tokio::time::timeout(CLOSE_MAX, pool.close()).await;
                break;
            }
            ended = listen(&pool, &changes, &mut backoff) => {
                if let Err(error) = ended {
                    warn!(%error, "The database tells no changes of configuration; they are found by polling until it \
                        does");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Returns when the connection is lost.
async fn listen(pool: &PgPool, changes: &watch::Sender<i64>, backoff: &mut Duration) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Before the version is read, so that no change falls between the two.
    listener.listen(CHANNEL).await?;
    loop {
        let version = sqlx::query_scalar(READ_VERSION).fetch_one(&mut listener);
        let version = tokio::time::timeout(ANSWER_MAX, version).await;
        let version: i64 = version.map_err(|_| silent())??;
        raise(changes, Some(version));
        *backoff = BACKOFF_FIRST;
        loop {
            let Ok(received) = tokio::time::timeout(QUIET_MAX, listener.try_recv()).await else {
                break;
            };
            let Some(notification) = received? else {
                // The listener has connected again. Read the version, because a notification may
                // have been missed.
                info!("The connection that tells changes of configuration was lost and is there again");
                break;
            };
            raise(changes, notification.payload().parse().ok());
        }
    }
}

fn silent() -> sqlx::Error {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the connection does not answer");
    sqlx::Error::Io(error)
}
