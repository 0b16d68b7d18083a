-- Deletion by age, and the day's actions of each organisation. Adds only: the release before it runs on this schema.
CREATE TABLE action_days (
    org_id uuid   NOT NULL,
    day    bigint NOT NULL,                            -- days since the Unix epoch, UTC
    used   bigint NOT NULL,                            -- rows of actions planned on that day, also those whose rule failed
    PRIMARY KEY (org_id, day)
);
ALTER TABLE action_days ENABLE ROW LEVEL SECURITY;
ALTER TABLE action_days FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON action_days TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON action_days TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON action_days TO hookswitch_worker;
GRANT SELECT (received_at), DELETE ON events TO hookswitch_worker;
GRANT SELECT (id, at), DELETE ON audit_log TO hookswitch_worker;
GRANT DELETE ON actions, attempts, dead_events, dedupe_keys, idempotency_keys TO hookswitch_worker;
