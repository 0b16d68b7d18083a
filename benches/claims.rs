//! The cost of a claim over many finished rows, beside an empty table:
//! `cargo bench --bench claims -- --finished 1000000`. Needs Postgres, by
//! HOOKSWITCH_TEST_POSTGRES_URL (`scripts/services up postgres`), and makes two databases of its
//! own there, which it drops.
//!
//! Both databases are measured in turns, so that what else the machine does costs both the same. It
//! ends non-zero where a claim costs more than 1.2 times as much.

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use hookswitch::{
    domain::*,
    store::{
        self, Store,
        audit::{AuditEntry, Changes},
        ledger::*,
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const RATIO_MAX: f64 = 1.2;

#[derive(Debug, Parser)]
struct Arguments {
    /// Finished actions in the full table
    #[arg(long, default_value_t = 200_000)]
    finished: u64,
    /// Organisations that they belong to, and that have due actions
    #[arg(long, default_value_t = 50)]
    organisations: usize,
    /// Claims measured in each table
    #[arg(long, default_value_t = 300)]
    claims: usize,
    /// Given by `cargo bench`
    #[arg(long)]
    bench: bool,
}

/// A database with its organisations, each with events that have one due action.
struct Table {
    owner: PgConnection,
    store: Arc<dyn Store>,
    organisations: Vec<OrgId>,
    name: String,
}

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn planned(org: OrgId) -> PlannedEvent {
    let id = EventId::generate();
    PlannedEvent {
        org,
        envelope: Envelope {
            id,
            source: Source::Vapi,
            event_type: EventType::new(Source::Vapi, "end-of-call-report"),
            time: at(900),
            received_at: at(901),
            subject: Subject("call".into()),
            org: Some(org),
            endpoint: None,
            secret: None,
            dedupe_key: DedupeKey(*id.as_bytes()),
            traceparent: None,
            content_type: "application/json".into(),
            path: "/webhooks/vapi".into(),
            query: "".into(),
            headers: Vec::new(),
            hops: 0,
            body: Bytes::from_static(b"{}"),
        },
        body: SealedBytes(Box::from(*b"sealed body")),
        actions: vec![PlannedAction {
            id: ActionId::generate(),
            rule: RuleId::generate(),
            rule_name: "a rule".into(),
            kind: ActionKind::TwilioSendSms,
            credential_name: String::new(),
            request: Some(SealedBytes([7; 200].into())),
            state: ActionState::Pending,
            cause: None,
            detail: None,
            due_at: None,
            expires_at: at(i64::from(u32::MAX)),
        }],
        occasion: Occasion::Receipt,
    }
}

fn record(claim: &Claim) -> Record {
    Record {
        action: claim.action,
        org: claim.org,
        fence: claim.fence,
        to: ActionState::Succeeded,
        cause: Cause::Accepted,
        detail: "sent".into(),
        http_status: Some(201),
        provider_code: None,
        provider_ref: Some(claim.action.to_string()),
        due_at: None,
        counts: true,
        is_absence: false,
        is_unsent: false,
        is_look_up: false,
        outcome: AttemptOutcome::Succeeded,
        ended_at: at(1_000_000),
        credential_version: Some(1),
    }
}

impl Table {
    async fn make(server: &str, organisations: usize) -> anyhow::Result<Self> {
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        let (address, _) = server.rsplit_once('/').context("a URL with a database")?;
        let url = format!("{address}/{name}");
        execute(
            &mut PgConnection::connect(server).await?,
            format!("CREATE DATABASE {name}"),
        )
        .await?;
        let clock = Arc::new(ManualClock::at(at(1_000_000)));
        store::migrate(&url, clock.clone()).await?;
        let store = store::connect(&url, clock).await?;
        let mut made = Vec::new();
        for _ in 0..organisations {
            let id = OrgId::generate();
            let entry = AuditEntry {
                org: id,
                at: at(1),
                actor: "bench".into(),
                verb: "create",
                target_kind: "organisation",
                target_id: id.to_string(),
                changes: Changes::default(),
                address: None,
            };
            store.create_organisation(id, "bench", entry).await?;
            made.push(id);
        }
        Ok(Self {
            owner: PgConnection::connect(&url).await?,
            store,
            organisations: made,
            name,
        })
    }

    async fn plan(&self, events: usize) -> anyhow::Result<()> {
        let all: Vec<PlannedEvent> = (0..events)
            .map(|n| planned(self.organisations[n % self.organisations.len()]))
            .collect();
        for batch in all.chunks(500) {
            self.store.plan(batch.into()).await?;
        }
        Ok(())
    }

    /// One claim of a full turn, in milliseconds; what was claimed is recorded as succeeded.
    async fn claim(&self) -> anyhow::Result<f64> {
        let limits = ClaimLimits {
            count_max: 64,
            turn_max: 16,
            allowances: Vec::new(),
            deferred: Arc::default(),
            lease: Duration::from_mins(1),
        };
        let begun = Instant::now();
        let claims = self.store.claim(limits, at(1_000_000)).await?;
        let took = begun.elapsed();
        ensure!(
            claims.len() == 64,
            "{} claimed: there is too little that is due",
            claims.len()
        );
        self.store.record(claims.iter().map(record).collect()).await?;
        Ok(took.as_secs_f64() * 1000.0)
    }

    /// Finished actions with their events and attempts, as copies of what was claimed, a part at a
    /// time.
    async fn fill(&mut self, finished: u64) -> anyhow::Result<()> {
        self.plan(64 * 4).await?;
        for _ in 0..4 {
            self.claim().await?;
        }
        for table in ["actions", "attempts"] {
            execute(
                &mut self.owner,
                format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
            )
            .await?;
            let columns: Vec<String> = sqlx::query_scalar(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT \
                 attisdropped AND attgenerated = '' ORDER BY attnum",
            )
            .bind(table)
            .fetch_all(&mut self.owner)
            .await?;
            let key = if table == "actions" { "id" } else { "action_id" };
            let values: Vec<String> = columns
                .iter()
                .map(|column| match &**column {
                    // The same in both tables, so that an attempt belongs to its action.
                    name if name == key => format!("md5({key}::text || n)::uuid"),
                    "event_id" => "md5(event_id::text || n)::uuid".to_owned(),
                    "provider_ref" => "provider_ref || n".to_owned(),
                    name => name.to_owned(),
                })
                .collect();
            let (columns, values) = (columns.join(", "), values.join(", "));
            // Past the foreign key to the event: what is measured is the actions' table.
            execute(
                &mut self.owner,
                format!(
                    "DO $$ DECLARE one record; BEGIN FOR one IN SELECT conname FROM pg_constraint WHERE conrelid = \
                     '{table}'::regclass AND contype = 'f' LOOP EXECUTE 'ALTER TABLE {table} DROP CONSTRAINT ' || \
                     quote_ident(one.conname); END LOOP; END $$"
                ),
            )
            .await?;
            let whole = if table == "actions" {
                "state = 'succeeded'"
            } else {
                "outcome = 'succeeded'"
            };
            execute(
                &mut self.owner,
                format!(
                    "CREATE TEMPORARY TABLE made AS SELECT * FROM {table} WHERE {whole} LIMIT 256; INSERT INTO {table} \
                     ({columns}) SELECT {values} FROM generate_series(1, {}) AS n, made; DROP TABLE made; ALTER TABLE \
                     {table} FORCE ROW LEVEL SECURITY",
                    finished.div_ceil(256)
                ),
            )
            .await?;
        }
        Ok(())
    }

    async fn drop_it(self, server: &str) -> anyhow::Result<()> {
        self.store.close().await;
        self.owner.close().await?;
        execute(
            &mut PgConnection::connect(server).await?,
            // Not WITH (FORCE): it fails where autovacuum is at work, which a plain drop ends.
            format!("DROP DATABASE {}", self.name),
        )
        .await
    }
}

async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .with_context(|| sql.chars().take(200).collect::<String>())?;
    Ok(())
}

fn part(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    hookswitch::cli::install_crypto_provider();
    let server = std::env::var("HOOKSWITCH_TEST_POSTGRES_URL")
        .context("HOOKSWITCH_TEST_POSTGRES_URL is not set: export $(scripts/services up postgres)")?;
    let mut empty = Table::make(&server, arguments.organisations).await?;
    let mut full = Table::make(&server, arguments.organisations).await?;
    let begun = Instant::now();
    full.fill(arguments.finished).await?;
    println!(
        "{} finished actions written in {:.0} s",
        arguments.finished,
        begun.elapsed().as_secs_f64()
    );
    let due = (arguments.claims + 1) * 64 * 2;
    for table in [&empty, &full] {
        table.plan(due).await?;
    }
    for table in [&mut empty, &mut full] {
        // As autovacuum would have done by then. Each statement alone: none of them may share a
        // transaction.
        for statement in ["VACUUM ANALYZE actions", "VACUUM ANALYZE turns"] {
            execute(&mut table.owner, statement.to_owned()).await?;
        }
    }
    let (mut of_empty, mut of_full) = (Vec::new(), Vec::new());
    for _ in 0..arguments.claims {
        of_empty.push(empty.claim().await?);
        of_full.push(full.claim().await?);
    }
    for times in [&mut of_empty, &mut of_full] {
        times.sort_by(f64::total_cmp);
    }
    let (beside, over) = (part(&of_empty, 50), part(&of_full, 50));
    let ratio = over / beside;
    println!(
        "a claim of 64 actions, {} organisations, {} claims each, in turns:",
        arguments.organisations, arguments.claims
    );
    println!(
        "  no finished rows       p50 {beside:.2} ms   p99 {:.2} ms",
        part(&of_empty, 99)
    );
    println!(
        "  {:>9} finished rows p50 {over:.2} ms   p99 {:.2} ms",
        arguments.finished,
        part(&of_full, 99)
    );
    println!("  ratio of the medians {ratio:.2}, where at most {RATIO_MAX} is wanted");
    empty.drop_it(&server).await?;
    full.drop_it(&server).await?;
    ensure!(
        ratio <= RATIO_MAX,
        "a claim costs {ratio:.2} times as much over finished rows"
    );
    Ok(())
}
