//! `hookswitch queue dead …`: dead events of a running installation, by its operators' API.

use super::operator::{Api, Client};
use crate::domain::{EventId, OrgId};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use std::{io::Write, process::ExitCode};

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

/// A page of the list.
const PAGE: u32 = 200;

pub(super) async fn run(args: QueueArgs) -> anyhow::Result<ExitCode> {
    let QueueCommand::Dead(command) = args.command;
    match command {
        DeadCommand::List { org, api } => list(&Client::new(&api)?, org).await,
        DeadCommand::Show { id, api } => {
            let event = Client::new(&api)?.call(Method::GET, &path_of(id), None).await?;
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
        let (events, next) = page(client, org, cursor.as_deref()).await?;
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
        match put_back(client, &id.to_string()).await {
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
        let (events, next) = page(client, org, cursor.as_deref()).await?;
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
        match put_back(client, &id).await {
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

/// A page of dead events, and the cursor of the next one.
async fn page(
    client: &Client,
    org: Option<OrgId>,
    cursor: Option<&str>,
) -> anyhow::Result<(Vec<Value>, Option<String>)> {
    let org = org.map_or_else(String::new, |org| format!("&org_id={org}"));
    let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let path = format!("/operator/dead-events?limit={PAGE}{org}{cursor}");
    client.page(&path).await
}

async fn put_back(client: &Client, id: &str) -> anyhow::Result<()> {
    let path = format!("/operator/dead-events/{id}/replay");
    client.call(Method::POST, &path, None).await.map(drop)
}
