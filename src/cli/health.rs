//! `hookswitch health`: whether the process on this machine is ready, as an exit code.
//!
//! The command line enters. **Invariant:** it asks what a load balancer asks, `/readyz`, so that a
//! container's health and its traffic cannot disagree.

use crate::config::{Environment, Settings};
use anyhow::Context;
use std::{io::Write, net::SocketAddr, process::ExitCode, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A container's health check gives up later than this.
const ANSWER_MAX: Duration = Duration::from_secs(4);

pub(super) async fn run() -> anyhow::Result<ExitCode> {
    let address = Settings::load(&Environment::from_process())?.admin.operations_address;
    let answer = tokio::time::timeout(ANSWER_MAX, ask(&address))
        .await
        .with_context(|| format!("{address} did not answer within {} seconds", ANSWER_MAX.as_secs()))?
        .with_context(|| format!("{address} does not answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    writeln!(std::io::stdout(), "{}", body.trim())?;
    Ok(if head.split(' ').nth(1) == Some("200") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One request by hand: a client with TLS and a pool would only make the command slower.
async fn ask(address: &str) -> std::io::Result<String> {
    let mut stream = match address.parse::<SocketAddr>() {
        // All addresses of the machine: this one is among them.
        Ok(address) if address.ip().is_unspecified() => TcpStream::connect(("localhost", address.port())).await?,
        _ => TcpStream::connect(address).await?,
    };
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
