//! `hookswitch send`: signs a sample webhook as its provider would, posts it to a running `dev`,
//! and prints the answer.
//!
//! The command line and `dev --demo` enter. **Invariant:** each request has ids of its own, so that
//! none is a duplicate.

use super::{
    dev_state::DevState,
    samples::{Body, SAMPLES, Sample, SampleValues},
};
use crate::{
    domain::{Clock, EndpointId, SecretBytes, Source, SystemClock},
    source::{
        VapiPlan,
        sign::{SignedHeader, TwilioSigner, VapiSigner, form_body},
    },
};
use anyhow::{Context, ensure};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

#[derive(clap::Args, Debug)]
pub struct SendArgs {
    /// Which sample: `vapi/end-of-call-report`; see `--list`.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Lists the samples.
    #[arg(long)]
    list: bool,
    /// How many, each with ids of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How many a second; as fast as they are answered where it is not given.
    #[arg(long)]
    rate: Option<f64>,
    /// The base URL of the ingress, where it is not the one that `dev` says.
    #[arg(long)]
    url: Option<String>,
    /// The directory of `hookswitch dev`.
    #[arg(long, default_value = ".hookswitch")]
    data_dir: PathBuf,
}

/// # Errors
/// No such sample, `dev` was not started, or a setting that makes no request.
pub async fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        for sample in SAMPLES {
            println!("{}", sample.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let name = args.name.as_deref().context("name a sample, or ask for --list")?;
    let sample = Sample::find(name).with_context(|| unknown_sample(name))?;
    if let Some(rate) = args.rate {
        ensure!(rate.is_finite() && rate > 0.0, "--rate: expected a number above 0");
    }
    let sender = Arc::new(Sender::new(
        &DevState::load_started(&args.data_dir)?,
        args.url.as_deref(),
    )?);
    if args.count == 1 {
        let answer = sender.send(sample).await?;
        println!(
            "{name}: {}{}",
            answer.status,
            if answer.status.is_success() {
                String::new()
            } else {
                format!(": {}", answer.body)
            }
        );
        return Ok(if answer.status.is_success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let outcomes = send_many(&sender, sample, args.count, args.rate).await;
    for (outcome, count) in &outcomes {
        println!("{outcome}: {count}");
    }
    Ok(if outcomes.keys().all(|outcome| outcome.starts_with('2')) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn unknown_sample(name: &str) -> String {
    let near: Vec<&str> = SAMPLES
        .iter()
        .map(|sample| sample.name)
        .filter(|known| known.contains(name) || name.contains(known))
        .collect();
    if near.is_empty() {
        format!("there is no sample {name:?}; `hookswitch send --list` lists them")
    } else {
        format!("there is no sample {name:?}; did you mean {}?", near.join(" or "))
    }
}

/// Requests under way at once.
const IN_FLIGHT_MAX: usize = 64;
/// A shorter run shows no progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Returns the count of each outcome: a status, or `no answer`.
async fn send_many(
    sender: &Arc<Sender>,
    sample: &'static Sample,
    count: u32,
    rate: Option<f64>,
) -> BTreeMap<String, u32> {
    let begun = Instant::now();
    let bar = ProgressBar::with_draw_target(Some(count.into()), ProgressDrawTarget::hidden());
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut outcomes = BTreeMap::new();
    let mut under_way = JoinSet::new();
    let mut count_answer = |answer: Result<anyhow::Result<Answer>, tokio::task::JoinError>| {
        let outcome = match answer {
            Ok(Ok(answer)) => answer.status.to_string(),
            Ok(Err(_)) | Err(_) => "no answer".to_owned(),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        if bar.is_hidden() && begun.elapsed() > BAR_AFTER && std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.inc(1);
    };
    for at in 0..count {
        if let Some(rate) = rate {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(f64::from(at) / rate)).await;
        }
        while under_way.len() >= IN_FLIGHT_MAX {
            if let Some(answer) = under_way.join_next().await {
                count_answer(answer);
            }
        }
        let sender = Arc::clone(sender);
        under_way.spawn(async move { sender.send(sample).await });
    }
    while let Some(answer) = under_way.join_next().await {
        count_answer(answer);
    }
    bar.finish_and_clear();
    outcomes
}

/// The answer to a sample.
pub struct Answer {
    pub status: StatusCode,
    /// The id of the event, or of the refusal.
    pub request_id: Option<String>,
    /// Its first kilobyte.
    pub body: String,
}

/// Signs and posts samples for the organisation of a [`DevState`].
pub struct Sender {
    client: reqwest::Client,
    ingress: String,
    values: SampleValues,
    vapi_endpoint: EndpointId,
    vapi: VapiSigner,
    twilio: TwilioSigner,
}

impl Sender {
    /// # Errors
    /// A secret of the file makes no key, or no client can be made.
    pub fn new(dev: &DevState, ingress: Option<&str>) -> anyhow::Result<Self> {
        // A client cannot be built before a provider is installed. The error of a second
        // installation is ignored.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .context("could not make an HTTP client")?;
        Ok(Self {
            client,
            ingress: ingress.unwrap_or(&dev.ingress).trim_end_matches('/').to_owned(),
            values: dev.sample_values(),
            vapi_endpoint: dev.vapi_endpoint_id(),
            vapi: VapiSigner::new(&VapiPlan::default(), &SecretBytes::from(dev.vapi_secret.clone()))
                .context("vapi_secret of dev.json")?,
            twilio: TwilioSigner::auth_token(&SecretBytes::from(dev.twilio_auth_token.clone())),
        })
    }

    /// Posts one sample with ids of its own.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(&self, sample: &Sample) -> anyhow::Result<Answer> {
        let (url, headers, body) = self.signed(sample);
        let mut request = self.client.post(&url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("no answer from {}: is `hookswitch dev` running?", self.ingress))?;
        let status = response.status();
        let request_id = response.headers().get("x-request-id");
        let request_id = request_id.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let mut body = response.text().await.unwrap_or_default();
        body.truncate(body.floor_char_boundary(1024));
        Ok(Answer {
            status,
            request_id,
            body,
        })
    }

    fn signed(&self, sample: &Sample) -> (String, Vec<SignedHeader>, String) {
        let now = SystemClock.now();
        let url = format!("{}/webhooks/{}", self.ingress, sample.source);
        let content_type = |text| (CONTENT_TYPE, HeaderValue::from_static(text));
        match (sample.render(&self.values, now), sample.source) {
            (Body::Form(pairs), _) => {
                let mut headers = self.twilio.sign_form(&url, &pairs);
                headers.push(content_type("application/x-www-form-urlencoded; charset=UTF-8"));
                (url, headers, form_body(&pairs))
            }
            (Body::Json(body), Source::Twilio) => {
                let (url, mut headers) = self.twilio.sign_json(&url, body.as_bytes());
                headers.push(content_type("application/json"));
                (url, headers, body)
            }
            (Body::Json(body), _) => {
                // A message with an assistant's id goes to the shared URL. Any other message goes
                // to the endpoint's own URL.
                let url = if body.contains(&self.values.assistant_id) {
                    url
                } else {
                    format!("{url}/{}", self.vapi_endpoint)
                };
                let mut headers = self.vapi.sign(now, "POST", &url, body.as_bytes());
                headers.push(content_type("application/json"));
                (url, headers, body)
            }
        }
    }
}
