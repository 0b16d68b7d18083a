-- Events that wait for one rule, because it could not be read when they were planned. Adds only: the release before it runs on this schema.
CREATE TABLE held_parts (
    org_id   BLOB    NOT NULL REFERENCES organizations (id),
    rule_key BLOB    NOT NULL,                         -- the rule's id as it stands: it may be what is broken
    event_id BLOB    NOT NULL,
    held_at  INTEGER NOT NULL,
    envelope BLOB    NOT NULL,                         -- as the queue encodes it, sealed
    PRIMARY KEY (org_id, rule_key, event_id)
) STRICT, WITHOUT ROWID;
