-- Work on many actions at once, and an audit that only grows. Adds only: the release before it runs on this schema.
CREATE TABLE bulk_jobs (
    id          uuid   NOT NULL PRIMARY KEY,
    org_id      uuid   NOT NULL,
    verb        text   NOT NULL,                       -- retry, cancel
    filter      text   NOT NULL,                       -- JSON: which actions
    state       text   NOT NULL,                       -- running, stopped, done
    planned     bigint NOT NULL,
    done        bigint NOT NULL,
    skipped     bigint NOT NULL,
    position    uuid   NOT NULL,                       -- the last action that was looked at
    last_action uuid   NOT NULL,                       -- actions with later ids are not the job's
    actor       text   NOT NULL,
    started_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    ended_at    bigint
);
CREATE INDEX bulk_jobs_running ON bulk_jobs (id) WHERE state = 'running';
ALTER TABLE bulk_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE bulk_jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON bulk_jobs TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON bulk_jobs TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON bulk_jobs TO hookswitch_tenant;
GRANT SELECT (id, org_id, state) ON bulk_jobs TO hookswitch_worker;
-- The role that deletes audit entries by age takes none out that is younger than 30 days, whatever it is asked. No role changes one.
CREATE POLICY kept ON audit_log AS RESTRICTIVE FOR DELETE TO hookswitch_worker
    USING (at < (extract(epoch FROM now()) * 1000000)::bigint - 30::bigint * 86400 * 1000000);
