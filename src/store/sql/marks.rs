//! One look at all lists of an organisation. It reads the end of indexes, the newest actions, and
//! rows of which an organisation has few.

use super::{Dialect, Row, Sql, SqlStore, Statement};
use crate::{
    domain::OrgId,
    store::{StoreError, marks::*},
};
use async_trait::async_trait;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[LOOK];

// A turn moves with each claim, so work on older actions shows by it. SQLite gets the index of
// running jobs by name: it is partial, and has no column of the organisation.
macro_rules! look {
    ($running:literal) => {
        concat!(
            "
    SELECT
        (SELECT id FROM events WHERE org_id = $1 ORDER BY id DESC LIMIT 1) AS event,
        (SELECT id FROM actions WHERE org_id = $1 ORDER BY id DESC LIMIT 1) AS action,
        (SELECT id FROM rejections WHERE org_id = $1 ORDER BY id DESC LIMIT 1) AS rejection,
        (SELECT id FROM audit_log WHERE org_id = $1 ORDER BY id DESC LIMIT 1) AS entry,
        (
            SELECT CAST(sum(moved) AS bigint)
            FROM (
                SELECT updated_at + fence + coalesce(delivery_at, 0) AS moved
                FROM actions
                WHERE org_id = $1
                ORDER BY id DESC
                LIMIT $2
            ) AS page
        ) AS moved,
        (SELECT CAST(sum(due_at + last_turn_at + 1) AS bigint) FROM turns WHERE org_id = $1) AS turned,
        (
            SELECT CAST(sum(updated_at + coalesce(last_used_at, 0) + rotate_after_days + changed_version) AS bigint)
            FROM org_credentials
            WHERE org_id = $1
        ) AS checked,
        (
            SELECT CAST(sum(updated_at + done + skipped) AS bigint)
            FROM bulk_jobs",
            $running,
            "
            WHERE org_id = $1 AND state = 'running'
        ) AS worked"
        )
    };
}
const LOOK: Sql = Sql {
    sqlite: look!(" INDEXED BY bulk_jobs_running"),
    postgres: look!(""),
};

fn marks<D: Dialect>(row: Row<'_, D>) -> Result<ListMarks, StoreError> {
    let newest = |column| row.id_opt(column).map(|newest| Mark { newest, sum: None });
    let sum = |column| row.number_opt(column).map(|sum| Mark { newest: None, sum });
    let turned: Option<i64> = row.number_opt("turned")?;
    let moved: Option<i64> = row.number_opt("moved")?;
    let actions = Mark {
        newest: row.id_opt("action")?,
        sum: moved.map(|moved| moved.wrapping_add(turned.unwrap_or(0))),
    };
    let of = |list| match list {
        List::Events => newest("event"),
        List::Actions => Ok(actions),
        List::Integrations => sum("checked"),
        List::Jobs => sum("worked"),
        List::Rejections => newest("rejection"),
        List::Audit => newest("entry"),
    };
    let mut marks = ListMarks::default();
    for (mark, list) in marks.0.iter_mut().zip(List::ALL) {
        *mark = of(list)?;
    }
    Ok(marks)
}

#[async_trait]
impl<S: SqlStore> Marks for S {
    async fn look_at_lists(&self, org: OrgId) -> Result<ListMarks, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("look at the lists of an organisation", LOOK)
            .id(org)
            .number(ACTIONS_LOOKED_AT)
            .one(&mut reader, marks)
            .await
    }
}
