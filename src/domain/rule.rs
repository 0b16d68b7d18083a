//! Rules: source, event type (glob), `when` (an expression), action, parameters as templates.

use super::{ActionKind, EventType, OrgId, RuleId, Source, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Enabled rules that can apply to one event (invariant 22).
pub const RULES_PER_TYPE_MAX: usize = 50;

/// `end-of-call-report`, `status-*`, `*`: matched against the kind, the part of the type after the
/// source. `*` stands for any run of characters; there is no other special one. At most 128 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypePattern(pub Box<str>);

impl TypePattern {
    /// The pattern as it is stored. Both forms that are shown are taken: `end-of-call-report`, and
    /// `vapi.end-of-call-report` for the source `vapi`. Characters that [`EventType::new`] replaces
    /// are replaced in the same way, so that a documented type with brackets matches its events.
    #[must_use]
    pub fn canonical(&self, source: Source) -> Self {
        let text = self
            .0
            .strip_prefix(source.as_str())
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(&self.0);
        let replaced = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-' | '*') {
                c
            } else {
                '_'
            }
        };
        Self(text.chars().map(replaced).collect::<String>().into())
    }

    #[must_use]
    pub fn matches(&self, event_type: &EventType) -> bool {
        glob(self.0.as_bytes(), event_type.kind().as_bytes())
    }

    /// Whether one event type can match both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        globs_overlap(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// Linear in practice: on a mismatch it goes back to the last `*` only, so `*a*a*…b` costs at most
/// pattern × text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Whether some text matches both globs. `row[j]` says whether the rest of `a` and `b[j..]` have a
/// text in common.
fn globs_overlap(a: &[u8], b: &[u8]) -> bool {
    let tail = |j: usize| b[j..].iter().all(|&c| c == b'*');
    let mut row: Vec<bool> = (0..=b.len()).map(tail).collect();
    for i in (0..a.len()).rev() {
        let mut next = vec![false; b.len() + 1];
        next[b.len()] = a[i] == b'*' && row[b.len()];
        for j in (0..b.len()).rev() {
            next[j] = match (a[i], b[j]) {
                (b'*', b'*') => row[j] || next[j + 1] || row[j + 1],
                (b'*', _) => row[j] || next[j + 1],
                (_, b'*') => next[j + 1] || row[j],
                (x, y) => x == y && row[j + 1],
            };
        }
        row = next;
    }
    row[0]
}

/// A rule as a person writes it. `rule::check` checks it on save, so that a stored rule always
/// compiles.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Shown in lists; 1 to 100 characters.
    pub name: String,
    pub source: Source,
    /// A glob over the event's kind.
    pub event_type: TypePattern,
    /// An expression; the rule applies where it is true. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    pub action: ActionKind,
    /// The action's parameters; each text is a template.
    pub parameters: Map<String, Value>,
    /// Actions that have not started this long after their event end `dead: expired`. Default by
    /// kind of action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after_seconds: Option<u32>,
    /// Its text messages go out in the organisation's quiet hours as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignores_quiet_hours: bool,
    #[serde(default = "enabled_default")]
    pub enabled: bool,
}

impl RuleSpec {
    /// Whether its action waits for the end of the organisation's quiet hours: a text message wakes
    /// people up, and the other kinds do not.
    #[must_use]
    pub fn keeps_quiet_hours(&self) -> bool {
        self.action == ActionKind::TwilioSendSms && !self.ignores_quiet_hours
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn enabled_default() -> bool {
    true
}

/// A stored rule.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    pub id: RuleId,
    pub org: OrgId,
    pub spec: RuleSpec,
    /// Counts up with each change; the `ETag`.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_overlap_where_one_kind_matches_both() {
        let table = [
            ("end-of-call-report", "end-of-call-report", true),
            ("end-of-call-report", "status-update", false),
            ("*", "status-update", true),
            ("status-*", "*-update", true),
            ("status-*", "speech-*", false),
            ("a*b", "*c", false),
            ("a*b*", "*c", true),
            ("", "*", true),
            ("", "a", false),
            ("**", "", true),
            ("ab*", "abc", true),
            ("abc", "ab*d", false),
        ];
        for (a, b, expected) in table {
            assert_eq!(globs_overlap(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(globs_overlap(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }

    #[test]
    fn globs_match_the_kind_and_stay_cheap() {
        let matches =
            |pattern: &str, kind: &str| TypePattern(pattern.into()).matches(&EventType::new(Source::Vapi, kind));
        assert!(matches("end-of-call-report", "end-of-call-report"));
        assert!(matches("status-*", "status-update"));
        assert!(matches("*", ""));
        assert!(matches("*-update", "speech-update"));
        assert!(!matches("status", "status-update"));
        assert!(!matches("", "hang"));
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
    }
}
