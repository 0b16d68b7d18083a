-- Events that cannot be planned yet, and dead events that an operator puts back. Adds only: the release before it runs on this schema.
CREATE TABLE held_events (
    org_id      uuid   NOT NULL,                       -- without a foreign key: the organisation may be what is waited for
    event_id    uuid   NOT NULL,
    cause       text   NOT NULL,                       -- organisation_unknown, data_key, order, replay
    received_at bigint NOT NULL,
    envelope    bytea  NOT NULL,                       -- as the queue encodes it, sealed
    PRIMARY KEY (org_id, event_id)
);
CREATE INDEX held_events_received ON held_events (received_at, cause);
ALTER TABLE held_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE held_events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON held_events TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON held_events TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT (org_id, event_id, cause), INSERT, UPDATE (cause) ON held_events TO hookswitch_tenant;
GRANT SELECT, INSERT, DELETE ON held_events TO hookswitch_worker;
-- Operators list dead events without their contents, and move one of an organisation to those that wait.
GRANT SELECT (source, event_type, received_at, dead_at, reason) ON dead_events TO hookswitch_worker;
GRANT DELETE ON dead_events TO hookswitch_tenant;
