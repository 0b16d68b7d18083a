//! `hookswitch import legacy`: organisations, credentials and assistants of the earlier system,
//! from a file or its database.
//!
//! **Invariant:** the source is only read. Without `--apply` nothing else is written either. What
//! stands here already stays, so that it can be run again.

mod credential;
mod file;
mod rows;

use super::operator::{Answer, Api, ApiRefusal, Client};
use crate::{
    domain::{OrgId, Provider},
    store,
    vault::LegacyKey,
};
use anyhow::Context;
use clap::{Args, Subcommand};
use credential::Fields;
use http::{Method, StatusCode};
use rows::{CredentialRow, Row};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    command: ImportCommand,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// Take over the rows of the earlier system. Without --apply: say what would be done
    Legacy(LegacyArgs),
}

#[derive(Debug, Args)]
struct LegacyArgs {
    /// A file (JSON or CSV), or postgres://…; PGPASSWORD keeps a password out of the command line
    source: String,
    /// The file with the key of the earlier system, its ENCRYPTION_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Write into the running installation. Each credential is checked at its provider first
    #[arg(long)]
    apply: bool,
    /// With --apply: store credentials whose provider does not answer
    #[arg(long, requires = "apply")]
    unverified: bool,
    /// With --apply: take the place of credentials that are connected here already
    #[arg(long, requires = "apply")]
    overwrite: bool,
    #[command(flatten)]
    api: Api,
}

/// The outcome of a row.
enum Outcome {
    /// It stands here now, or would.
    Taken(String),
    /// There is nothing to do.
    Skipped(String),
    Failed(String),
}

type Numbered<T> = (usize, T);

/// Rows in the order in which they have to be written: an assistant is proved by its credential.
#[derive(Default)]
struct Plan {
    names: BTreeMap<OrgId, String>,
    orgs: BTreeSet<OrgId>,
    credentials: Vec<Numbered<CredentialRow>>,
    assistants: Vec<Numbered<Assistant>>,
    /// Rows that are none of these.
    failed: Vec<Numbered<String>>,
}

struct Assistant {
    org: OrgId,
    id: String,
    role: Option<String>,
    name: Option<String>,
}

impl Plan {
    fn of(rows: Vec<Numbered<Map<String, Value>>>) -> Self {
        let mut plan = Self::default();
        for (number, row) in rows {
            match rows::read(&row) {
                Ok(Row::Organisation { org, name }) => {
                    plan.orgs.insert(org);
                    plan.names.insert(org, name);
                }
                Ok(Row::Credential(row)) => {
                    plan.orgs.insert(row.org);
                    plan.credentials.push((number, row));
                }
                Ok(Row::Assistant {
                    org,
                    assistant,
                    role,
                    name,
                }) => {
                    plan.orgs.insert(org);
                    let id = assistant;
                    plan.assistants.push((number, Assistant { org, id, role, name }));
                }
                Err(problem) => plan.failed.push((number, problem)),
            }
        }
        plan
    }
}

pub(super) async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let ImportCommand::Legacy(args) = args.command;
    let key = args.key_file.as_deref().map(read_key).transpose()?;
    let plan = Plan::of(read_rows(&args.source).await?);
    let target = if args.apply { Some(Target::new(&args)?) } else { None };
    let mut report = Report::default();
    for (number, problem) in &plan.failed {
        report.row(*number, "row", &Outcome::Failed(problem.clone()))?;
    }
    for org in &plan.orgs {
        let outcome = match &target {
            Some(target) => target.organisation(*org, plan.names.get(org)).await?,
            None => Outcome::Taken("would be made where it is not there".to_owned()),
        };
        report.row(0, &format!("organisation {org}"), &outcome)?;
    }
    for (number, row) in &plan.credentials {
        let outcome = credential_outcome(row, key.as_ref(), target.as_ref()).await?;
        report.row(*number, &format!("{} of {}", row.provider, row.org), &outcome)?;
    }
    for (number, one) in &plan.assistants {
        let outcome = match &target {
            Some(target) => target.assistant(one).await?,
            None => Outcome::Taken("would be claimed, if its organisation's key reads it at Vapi".to_owned()),
        };
        report.row(*number, &format!("assistant {} of {}", one.id, one.org), &outcome)?;
    }
    report.end(args.apply)
}

fn read_key(path: &Path) -> anyhow::Result<LegacyKey> {
    let text: SecretString = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .into();
    LegacyKey::parse(&text).with_context(|| format!("{} holds no key", path.display()))
}

async fn read_rows(source: &str) -> anyhow::Result<Vec<Numbered<Map<String, Value>>>> {
    if !source.starts_with("postgres:") && !source.starts_with("postgresql:") {
        return file::read(Path::new(source));
    }
    let rows = store::legacy::read_legacy(source).await?;
    Ok(rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| (index + 1, row))
        .collect())
}

async fn credential_outcome(
    row: &CredentialRow,
    key: Option<&LegacyKey>,
    target: Option<&Target>,
) -> anyhow::Result<Outcome> {
    if !row.is_active {
        return Ok(Outcome::Skipped("it is not active there".to_owned()));
    }
    let fields = match credential::read(row, key) {
        Ok(fields) => fields,
        Err(problem) => return Ok(Outcome::Failed(problem)),
    };
    let mut outcome = if let Some(target) = target {
        target.credential(row.org, row.provider, &fields).await?
    } else {
        let names: Vec<&str> = fields.fields.iter().map(|(name, _)| *name).collect();
        Outcome::Taken(format!("would be connected with {}", names.join(", ")))
    };
    if let Outcome::Taken(words) = &mut outcome {
        if fields.was_plain {
            words.push_str("; it was not sealed there");
        }
        if !fields.ignored.is_empty() {
            words.push_str("; not taken: ");
            words.push_str(&fields.ignored.join(", "));
        }
    }
    Ok(outcome)
}

/// The installation that is written into.
struct Target {
    client: Client,
    is_unverified: bool,
    overwrites: bool,
}

impl Target {
    fn new(args: &LegacyArgs) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(&args.api)?,
            is_unverified: args.unverified,
            overwrites: args.overwrite,
        })
    }

    async fn organisation(&self, org: OrgId, name: Option<&String>) -> anyhow::Result<Outcome> {
        let fallback = format!("Imported {org}");
        let body = json!({ "id": org, "name": name.unwrap_or(&fallback) });
        match self
            .client
            .ask(Method::POST, "/operator/organizations", Some(&body))
            .await?
        {
            Answer::Done(_) => Ok(Outcome::Taken("made".to_owned())),
            Answer::Refused(refusal) if refusal.status == StatusCode::CONFLICT => {
                Ok(Outcome::Skipped("it is there already".to_owned()))
            }
            Answer::Refused(refusal) => Ok(Outcome::Failed(refusal.to_string())),
        }
    }

    async fn credential(&self, org: OrgId, provider: Provider, fields: &Fields) -> anyhow::Result<Outcome> {
        let client = self.client.of_org(org)?;
        if !self.overwrites {
            let status = client.call(Method::GET, "/api/integrations/status", None).await?;
            let all = status["integrations"].as_array().map_or(&[][..], Vec::as_slice);
            let own = all.iter().find(|one| one["provider"] == provider.as_str());
            if own.is_some_and(|one| one["state"] != "not_connected") {
                return Ok(Outcome::Skipped("it is connected here already".to_owned()));
            }
        }
        let body: Map<String, Value> = fields
            .fields
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.expose_secret().trim().into()))
            .collect();
        let query = if self.is_unverified { "?unverified=true" } else { "" };
        let path = format!("/api/integrations/{provider}{query}");
        Ok(
            match client.ask(Method::POST, &path, Some(&Value::Object(body))).await? {
                Answer::Done(view) => Outcome::Taken(view["state"].as_str().unwrap_or("connected").to_owned()),
                Answer::Refused(refusal) => Outcome::Failed(refusal.to_string()),
            },
        )
    }

    async fn assistant(&self, one: &Assistant) -> anyhow::Result<Outcome> {
        let client = self.client.of_org(one.org)?;
        let path = format!("/api/assistants/{}", one.id);
        if let Answer::Done(known) = client.ask(Method::GET, &path, None).await?
            && known["state"] == "live"
        {
            return Ok(Outcome::Skipped("it is claimed here already".to_owned()));
        }
        let mut body = json!({ "assistant_id": one.id });
        for (name, value) in [("role", &one.role), ("name", &one.name)] {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        Ok(match client.ask(Method::POST, "/api/assistants", Some(&body)).await? {
            Answer::Done(_) => Outcome::Taken("claimed".to_owned()),
            Answer::Refused(refusal) => Outcome::Failed(refusal.to_string()),
        })
    }
}

/// One line a row, and the sums.
#[derive(Default)]
struct Report {
    taken: usize,
    skipped: usize,
    failed: usize,
}

impl Report {
    fn row(&mut self, number: usize, what: &str, outcome: &Outcome) -> anyhow::Result<()> {
        let (count, word, words) = match outcome {
            Outcome::Taken(words) => (&mut self.taken, "ok", words),
            Outcome::Skipped(words) => (&mut self.skipped, "skipped", words),
            Outcome::Failed(words) => (&mut self.failed, "failed", words),
        };
        *count += 1;
        let place = if number == 0 {
            String::new()
        } else {
            format!(" (row {number})")
        };
        writeln!(std::io::stdout().lock(), "{word:<8} {what}{place}: {words}")?;
        Ok(())
    }

    fn end(&self, is_applied: bool) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        let Self { taken, skipped, failed } = self;
        writeln!(out, "{taken} ok, {skipped} skipped, {failed} failed")?;
        if !is_applied {
            writeln!(out, "Nothing was written; --apply does it.")?;
        }
        Ok(if *failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl std::fmt::Display for ApiRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}
