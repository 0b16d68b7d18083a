//! Instances, the primary key, and wrappings of data keys. A rotation has a lease, so that it goes
//! on when its process was killed.

use super::{Access, Connected, Dialect, Row, Sql, SqlStore, Statement, Transaction, audit};
use crate::{
    domain::{KeyId, OrgId, Timestamp},
    store::{
        StoreError,
        audit::{AuditEntry, Changes},
        keys::DataKeyRow,
        rotation::*,
    },
};
use async_trait::async_trait;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    LOCK,
    NOW,
    Sql::both(NAME_PRIMARY),
    Sql::both(MOST_USED),
    Sql::both(REPORT),
    Sql::both(END),
    Sql::both(FORGET),
    Sql::both(LIVE),
    Sql::both(PRIMARY),
    Sql::both(HOLD),
    Sql::both(FREE),
    Sql::both(TAKE),
    Sql::both(SET_LEASE),
    Sql::both(DATA_KEY_USES),
    SEALED_EVENTS,
    Sql::both(UNDER_OTHERS),
    Sql::both(REWRAP),
];

/// An instance that has ended is listed no more after this long.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// Reports and promotions go one after the other.
const LOCK: Sql = Sql::postgres_only("SELECT pg_advisory_xact_lock(hashtextextended('hookswitch primary key', 26))");
/// Instances judge each other by one clock. SQLite has one instance.
const NOW: Sql = Sql::postgres_only("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now");
const PRIMARY: &str = "SELECT kek_id, since FROM primary_kek WHERE id = 1";
const NAME_PRIMARY: &str = "
    INSERT INTO primary_kek (id, kek_id, since)
    VALUES (1, $1, $2)
    ON CONFLICT (id) DO UPDATE
    SET kek_id = excluded.kek_id, since = excluded.since";
/// For a person, whoever holds the rotation.
const HOLD: &str = "
    UPDATE primary_kek
    SET wrap_fence = wrap_fence + 1, wrap_lease_until = $1
    WHERE id = 1
    RETURNING kek_id, wrap_fence";
const FREE: &str = "SELECT kek_id FROM primary_kek WHERE id = 1 AND wrap_lease_until <= $1";
const TAKE: &str = "
    UPDATE primary_kek
    SET wrap_fence = wrap_fence + 1, wrap_lease_until = $1
    WHERE id = 1 AND wrap_lease_until <= $2
    RETURNING kek_id, wrap_fence";
const SET_LEASE: &str = "
    UPDATE primary_kek
    SET wrap_lease_until = $2
    WHERE id = 1 AND wrap_fence = $1";
const MOST_USED: &str = "
    SELECT kek_id, count(*) AS count
    FROM data_keys
    GROUP BY kek_id
    ORDER BY count(*) DESC, kek_id";

const REPORT: &str = "
    INSERT INTO instances (id, name, roles, kek_ids, sealing_kek, started_at, seen_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (id) DO UPDATE
    SET kek_ids = excluded.kek_ids, sealing_kek = excluded.sealing_kek, seen_at = excluded.seen_at";
const END: &str = "DELETE FROM instances WHERE seen_at < $1";
const FORGET: &str = "DELETE FROM instances WHERE id = $1";
const LIVE: &str = "
    SELECT id, name, roles, kek_ids, sealing_kek, started_at, seen_at
    FROM instances
    WHERE seen_at >= $1
    ORDER BY name, id";

const DATA_KEY_USES: &str = "
    SELECT kek_id, count(*) AS count, max(seals) AS seals
    FROM data_keys
    GROUP BY kek_id
    ORDER BY kek_id";
/// Only what is sealed under the ring itself has the format 2 and then the name of its key.
const SEALED_EVENTS: Sql = Sql {
    sqlite: "
    SELECT lower(hex(substr(head, 2))) AS kek_id, count(*) AS count
    FROM (
        SELECT substr(envelope, 1, 9) AS head FROM held_events
        UNION ALL SELECT substr(envelope, 1, 9) FROM held_parts
        UNION ALL SELECT seal_head FROM dead_events
        UNION ALL SELECT seal_head FROM quarantine
    )
    WHERE substr(head, 1, 1) = x'02' AND length(head) = 9
    GROUP BY 1",
    postgres: "
    SELECT encode(substr(head, 2), 'hex') AS kek_id, count(*) AS count
    FROM (
        SELECT substr(envelope, 1, 9) AS head FROM held_events
        UNION ALL SELECT substr(envelope, 1, 9) FROM held_parts
        UNION ALL SELECT seal_head FROM dead_events
        UNION ALL SELECT seal_head FROM quarantine
    ) AS sealed
    WHERE substr(head, 1, 1) = '\\x02' AND length(head) = 9
    GROUP BY 1",
};

const UNDER_OTHERS: &str = "
    SELECT org_id, version, kek_id, wrapped, seals
    FROM data_keys
    WHERE kek_id <> $1 AND (org_id > $2 OR org_id = $2 AND version > $3)
    ORDER BY org_id, version
    LIMIT $4";
/// Stamped with a configuration version: snapshots of routes carry wrapped data keys.
const REWRAP: &str = "
    UPDATE data_keys
    SET kek_id = $4, wrapped = $5, changed_version = $6
    WHERE org_id = $1 AND version = $2 AND kek_id = $3";

fn seen_instance<D: Dialect>(row: Row<'_, D>) -> Result<SeenInstance, StoreError> {
    let row = row.table("instances");
    Ok(SeenInstance {
        instance: Instance {
            id: row.id("id")?,
            name: row.string("name")?,
            roles: row.string("roles")?,
            ring: row
                .json::<Vec<String>>("kek_ids")?
                .into_iter()
                .map(|key| KeyId(key.into()))
                .collect(),
            sealing: KeyId(row.text("sealing_kek")?.into()),
            started_at: row.time("started_at")?,
        },
        seen_at: row.time("seen_at")?,
    })
}

fn primary_key<D: Dialect>(row: Row<'_, D>) -> Result<PrimaryKey, StoreError> {
    let row = row.table("primary_kek");
    Ok(PrimaryKey {
        key: KeyId(row.text("kek_id")?.into()),
        since: row.time("since")?,
    })
}

fn rotation_lease<D: Dialect>(row: Row<'_, D>) -> Result<RotationLease, StoreError> {
    let row = row.table("primary_kek");
    Ok(RotationLease {
        key: KeyId(row.text("kek_id")?.into()),
        fence: row.number("wrap_fence")?,
    })
}

/// The database's time, or our own where the database has none.
async fn now<C: Connected>(on: &mut C, own: Timestamp) -> Result<Timestamp, StoreError> {
    let theirs = Statement::<C::Db>::new("read the database's clock", NOW)
        .optional(on, |row| row.time("now"))
        .await?;
    Ok(theirs.unwrap_or(own))
}

async fn live<C: Connected>(on: &mut C, own: Timestamp) -> Result<Vec<SeenInstance>, StoreError> {
    let now = now(on, own).await?;
    Statement::new("load the instances", LIVE)
        .time(now - INSTANCE_LIVES_FOR)
        .all(on, seen_instance)
        .await
}

async fn lock<D: Dialect>(tx: &mut Transaction<'_, D>) -> Result<(), StoreError> {
    Statement::new("lock the primary key", LOCK).execute(tx).await.map(drop)
}

async fn name_primary<D: Dialect>(tx: &mut Transaction<'_, D>, key: &KeyId) -> Result<(), StoreError> {
    Statement::new("name the primary key", NAME_PRIMARY)
        .text(&key.0)
        .time(tx.now)
        .execute(tx)
        .await
        .map(drop)
}

/// The primary key, named now where there is none. A database without a data key has sealed
/// nothing, so that another ring may begin with it where no other instance lives.
async fn primary_for<D: Dialect>(tx: &mut Transaction<'_, D>, instance: &Instance) -> Result<KeyId, StoreError> {
    const DOING: &str = "find the primary key";
    lock(tx).await?;
    let stands = Statement::new(DOING, PRIMARY).optional(tx, primary_key).await?;
    let used = Statement::new(DOING, MOST_USED)
        .all(tx, |row| Ok(KeyId(row.table("data_keys").text("kek_id")?.into())))
        .await?;
    let others = live(tx, tx.now).await?;
    let is_alone = others.iter().all(|other| other.instance.id == instance.id);
    if let Some(stands) = stands
        && (!used.is_empty() || !is_alone || instance.ring.contains(&stands.key))
    {
        return Ok(stands.key);
    }
    let most_used = used.into_iter().find(|key| instance.ring.contains(key));
    let primary = most_used.unwrap_or_else(|| instance.sealing.clone());
    name_primary(tx, &primary).await?;
    Ok(primary)
}

async fn report<D: Dialect>(tx: &mut Transaction<'_, D>, instance: &Instance) -> Result<KeyId, StoreError> {
    const DOING: &str = "report an instance";
    let primary = primary_for(tx, instance).await?;
    let now = now(tx, tx.now).await?;
    let ring: Vec<&str> = instance.ring.iter().map(|key| &*key.0).collect();
    Statement::new(DOING, REPORT)
        .id(instance.id)
        .text(&instance.name)
        .text(&instance.roles)
        .json(&ring)?
        .text(&instance.sealing.0)
        .time(instance.started_at)
        .time(now)
        .execute(tx)
        .await?;
    Statement::new(DOING, END)
        .time(now - FORGOTTEN_AFTER)
        .execute(tx)
        .await?;
    Ok(primary)
}

async fn promote<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    key: &KeyId,
    length: Duration,
    entry: &AuditEntry,
) -> Result<Promotion, StoreError> {
    lock(tx).await?;
    let stands = Statement::new("promote a key", PRIMARY)
        .optional(tx, primary_key)
        .await?;
    if stands.as_ref().is_some_and(|stands| stands.key == *key) {
        return Ok(Promotion::AlreadyPrimary(hold(tx, length).await?));
    }
    let without: Vec<Instance> = live(tx, tx.now)
        .await?
        .into_iter()
        .map(|seen| seen.instance)
        .filter(|instance| !instance.ring.contains(key))
        .collect();
    if !without.is_empty() {
        return Ok(Promotion::NotEverywhere(without));
    }
    name_primary(tx, key).await?;
    let former = stands.map(|stands| stands.key.to_string());
    let entry = AuditEntry {
        changes: Changes::default().value("primary", former, key.to_string()),
        ..entry.clone()
    };
    audit::insert(tx, entry.org, &entry).await?;
    Ok(Promotion::Promoted(hold(tx, length).await?))
}

async fn hold<D: Dialect>(tx: &mut Transaction<'_, D>, length: Duration) -> Result<RotationLease, StoreError> {
    let now = now(tx, tx.now).await?;
    Statement::new("take the rotation", HOLD)
        .time(now + length)
        .one(tx, rotation_lease)
        .await
}

async fn take<D: Dialect>(tx: &mut Transaction<'_, D>, length: Duration) -> Result<Option<RotationLease>, StoreError> {
    let now = now(tx, tx.now).await?;
    Statement::new("take the rotation", TAKE)
        .time(now + length)
        .time(now)
        .optional(tx, rotation_lease)
        .await
}

/// `false` where the lease is another's.
async fn set_lease<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    doing: &'static str,
    fence: i64,
    from_now: Option<Duration>,
) -> Result<bool, StoreError> {
    let now = now(tx, tx.now).await?;
    let set = Statement::new(doing, SET_LEASE)
        .number(fence)
        .time_opt(from_now.map(|length| now + length))
        .execute(tx)
        .await?;
    Ok(set == 1)
}

async fn rewrap<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    changed_version: i64,
    rows: Vec<Rewrapped>,
) -> Result<u64, StoreError> {
    let mut stored = 0;
    for Rewrapped { from, row } in rows {
        stored += Statement::new("wrap a data key again", REWRAP)
            .id(row.org)
            .number(row.version)
            .text(&from.0)
            .text(&row.kek.0)
            .bytes(&row.wrapped)
            .number(changed_version)
            .execute(tx)
            .await?;
    }
    Ok(stored)
}

#[async_trait]
impl<S: SqlStore> KeyRotation for S {
    async fn report_instance(&self, instance: Instance) -> Result<KeyId, StoreError> {
        self.write(Access::ALL_ORGS, "report an instance", move |mut tx| {
            Box::pin(async move { report(&mut tx, &instance).await })
        })
        .await
    }

    async fn forget_instance(&self, id: Uuid) -> Result<(), StoreError> {
        const DOING: &str = "forget an instance";
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move { Statement::new(DOING, FORGET).id(id).execute(&mut tx).await.map(drop) })
        })
        .await
    }

    async fn load_instances(&self) -> Result<Vec<SeenInstance>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        live(&mut reader, self.clock().now()).await
    }

    async fn load_primary_key(&self) -> Result<Option<PrimaryKey>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("load the primary key", PRIMARY)
            .optional(&mut reader, primary_key)
            .await
    }

    async fn promote_key(&self, key: KeyId, length: Duration, audit: AuditEntry) -> Result<Promotion, StoreError> {
        self.configure_if(Access::ALL_ORGS, "promote a key", move |mut tx, _| {
            Box::pin(async move {
                let promotion = promote(&mut tx, &key, length, &audit).await?;
                let is_change = matches!(promotion, Promotion::Promoted(_));
                Ok((promotion, is_change))
            })
        })
        .await
    }

    async fn take_rotation(&self, length: Duration) -> Result<Option<RotationLease>, StoreError> {
        const DOING: &str = "take the rotation";
        let mut reader = self.read(Access::ALL_ORGS).await?;
        let now_there = now(&mut reader, self.clock().now()).await?;
        let free = Statement::new(DOING, FREE)
            .time(now_there)
            .optional(&mut reader, |row| row.table("primary_kek").string("kek_id"))
            .await?;
        reader.end(DOING).await?;
        // Each process looks every few seconds, and a rotation is rare: mostly nothing is written.
        if free.is_none() {
            return Ok(None);
        }
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move { take(&mut tx, length).await })
        })
        .await
    }

    async fn leave_rotation(&self, lease: &RotationLease, again_after: Option<Duration>) -> Result<(), StoreError> {
        const DOING: &str = "give the rotation back";
        let fence = lease.fence;
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move { set_lease(&mut tx, DOING, fence, again_after).await.map(drop) })
        })
        .await
    }

    async fn load_key_uses(&self) -> Result<Vec<(KeyId, KeyUse)>, StoreError> {
        const DOING: &str = "count what stands under each key";
        let mut uses = BTreeMap::<KeyId, KeyUse>::new();
        let mut reader = self.read_moment(Access::ALL_ORGS).await?;
        Statement::new(DOING, DATA_KEY_USES)
            .each(&mut reader, |row| {
                let row = row.table("data_keys");
                let one = uses.entry(KeyId(row.text("kek_id")?.into())).or_default();
                (one.data_keys, one.seals_max) = (row.number("count")?, row.number("seals")?);
                Ok(())
            })
            .await?;
        Statement::new(DOING, SEALED_EVENTS)
            .each(&mut reader, |row| {
                let row = row.table("held_events");
                uses.entry(KeyId(row.text("kek_id")?.into())).or_default().events = row.number("count")?;
                Ok(())
            })
            .await?;
        reader.end(DOING).await?;
        Ok(uses.into_iter().collect())
    }

    async fn list_data_keys_under_others(
        &self,
        key: &KeyId,
        after: Option<DataKeyPlace>,
        count_max: u32,
    ) -> Result<Vec<DataKeyRow>, StoreError> {
        let (org, version) = after.unwrap_or((OrgId::from_uuid(Uuid::nil()), 0));
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list data keys under other keys", UNDER_OTHERS)
            .text(&key.0)
            .id(org)
            .number(version)
            .number(count_max)
            .all(&mut reader, super::keys::data_key)
            .await
    }

    async fn rewrap_data_keys(
        &self,
        lease: &RotationLease,
        length: Duration,
        rows: Vec<Rewrapped>,
    ) -> Result<Stored, StoreError> {
        const DOING: &str = "wrap data keys again";
        let (access, fence) = (Access::ALL_ORGS.in_bulk(), lease.fence);
        self.configure_if(access, DOING, move |mut tx, changed_version| {
            Box::pin(async move {
                // The row stays locked until the commit: nobody takes the rotation over meanwhile.
                if !set_lease(&mut tx, DOING, fence, Some(length)).await? {
                    return Ok((Stored::TakenOver, false));
                }
                let stored = rewrap(&mut tx, changed_version, rows).await?;
                Ok((Stored::Rewrapped(stored), stored > 0))
            })
        })
        .await
    }
}
