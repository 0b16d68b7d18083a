//! `hookswitch queue dead …`: dead events of a running installation, by its operators' API.

use super::{
    dev_state::DevState,
    token::{Grant, mint_operator_token},
};
use crate::{
    config::{Environment, Settings},
    domain::{Clock, EventId, OrgId, SystemClock},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Events that could not be planned: listed, looked at, put back
    #[command(subcommand)]
    Dead(DeadCommand),
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// Lists dead events, newest first. Shows nothing of their contents
    List {
        /// Of this organisation only
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
        #[command(flatten)]
        api: Api,
    },
    /// Shows one dead event as JSON
    Show {
        id: EventId,
        #[command(flatten)]
        api: Api,
    },
    /// Puts dead events back: the rules that stand now plan them
    Replay {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<EventId>,
        /// All of them, or all of one organisation
        #[arg(long)]
        all: bool,
        /// With --all: of this organisation only
        #[arg(long, value_name = "ID", requires = "all")]
        org: Option<OrgId>,
        #[command(flatten)]
        api: Api,
    },
}

/// Where the admin API is. With HOOKSWITCH_OPERATOR_JWT_SECRET set, a token is made with it; else
/// the files of `dev` are looked for.
#[derive(Debug, Args)]
struct Api {
    /// The base URL of the admin API, where it is not the one of the settings or of `dev`
    #[arg(long)]
    url: Option<String>,
    /// The directory of `hookswitch dev`
    #[arg(long, default_value = ".hookswitch")]
    data_dir: PathBuf,
}

/// A page of the list.
const PAGE: u32 = 200;
const TOKEN_VALID_FOR: Duration = Duration::from_mins(10);

pub(super) async fn run(args: QueueArgs) -> anyhow::Result<ExitCode> {
    let QueueCommand::Dead(command) = args.command;
    match command {
        DeadCommand::List { org, api } => list(&Client::new(&api)?, org).await,
        DeadCommand::Show { id, api } => {
            let event = Client::new(&api)?.call(Method::GET, &path_of(id)).await?;
            writeln!(std::io::stdout().lock(), "{event:#}")?;
            Ok(ExitCode::SUCCESS)
        }
        DeadCommand::Replay { ids, all, org, api } => {
            let client = Client::new(&api)?;
            if all {
                replay_all(&client, org).await
            } else {
                replay(&client, ids).await
            }
        }
    }
}

fn path_of(id: EventId) -> String {
    format!("/operator/dead-events/{id}")
}

async fn list(client: &Client, org: Option<OrgId>) -> anyhow::Result<ExitCode> {
    let mut cursor = None;
    loop {
        let (events, next) = client.page(org, cursor.as_deref()).await?;
        // Not across an await: the lock is a thread's.
        let mut out = std::io::stdout().lock();
        for event in events {
            let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
            writeln!(
                out,
                "{} {} {} {} {}",
                text("id"),
                text("org_id"),
                text("type"),
                text("received_at"),
                text("reason")
            )?;
        }
        drop(out);
        cursor = next;
        if cursor.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

async fn replay(client: &Client, ids: Vec<EventId>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match client.replay(&id.to_string()).await {
            Ok(()) => println!("{id}: put back"),
            Err(error) => {
                eprintln!("{id}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Each once: what dies again while this runs is not put back again.
async fn replay_all(client: &Client, org: Option<OrgId>) -> anyhow::Result<ExitCode> {
    let (mut cursor, mut ids) = (None, Vec::new());
    loop {
        let (events, next) = client.page(org, cursor.as_deref()).await?;
        ids.extend(
            events
                .iter()
                .filter_map(|event| event["id"].as_str().map(str::to_owned)),
        );
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let (mut done, mut left) = (0, 0);
    for id in ids {
        match client.replay(&id).await {
            Ok(()) => done += 1,
            Err(error) => {
                eprintln!("{id}: {error}");
                left += 1;
            }
        }
    }
    println!("{done} put back, {left} left");
    Ok(if left == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn new(api: &Api) -> anyhow::Result<Self> {
        let settings = Settings::load(&Environment::from_process())?.admin;
        let (base, token) = if settings.operator_jwt_secret.is_some() {
            let grant = Grant {
                subject: "cli",
                now: SystemClock.now(),
                valid_for: TOKEN_VALID_FOR,
            };
            let base = format!("http://{}", settings.admin_address);
            (base, mint_operator_token(&settings, grant)?)
        } else {
            let dev = DevState::load(&api.data_dir)?.context(
                "HOOKSWITCH_OPERATOR_JWT_SECRET is not set, and no `hookswitch dev` was started here: set the secret \
                that the admin API runs with, or name the directory of `dev` with --data-dir",
            )?;
            (dev.admin, dev.operator_token)
        };
        Ok(Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(30))
                .build()
                .context("could not make an HTTP client")?,
            base: api.url.clone().unwrap_or(base).trim_end_matches('/').to_owned(),
            token,
        })
    }

    async fn page(&self, org: Option<OrgId>, cursor: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let org = org.map_or_else(String::new, |org| format!("&org_id={org}"));
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/operator/dead-events?limit={PAGE}{org}{cursor}");
        let mut page = self.call(Method::GET, &path).await?;
        let Value::Array(events) = page["data"].take() else {
            bail!("{} did not answer with a list", self.base)
        };
        Ok((events, page["next_cursor"].as_str().map(str::to_owned)))
    }

    async fn replay(&self, id: &str) -> anyhow::Result<()> {
        let path = format!("/operator/dead-events/{id}/replay");
        self.call(Method::POST, &path).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let answer = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .send()
            .await
            .with_context(|| format!("no answer from the admin API at {}", self.base))?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        bail!("{status}: {}", body["detail"].as_str().unwrap_or("no details"))
    }
}
