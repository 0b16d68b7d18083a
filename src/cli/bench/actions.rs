//! Actions: events in the queue become SMS at the sandbox Twilio. The baseline is a bare HTTP
//! client that posts the same form to the same sandbox. Beside it, as many events that no rule
//! wants.

use super::{
    ASSISTANT,
    backends::{Backend, Backends, Counted},
};
use crate::{
    config::Settings,
    domain::{
        Clock as _, DedupeKey, Envelope, EventId, EventType, IntegrationState, OrgId, Provider, Rule, RuleId, RuleSpec,
        Source, Subject, SystemClock, TypePattern, VerifiedEvent,
    },
    lifecycle::{Lifecycle, Stage},
    provider::Providers,
    queue::EventQueue,
    sandbox::{Accounts, Sandbox, SandboxConfig, SandboxState, TwilioAccount},
    store::{
        Store,
        audit::{AuditEntry, Changes},
        credentials::NewCredential,
    },
    telemetry::Recorder,
    vault::{Purpose, Vault},
    worker::Worker,
};
use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use serde_json::json;
use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ActionsArgs {
    /// Actions of a round
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Sent at once, on both sides
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Rounds; both sides take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// An empty Postgres database, in the place of SQLite: the run fills it and leaves it
    #[arg(long, value_name = "postgres://…")]
    database_url: Option<String>,
    /// kafka://host:port or amqp://…, in the place of the embedded queue
    #[arg(long)]
    queue_url: Option<String>,
}

const ACCOUNT: &str = "AC5eed000000000000000000000000a001";
const TOKEN: &str = "0fa54772703c5bf4938ad079a515af8b";
const NUMBER: &str = "+15552010100";
const CUSTOMER: &str = "+15552010188";

pub(super) async fn run(args: ActionsArgs, scratch: &Path) -> anyhow::Result<ExitCode> {
    let _recorder = Recorder::install();
    let accounts = Accounts {
        accounts: vec![TwilioAccount::new(ACCOUNT, TOKEN).with_number(NUMBER)],
        ..Accounts::default()
    };
    let config = SandboxConfig {
        accounts,
        requests_max: 1_000,
        is_calling_back: false,
        ..SandboxConfig::default()
    };
    let sandbox = Sandbox::bind("127.0.0.1:0".parse()?, config).await?;
    let (base, state) = (format!("http://{}", sandbox.address()?), sandbox.state());
    let outer = Lifecycle::default();
    outer.start(Stage::Upkeep, sandbox.run(outer.soft(Stage::Upkeep)));
    println!(
        "{} SMS, {} at once, × {} rounds; sandbox and both clients on the same cores, no status callbacks\n",
        args.count, args.concurrency, args.rounds
    );
    let backends = Backends::open(args.database_url.as_deref(), args.queue_url.as_deref(), scratch).await?;
    println!("over {}\n", backends.name());
    let (mut bare, mut ours, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds {
        bare.push(bare_loop(&args, &base).await?);
        let backend = backends.make(&format!("{round}-sms")).await?;
        ours.push(whole_way(&args, backend, WANTED, &base, &state).await?);
        let backend = backends.make(&format!("{round}-unwanted")).await?;
        unwanted.push(whole_way(&args, backend, UNWANTED, &base, &state).await?);
    }
    outer.drain(Duration::from_secs(2)).await;
    print(&bare, &ours, &unwanted);
    Ok(ExitCode::SUCCESS)
}

fn print(bare: &[f64], ours: &[f64], unwanted: &[f64]) {
    let line = |name: &str, rates: &[f64]| {
        let all: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!(
            "  {name:<38}{:>8.0}/s   ({})",
            super::ingest::median(rates),
            all.join(", ")
        );
    };
    line("bare client loop", bare);
    line("hookswitch: plan, claim, send, record", ours);
    let ratio = super::ingest::median(ours) / super::ingest::median(bare);
    println!("  {:<38}{ratio:>8.2}", "hookswitch ÷ bare client");
    line("hookswitch: events that no rule wants", unwanted);
}

/// The baseline without a ledger: post the form, read the answer, keep nothing.
async fn bare_loop(args: &ActionsArgs, base: &str) -> anyhow::Result<f64> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()?;
    let url = format!("{base}/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
    let begun = Instant::now();
    let mut sends = futures_util::stream::iter(0..args.count)
        .map(|n| {
            let body = format!("Thank you for your call {n}.");
            let request = client.post(&url).basic_auth(ACCOUNT, Some(TOKEN)).form(&[
                ("To", CUSTOMER),
                ("From", NUMBER),
                ("Body", body.as_str()),
            ]);
            async move {
                let answer = request.send().await?;
                anyhow::ensure!(answer.status() == 201, "the sandbox answered {}", answer.status());
                Ok(answer.bytes().await?.len())
            }
        })
        .buffer_unordered(args.concurrency);
    while let Some(sent) = sends.next().await {
        sent?;
    }
    Ok(args.count as f64 / begun.elapsed().as_secs_f64())
}

/// The rule's kind of event, and another one.
const WANTED: &str = "end-of-call-report";
const UNWANTED: &str = "status-update";

/// The events are in the queue before the start. The time runs from the worker's start to the last
/// SMS at the sandbox; of events that no rule wants, to the last ack.
async fn whole_way(
    args: &ActionsArgs,
    backend: Backend,
    kind: &'static str,
    base: &str,
    sandbox: &SandboxState,
) -> anyhow::Result<f64> {
    let settings = settings(args, base)?;
    twilio_and_rule(&backend.store, &backend.vault, backend.org).await?;
    fill(&*backend.queue, backend.org, kind, args.count).await?;
    let worker = worker(&backend, settings)?;
    let (before, count) = (sandbox.message_count(), u64::try_from(args.count)?);
    let sent = || sandbox.message_count() - before;
    let done = || if kind == WANTED { sent() } else { backend.queue.acked() };
    let lifecycle = Lifecycle::default();
    let begun = Instant::now();
    lifecycle.start(Stage::Work, worker.run(lifecycle.soft(Stage::Work), lifecycle.hard()));
    while done() < count {
        anyhow::ensure!(
            begun.elapsed() < Duration::from_mins(5),
            "only {} of {count} are done after five minutes",
            done()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let elapsed = begun.elapsed();
    lifecycle.drain(Duration::from_secs(5)).await;
    backend.queue.close().await;
    backend.store.close().await;
    let expected = if kind == WANTED { count } else { 0 };
    anyhow::ensure!(sent() == expected, "{} SMS where {expected} are due", sent());
    Ok(count as f64 / elapsed.as_secs_f64())
}

fn settings(args: &ActionsArgs, base: &str) -> anyhow::Result<Settings> {
    let mut settings = Settings::default();
    base.clone_into(&mut settings.provider.twilio_base_url);
    settings.worker.attempts_concurrent_max = args.concurrency;
    settings.worker.attempts_concurrent_per_org_max = args.concurrency;
    settings.worker.claim_turn_max = u32::try_from(args.concurrency)?;
    settings.worker.actions_per_day_max = u64::MAX;
    Ok(settings)
}

fn worker(backend: &Backend, settings: Settings) -> anyhow::Result<Worker> {
    let queue: Arc<Counted> = backend.queue.clone();
    Ok(Worker {
        store: backend.store.clone(),
        queue,
        vault: backend.vault.clone(),
        providers: Providers::new(&settings.provider, None)?,
        clock: Arc::new(SystemClock),
        settings: settings.worker,
        credentials: settings.vault,
        public_url: None,
        clock_offset: Arc::new(|| 0),
        failure: crate::worker::Failure::default(),
    })
}

async fn fill(queue: &dyn EventQueue, org: OrgId, kind: &str, count: usize) -> anyhow::Result<()> {
    let events: Vec<VerifiedEvent> = (0..count).map(|n| event(org, kind, n)).collect();
    let mut publishes = futures_util::stream::iter(&events)
        .map(|event| queue.publish(event))
        .buffer_unordered(256);
    while let Some(published) = publishes.next().await {
        published.context("cannot fill the queue")?;
    }
    Ok(())
}

async fn twilio_and_rule(store: &Arc<dyn Store>, vault: &Arc<Vault>, org: OrgId) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let audit = |verb, target_kind| AuditEntry {
        org,
        at: now,
        actor: "bench".to_owned(),
        verb,
        target_kind,
        target_id: String::new(),
        changes: Changes::default(),
        address: None,
    };
    let credential = json!({ "account_sid": ACCOUNT, "auth_token": TOKEN, "phone_number": NUMBER }).to_string();
    let new = NewCredential {
        org,
        provider: Provider::Twilio,
        name: String::new(),
        sealed: vault
            .seal(org, Purpose::Credential(Provider::Twilio), credential.as_bytes())
            .await?,
        state: IntegrationState::Connected,
        missing: None,
        account_id: Some(ACCOUNT.to_owned()),
        account_name: None,
        account_fingerprint: None,
        last_four: None,
        verified_at: Some(now),
        expects: crate::store::credentials::Expects::Anything,
    };
    store.save_credential(new, audit("connect", "credential")).await?;
    let spec: RuleSpec = serde_json::from_value(json!({
        "name": "text", "source": "vapi", "event_type": "end-of-call-report", "action": "twilio.send_sms",
        "parameters": { "to": "{{ message.customer.number }}", "body": "Thank you for your call \
        {{ message.call.id }}." },
    }))?;
    debug_assert_eq!(spec.event_type, TypePattern("end-of-call-report".into()));
    store
        .create_rule(
            Rule {
                id: RuleId::generate(),
                org,
                spec,
                version: 1,
                created_at: now,
                updated_at: now,
            },
            audit("create", "rule"),
        )
        .await?;
    Ok(())
}

/// An event of 2 kB, as the receiver would have verified it.
fn event(org: OrgId, kind: &str, n: usize) -> VerifiedEvent {
    let call = uuid::Uuid::now_v7().to_string();
    let mut body = json!({ "message": { "type": kind, "call": { "id": call, "assistantId": ASSISTANT }, "customer": { "number": CUSTOMER }, "endedReason": "customer-ended-call", "artifact": { "transcript": "" } } });
    body["message"]["artifact"]["transcript"] = "The caller asks for an appointment next week. ".repeat(38).into();
    let now = SystemClock.now();
    let mut dedupe = [0; 16];
    dedupe[..8].copy_from_slice(&(n as u64).to_be_bytes());
    VerifiedEvent::from_verified(Envelope {
        id: EventId::generate(),
        source: Source::Vapi,
        event_type: EventType::new(Source::Vapi, kind),
        time: now,
        received_at: now,
        subject: Subject(call.into()),
        org: Some(org),
        endpoint: None,
        secret: None,
        dedupe_key: DedupeKey(dedupe),
        traceparent: None,
        content_type: "application/json".into(),
        path: "/webhooks/vapi".into(),
        query: "".into(),
        headers: Vec::new(),
        hops: 0,
        body: body.to_string().into(),
    })
}
