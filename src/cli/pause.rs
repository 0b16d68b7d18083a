//! `hookswitch pause` and `resume`: no attempt begins for what is paused, until it is resumed.

use super::operator::{Api, Client, Scope};
use clap::{ArgGroup, Args};
use http::Method;
use serde_json::json;
use std::{io::Write, process::ExitCode};

/// Without a scope `pause` lists what is paused.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").multiple(false))]
pub(super) struct PauseArgs {
    #[command(flatten)]
    scope: Scope,
    /// Why: shown to the organisations that it concerns. Needed to pause
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    api: Api,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").multiple(false))]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    api: Api,
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let Some(mut body) = args.scope.body() else {
        return list(&client).await;
    };
    let Some(reason) = args.reason else {
        anyhow::bail!("--reason is missing: say why, for the others")
    };
    body["reason"] = reason.into();
    let answer = client.call(Method::POST, "/operator/pause", Some(&body)).await?;
    let word = if answer["is_new"] == json!(true) {
        "paused: within a second no attempt begins"
    } else {
        "it was paused already"
    };
    println!("{word}");
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client) -> anyhow::Result<ExitCode> {
    let answer = client.call(Method::GET, "/operator/pauses", None).await?;
    let mut out = std::io::stdout().lock();
    let pauses = answer["pauses"].as_array().map_or(&[][..], Vec::as_slice);
    for one in pauses {
        let named = ["rule_id", "org_id", "provider"]
            .iter()
            .find_map(|name| one[name].as_str());
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        writeln!(
            out,
            "{} {}  since {}  by {}: {}",
            text("scope"),
            named.unwrap_or("everything"),
            text("since"),
            text("actor"),
            text("reason")
        )?;
    }
    if pauses.is_empty() {
        writeln!(out, "nothing is paused")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn resume(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let Some(body) = args.scope.body() else {
        anyhow::bail!("name what to resume: --all, --org, --provider or --rule")
    };
    let client = Client::new(&args.api)?;
    let answer = client.call(Method::POST, "/operator/resume", Some(&body)).await?;
    if answer["was_paused"] == json!(true) {
        println!(
            "resumed; {} actions that it had held back are due now",
            answer["released"]
        );
    } else {
        println!("it was not paused; {} actions are due now", answer["released"]);
    }
    Ok(ExitCode::SUCCESS)
}
