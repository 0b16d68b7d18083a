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

/// Listens until it is stopped. It reads the version once after each connection, so that a change
/// made while nobody listened is not lost.
pub(super) async fn run(pool: PgPool, changes: watch::Sender<i64>, stop: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
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
    pool.close().await;
}

/// Returns when the connection is lost.
async fn listen(pool: &PgPool, changes: &watch::Sender<i64>, backoff: &mut Duration) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Before the version is read, so that no change falls between the two.
    listener.listen(CHANNEL).await?;
    loop {
        let version: i64 = sqlx::query_scalar(READ_VERSION).fetch_one(&mut listener).await?;
        raise(changes, Some(version));
        *backoff = BACKOFF_FIRST;
        while let Some(notification) = listener.try_recv().await? {
            raise(changes, notification.payload().parse().ok());
        }
        // The listener has connected again. Read the version, because a notification may have been
        // missed.
        info!("The connection that tells changes of configuration was lost and is there again");
    }
}
