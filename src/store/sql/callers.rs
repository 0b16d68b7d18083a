//! Sessions, links, and keys of requests.

#[cfg(test)]
use super::Sql;
use super::{Dialect, Row, SqlStore, Statement, audit};
use crate::{
    domain::{OrgId, SealedBytes, Timestamp},
    store::{StoreError, audit::AuditEntry, callers::*},
};
use async_trait::async_trait;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(INSERT_SESSION),
    Sql::both(DROP_ENDED_SESSIONS),
    Sql::both(DROP_OLDEST_SESSIONS),
    Sql::both(FIND_SESSION),
    Sql::both(REDEEM_LINK),
    Sql::both(END_SESSION),
    Sql::both(DROP_OLD_KEYS),
    Sql::both(DROP_OLDEST_KEYS),
    Sql::both(TAKE_KEY),
    Sql::both(TAKE_STUCK_KEY),
    Sql::both(FIND_KEY),
    Sql::both(ANSWER_KEY),
    Sql::both(FREE_KEY),
];

const INSERT_SESSION: &str = "
    INSERT INTO sessions (org_id, token_hash, is_link, subject, role, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const DROP_ENDED_SESSIONS: &str = "
    DELETE FROM sessions
    WHERE org_id = $1 AND expires_at <= $2";
const DROP_OLDEST_SESSIONS: &str = "
    DELETE FROM sessions
    WHERE org_id = $1 AND token_hash NOT IN (
        SELECT token_hash FROM sessions
        WHERE org_id = $1
        ORDER BY expires_at DESC
        LIMIT $2)";
const FIND_SESSION: &str = "
    SELECT org_id, token_hash, is_link, subject, role, created_at, expires_at
    FROM sessions
    WHERE org_id = $1 AND token_hash = $2 AND is_link = false AND expires_at > $3";
/// The row changes its hash: the link is gone with its first use.
const REDEEM_LINK: &str = "
    UPDATE sessions
    SET token_hash = $3, is_link = false, created_at = $4, expires_at = $5
    WHERE org_id = $1 AND token_hash = $2 AND is_link = true AND expires_at > $4
    RETURNING org_id, token_hash, is_link, subject, role, created_at, expires_at";
const END_SESSION: &str = "
    DELETE FROM sessions
    WHERE org_id = $1 AND token_hash = $2 AND is_link = false";

const DROP_OLD_KEYS: &str = "
    DELETE FROM request_keys
    WHERE org_id = $1 AND created_at < $2";
const DROP_OLDEST_KEYS: &str = "
    DELETE FROM request_keys
    WHERE org_id = $1 AND created_at < (
        SELECT created_at FROM request_keys
        WHERE org_id = $1
        ORDER BY created_at DESC
        LIMIT 1 OFFSET $2)";
const TAKE_KEY: &str = "
    INSERT INTO request_keys (org_id, key_hash, request_hash, created_at)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (org_id, key_hash) DO NOTHING";
const TAKE_STUCK_KEY: &str = "
    UPDATE request_keys
    SET created_at = $4
    WHERE org_id = $1 AND key_hash = $2 AND request_hash = $3 AND answer IS NULL AND created_at < $5";
const FIND_KEY: &str = "
    SELECT request_hash, answer
    FROM request_keys
    WHERE org_id = $1 AND key_hash = $2";
const ANSWER_KEY: &str = "
    UPDATE request_keys
    SET answer = $3
    WHERE org_id = $1 AND key_hash = $2 AND answer IS NULL";
const FREE_KEY: &str = "
    DELETE FROM request_keys
    WHERE org_id = $1 AND key_hash = $2 AND answer IS NULL";

fn hash<D: Dialect>(row: Row<'_, D>, column: &'static str) -> Result<Hash, StoreError> {
    row.bytes(column)?.try_into().map_err(|_| row.corrupt(column))
}

fn session<D: Dialect>(row: Row<'_, D>) -> Result<Session, StoreError> {
    let row = row.table("sessions");
    Ok(Session {
        org: row.id("org_id")?,
        token_hash: hash(row, "token_hash")?,
        is_link: row.flag("is_link")?,
        subject: row.string("subject")?,
        role: row.string("role")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
    })
}

fn known<D: Dialect>(row: Row<'_, D>) -> Result<(Hash, Option<SealedBytes>), StoreError> {
    let row = row.table("request_keys");
    let answer = row.bytes_opt("answer")?.map(|bytes| SealedBytes(bytes.into()));
    Ok((hash(row, "request_hash")?, answer))
}

#[async_trait]
impl<S: SqlStore> Callers for S {
    async fn begin_session(&self, new: Session, audit: AuditEntry) -> Result<(), StoreError> {
        const DOING: &str = "begin the session";
        self.write(new.org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, DROP_ENDED_SESSIONS)
                    .id(new.org)
                    .time(tx.now)
                    .execute(&mut tx)
                    .await?;
                Statement::new(DOING, INSERT_SESSION)
                    .id(new.org)
                    .bytes(&new.token_hash)
                    .flag(new.is_link)
                    .text(&new.subject)
                    .text(&new.role)
                    .time(new.created_at)
                    .time(new.expires_at)
                    .execute(&mut tx)
                    .await?;
                Statement::new(DOING, DROP_OLDEST_SESSIONS)
                    .id(new.org)
                    .number(SESSIONS_PER_ORG_MAX)
                    .execute(&mut tx)
                    .await?;
                audit::insert(&mut tx, new.org, &audit).await
            })
        })
        .await
    }

    async fn find_session(&self, org: OrgId, token_hash: Hash) -> Result<Option<Session>, StoreError> {
        let now = self.clock().now();
        let mut reader = self.read(org).await?;
        Statement::new("find the session", FIND_SESSION)
            .id(org)
            .bytes(&token_hash)
            .time(now)
            .optional(&mut reader, session)
            .await
    }

    async fn redeem_link(
        &self,
        org: OrgId,
        link_hash: Hash,
        token_hash: Hash,
        expires_at: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        const DOING: &str = "redeem the link";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, REDEEM_LINK)
                    .id(org)
                    .bytes(&link_hash)
                    .bytes(&token_hash)
                    .time(tx.now)
                    .time(expires_at)
                    .optional(&mut tx, session)
                    .await
            })
        })
        .await
    }

    async fn end_session(&self, org: OrgId, token_hash: Hash) -> Result<bool, StoreError> {
        const DOING: &str = "end the session";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let ended = Statement::new(DOING, END_SESSION)
                    .id(org)
                    .bytes(&token_hash)
                    .execute(&mut tx)
                    .await?;
                Ok(ended > 0)
            })
        })
        .await
    }

    async fn take_request_key(
        &self,
        org: OrgId,
        key_hash: Hash,
        request_hash: Hash,
        forget_before: Timestamp,
        stuck_before: Timestamp,
    ) -> Result<KeyedRequest, StoreError> {
        const DOING: &str = "take the key of the request";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, DROP_OLD_KEYS)
                    .id(org)
                    .time(forget_before)
                    .execute(&mut tx)
                    .await?;
                Statement::new(DOING, DROP_OLDEST_KEYS)
                    .id(org)
                    .number(REQUEST_KEYS_PER_ORG_MAX - 2)
                    .execute(&mut tx)
                    .await?;
                let taken = Statement::new(DOING, TAKE_KEY)
                    .id(org)
                    .bytes(&key_hash)
                    .bytes(&request_hash)
                    .time(tx.now)
                    .execute(&mut tx)
                    .await?;
                if taken > 0 {
                    return Ok(KeyedRequest::First);
                }
                let taken = Statement::new(DOING, TAKE_STUCK_KEY)
                    .id(org)
                    .bytes(&key_hash)
                    .bytes(&request_hash)
                    .time(tx.now)
                    .time(stuck_before)
                    .execute(&mut tx)
                    .await?;
                if taken > 0 {
                    return Ok(KeyedRequest::First);
                }
                let (other, answer) = Statement::new(DOING, FIND_KEY)
                    .id(org)
                    .bytes(&key_hash)
                    .one(&mut tx, known)
                    .await?;
                Ok(match answer {
                    _ if other != request_hash => KeyedRequest::Other,
                    Some(answer) => KeyedRequest::Answered(answer),
                    None => KeyedRequest::InProgress,
                })
            })
        })
        .await
    }

    async fn answer_request_key(
        &self,
        org: OrgId,
        key_hash: Hash,
        answer: Option<SealedBytes>,
    ) -> Result<(), StoreError> {
        const DOING: &str = "keep the answer to the request";
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let statement = match &answer {
                    Some(answer) => Statement::new(DOING, ANSWER_KEY)
                        .id(org)
                        .bytes(&key_hash)
                        .bytes(&answer.0),
                    None => Statement::new(DOING, FREE_KEY).id(org).bytes(&key_hash),
                };
                statement.execute(&mut tx).await.map(drop)
            })
        })
        .await
    }
}
