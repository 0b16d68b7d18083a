//! The addresses that `HOOKSWITCH_QUEUE_URL` names: one broker, or the nodes of a cluster.

use crate::queue::ConnectError;
use lapin::uri::{AMQPScheme, AMQPUri};
use std::fmt;

/// Seconds between heartbeats where the URL names none. A node that vanished is noticed after two
/// of them.
const HEARTBEAT_SECONDS: u16 = 10;

/// One node. Its `Debug` and `Display` show host and port, never the password.
#[derive(Clone)]
pub(super) struct Address(pub AMQPUri);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.authority.host, self.0.authority.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `amqp://USER:PASSWORD@HOST:PORT,HOST:PORT/VHOST`, or whole URLs separated by commas.
///
/// # Errors
/// Names the part that cannot be read, without user and password.
pub(super) fn addresses(text: &str) -> Result<Vec<Address>, ConnectError> {
    let wrong = |problem: String| ConnectError::Setting {
        setting: "HOOKSWITCH_QUEUE_URL",
        problem,
    };
    if text.matches("://").count() > 1 {
        return text.split(',').map(|url| address(url.trim()).map_err(wrong)).collect();
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("it has no scheme".to_owned()))?;
    // A comma in a password comes before the last at sign, and belongs to no list.
    let (user, rest) = match rest.rfind('@') {
        Some(at) => rest.split_at(at + 1),
        None => ("", rest),
    };
    let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    hosts
        .split(',')
        .map(|host| address(&format!("{scheme}://{user}{}{tail}", host.trim())).map_err(wrong))
        .collect()
}

fn address(url: &str) -> Result<Address, String> {
    let mut uri: AMQPUri = url
        .parse()
        .map_err(|error| format!("an address cannot be read: {error}"))?;
    let host = url.rsplit('@').next().unwrap_or_default();
    let host = host.split_once("://").map_or(host, |(_, host)| host);
    if host.is_empty() || host.starts_with(['/', '?', ':']) {
        return Err("an address has no host".to_owned());
    }
    // The parser reads an IPv6 address as an empty host.
    if let Some((inner, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        inner.clone_into(&mut uri.authority.host);
    }
    // `amqp://host/` means the default virtual host.
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(Address(uri))
}

impl Address {
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        addresses(text)
            .unwrap()
            .into_iter()
            .map(|Address(uri)| {
                let user = uri.authority.userinfo;
                format!(
                    "{} {}:{} {}:{} {}",
                    uri.scheme, user.username, user.password, uri.authority.host, uri.authority.port, uri.vhost
                )
            })
            .collect()
    }

    #[test]
    fn one_address_or_several() {
        assert_eq!(read("amqp://h"), ["amqp guest:guest h:5672 /"]);
        assert_eq!(read("amqps://u:p@h/"), ["amqps u:p h:5671 /"]);
        assert_eq!(read("amqp://u:p%40@h:1/%2f"), ["amqp u:p@ h:1 /"]);
        assert_eq!(
            read("amqp://u:a,b@one:1,two,[::1]:3/v?heartbeat=5"),
            ["amqp u:a,b one:1 v", "amqp u:a,b two:5672 v", "amqp u:a,b ::1:3 v"]
        );
        assert_eq!(
            read("amqp://u:p@one/v, amqp://w:q@two/v"),
            ["amqp u:p one:5672 v", "amqp w:q two:5672 v"]
        );
    }

    #[test]
    fn a_fault_is_named_without_the_password() {
        for text in [
            "amqp://",
            "amqp:///v",
            "amqp://u:secret@:1",
            "amqp://u:secret@h:port",
            "amqp:h",
        ] {
            let problem = addresses(text).unwrap_err().to_string();
            assert!(!problem.contains("secret"), "{problem}");
        }
        let shown = format!("{:?}", addresses("amqp://u:secret@h").unwrap());
        assert_eq!(shown, "[h:5672]");
    }
}
