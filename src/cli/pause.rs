//! `hookswitch pause` and `resume`: no attempt begins for what is paused, until it is resumed.

use super::operator::{Api, Client};
use crate::domain::{OrgId, Provider, RuleId};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::{io::Write, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    target: Target,
    /// Why: shown to the organisations that it concerns. Needed to pause
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    api: Api,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    api: Api,
}

/// Without one of these `pause` lists what is paused.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Target {
    /// Everything
    #[arg(long)]
    all: bool,
    /// One organisation
    #[arg(long, value_name = "ID")]
    org: Option<OrgId>,
    /// One provider, of all organisations
    #[arg(long, value_name = "NAME")]
    provider: Option<Provider>,
    /// One rule
    #[arg(long, value_name = "ID")]
    rule: Option<RuleId>,
}

impl Target {
    fn body(&self) -> Option<Value> {
        match self {
            Self { all: true, .. } => Some(json!({ "all": true })),
            Self { org: Some(org), .. } => Some(json!({ "org_id": org.to_string() })),
            Self {
                provider: Some(provider),
                ..
            } => Some(json!({ "provider": provider.as_str() })),
            Self { rule: Some(rule), .. } => Some(json!({ "rule_id": rule.to_string() })),
            _ => None,
        }
    }
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let Some(mut body) = args.target.body() else {
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
    let Some(body) = args.target.body() else {
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
