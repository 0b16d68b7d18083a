//! `kafka://host:port,host:port`, and the settings that every client shares.

use super::KafkaSettings;
use crate::queue::ConnectError;
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use secrecy::ExposeSecret;

/// Kafka's usual port, for an address without one.
const PORT: u16 = 9092;

/// Mechanisms that a build with TLS knows. Without TLS librdkafka has no SHA, so no SCRAM.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

fn fault(setting: &'static str, problem: impl Into<String>) -> ConnectError {
    ConnectError::Setting {
        setting,
        problem: problem.into(),
    }
}

/// The addresses of a `kafka:` URL as librdkafka takes them.
fn brokers(url: &str) -> Result<String, ConnectError> {
    let problem = |problem: &str| {
        let expected = "expected kafka://host:port,host:port";
        fault("HOOKSWITCH_QUEUE_URL", format!("{problem}; {expected}"))
    };
    let list = url
        .strip_prefix("kafka://")
        .ok_or_else(|| problem("it does not begin with kafka://"))?;
    let list = list.strip_suffix('/').unwrap_or(list);
    if list.contains('@') {
        return Err(problem(
            "user and password belong into HOOKSWITCH_KAFKA_SASL_USERNAME and HOOKSWITCH_KAFKA_SASL_PASSWORD",
        ));
    }
    if list.contains(['/', '?', '#']) {
        return Err(problem(
            "the addresses are all that it holds: the topic is HOOKSWITCH_KAFKA_TOPIC",
        ));
    }
    let addresses: Option<Vec<_>> = list.split(',').map(|text| address(text.trim())).collect();
    addresses
        .map(|addresses| addresses.join(","))
        .ok_or_else(|| problem("an address is not host:port"))
}

/// `None`: no host, or a port that is none.
fn address(text: &str) -> Option<String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        // An IPv6 address keeps its brackets.
        let (host, port) = rest.split_once(']')?;
        (
            format!("[{host}]"),
            port.strip_prefix(':').or(port.is_empty().then_some(""))?,
        )
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        (host.to_owned(), port)
    };
    let is_host = !host.is_empty() && host != "[]" && !host.contains(char::is_whitespace);
    let port = if port.is_empty() { PORT } else { port.parse().ok()? };
    is_host.then(|| format!("{host}:{port}"))
}

/// The settings that producer, consumers and the admin client share.
///
/// # Errors
/// Says which setting is wrong, or missing in this build.
pub(super) fn client_config(url: &str, settings: &KafkaSettings) -> Result<ClientConfig, ConnectError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers(url)?)
        .set("client.id", "hookswitch")
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (settings.tls, settings.sasl_mechanism.is_some()) {
        (false, false) => "plaintext",
        (false, true) => "sasl_plaintext",
        (true, false) => "ssl",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if settings.tls {
        set_tls(&mut config, settings)?;
    } else if settings.tls_ca_file.is_some() {
        return Err(fault(
            "HOOKSWITCH_KAFKA_TLS_CA_FILE",
            "is set, and HOOKSWITCH_KAFKA_TLS is not true",
        ));
    }
    if let Some(mechanism) = &settings.sasl_mechanism {
        set_sasl(&mut config, settings, mechanism)?;
    }
    Ok(config)
}

fn set_tls(config: &mut ClientConfig, settings: &KafkaSettings) -> Result<(), ConnectError> {
    if !cfg!(feature = "kafka-tls") {
        return Err(fault(
            "HOOKSWITCH_KAFKA_TLS",
            "this build has no TLS for Kafka; build with --features kafka-tls",
        ));
    }
    config.set("ssl.endpoint.identification.algorithm", "https");
    if let Some(file) = &settings.tls_ca_file {
        std::fs::metadata(file).map_err(|error| {
            fault(
                "HOOKSWITCH_KAFKA_TLS_CA_FILE",
                format!("{file} cannot be read: {error}"),
            )
        })?;
        config.set("ssl.ca.location", file);
    }
    Ok(())
}

fn set_sasl(config: &mut ClientConfig, settings: &KafkaSettings, mechanism: &str) -> Result<(), ConnectError> {
    if !MECHANISMS.contains(&mechanism) {
        return Err(fault(
            "HOOKSWITCH_KAFKA_SASL_MECHANISM",
            format!("expected one of {}", MECHANISMS.join(", ")),
        ));
    }
    if mechanism != "PLAIN" && !cfg!(feature = "kafka-tls") {
        return Err(fault(
            "HOOKSWITCH_KAFKA_SASL_MECHANISM",
            "this build knows PLAIN only; build with --features kafka-tls",
        ));
    }
    let username = settings
        .sasl_username
        .as_deref()
        .ok_or_else(|| fault("HOOKSWITCH_KAFKA_SASL_USERNAME", "is missing"))?;
    let password = settings
        .sasl_password
        .as_ref()
        .ok_or_else(|| fault("HOOKSWITCH_KAFKA_SASL_PASSWORD", "is missing"))?;
    config
        .set("sasl.mechanism", mechanism)
        .set("sasl.username", username)
        .set("sasl.password", password.expose_secret());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_or_more_addresses() {
        let table = [
            ("kafka://broker:9093", Some("broker:9093")),
            ("kafka://broker", Some("broker:9092")),
            ("kafka://broker/", Some("broker:9092")),
            ("kafka://a:1,b:2, c", Some("a:1,b:2,c:9092")),
            ("kafka://127.0.0.1:9092", Some("127.0.0.1:9092")),
            ("kafka://[::1]:9092,[fe80::1]", Some("[::1]:9092,[fe80::1]:9092")),
            ("kafka://", None),
            ("kafka:broker:9092", None),
            ("kafka://a:1,,b:2", None),
            ("kafka://a:port", None),
            ("kafka://a:70000", None),
            ("kafka://[::1", None),
            ("kafka://[]:1", None),
            ("kafka://user:secret@broker:9092", None),
            ("kafka://broker:9092/topic", None),
            ("kafka://broker:9092?acks=1", None),
        ];
        for (url, expected) in table {
            assert_eq!(brokers(url).ok().as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated_since_it_may_hold_a_password() {
        let error = brokers("kafka://user:secret@broker:9092").unwrap_err().to_string();
        assert!(
            !error.contains("secret") && error.contains("HOOKSWITCH_KAFKA_SASL_PASSWORD"),
            "{error}"
        );
    }

    fn setting_at_fault(settings: &KafkaSettings) -> Option<&'static str> {
        match client_config("kafka://broker", settings) {
            Err(ConnectError::Setting { setting, .. }) => Some(setting),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn security_is_checked_before_a_connection_is_made() {
        let plain = KafkaSettings {
            sasl_mechanism: Some("PLAIN".into()),
            sasl_username: Some("user".into()),
            sasl_password: Some("secret".to_owned().into()),
            ..KafkaSettings::default()
        };
        assert_eq!(setting_at_fault(&plain), None);
        let config = client_config("kafka://broker", &plain).unwrap();
        assert_eq!(config.get("security.protocol"), Some("sasl_plaintext"));
        let unknown = KafkaSettings {
            sasl_mechanism: Some("GSSAPI".into()),
            ..plain.clone()
        };
        assert_eq!(setting_at_fault(&unknown), Some("HOOKSWITCH_KAFKA_SASL_MECHANISM"));
        let without_password = KafkaSettings {
            sasl_password: None,
            ..plain.clone()
        };
        assert_eq!(
            setting_at_fault(&without_password),
            Some("HOOKSWITCH_KAFKA_SASL_PASSWORD")
        );
        let without_user = KafkaSettings {
            sasl_username: None,
            ..plain
        };
        assert_eq!(setting_at_fault(&without_user), Some("HOOKSWITCH_KAFKA_SASL_USERNAME"));
        let ca_without_tls = KafkaSettings {
            tls_ca_file: Some("/ca.pem".into()),
            ..KafkaSettings::default()
        };
        assert_eq!(setting_at_fault(&ca_without_tls), Some("HOOKSWITCH_KAFKA_TLS_CA_FILE"));
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn a_build_without_tls_says_so() {
        let tls = KafkaSettings {
            tls: true,
            ..KafkaSettings::default()
        };
        assert_eq!(setting_at_fault(&tls), Some("HOOKSWITCH_KAFKA_TLS"));
    }

    #[cfg(feature = "kafka-tls")]
    #[test]
    fn tls_checks_the_name_in_the_certificate() {
        let tls = KafkaSettings {
            tls: true,
            ..KafkaSettings::default()
        };
        let config = client_config("kafka://broker", &tls).unwrap();
        assert_eq!(config.get("security.protocol"), Some("ssl"));
        assert_eq!(config.get("ssl.endpoint.identification.algorithm"), Some("https"));
        let missing = KafkaSettings {
            tls_ca_file: Some("/no/such/file.pem".into()),
            ..tls
        };
        assert_eq!(setting_at_fault(&missing), Some("HOOKSWITCH_KAFKA_TLS_CA_FILE"));
    }
}
