//! Logs: lines for people or one JSON object a line, to standard error.

use super::otlp::{OtlpLayer, Outbox};
use crate::config::{LogFormat, TelemetrySettings};
use ::tracing::Subscriber;
use std::io;
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "HOOKSWITCH_LOG_LEVEL is not understood: expected a level (error, warn, info, debug, trace), or levels by \
        target such as info,hookswitch::worker=debug"
    )]
    Level,
    #[error("logs were started twice in one process")]
    StartedTwice,
}

/// Whether logs can be started with these settings.
///
/// # Errors
/// The level is not understood.
pub fn check_settings(settings: &TelemetrySettings) -> Result<(), LogError> {
    levels(&settings.log_level).map(drop)
}

/// Starts logs for the process, and the outbox of spans and error events where an OTLP receiver is
/// set.
///
/// # Errors
/// The level is not understood, or logs were started before.
pub fn start_logs(settings: &TelemetrySettings) -> Result<Option<Outbox>, LogError> {
    if settings.otlp_url.is_none() {
        let lines = subscriber(settings, std::io::stderr)?;
        ::tracing::subscriber::set_global_default(lines).map_err(|_| LogError::StartedTwice)?;
        return Ok(None);
    }
    // Lines and spans have levels of their own: what goes out does not depend on what is logged.
    let (otlp, outbox) = OtlpLayer::new();
    let wants = FilterFn::new(OtlpLayer::wants).with_max_level_hint(LevelFilter::DEBUG);
    let levels = levels(&settings.log_level)?;
    let both = tracing_subscriber::registry()
        .with(lines(settings.log_format, std::io::stderr).with_filter(levels))
        .with(otlp.with_filter(wants));
    ::tracing::subscriber::set_global_default(both).map_err(|_| LogError::StartedTwice)?;
    Ok(Some(outbox))
}

/// The subscriber that writes log lines to `writer`. Both formats escape values, so that one event
/// is one line whatever a sender puts in.
///
/// # Errors
/// The level is not understood.
pub fn subscriber<W>(settings: &TelemetrySettings, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let levels = levels(&settings.log_level)?;
    // One filter for all is cheaper than one for the layer.
    let registry = tracing_subscriber::registry().with(levels);
    Ok(Box::new(registry.with(lines(settings.log_format, writer))))
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Human => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            fmt::layer()
                .with_target(false)
                .with_ansi(colours)
                .with_writer(OneLine { inner: writer, colours })
                .boxed()
        }
    }
}

fn levels(text: &str) -> Result<Targets, LogError> {
    // `Targets` alone takes any other word, such as `loud`, for a target, and turns everything else
    // off.
    let is_level =
        |part: &str| part.contains('=') || !part.trim().is_empty() && part.trim().parse::<LevelFilter>().is_ok();
    if !text.split(',').all(is_level) {
        return Err(LogError::Level);
    }
    let levels: Targets = text.parse().map_err(|_| LogError::Level)?;
    // lapin logs a message that the broker returns, with its body. Our own lines report the same
    // without the body.
    let levels = levels.with_target("lapin", LevelFilter::OFF);
    // sqlx's warnings repeat our own lines. A setting that names sqlx turns them on.
    Ok(if text.contains("sqlx") {
        levels
    } else {
        levels.with_target("sqlx", LevelFilter::ERROR)
    })
}

/// Writes control characters inside an event as escapes. In the human format a sender's text could
/// otherwise begin a line of its own, or control the terminal.
struct OneLine<W> {
    inner: W,
    /// Whether the layer's own colour sequences pass.
    colours: bool,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLine {
            inner: self.inner.make_writer(),
            colours: self.colours,
        }
    }
}

impl<W: io::Write> io::Write for OneLine<W> {
    /// The layer hands over one whole event at a time.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = String::with_capacity(event.len() + 16);
        for (at, c) in line.char_indices() {
            if c.is_control() && !(self.colours && is_colour(&line[at..])) {
                escaped.extend(c.escape_default());
            } else {
                escaped.push(c);
            }
        }
        escaped.push('\n');
        self.inner.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// `ESC [ digits and semicolons m`.
fn is_colour(text: &str) -> bool {
    text.strip_prefix("\u{1b}[").and_then(|rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
            .chars()
            .next()
    }) == Some('m')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn of(log_format: LogFormat, log_level: &str, write: impl FnOnce()) -> String {
            let lines = Self::default();
            let writer = lines.clone();
            let settings = TelemetrySettings {
                log_format,
                log_level: log_level.to_owned(),
                ..TelemetrySettings::default()
            };
            ::tracing::subscriber::with_default(subscriber(&settings, move || writer.clone()).unwrap(), write);
            String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_senders_line_breaks_and_escapes_stay_inside_one_line() {
        let evil = "a\r\n{\"level\":\"ERROR\"}\u{1b}]0;owned\u{7}";
        for format in [LogFormat::Human, LogFormat::Json] {
            let lines = Lines::of(format, "info", || {
                let span = ::tracing::info_span!("webhook.receive", subject = %evil);
                let _inside = span.enter();
                ::tracing::info!(agent = %evil, "Received {evil}");
            });
            assert_eq!(lines.lines().count(), 1, "{lines:?}");
            assert!(!lines.contains('\u{1b}'), "{lines:?}");
        }
    }

    #[test]
    fn json_lines_are_json_with_fields_and_spans() {
        let line = Lines::of(LogFormat::Json, "info", || {
            let span = ::tracing::info_span!("event.plan", "org.id" = "o", "event.id" = "e");
            let _inside = span.enter();
            ::tracing::info!(actions = 2, "Planned");
        });
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(json["message"], "Planned");
        assert_eq!(json["actions"], 2);
        assert_eq!(json["spans"][0]["org.id"], "o");
        assert_eq!(json["level"], "INFO");
    }

    #[test]
    fn what_sqlx_warns_of_is_said_once_by_us_unless_a_setting_names_it() {
        for (level, is_shown) in [("info", false), ("info,sqlx=warn", true)] {
            let lines = Lines::of(LogFormat::Json, level, || {
                ::tracing::warn!(target: "sqlx::pool", "theirs");
            });
            assert_eq!(lines.contains("theirs"), is_shown, "{level}: {lines}");
        }
    }

    #[test]
    fn levels_go_by_target_and_a_wrong_level_says_what_is_expected() {
        let lines = Lines::of(LogFormat::Json, "warn,hookswitch::telemetry=debug", || {
            ::tracing::debug!("ours");
            ::tracing::info!(target: "hyper", "theirs");
        });
        assert!(lines.contains("ours") && !lines.contains("theirs"), "{lines}");
        for level in ["loud", "hookswitch=loud", "info,,debug", ""] {
            let wrong = TelemetrySettings {
                log_level: level.into(),
                ..TelemetrySettings::default()
            };
            assert!(
                subscriber(&wrong, io::sink)
                    .err()
                    .expect(level)
                    .to_string()
                    .contains("HOOKSWITCH_LOG_LEVEL")
            );
        }
    }
}
