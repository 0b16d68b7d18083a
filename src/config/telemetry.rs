//! Settings of logs.

use super::SettingValue;

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
    /// Logs.
    TelemetrySettings {
        /// Lines for people, or one JSON object a line.
        log_format: LogFormat = LogFormat::Json, "HOOKSWITCH_LOG_FORMAT";
        /// What is logged: a level, or levels by target such as info,hookswitch::worker=debug.
        log_level: String = "info".into(), "HOOKSWITCH_LOG_LEVEL";
    }
}
