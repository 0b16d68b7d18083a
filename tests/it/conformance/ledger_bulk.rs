//! Many actions at once: jobs, their steps, and the keys of what is tried again.

use super::*;
use hookswitch::store::bulk::{BulkFilter, BulkJob, BulkVerb, JobLease, JobState};

/// A job as a handler begins it.
pub fn running_job(org: OrgId, verb: BulkVerb, filter: BulkFilter, planned: u64, now: Timestamp) -> BulkJob {
    BulkJob {
        id: uuid::Uuid::now_v7(),
        org,
        verb,
        filter,
        state: JobState::Running,
        planned,
        done: 0,
        skipped: 0,
        actor: "somebody".into(),
        started_at: now,
        updated_at: now,
        ended_at: None,
    }
}

fn job(b: &Bench, org: OrgId, verb: BulkVerb, filter: BulkFilter) -> BulkJob {
    running_job(org, verb, filter, 4, b.now())
}

/// Dead actions of an organisation, in their order.
async fn dead(b: &Bench, org: OrgId, count: u8) -> Vec<ActionId> {
    let ids = b.due(org, count).await;
    for claim in b.claim(count.into()).await {
        let refused = Record {
            is_unsent: true,
            ..record(&claim, ActionState::Dead, b.now())
        };
        b.store.record(vec![refused]).await.expect("recorded");
    }
    ids
}

async fn states(b: &Bench, org: OrgId, ids: &[ActionId]) -> Vec<ActionState> {
    let mut all = Vec::new();
    for id in ids {
        all.push(b.state(org, *id).await);
    }
    all
}

async fn take(b: &Bench, job: &BulkJob, length: Duration) -> Option<JobLease> {
    b.store.take_bulk(job.org, job.id, length).await.expect("a look")
}

async fn step(b: &Bench, lease: JobLease, count_max: u32) -> bool {
    b.store.step_bulk(lease, LEASE, count_max).await.expect("a step")
}

pub async fn a_job_has_one_holder_at_a_time_and_a_former_one_changes_nothing(b: &Bench) {
    use ActionState::{Dead, Pending};
    let org = b.organisation().await;
    let ids = dead(b, org, 3).await;
    let filter = BulkFilter {
        state: Some(Dead),
        ..BulkFilter::default()
    };
    let job = job(b, org, BulkVerb::Retry, filter);
    b.store.begin_bulk(job.clone(), audit(org)).await.expect("begun");
    let free = async || b.store.list_free_bulk(10).await.expect("a list");
    assert_eq!(free().await, [(org, job.id)]);
    // Its holder takes a step, and is heard of no more.
    let first = take(b, &job, SECOND).await.expect("free");
    assert!(step(b, first, 1).await);
    assert_eq!(free().await, []);
    b.clock.advance(LEASE / 2);
    assert_eq!(take(b, &job, LEASE).await, None, "the step has renewed the lease");
    b.clock.advance(LEASE / 2);
    assert_eq!(free().await, [(org, job.id)]);
    let second = take(b, &job, LEASE).await.expect("its lease has ended");
    assert!(!step(b, first, 1).await, "it wakes, and has lost the job");
    assert_eq!(states(b, org, &ids).await, [Pending, Dead, Dead]);
    b.store.release_bulk(first).await.expect("nothing of its own");
    assert_eq!(free().await, [], "the second one still holds it");
    assert!(step(b, second, 1).await);
    b.store.release_bulk(second).await.expect("given back");
    assert_eq!(free().await, [(org, job.id)]);
    let third = take(b, &job, LEASE).await.expect("free");
    while step(b, third, 1).await {}
    assert_eq!(states(b, org, &ids).await, [Pending; 3]);
    let done = b.store.find_bulk(org, job.id).await.expect("a look").expect("there");
    assert_eq!((done.state, done.done, done.skipped), (JobState::Done, 3, 0));
    assert_eq!(take(b, &job, LEASE).await, None, "it has ended");
}

/// A job that was given back a moment ago comes after those that wait.
pub async fn jobs_that_nobody_holds_are_listed_by_the_time_that_they_wait(b: &Bench) {
    let orgs = [b.organisation().await, b.organisation().await];
    let jobs = orgs.map(|org| job(b, org, BulkVerb::Cancel, BulkFilter::default()));
    for job in &jobs {
        b.store.begin_bulk(job.clone(), audit(job.org)).await.expect("begun");
    }
    for [given_back, waits] in [[0, 1], [1, 0]] {
        b.clock.advance(SECOND);
        let lease = take(b, &jobs[given_back], LEASE).await.expect("free");
        b.store.release_bulk(lease).await.expect("given back");
        let free = b.store.list_free_bulk(10).await.expect("a list");
        assert_eq!(
            free,
            [waits, given_back].map(|at| (jobs[at].org, jobs[at].id)),
            "the one that waited longer comes first"
        );
    }
}

pub async fn a_job_goes_step_by_step_and_can_be_stopped(b: &Bench) {
    use ActionState::{Dead, Pending};
    let (org, other) = (b.organisation().await, b.organisation().await);
    let (mine, theirs) = (dead(b, org, 4).await, dead(b, other, 1).await);
    let filter = BulkFilter {
        state: Some(Dead),
        ..BulkFilter::default()
    };
    let count = async || {
        let counts = b.store.count_bulk(org, BulkVerb::Retry, filter).await.expect("counted");
        counts.iter().map(|one| one.count).sum::<u64>()
    };
    assert_eq!(count().await, 4, "a look changes nothing, and meets nobody else's");
    let first = job(b, org, BulkVerb::Retry, filter);
    let begun = b.store.begin_bulk(first.clone(), audit(org)).await;
    begun.expect("begun");
    let running = b.store.list_running_bulk(10).await.expect("a list");
    assert_eq!(running, [(org, first.id)], "the next process takes it up");
    // Planned after it began: not its own.
    let late = PlannedAction {
        state: Dead,
        ..action()
    };
    let late_id = late.id;
    b.plan(vec![event(org, 200, vec![late])]).await;

    let lease = take(b, &first, LEASE).await.expect("free");
    assert!(step(b, lease, 2).await);
    assert_eq!(states(b, org, &mine).await, [Pending, Pending, Dead, Dead]);
    assert!(
        !b.store
            .stop_bulk(other, first.id, audit(other))
            .await
            .expect("not theirs")
    );
    assert!(b.store.stop_bulk(org, first.id, audit(org)).await.expect("stopped"));
    assert!(!b.store.stop_bulk(org, first.id, audit(org)).await.expect("once"));
    assert!(!step(b, lease, 2).await);
    assert_eq!(states(b, org, &mine).await, [Pending, Pending, Dead, Dead]);
    let stopped = b.store.find_bulk(org, first.id).await.expect("a look").expect("there");
    assert_eq!(
        (stopped.state, stopped.done, stopped.planned),
        (JobState::Stopped, 2, 4)
    );
    assert_eq!(b.store.find_bulk(other, first.id).await.expect("a look"), None);

    let rest = job(b, org, BulkVerb::Retry, filter);
    b.store.begin_bulk(rest.clone(), audit(org)).await.expect("begun");
    let lease = take(b, &rest, LEASE).await.expect("free");
    while step(b, lease, 2).await {}
    assert_eq!(states(b, org, &mine).await, [Pending; 4]);
    assert_eq!(b.state(org, late_id).await, Pending, "the second job began after it");
    let done = b.store.find_bulk(org, rest.id).await.expect("a look").expect("there");
    assert_eq!((done.state, done.done, done.skipped), (JobState::Done, 3, 0));
    assert!(done.ended_at.is_some());
    assert_eq!(states(b, other, &theirs).await, [Dead], "nobody else's");

    let cancel = job(b, org, BulkVerb::Cancel, BulkFilter::default());
    b.store.begin_bulk(cancel.clone(), audit(org)).await.expect("begun");
    let lease = take(b, &cancel, LEASE).await.expect("free");
    while step(b, lease, 100).await {}
    assert_eq!(states(b, org, &mine).await, [ActionState::Cancelled; 4]);
    let orgs = b.store.list_orgs_with_open_actions().await.expect("a list");
    assert!(!orgs.contains(&other), "nothing of theirs is open");
}

/// A provider remembers the key of the first try. A retry of what has not gone out has another.
pub async fn a_retry_has_a_fresh_key_where_nothing_has_gone_out(b: &Bench) {
    for is_unsent in [true, false] {
        let org = b.organisation().await;
        b.due(org, 1).await;
        let first = b.claim_one().await;
        let ended = Record {
            is_unsent,
            ..record(&first, ActionState::Dead, b.now())
        };
        b.store.record(vec![ended]).await.expect("recorded");
        let retried = b
            .store
            .retry(org, first.action, b.now() + LEASE, b.now(), audit(org))
            .await;
        assert_eq!(retried.expect("retried"), ManualTransition::Done(ActionState::Pending));
        let second = b.claim_one().await;
        assert_eq!(second.idempotency_key != first.idempotency_key, is_unsent);
        assert!(second.idempotency_key.len() <= 256, "{}", second.idempotency_key);
        b.finish(org, first.action).await;
    }
}
