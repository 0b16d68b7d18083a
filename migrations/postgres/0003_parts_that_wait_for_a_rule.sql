-- Events that wait for one rule, because it could not be read when they were planned. Adds only: the release before it runs on this schema.
CREATE TABLE held_parts (
    org_id   uuid   NOT NULL REFERENCES organizations (id),
    rule_key bytea  NOT NULL,                          -- the rule's id as it stands
    event_id uuid   NOT NULL,
    held_at  bigint NOT NULL,
    envelope bytea  NOT NULL,                          -- as the queue encodes it, sealed
    PRIMARY KEY (org_id, rule_key, event_id)
);
ALTER TABLE held_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE held_parts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON held_parts TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON held_parts TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT ON held_parts TO hookswitch_tenant;
GRANT SELECT, INSERT, DELETE ON held_parts TO hookswitch_worker;
