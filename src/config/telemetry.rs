//! Settings of logs and traces.

use super::SettingValue;
use secrecy::SecretString;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Human,
    Json,
}

impl SettingValue for LogFormat {
    const KIND: &'static str = "human or json";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("expected human or json".to_owned()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
        .to_owned()
    }
}

section! {
    /// Logs and traces.
    TelemetrySettings {
        /// Lines for people, or one JSON object a line.
        log_format: LogFormat = LogFormat::Json, "HOOKSWITCH_LOG_FORMAT";
        /// The level of the log, or levels by target such as info,hookswitch::worker=debug.
        log_level: String = "info".into(), "HOOKSWITCH_LOG_LEVEL";
        /// Base URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318. Spans go to its
        /// /v1/traces and error events to its /v1/logs, as JSON. Not set: nothing is sent.
        otlp_url: Option<String> = None, "HOOKSWITCH_OTLP_URL";
        /// Headers of each post to the OTLP receiver, as name=value,name=value. They carry the
        /// authentication that it asks for.
        otlp_headers: Option<SecretString> = None, "HOOKSWITCH_OTLP_HEADERS";
    }
}
