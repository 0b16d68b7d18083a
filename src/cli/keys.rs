//! `hookswitch keys …`: key-encryption keys. `generate` and `ids` use no store; `status` and
//! `rotate` ask a running installation by its operators' API.

use super::operator::{Api, Client};
use crate::{
    config::{Environment, Settings},
    vault::Keyring,
};
use anyhow::Context;
use clap::{Args, Subcommand};
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Print a fresh key-encryption key: 64 hex characters, for ENCRYPTION_KEY or as the first of
    /// HOOKSWITCH_KEYRING.
    Generate,
    /// Print the names of the keys in HOOKSWITCH_KEYRING, newest first. A name tells which key it
    /// is, never what it is
    Ids,
    /// Say which key seals, what stands under each key, which instances hold it, and which keys may
    /// leave the ring; exit code 1 when something does not open
    Status {
        #[command(flatten)]
        api: Api,
    },
    /// Make the newest key of the ring primary, and wrap every data key with it. Everything runs on
    /// meanwhile; cut off, it goes on where it stopped
    Rotate {
        /// The name of the key to make primary, where it is not the first of the ring
        #[arg(long, value_name = "NAME")]
        key: Option<String>,
        #[command(flatten)]
        api: Api,
    },
}

/// # Errors
/// The system gives no randomness, standard output is closed, or the API refuses.
pub async fn run(KeysArgs { command }: KeysArgs) -> anyhow::Result<ExitCode> {
    match command {
        // The key and nothing else, so that `ENCRYPTION_KEY=$(hookswitch keys generate)` works.
        KeysCommand::Generate => generate(&mut std::io::stdout().lock()),
        KeysCommand::Ids => ids(&mut std::io::stdout().lock()),
        KeysCommand::Status { api } => {
            let status = Client::new(&api)?.call(Method::GET, "/operator/keys", None).await?;
            show_status(&status, &mut std::io::stdout().lock())
        }
        KeysCommand::Rotate { key, api } => rotate(&Client::new(&api)?, key).await,
    }
}

fn generate(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    writeln!(out, "{}", Keyring::generate()?.expose_secret())?;
    Ok(ExitCode::SUCCESS)
}

fn ids(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&Environment::from_process())?;
    for id in Keyring::load(&settings.vault)?.ids() {
        writeln!(out, "{id}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn show_status(status: &Value, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let instances = list(status, "instances");
    for key in list(status, "keys") {
        let word = match (&key["is_primary"], &key["may_leave"]) {
            (Value::Bool(true), _) => "primary: every instance seals with it",
            (_, Value::Bool(true)) => "may leave the ring: nothing needs it",
            _ => "has to stay in the ring",
        };
        writeln!(
            out,
            "{}  {word}; {} data keys, {} events; held by {} of {} instances",
            text(&key["key"]),
            key["data_keys"],
            key["events"],
            key["instances"],
            instances.len()
        )?;
    }
    for one in instances {
        let keys: Vec<&str> = list(one, "keys").iter().map(text).collect();
        writeln!(
            out,
            "instance {} ({})  seals with {}; holds {}; seen {}",
            text(&one["name"]),
            text(&one["roles"]),
            text(&one["seals_with"]),
            keys.join(", "),
            text(&one["seen_at"])
        )?;
    }
    let set_aside = list(status, "set_aside");
    show_set_aside(set_aside, out)?;
    Ok(if set_aside.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show_set_aside(rows: &[Value], out: &mut impl Write) -> std::io::Result<()> {
    for row in rows {
        writeln!(
            out,
            "does not open: data key {} of organisation {}, under the key {}: {}",
            row["version"],
            text(&row["org_id"]),
            text(&row["key"]),
            text(&row["problem"])
        )?;
    }
    Ok(())
}

/// Instances look within seconds of a promotion. One that still seals with a former key may have
/// made a data key under it, so that one more pass is needed.
const PASSES_MAX: u32 = 30;
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

/// The work of the passes so far.
#[derive(Default)]
struct Done {
    rewrapped: u64,
    set_aside: Vec<Value>,
}

async fn rotate(client: &Client, key: Option<String>) -> anyhow::Result<ExitCode> {
    let mut done = Done::default();
    let mut primary = key;
    for _ in 0..PASSES_MAX {
        primary = Some(pass(client, primary, &mut done).await?);
        let status = client.call(Method::GET, "/operator/keys", None).await?;
        let is_adopted = list(&status, "instances")
            .iter()
            .all(|one| one["seals_with"] == status["primary"]);
        let left = others(&status);
        if is_adopted && left <= done.set_aside.len() as u64 {
            return finish(&status, &done);
        }
        tokio::time::sleep(BETWEEN_PASSES).await;
    }
    anyhow::bail!(
        "not every instance seals with the new key yet, or data keys are still made under a former one; run \
         `hookswitch keys rotate` again, and see `hookswitch keys status`"
    )
}

/// Data keys under other keys than the primary one.
fn others(status: &Value) -> u64 {
    list(status, "keys")
        .iter()
        .filter(|key| key["is_primary"] == json!(false))
        .filter_map(|key| key["data_keys"].as_u64())
        .sum()
}

/// Wraps what is there now. Returns the name of the primary key, so that each step means the same
/// one whichever instance answers.
async fn pass(client: &Client, key: Option<String>, done: &mut Done) -> anyhow::Result<String> {
    let (mut key, mut after) = (key, Value::Null);
    done.set_aside.clear();
    loop {
        let body = json!({ "key": key, "after": after });
        let step = client.call(Method::POST, "/operator/keys/rotate", Some(&body)).await?;
        let primary = step["primary"].as_str().context("an answer without a key")?.to_owned();
        if step["is_promoted"] == json!(true) {
            println!("{primary} is primary: every instance seals with it from now on");
        }
        done.rewrapped += step["rewrapped"].as_u64().unwrap_or(0);
        done.set_aside.extend_from_slice(list(&step, "set_aside"));
        let left = step["left"].as_u64().unwrap_or(0);
        progress(done.rewrapped, left, step["next"].is_null());
        if step["next"].is_null() {
            return Ok(primary);
        }
        (key, after) = (Some(primary), step["next"].clone());
    }
}

/// A bar on a terminal; a line at the end of each pass elsewhere.
fn progress(done: u64, left: u64, is_end: bool) {
    const WIDTH: u64 = 40;
    let all = (done + left).max(1);
    let bar = usize::try_from(done * WIDTH / all).unwrap_or(0);
    let line = format!("{done} of {} data keys", done + left);
    if std::io::stderr().is_terminal() {
        let end = if is_end { "\n" } else { "" };
        eprint!("\r[{:<40}] {line}{end}", "#".repeat(bar));
    } else if is_end {
        eprintln!("{line}");
    }
}

fn finish(status: &Value, done: &Done) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} data keys wrapped again", done.rewrapped)?;
    show_set_aside(&done.set_aside, &mut out)?;
    for key in list(status, "keys")
        .iter()
        .filter(|key| key["is_primary"] == json!(false))
    {
        let word = if key["may_leave"] == json!(true) {
            "may leave the ring: nothing needs it"
        } else {
            "has to stay in the ring; `hookswitch keys status` says why"
        };
        writeln!(out, "{}  {word}", text(&key["key"]))?;
    }
    Ok(if done.set_aside.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generate_prints_a_key_that_production_takes() {
        let mut out = Vec::new();
        generate(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.len(), 65);
        let settings = crate::config::VaultSettings {
            encryption_key: Some(text.trim_end().into()),
            ..Default::default()
        };
        assert!(!Keyring::load(&settings).unwrap().is_dev());
    }
}
