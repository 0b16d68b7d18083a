//! `hookswitch token`: bearer tokens for the admin API, signed with the installation's own secret.
//!
//! People at a terminal and `dev` enter. **Invariant:** a token is made with the settings that the
//! admin API verifies with, or not at all.

use crate::{
    admin::{Role, SECRET_BYTES_MIN},
    config::AdminSettings,
    domain::{Clock, OrgId, Timestamp},
};
use clap::Args;
use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::{io::Write, time::Duration};

/// Make a bearer token for the admin API. Needs HOOKSWITCH_JWT_SECRET, or
/// HOOKSWITCH_OPERATOR_JWT_SECRET for operators.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("owner_of_token").required(true).args(["org", "operator"])))]
pub struct TokenArgs {
    /// The organisation's id.
    #[arg(long, value_name = "ID")]
    org: Option<OrgId>,
    /// A token of an operator of the installation.
    #[arg(long)]
    operator: bool,
    /// Role within the organisation: owner (default), admin, member or viewer.
    #[arg(long, value_parser = parse_role, conflicts_with = "operator")]
    role: Option<Role>,
    /// How long it is valid.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    hours: u32,
    /// The person it is for, as the audit log shows it.
    #[arg(long, default_value = "cli", value_name = "NAME")]
    subject: String,
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::find(text).ok_or_else(|| "expected owner, admin, member or viewer".to_owned())
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("{name} is not set; set it to the secret that the admin API runs with")]
    NoSecret { name: &'static str },
    #[error("HOOKSWITCH_JWT_JWKS_URL is set: tokens of organisations are made by that identity provider, not here")]
    ByIdentityProvider,
    #[error("{name} has fewer than {SECRET_BYTES_MIN} bytes; make one with `openssl rand -hex 32`")]
    TooShort { name: &'static str },
    #[error("the token could not be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// The holder of a token, and its lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The actor in the audit log.
    pub subject: &'a str,
    pub now: Timestamp,
    pub valid_for: Duration,
}

/// A token of an organisation.
///
/// # Errors
/// The secret is missing or too short, or tokens come from an identity provider.
pub fn mint_org_token(settings: &AdminSettings, org: OrgId, role: Role, grant: Grant<'_>) -> Result<String, MintError> {
    if settings.jwt_jwks_url.is_some() {
        return Err(MintError::ByIdentityProvider);
    }
    let own = json!({ "app_metadata": { "org_id": org, "role": role.as_str() } });
    sign(
        "HOOKSWITCH_JWT_SECRET",
        settings.jwt_secret.as_ref(),
        &settings.jwt_issuer,
        &settings.jwt_audience,
        grant,
        own,
    )
}

/// A token of an operator: issuer, audience and key of its own.
///
/// # Errors
/// The secret is missing or too short.
pub fn mint_operator_token(settings: &AdminSettings, grant: Grant<'_>) -> Result<String, MintError> {
    let own = json!({ "hookswitch_role": "operator" });
    let secret = settings.operator_jwt_secret.as_ref();
    sign(
        "HOOKSWITCH_OPERATOR_JWT_SECRET",
        secret,
        &settings.operator_jwt_issuer,
        &settings.operator_jwt_audience,
        grant,
        own,
    )
}

fn sign(
    name: &'static str,
    secret: Option<&SecretString>,
    issuer: &str,
    audience: &str,
    grant: Grant<'_>,
    own: Value,
) -> Result<String, MintError> {
    let secret = secret.ok_or(MintError::NoSecret { name })?;
    if secret.expose_secret().len() < SECRET_BYTES_MIN {
        return Err(MintError::TooShort { name });
    }
    let now = grant.now.as_seconds();
    let mut claims = json!({
        "iss": issuer,
        "aud": audience,
        "sub": grant.subject,
        "iat": now,
        "exp": (grant.now + grant.valid_for).as_seconds(),
    });
    if let (Value::Object(claims), Value::Object(own)) = (&mut claims, own) {
        claims.extend(own);
    }
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(secret.expose_secret().as_bytes()),
    )
    .map_err(MintError::Sign)
}

/// Prints the token and nothing else, so that `curl -H "Authorization: Bearer $(hookswitch token
/// --operator)"` works.
///
/// # Errors
/// See [`MintError`]; or standard output is closed.
pub fn run(args: &TokenArgs, settings: &AdminSettings, clock: &dyn Clock) -> anyhow::Result<()> {
    let token = make(args, settings, clock)?;
    Ok(writeln!(std::io::stdout().lock(), "{token}")?)
}

fn make(args: &TokenArgs, settings: &AdminSettings, clock: &dyn Clock) -> Result<String, MintError> {
    let grant = Grant {
        subject: &args.subject,
        now: clock.now(),
        valid_for: Duration::from_hours(args.hours.into()),
    };
    match args.org {
        Some(org) => mint_org_token(settings, org, args.role.unwrap_or(Role::Owner), grant),
        None => mint_operator_token(settings, grant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ManualClock;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TokenArgs,
    }

    const ORG: &str = "0198c0de-0000-7000-8000-000000000001";

    /// The claims of the token that a command line makes; `None` where the line is refused.
    fn claims(line: &[&str]) -> Option<Value> {
        let args = Line::try_parse_from(std::iter::once(&"token").chain(line)).ok()?.args;
        let settings = AdminSettings {
            jwt_secret: Some("an organisations' test secret, 32+ bytes".to_owned().into()),
            operator_jwt_secret: Some("an operators' test secret of 32+ bytes".to_owned().into()),
            ..AdminSettings::default()
        };
        let token = make(
            &args,
            &settings,
            &ManualClock::at(Timestamp::from_seconds(1_764_000_000)),
        )
        .expect("a token");
        let part = token.split('.').nth(1).expect("three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    }

    #[test]
    fn a_token_says_what_was_asked_for_and_nothing_else() {
        for (role, line) in [
            ("owner", vec!["--org", ORG]),
            ("owner", vec!["--org", ORG, "--role", "owner"]),
            ("admin", vec!["--role", "admin", "--org", ORG]),
            ("member", vec!["--org", ORG, "--role", "member", "--subject", "ann"]),
            ("viewer", vec!["--org", ORG, "--role", "viewer", "--hours", "1"]),
        ] {
            let claims = claims(&line).unwrap_or_else(|| panic!("{line:?} is refused"));
            assert_eq!(
                claims["app_metadata"],
                json!({ "org_id": ORG, "role": role }),
                "{line:?}"
            );
            assert_eq!(claims["hookswitch_role"], Value::Null, "{line:?}");
            let hours = if line.contains(&"--hours") { 1 } else { 24 };
            assert_eq!(claims["exp"], 1_764_000_000 + hours * 3600, "{line:?}");
            let subject = if line.contains(&"--subject") { "ann" } else { "cli" };
            assert_eq!(claims["sub"], subject, "{line:?}");
        }
        for line in [
            vec!["--operator"],
            vec!["--operator", "--hours", "2", "--subject", "bob"],
        ] {
            let claims = claims(&line).unwrap_or_else(|| panic!("{line:?} is refused"));
            assert_eq!(claims["hookswitch_role"], "operator", "{line:?}");
            assert_eq!(claims["app_metadata"], Value::Null, "{line:?}");
        }
    }

    #[test]
    fn a_line_that_does_not_say_whose_token_it_is_makes_none() {
        for line in [
            vec![],
            vec!["--role", "viewer"],
            vec!["--hours", "1"],
            vec!["--operator", "--role", "viewer"],
            vec!["--operator", "--org", ORG],
            vec!["--org", ORG, "--role", "VIEWER"],
            vec!["--org", "not-an-id"],
            vec!["--org", ORG, "--hours", "0"],
        ] {
            assert_eq!(claims(&line), None, "{line:?}");
        }
    }
}
