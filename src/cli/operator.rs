//! The operators' API of a running installation, for the commands that use it. So they work on
//! every database, also on one that belongs to the running process.

use super::{
    dev_state::DevState,
    token::{Grant, mint_operator_token, mint_org_token},
};
use crate::{
    admin::Role,
    config::{Environment, Settings},
    domain::{Clock, OrgId, Provider, RuleId, SystemClock},
};
use anyhow::{Context, bail};
use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use std::{path::PathBuf, time::Duration};

/// Where the admin API is. With HOOKSWITCH_OPERATOR_JWT_SECRET set, a token is made with it; else
/// the files of `dev` are looked for.
#[derive(Debug, Args)]
pub(super) struct Api {
    /// The base URL of the admin API, where it is not the one of the settings or of `dev`
    #[arg(long)]
    url: Option<String>,
    /// The directory of `hookswitch dev`
    #[arg(long, default_value = ".hookswitch")]
    data_dir: PathBuf,
}

/// The organisations or rules that a command concerns. The command says with a group `scope` how
/// many of them it takes.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Scope {
    /// Everything, of all organisations
    #[arg(long, group = "scope")]
    all: bool,
    /// One organisation
    #[arg(long, value_name = "ID", group = "scope")]
    org: Option<OrgId>,
    /// One provider
    #[arg(long, value_name = "NAME", group = "scope")]
    provider: Option<Provider>,
    /// One rule
    #[arg(long, value_name = "ID", group = "scope")]
    rule: Option<RuleId>,
}

impl Scope {
    /// The fields of a request; none where nothing was named.
    pub(super) fn body(&self) -> Option<Value> {
        let fields = [
            ("all", self.all.then(|| true.into())),
            ("org_id", self.org.map(|org| org.to_string().into())),
            ("provider", self.provider.map(|provider| provider.as_str().into())),
            ("rule_id", self.rule.map(|rule| rule.to_string().into())),
        ];
        let named: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        (!named.is_empty()).then_some(Value::Object(named))
    }
}

const TOKEN_VALID_FOR: Duration = Duration::from_mins(10);

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    pub(super) fn new(api: &Api) -> anyhow::Result<Self> {
        let settings = Settings::load(&Environment::from_process())?.admin;
        let (base, token) = if settings.operator_jwt_secret.is_some() {
            let base = format!("http://{}", settings.admin_address);
            (base, mint_operator_token(&settings, grant())?)
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

    /// A page of a list, and the cursor of the next one.
    pub(super) async fn page(&self, path: &str) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let mut page = self.call(Method::GET, path, None).await?;
        let Value::Array(rows) = page["data"].take() else {
            bail!("{} did not answer with a list", self.base)
        };
        Ok((rows, page["next_cursor"].as_str().map(str::to_owned)))
    }

    /// The same installation, as the owner of an organisation.
    pub(super) fn of_org(&self, org: OrgId) -> anyhow::Result<Self> {
        let settings = Settings::load(&Environment::from_process())?.admin;
        Ok(Self {
            http: self.http.clone(),
            base: self.base.clone(),
            token: mint_org_token(&settings, org, Role::Owner, grant())?,
        })
    }

    /// The answer, or the API's words where it refuses.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        match self.ask(method, path, body).await? {
            Answer::Done(body) => Ok(body),
            Answer::Refused(refusal) => Err(anyhow::anyhow!("{}: {}", refusal.status, refusal.detail)),
        }
    }

    /// # Errors
    /// There is no answer. A refusal is one.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("no answer from the admin API at {}", self.base))?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(Answer::Done(body));
        }
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        Ok(Answer::Refused(ApiRefusal {
            status,
            code: text("code").unwrap_or_else(|| status.to_string()),
            detail: text("detail").unwrap_or_else(|| "no details".to_owned()),
        }))
    }
}

pub(super) enum Answer {
    Done(Value),
    Refused(ApiRefusal),
}

/// A refusal in the API's words.
pub(super) struct ApiRefusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) detail: String,
}

fn grant() -> Grant<'static> {
    Grant {
        subject: "cli",
        now: SystemClock.now(),
        valid_for: TOKEN_VALID_FOR,
    }
}
