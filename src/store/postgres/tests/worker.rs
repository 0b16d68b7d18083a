//! Every statement of the registry, run by the worker's role, which sees all organisations. A
//! statement that names its organisation is run as organisation B with the ids of A: its answer is
//! the same as in a database without A, and no row of A's changes. A statement that names none is
//! across organisations on purpose, and stands in [`ACROSS`] with the reason.
//!
//! Row-level security does not bind this role, so the statement alone keeps organisations apart.

use super::isolation::{STATES, beginning, columns, fill, kinds_of, literal, run};
use super::statements_on_rows;
use crate::store::postgres::migrate;
use regex_lite::Regex;
use sqlx::{Connection, PgConnection, Row, ValueRef, postgres::PgRow};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt::Write,
};
use uuid::Uuid;

/// Statements of the worker's that name no organisation, by a part of their text, and why.
const ACROSS: &[(&str, &[&str])] = &[
    (
        "of the installation: no row of an organisation is in it",
        &[
            "pg_advisory_xact_lock",
            "config_version",
            "queue_workers",
            "instances",
            "primary_kek",
            "recoveries",
            "quarantine",
            "clock_timestamp()) * 1000000)::bigint AS now",
        ],
    ),
    (
        "claims and records: one transaction takes due actions of all organisations by turns, and ends their attempts",
        &[
            "FROM turns WHERE due_at <= $1",
            "min(due_at) AS due_at FROM turns WHERE",
            "UPDATE actions SET state = 'running'",
            "SET state = 'dead', cause = 'expired'",
            "UPDATE actions SET state = 'pending', due_at = $2",
            "cause = 'lease_ended'",
            "UPDATE attempts SET ended_at = r.ended_at",
        ],
    ),
    (
        "snapshots in memory: every process holds routes, rules and wrapped keys of all organisations",
        &[
            "SELECT id, is_active FROM organizations",
            "SELECT org_id, version, kek_id, wrapped, seals FROM data_keys",
            "SELECT id, org_id, source, is_active, ignored_types FROM endpoints",
            "FROM endpoint_secrets",
            "SELECT org_id, assistant_id, state, managed_by FROM assistant_org_mapping",
            "provider_number_id, state, managed_by FROM phone_numbers WHERE changed_version",
            "SELECT id, org_id, account_id, (is_active = true AND has_sealed",
            "FROM rules WHERE changed_version > $1",
            "FROM organization_settings WHERE changed_version > $1",
            "SELECT org_id FROM org_credentials WHERE changed_version > $1",
        ],
    ),
    (
        "work that is due, whoever it belongs to: what is read names its organisation, and is done inside it",
        &[
            "SELECT DISTINCT org_id, rule_key FROM held_parts",
            "SELECT org_id FROM turns UNION",
            "FROM bulk_jobs WHERE state = 'running'",
            "WHERE refresh_at IS NOT NULL",
            "FROM managed_assistants WHERE checked_at",
            "FROM held_events WHERE org_id > $1",
            "FROM action_days WHERE day = $1",
        ],
    ),
    (
        "an operator asks by an id, and acts inside the organisation that this finds",
        &[
            "SELECT org_id FROM actions WHERE id = $1",
            "SELECT org_id FROM rules WHERE id = $1",
            "FROM dead_events WHERE id = $1",
            "FROM pauses ORDER BY created_at",
            "FROM organizations WHERE id > $1",
            "head, signed_url FROM rejections WHERE id < $1",
        ],
    ),
    (
        "a proof shows that an earlier claim is stale: the holder is another organisation (invariant 18)",
        &[
            "UPDATE assistant_org_mapping SET state = 'released'",
            "FROM assistant_org_mapping WHERE assistant_id = $1 AND state = 'live'",
            "FROM phone_numbers WHERE provider = $1 AND state = 'live'",
            "UPDATE phone_numbers SET state = 'released', version = version + 1, updated_at = $6",
        ],
    ),
    (
        "the state of a consent is its secret: the row that it finds names the organisation",
        &["DELETE FROM oauth_consents WHERE id = $1"],
    ),
    (
        "gauges: counts and ages over all organisations, without a row of one",
        &[
            "SELECT provider, min(due_at) AS due_at FROM (",
            "SELECT min(first_sent_at)",
            "FROM ( SELECT state FROM actions WHERE state IN",
            "SELECT provider FROM org_credentials",
            "FROM ( SELECT state FROM actions WHERE state IN",
            "FROM (SELECT cause FROM held_events",
            "SELECT min(received_at) AS received_at FROM held_events",
            "FROM (SELECT id FROM dead_events WHERE id > $2",
        ],
    ),
    (
        "deletion by age, and the bound of the list of rejections",
        &[
            "FROM (SELECT id, received_at FROM events",
            "DELETE FROM attempts WHERE action_id IN",
            "DELETE FROM actions WHERE state IN",
            "DELETE FROM events WHERE id > $1",
            "FROM organization_settings WHERE retention_days IS NOT NULL",
            "DELETE FROM dead_events WHERE dead_at",
            "DELETE FROM bulk_jobs WHERE ended_at",
            "DELETE FROM audit_log WHERE at",
            "DELETE FROM action_days",
            "FROM dedupe_keys WHERE (org_id, hash) >",
            "FROM idempotency_keys WHERE (org_id, hash) >",
            "AS seq FROM rejections",
            "DELETE FROM rejections WHERE seq",
        ],
    ),
    (
        "a recovery of the whole database (invariant 29)",
        &[
            "SELECT id FROM events ORDER BY id DESC",
            "FROM actions WHERE state = 'running'",
            "held_events WHERE series > 0",
        ],
    ),
    (
        "a rotation of the key-encryption key: names of keys and wrapped keys, of all organisations",
        &[
            "FROM data_keys GROUP BY kek_id",
            "UNION ALL SELECT seal_head FROM dead_events",
            "FROM data_keys WHERE kek_id <> $1",
        ],
    ),
];

/// Of ten statements that name their organisation and that the role may run, how many have to find
/// rows of it.
const REACHED_OF_TEN: usize = 6;

fn numbers(pattern: &str, statement: &str) -> Vec<usize> {
    let pattern = Regex::new(pattern).expect("a pattern");
    let found = pattern.captures_iter(statement);
    found.map(|found| found[1].parse().expect("a number")).collect()
}

/// The parameters in a list, as `$3` or `$3::uuid[]`, at one place.
fn at(list: &str, place: usize) -> Option<usize> {
    let text = list.split(',').nth(place)?.trim().strip_prefix('$')?;
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn place_of(column: &str, columns: &str) -> Option<usize> {
    columns.split(',').position(|name| name.trim() == column)
}

/// A statement on one line.
fn squashed(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A list of rows without the subqueries and calls in them.
fn without_inner(rows: &str) -> String {
    let mut depth = 0;
    let mut is_kept = |c: char| {
        depth += i32::from(c == '(');
        let is_kept = depth < 2;
        depth -= i32::from(c == ')');
        is_kept
    };
    rows.chars().filter(|c| is_kept(*c)).collect()
}

/// Parameters that name the organisation: what `org_id` is compared with or set to.
fn org_parameters(statement: &str) -> BTreeSet<usize> {
    let text = squashed(statement);
    let mut found: BTreeSet<usize> = BTreeSet::new();
    found.extend(numbers(r"\borg_id = \$(\d+)", &text));
    found.extend(numbers(
        r"\(org_id, provider\) IN \(SELECT \* FROM unnest\(\$(\d+)",
        &text,
    ));
    if text.contains("organizations") {
        found.extend(numbers(r"\bid = \$(\d+)", &text));
    }
    let unnested = Regex::new(r"unnest\(([^)]*)\)(?: WITH ORDINALITY)? AS \w+ \(([^)]*)\)").expect("a pattern");
    for one in unnested.captures_iter(&text) {
        found.extend(place_of("org_id", &one[2]).and_then(|place| at(&one[1], place)));
    }
    let inserted = Regex::new(r"INSERT INTO (\w+) \(([^)]*)\) (VALUES|SELECT) (.*)").expect("a pattern");
    if let Some(one) = inserted.captures(&text) {
        let key = if &one[1] == "organizations" { "id" } else { "org_id" };
        if let Some(place) = place_of(key, &one[2]) {
            let tuples = Regex::new(r"\(([^()]*)\)").expect("a pattern");
            if &one[3] == "VALUES" {
                let rows = without_inner(&one[4]);
                found.extend(tuples.captures_iter(&rows).filter_map(|tuple| at(&tuple[1], place)));
            } else {
                let list = one[4].split(" FROM ").next().unwrap_or_default();
                // `begun.*` stands for the columns of the unnested lists.
                let all = Regex::new(r"unnest\(([^)]*)\)").expect("a pattern");
                let unnested = all
                    .captures(&one[4])
                    .filter(|_| list.ends_with('*') || list.contains(".*"));
                found.extend(at(unnested.as_ref().map_or(list, |lists| &lists[1]), place));
            }
        }
    }
    found
}

#[test]
fn the_organisation_of_a_statement_is_found_in_its_text() {
    for (statement, wanted) in [
        ("SELECT 1 FROM a WHERE x.org_id = $2 AND id = $1", vec![2]),
        (
            "INSERT INTO a (id, org_id) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING",
            vec![2, 4],
        ),
        (
            "INSERT INTO a (org_id, n)\n SELECT $1, 1 + max(n) FROM b WHERE org_id = $1",
            vec![1],
        ),
        (
            "UPDATE a SET n = 1 FROM unnest($1::uuid[], $2::uuid[]) AS d (id, org_id)",
            vec![2],
        ),
        (
            "DELETE FROM t WHERE (org_id, provider) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))",
            vec![1],
        ),
        (
            "INSERT INTO a (id, n, org_id) SELECT b.*, $4 FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS b",
            vec![3],
        ),
        (
            "INSERT INTO a (id, n, org_id) VALUES ($1, (SELECT coalesce(max(n), $4) FROM a), $2)",
            vec![2],
        ),
        (
            "INSERT INTO a (org_id, n) SELECT * FROM unnest($1::uuid[], $2::bigint[]) ON CONFLICT DO NOTHING",
            vec![1],
        ),
        ("SELECT 1 FROM organizations WHERE id = $1", vec![1]),
        ("SELECT 1 FROM actions WHERE id = $1", vec![]),
        ("SELECT 1 FROM a WHERE org_id > $1", vec![]),
    ] {
        assert_eq!(org_parameters(statement), wanted.into_iter().collect(), "{statement}");
    }
}

/// How a statement ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ended {
    /// Its rows, and A's rows after it.
    Answered(Vec<String>, String),
    NotPermitted,
    Failed,
}

fn shown(row: &PgRow) -> String {
    let value = |index| {
        let value = row.try_get_raw(index).expect("a value");
        if value.is_null() {
            "NULL".to_owned()
        } else {
            value.as_str().unwrap_or("?").to_owned()
        }
    };
    (0..row.len()).map(value).collect::<Vec<_>>().join("|")
}

/// A statement in a transaction that is undone, and A's rows in it, by both roles: some tables are
/// readable by one of them only.
async fn ended(worker: &mut PgConnection, execute: &str, look: &str) -> Ended {
    run(worker, "BEGIN".to_owned()).await.expect("begun");
    let ended = match run(worker, execute.to_owned()).await {
        Ok(rows) => {
            let mut answer: Vec<String> = rows.iter().map(shown).collect();
            answer.sort();
            let seen = run(worker, look.to_owned()).await.expect("a look");
            Ended::Answered(answer, seen.iter().map(shown).collect::<Vec<_>>().join("\n"))
        }
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => Ended::NotPermitted,
        Err(_) => Ended::Failed,
    };
    run(worker, "ROLLBACK".to_owned()).await.expect("undone");
    ended
}

/// A query that shows all rows of an organisation that one of the roles can read.
async fn look_at(worker: &mut PgConnection, org: Uuid) -> String {
    let mut look = String::new();
    for role in ["hookswitch_tenant", "hookswitch_worker"] {
        run(worker, format!("SET ROLE {role}")).await.expect("the role");
        let readable = run(
            worker,
            "SELECT c.relname::text FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace = \
                'public'::regnamespace AND has_table_privilege(oid, 'SELECT') AND (relname = 'organizations' OR EXISTS \
                (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND attname = 'org_id')) ORDER BY 1"
                .to_owned(),
        )
        .await
        .expect("the catalogue");
        assert!(readable.len() > 10, "{role} reads {} tables", readable.len());
        let parts: Vec<String> = readable
            .iter()
            .map(|row| row.get::<String, _>(0))
            .map(|table| {
                let key = if table == "organizations" { "id" } else { "org_id" };
                format!(
                    "SELECT '{table}' || md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t \
                     WHERE {key} = '{org}'"
                )
            })
            .collect();
        write!(
            look,
            "SET LOCAL ROLE {role}; SELECT set_config('hookswitch.org_id', '{org}', true); {}; ",
            parts.join(" UNION ALL ")
        )
        .expect("to a string");
    }
    look
}

/// Values at, below and above what the rows hold, and the text of a state.
fn values(state: &str) -> [(&str, i64, bool); 4] {
    [("", 1, true), (state, 1, true), ("", 100, false), ("", 0, true)]
}

/// A statement with its values: B where it names its organisation, A elsewhere.
fn execute(
    index: usize,
    kinds: &[String],
    orgs: &BTreeSet<usize>,
    (b, a): (Uuid, Uuid),
    value: (&str, i64, bool),
) -> String {
    let (text, number, truth) = value;
    let values: Vec<String> = kinds
        .iter()
        .zip(1..)
        .map(|(kind, place)| {
            let of = if orgs.contains(&place) { b } else { a };
            literal(kind, of, text, number, truth)
        })
        .collect();
    match &values[..] {
        [] => format!("EXECUTE s{index}"),
        values => format!("EXECUTE s{index}({})", values.join(", ")),
    }
}

/// The findings of all runs, by the place of the statement.
#[derive(Default)]
struct Findings {
    permitted: BTreeSet<usize>,
    reached: BTreeSet<usize>,
    /// Each with one of its runs.
    leaks: BTreeMap<usize, String>,
}

#[tokio::test]
async fn a_statement_of_the_worker_keeps_to_its_organisation_or_is_listed_with_a_reason() {
    let Some((mut owner, url, name)) = super::database().await else {
        return;
    };
    migrate(&url).await.expect("migrated");
    let mut admin = PgConnection::connect(&url).await.expect("connects");
    let mut worker = PgConnection::connect(&url).await.expect("connects");
    // A comes after B, so that a page behind B would show it.
    let (b, a) = (Uuid::now_v7(), Uuid::now_v7());
    let tables = columns(&mut admin).await;
    let look = look_at(&mut worker, a).await;
    run(&mut worker, "SET ROLE hookswitch_worker".to_owned())
        .await
        .expect("the role");
    let all: Vec<&str> = statements_on_rows();
    let kinds = kinds_of(&mut worker, &all).await;
    let orgs: Vec<BTreeSet<usize>> = all.iter().map(|statement| org_parameters(statement)).collect();
    fill(&mut admin, &tables, b, "").await;
    // In a database without A.
    let mut without: BTreeMap<String, Ended> = BTreeMap::new();
    for state in STATES {
        for index in 0..all.len() {
            for value in values(state) {
                let text = execute(index, &kinds[index], &orgs[index], (b, a), value);
                if let Entry::Vacant(vacant) = without.entry(text) {
                    let alone = ended(&mut worker, vacant.key(), &look).await;
                    vacant.insert(alone);
                }
            }
        }
    }
    let mut found = Findings::default();
    for state in STATES {
        fill(&mut admin, &tables, a, state).await;
        let before = ended(&mut worker, "SELECT 1 WHERE false", &look).await;
        let Ended::Answered(_, before) = before else {
            panic!("A's rows cannot be looked at: {before:?}")
        };
        for index in 0..all.len() {
            for value in values(state) {
                let text = execute(index, &kinds[index], &orgs[index], (b, a), value);
                let with = ended(&mut worker, &text, &look).await;
                if with != Ended::NotPermitted {
                    found.permitted.insert(index);
                }
                if let (Ended::Answered(answer, after), Some(Ended::Answered(alone, _))) = (&with, without.get(&text))
                    && (answer != alone || *after != before)
                    && !orgs[index].is_empty()
                {
                    found.leaks.insert(index, text);
                }
                if found.reached.contains(&index) {
                    continue;
                }
                let text = execute(index, &kinds[index], &orgs[index], (a, a), value);
                if let Ended::Answered(answer, after) = ended(&mut worker, &text, &look).await
                    && (!answer.is_empty() || after != before)
                {
                    found.reached.insert(index);
                }
            }
        }
    }
    for connection in [admin, worker] {
        connection.close().await.expect("closes");
    }
    run(&mut owner, format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .expect("gone");
    judge(&all, &orgs, &found);
}

fn judge(all: &[&str], orgs: &[BTreeSet<usize>], found: &Findings) {
    let parts = || ACROSS.iter().flat_map(|(_, parts)| parts.iter());
    let is_listed = |statement: &str| parts().any(|part| statement.contains(part));
    let leaks: Vec<String> = found
        .leaks
        .iter()
        .filter(|(index, _)| !is_listed(&squashed(all[**index])))
        .map(|(index, run)| format!("{run}\n{}", all[*index]))
        .collect();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n\n"));
    let is_across = |index: &&usize| orgs[**index].is_empty() || found.leaks.contains_key(index);
    let across = found.permitted.iter().filter(is_across);
    let across: Vec<String> = across.map(|index| squashed(all[*index])).collect();
    let unlisted: Vec<&str> = across
        .iter()
        .filter(|statement| !is_listed(statement))
        .map(String::as_str)
        .collect();
    let stale: Vec<&&str> = parts()
        .filter(|part| !across.iter().any(|statement| statement.contains(**part)))
        .collect();
    assert!(
        unlisted.is_empty() && stale.is_empty(),
        "these name no organisation and stand in no list:\n{}\n\nno such statement needs the list: {stale:#?}",
        unlisted.join("\n")
    );
    let named = || found.permitted.iter().filter(|index| !orgs[**index].is_empty());
    let reached = named().filter(|index| found.reached.contains(index)).count();
    let unreached: Vec<String> = named()
        .filter(|index| !found.reached.contains(index))
        .map(|index| beginning(all[*index]))
        .collect();
    println!(
        "{reached} found rows of their organisation; these did not:\n{}",
        unreached.join("\n")
    );
    assert!(
        reached * 10 >= named().count() * REACHED_OF_TEN,
        "{reached} of {} statements find a row of their organisation: too few for this test to show anything",
        named().count()
    );
}
