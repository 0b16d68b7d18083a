//! Marks of an organisation's lists, so that a stream can say that one of them changed.

use super::StoreError;
use crate::domain::OrgId;
use async_trait::async_trait;
use uuid::Uuid;

/// A list of the admin API that a stream names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    Events,
    Actions,
    Integrations,
    Jobs,
    Rejections,
    Audit,
}

impl List {
    pub const ALL: [Self; 6] = [
        Self::Events,
        Self::Actions,
        Self::Integrations,
        Self::Jobs,
        Self::Rejections,
        Self::Audit,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Actions => "actions",
            Self::Integrations => "integrations",
            Self::Jobs => "jobs",
            Self::Rejections => "rejections",
            Self::Audit => "audit",
        }
    }
}

/// What one look found of a list. It differs after each change, and holds nothing of the rows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    /// The newest row.
    pub newest: Option<Uuid>,
    /// A sum over times and counters that only grow.
    pub sum: Option<i64>,
}

/// The marks of all lists of an organisation, in the order of [`List::ALL`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListMarks(pub [Mark; List::ALL.len()]);

impl ListMarks {
    /// The lists that changed since an earlier look.
    pub fn changed_since(&self, earlier: &Self) -> impl Iterator<Item = List> {
        let pairs = List::ALL.into_iter().zip(self.0).zip(earlier.0);
        pairs
            .filter(|((_, now), before)| now != before)
            .map(|((list, _), _)| list)
    }
}

/// The newest actions that a look reads. What changes further down shows by the turns of its
/// organisation, or at the next reading of the list.
pub const ACTIONS_LOOKED_AT: u32 = 200;

#[async_trait]
pub trait Marks: Send + Sync + 'static {
    /// One look, in one statement over indexes.
    async fn look_at_lists(&self, org: OrgId) -> Result<ListMarks, StoreError>;
}
