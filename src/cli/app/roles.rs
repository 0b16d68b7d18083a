//! Which of its roles a process runs.

use crate::config::Settings;
use anyhow::bail;

/// The roles of one process: any mix but none. Processes that share a database and a broker run
/// each role in any number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Takes webhooks. Alone needs ingress and, in front of a broker, a spool.
    pub receiver: bool,
    /// Plans events and sends actions.
    pub worker: bool,
    /// Answers the admin API. Needs no queue.
    pub admin: bool,
}

impl Roles {
    pub const ALL: Self = Self {
        receiver: true,
        worker: true,
        admin: true,
    };

    /// Whether the process reads or writes the queue.
    pub(super) const fn use_the_queue(self) -> bool {
        self.receiver || self.worker
    }

    /// Embedded backends belong to one process, so that process has to run all roles.
    ///
    /// # Errors
    /// Which setting names an embedded backend that these roles would have to share.
    pub(in crate::cli) fn check(self, settings: &Settings) -> anyhow::Result<()> {
        if self == Self::ALL {
            return Ok(());
        }
        let is_embedded = |url: &str, scheme: &str| url.starts_with(scheme);
        let mut embedded = Vec::new();
        if is_embedded(&settings.store.database_url, "sqlite:") {
            embedded.push("HOOKSWITCH_DATABASE_URL names SQLite (set postgres://…)");
        }
        if self.use_the_queue() && is_embedded(&settings.queue.queue_url, "embedded:") {
            embedded.push("HOOKSWITCH_QUEUE_URL names the embedded queue (set amqp://… or kafka://…)");
        }
        if !embedded.is_empty() {
            bail!(
                "--role {self} needs backends that processes can share, and {}: leave --role out, so that one process \
                runs all roles",
                embedded.join(", and ")
            );
        }
        Ok(())
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (self.receiver, "receiver"),
            (self.worker, "worker"),
            (self.admin, "admin"),
        ];
        let names: Vec<_> = names.iter().filter_map(|(runs, name)| runs.then_some(*name)).collect();
        f.write_str(&names.join(","))
    }
}
