//! `hookswitch verify`: explains to a person why a webhook does not verify.
//!
//! The command line enters. **Invariant:** neither the secret nor anything made from it is printed.

mod case;
mod near;

use crate::{
    domain::{Clock, Source, SystemClock},
    source::Refusal,
};
use anyhow::Context;
use case::Case;
use std::{
    io::{Read, Write},
    path::PathBuf,
    process::ExitCode,
};

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// The sender: vapi or twilio.
    source: Source,
    /// One request as JSON (method, url, headers, body, secret, plan, now), or many under `cases`;
    /// `-` reads standard input.
    file: PathBuf,
    /// `human`, or `json` for one object a line: name, verdict, reason, hint.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Human,
    Json,
}

/// # Errors
/// The file cannot be read, or a case has another form; names the field and the case.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let (text, from) = if args.file.as_os_str() == "-" {
        let mut text = Vec::new();
        std::io::stdin()
            .read_to_end(&mut text)
            .context("could not read standard input")?;
        (text, "standard input".to_owned())
    } else {
        (
            std::fs::read(&args.file).with_context(|| format!("could not read {}", args.file.display()))?,
            args.file.display().to_string(),
        )
    };
    let all_good = report(
        args.source,
        &text,
        args.format,
        &SystemClock,
        &mut std::io::stdout().lock(),
    )
    .with_context(|| format!("{from} cannot be verified"))?;
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes one line a case. `true`: every verdict is valid, and none differs from its case's
/// `expect`. A script over vectors with invalid ones compares the lines, because one invalid
/// webhook already makes the exit code 1.
///
/// # Errors
/// As [`run`].
pub fn report(
    source: Source,
    file: &[u8],
    format: Format,
    clock: &dyn Clock,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut all_good = true;
    for case in case::read(source, file, clock.now())? {
        let verdict = case.request.verdict();
        let hint = verdict.err().and_then(|refusal| near::hint(&case.request, refusal));
        all_good &= verdict.is_ok() && case.expect_valid.unwrap_or(true);
        let line = match format {
            Format::Json => json_line(&case, verdict, hint),
            Format::Human => human_line(&case, verdict, hint),
        };
        writeln!(out, "{line}").context("could not write the verdict")?;
    }
    Ok(all_good)
}

fn reason(case: &Case, verdict: Result<(), Refusal>) -> String {
    match verdict {
        Ok(()) if case.request.secret_is_short() => {
            "the signature matches; the secret is shorter than 16 bytes, and Hookswitch does not save such a secret"
                .to_owned()
        }
        Ok(()) => "the signature matches".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

const fn word(verdict: Result<(), Refusal>) -> &'static str {
    if verdict.is_ok() { "valid" } else { "invalid" }
}

fn json_line(case: &Case, verdict: Result<(), Refusal>, hint: Option<String>) -> String {
    #[derive(serde::Serialize)]
    struct Line<'c> {
        name: &'c str,
        verdict: &'static str,
        reason: String,
        hint: Option<String>,
    }
    serde_json::to_string(&Line {
        name: &case.name,
        verdict: word(verdict),
        reason: reason(case, verdict),
        hint,
    })
    .expect("texts serialise")
}

fn human_line(case: &Case, verdict: Result<(), Refusal>, hint: Option<String>) -> String {
    let name: String = case
        .name
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut line = format!("{name}: {}: {}", word(verdict), reason(case, verdict));
    if let Some(hint) = hint {
        line.push_str("; hint: ");
        line.push_str(&hint);
    }
    match case.expect_valid {
        Some(expected) if expected != verdict.is_ok() => line.push_str(if expected {
            " (expected valid)"
        } else {
            " (expected invalid)"
        }),
        _ => {}
    }
    line
}
