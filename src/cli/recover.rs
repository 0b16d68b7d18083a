//! `hookswitch recover`: after a database was put back from a backup, nothing is sent twice
//! (invariant 29).
//!
//! The command line enters, while every process is stopped. **Invariant:** everything is paused
//! before the first row changes, and running it again does no harm.

use super::app::event_bytes_max;
use crate::{
    admin::Time,
    config::{Environment, Settings},
    domain::{Clock, INSTALLATION, OrgId, SystemClock, Timestamp},
    queue,
    store::{
        self, Store,
        audit::{AuditEntry, Changes},
        bulk::{BulkFilter, BulkVerb},
        pauses::{Pause, Paused},
        recovery::{Recovery, RecoveryFacts},
    },
};
use anyhow::{Context, bail};
use clap::Args;
use std::{process::ExitCode, sync::Arc, time::Duration};
use uuid::Uuid;

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// The moment of the backup, as RFC 3339 has it: when `pg_dump` or `.backup` began
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    restored_to: Timestamp,
    /// Do it. Without it: say what would be done
    #[arg(long)]
    yes: bool,
}

const ACTOR: &str = "operator:recover";
/// A person rounds the moment of a backup, and events that were received before it were planned
/// after it.
const ALLOWANCE: Duration = Duration::from_hours(1);
/// A clock that is a little ahead of the backup's.
const CLOCK_ALLOWANCE: Duration = Duration::from_mins(1);
/// Rows that one step changes.
const STEP: u32 = 1_000;

pub(super) async fn run(args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&Environment::from_process())?;
    let clock = Arc::new(SystemClock);
    let now = clock.now();
    if args.restored_to > now {
        bail!("--restored-to lies in the future: give the moment at which the backup was begun");
    }
    let store = store::connect(&settings.store.database_url, clock).await?;
    let done = recover(&*store, &settings, args, now).await;
    store.close().await;
    done
}

async fn recover(
    store: &dyn Store,
    settings: &Settings,
    args: &RecoverArgs,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let facts = store.load_recovery_facts().await?;
    refuse_what_was_not_restored(store, &facts, args.restored_to).await?;
    let plan = Plan::of(store, facts).await?;
    plan.show(args);
    let rewind_to = args.restored_to - ALLOWANCE;
    if !args.yes {
        rewind(settings, rewind_to, false).await?;
        println!("Nothing was changed; --yes does it.");
        return Ok(ExitCode::SUCCESS);
    }
    begin(store, args.restored_to, now).await?;
    println!("everything is paused");
    let done = plan.carry_out(store, settings, args.restored_to, now).await?;
    println!(
        "{} actions are unknown now, {} jobs stopped, {} waiting replays dropped",
        done.actions, done.jobs, done.replays
    );
    rewind(settings, rewind_to, true).await?;
    println!(
        "Start the processes. Actions of events that were received until now start as unknown. `hookswitch resume \
        --all` lets look-ups and attempts begin."
    );
    Ok(ExitCode::SUCCESS)
}

/// A database that goes on after the backup is not the one that was put back, and a process that
/// runs may send while this changes rows.
async fn refuse_what_was_not_restored(
    store: &dyn Store,
    facts: &RecoveryFacts,
    restored_to: Timestamp,
) -> anyhow::Result<()> {
    if let Some(newest) = facts.newest_event_at.filter(|at| *at > restored_to + CLOCK_ALLOWANCE) {
        bail!(
            "the database holds an event of {}, after {}: put the backup back first, or give the moment at which it \
            was begun",
            Time(newest),
            Time(restored_to)
        );
    }
    // Files belong to one process, so nobody else can have them open.
    if !store.is_shared() {
        return Ok(());
    }
    let live: Vec<String> = store
        .load_instances()
        .await?
        .into_iter()
        .map(|seen| format!("{} ({})", seen.instance.name, seen.instance.roles))
        .collect();
    if !live.is_empty() {
        bail!(
            "these processes run on the database, or ended less than a minute ago: {}; stop them, and try again",
            live.join(", ")
        );
    }
    Ok(())
}

/// Actions, jobs and replays that had not ended, as the backup has them.
struct Plan {
    facts: RecoveryFacts,
    /// With how many actions that are pending, waiting or parked.
    orgs: Vec<(OrgId, u64)>,
    jobs: Vec<(OrgId, Uuid)>,
}

/// Counts of the rows that were changed.
#[derive(Default)]
struct Done {
    actions: u64,
    jobs: u64,
    replays: u64,
}

impl Plan {
    async fn of(store: &dyn Store, facts: RecoveryFacts) -> anyhow::Result<Self> {
        let mut orgs = Vec::new();
        for org in store.list_orgs_with_open_actions().await? {
            let counts = store.count_bulk(org, BulkVerb::Cancel, BulkFilter::default()).await?;
            orgs.push((org, counts.iter().map(|one| one.count).sum()));
        }
        let jobs = store.list_running_bulk(u32::MAX).await?;
        Ok(Self { facts, orgs, jobs })
    }

    fn show(&self, args: &RecoverArgs) {
        println!("restored to {}", Time(args.restored_to));
        for (org, count) in self.orgs.iter().filter(|(_, count)| *count > 0) {
            println!("{org}: {count} actions are pending, waiting or parked: they become unknown, and are looked up");
        }
        println!(
            "{} actions are running: they become unknown too; {} jobs are stopped; {} waiting replays are dropped",
            self.facts.running,
            self.jobs.len(),
            self.facts.waiting_replays
        );
    }

    async fn carry_out(
        &self,
        store: &dyn Store,
        settings: &Settings,
        restored_to: Timestamp,
        now: Timestamp,
    ) -> anyhow::Result<Done> {
        let mut done = Done::default();
        for (org, job) in &self.jobs {
            // A job that retries would send again what was sent since.
            let is_stopped = store.stop_bulk(*org, *job, entry(*org, restored_to, now)).await?;
            done.jobs += u64::from(is_stopped);
        }
        done.replays = store.drop_waiting_replays().await?;
        let look_up_delay = settings.worker.settle_seconds;
        done.actions = store.abandon_leases(now, look_up_delay).await?;
        for (org, _) in &self.orgs {
            loop {
                let audit = entry(*org, restored_to, now);
                let sent_from = restored_to - ALLOWANCE;
                let some = store
                    .doubt_open_actions(*org, sent_from, now + look_up_delay, STEP, audit)
                    .await?;
                done.actions += some;
                if some == 0 {
                    break;
                }
            }
        }
        Ok(done)
    }
}

async fn begin(store: &dyn Store, restored_to: Timestamp, now: Timestamp) -> anyhow::Result<()> {
    let recovery = Recovery {
        restored_to,
        recovered_at: now,
        actor: ACTOR.to_owned(),
    };
    let pause = Pause {
        paused: Paused::All,
        reason: format!("the database was restored to {}", Time(restored_to)),
        actor: ACTOR.to_owned(),
        since: now,
    };
    let audit = entry(INSTALLATION, restored_to, now);
    store
        .begin_recovery(recovery, pause, audit)
        .await
        .context("nothing was changed")
}

fn entry(org: OrgId, restored_to: Timestamp, now: Timestamp) -> AuditEntry {
    AuditEntry {
        org,
        at: now,
        actor: ACTOR.to_owned(),
        verb: "recover",
        target_kind: if org == INSTALLATION {
            "installation"
        } else {
            "organisation"
        },
        target_id: Time(restored_to).to_string(),
        changes: Changes::default(),
        address: None,
    }
}

/// Kafka alone keeps what was delivered. Elsewhere what was acked is gone.
async fn rewind(settings: &Settings, to: Timestamp, is_done: bool) -> anyhow::Result<()> {
    let url = &settings.queue.queue_url;
    let events = queue::rewind(url, &settings.queue, event_bytes_max(settings), to, is_done).await?;
    match events {
        Some(events) => println!(
            "Kafka: the group {} goes back to {}; {events} events are delivered again",
            settings.queue.kafka_group,
            Time(to)
        ),
        None => println!("the queue keeps what is not planned; what it had given out since the backup is gone"),
    }
    Ok(())
}
