//! Shared by tests: the real binary as a process, signed webhooks, waiting for conditions.

#[cfg(feature = "rabbitmq")]
pub mod amqp;
pub mod app;
pub mod browser;
pub mod db;
pub mod dev;
pub mod hooks;
pub mod http2;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod network;

use std::{future::Future, time::Duration};

/// How long a condition may take before the test fails. Far above what it takes, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` gives something, or fails with what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server of a URL that has a user, on this machine.
pub fn address_in(url: &str) -> std::net::SocketAddr {
    let (_, tail) = url.rsplit_once('@').expect("a URL with a user");
    let host = tail.split('/').next().expect("a host");
    let host = host.replace("localhost", "127.0.0.1");
    host.parse().expect("an address and a port")
}

/// A metric of the text of `/metrics`, summed over its labels.
pub fn metric_sum(text: &str, name: &str) -> f64 {
    let is_of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    text.lines()
        .filter(is_of)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// How much higher a server of a test's own looks for its ports: above those of `port_base`, below
/// those of outgoing connections. While it is stopped, nobody takes them.
#[cfg(any(feature = "rabbitmq", feature = "kafka"))]
pub fn port_offset(directory: &std::path::Path) -> String {
    let hash = crc32c::crc32c(directory.as_os_str().as_encoded_bytes());
    (9_000 + hash % 1_700).to_string()
}

/// A client for loopback: no proxy, no waiting for ever.
pub fn client() -> reqwest::Client {
    hookswitch::cli::install_crypto_provider();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client without files or proxies can be built")
}
pub mod postgres;
pub mod schema;
pub mod serve;
pub mod wire;
