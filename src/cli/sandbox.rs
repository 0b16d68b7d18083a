//! `hookswitch sandbox`: the stand-in providers alone, so that their records outlive a kill of the
//! other processes.
//!
//! The command line and `dev` enter. **Invariant:** it listens on this machine only.

use crate::sandbox::{Accounts, Sandbox, SandboxConfig};
use anyhow::{Context, bail};
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(clap::Args, Debug)]
pub struct SandboxArgs {
    /// Port on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 8083)]
    port: u16,
}

/// A sandbox on its port, bound and not yet serving.
#[derive(Debug)]
pub struct Own(Sandbox);

impl Own {
    /// # Errors
    /// The port is in use; says what to do.
    pub async fn bind(port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let sandbox = Sandbox::bind(address, SandboxConfig::default()).await;
        Ok(Self(sandbox.with_context(|| {
            format!("the sandbox cannot listen on {address}: choose another port, or stop what uses it")
        })?))
    }

    /// `http://127.0.0.1:8083`
    ///
    /// # Errors
    /// The socket has gone.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.0.address()?))
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        self.0.run(stop).await;
    }
}

/// Runs the stand-ins until a signal.
///
/// # Errors
/// The port is in use.
pub async fn run(args: &SandboxArgs) -> anyhow::Result<ExitCode> {
    let sandbox = Own::bind(args.port).await?;
    let url = sandbox.url()?;
    println!("Stand-ins for Twilio, Vapi and a sink for http.post on {url}");
    println!("  what came in   {url}/_requests");
    println!("  use it         hookswitch dev --sandbox-url {url}");
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::join!(sandbox.serve(stop), async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.cancel();
    });
    Ok(ExitCode::SUCCESS)
}

/// Makes accounts known to a running sandbox.
///
/// # Errors
/// No sandbox answers there.
pub async fn register(url: &str, accounts: &Accounts) -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(5))
        .build()?;
    let answer = client.post(format!("{url}/_accounts")).json(accounts).send().await;
    let answer =
        answer.with_context(|| format!("no sandbox answers at {url}: start one with `hookswitch sandbox --port N`"))?;
    if answer.status() != 201 {
        bail!(
            "{url} answers {}, not like a sandbox: start one with `hookswitch sandbox --port N`",
            answer.status()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accounts_of_the_demo_are_registered_and_a_port_in_use_is_said() {
        let own = Own::bind(0).await.expect("a free port");
        let (url, stop) = (own.url().expect("bound"), CancellationToken::new());
        let port = url
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .expect("a port");
        let stopping = stop.clone();
        let ((), ()) = tokio::join!(own.serve(stop), async move {
            register(&url, &Accounts::demo("token", "key"))
                .await
                .expect("registered");
            let error = Own::bind(port).await.expect_err("in use").to_string();
            assert!(error.contains("choose another port"), "{error}");
            stopping.cancel();
        });
        assert!(
            register("http://127.0.0.1:1", &Accounts::default())
                .await
                .expect_err("nobody")
                .to_string()
                .contains("start one with")
        );
    }
}
