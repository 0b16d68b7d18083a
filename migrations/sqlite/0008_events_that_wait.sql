-- Events that cannot be planned yet, and dead events that an operator puts back. Adds only: the release before it runs on this schema.
CREATE TABLE held_events (
    org_id      BLOB    NOT NULL,                      -- without a foreign key: the organisation may be what is waited for
    event_id    BLOB    NOT NULL,
    cause       TEXT    NOT NULL,                      -- organisation_unknown, data_key, order, replay
    received_at INTEGER NOT NULL,
    envelope    BLOB    NOT NULL,                      -- as the queue encodes it, sealed
    PRIMARY KEY (org_id, event_id)
) STRICT;
CREATE INDEX held_events_received ON held_events (received_at, cause);
