//! `hookswitch actions …`: the operators' hand on actions of a running installation.

use super::operator::{Api, Client, Scope};
use crate::domain::ActionId;
use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::{io::Write, process::ExitCode, time::Duration};

#[derive(Debug, Args)]
pub(super) struct ActionsArgs {
    #[command(subcommand)]
    command: ActionsCommand,
}

#[derive(Debug, Subcommand)]
enum ActionsCommand {
    /// Decide the outcome of an action whose outcome is unknown
    Resolve {
        id: ActionId,
        /// The provider carried it out
        #[arg(long, required_unless_present = "resend", conflicts_with = "resend")]
        sent: bool,
        /// The provider did not carry it out: send it again
        #[arg(long)]
        resend: bool,
        #[command(flatten)]
        api: Api,
    },
    /// Cancel actions that have not gone out. Without --yes: say how many, and of whom
    #[command(group = ArgGroup::new("scope").required(true).multiple(true))]
    Cancel {
        #[command(flatten)]
        scope: Scope,
        /// Do it
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        api: Api,
    },
}

pub(super) async fn run(args: ActionsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ActionsCommand::Resolve { id, sent, api, .. } => {
            let body = json!({ "outcome": if sent { "sent" } else { "resend" } });
            let path = format!("/operator/actions/{id}/resolve");
            let answer = Client::new(&api)?.call(Method::POST, &path, Some(&body)).await?;
            println!("{id}: {}", answer["state"].as_str().unwrap_or("-"));
            Ok(ExitCode::SUCCESS)
        }
        ActionsCommand::Cancel { scope, yes, api } => {
            let body = scope.body().unwrap_or_default();
            cancel(&Client::new(&api)?, &body, yes).await
        }
    }
}

/// Half a second each. More actions that are planned meanwhile look like no progress.
const LOOKS_WITHOUT_PROGRESS_MAX: u32 = 20;
const PLAN: &str = "/operator/actions/cancel?plan=true";

async fn cancel(client: &Client, body: &Value, yes: bool) -> anyhow::Result<ExitCode> {
    let plan = client.call(Method::POST, PLAN, Some(body)).await?;
    show(&plan)?;
    if !yes {
        println!("Nothing was changed; --yes does it.");
        return Ok(ExitCode::SUCCESS);
    }
    let begun = client
        .call(Method::POST, "/operator/actions/cancel", Some(body))
        .await?;
    let all = begun["count"].as_u64().unwrap_or(0);
    let (mut left, mut without_progress) = (all, 0);
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let plan = client.call(Method::POST, PLAN, Some(body)).await?;
        let now = plan["count"].as_u64().unwrap_or(0);
        eprintln!("{} of {all} cancelled", all.saturating_sub(now));
        without_progress = if now < left { 0 } else { without_progress + 1 };
        if without_progress > LOOKS_WITHOUT_PROGRESS_MAX {
            anyhow::bail!("{now} actions are left: more were planned meanwhile, or a job was stopped; run it again")
        }
        left = left.min(now);
    }
    println!("{all} actions cancelled");
    Ok(ExitCode::SUCCESS)
}

fn show(plan: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for one in plan["by"].as_array().map_or(&[][..], Vec::as_slice) {
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        writeln!(
            out,
            "{} {} {} at {}",
            text("org_id"),
            one["count"],
            text("state"),
            text("provider")
        )?;
    }
    writeln!(out, "{} actions in all", plan["count"])?;
    Ok(())
}
