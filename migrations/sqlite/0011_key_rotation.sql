-- The process and the keys that it holds, and the key that it seals with. Adds only: the release before it runs on this schema.
CREATE TABLE instances (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,                      -- host and process, for people
    roles       TEXT    NOT NULL,
    kek_ids     TEXT    NOT NULL,                      -- JSON array: names of the keys in its ring, never a key
    sealing_kek TEXT    NOT NULL,                      -- name of the key that it seals with
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE primary_kek (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    kek_id TEXT    NOT NULL,
    since  INTEGER NOT NULL
) STRICT;
-- The first bytes of a sealed content: its format and, where it is sealed under the ring, the name of the key. Nothing of the content.
ALTER TABLE dead_events ADD COLUMN seal_head BLOB GENERATED ALWAYS AS (substr(envelope, 1, 9)) VIRTUAL;
