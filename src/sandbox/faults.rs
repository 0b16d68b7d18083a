//! The faults that a test asks the stand-ins for.

use crate::domain::Provider;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One fault. The first that matches a request is applied. It is removed when its `times` are used
/// up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `twilio`, `vapi`, or `http` for the sink.
    pub provider: Provider,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests whose path and query contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many requests. Absent: all, until `DELETE /_faults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Waits this long first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Answers with this status and does not perform the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `status`: performs the request, and then answers with the status.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accept: bool,
    /// The body beside `status`. Absent: the provider's own for this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The value of `Retry-After` beside `status`: a number, or any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Value>,
    /// Closes the connection without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// After performing the request.
    AfterAccept,
    /// Instead of performing it.
    Before,
}

impl Fault {
    /// A fault that does nothing yet, for one provider.
    #[must_use]
    pub const fn of(provider: Provider) -> Self {
        Self {
            provider,
            method: None,
            path: None,
            times: None,
            delay_ms: None,
            status: None,
            accept: false,
            body: None,
            retry_after: None,
            drop: None,
        }
    }

    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    #[must_use]
    pub const fn dropping(mut self, drop: Drop) -> Self {
        self.drop = Some(drop);
        self
    }

    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    fn matches(&self, provider: Provider, method: &str, path: &str) -> bool {
        self.provider == provider
            && self
                .method
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_deref().is_none_or(|wanted| path.contains(wanted))
    }
}

/// All faults in force, in the order in which they came.
#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn take(&mut self, provider: Provider, method: &str, path: &str) -> Option<Fault> {
        let index = self.0.iter().position(|fault| fault.matches(provider, method, path))?;
        let fault = &mut self.0[index];
        let taken = fault.clone();
        if let Some(times) = &mut fault.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.0.remove(index);
            }
        }
        Some(taken)
    }
}
