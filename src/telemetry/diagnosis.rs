//! A line of `doctor` about one thing: its state, the finding, and the cure.

use serde::Serialize;
use std::borrow::Cow;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// Works, and a person should know of it.
    Warn,
    /// The installation would lose events, or would not work.
    Fail,
}

impl Verdict {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of `doctor`. The texts are for operators: no secret, no sender's text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnosis {
    pub check: &'static str,
    pub status: Verdict,
    pub found: String,
    /// Empty where a person has nothing to do.
    pub cure: Cow<'static, str>,
}

impl Diagnosis {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            status: Verdict::Ok,
            found: found.into(),
            cure: Cow::Borrowed(""),
        }
    }

    pub fn warn(check: &'static str, found: impl Into<String>, cure: impl Into<Cow<'static, str>>) -> Self {
        Self {
            check,
            status: Verdict::Warn,
            found: found.into(),
            cure: cure.into(),
        }
    }

    pub fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<Cow<'static, str>>) -> Self {
        Self {
            check,
            status: Verdict::Fail,
            found: found.into(),
            cure: cure.into(),
        }
    }

    /// In development a risk for durability is a note, no failure.
    #[must_use]
    pub fn unless_dev(mut self, is_dev: bool) -> Self {
        if is_dev {
            self.status = self.status.min(Verdict::Warn);
        }
        self
    }
}
