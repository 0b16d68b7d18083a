-- Which processes live and which keys they hold, and the key that all of them seal with. Adds only: the release before it runs on this schema.
CREATE TABLE instances (
    id          uuid   NOT NULL PRIMARY KEY,
    name        text   NOT NULL,                       -- host and process, for people
    roles       text   NOT NULL,
    kek_ids     text   NOT NULL,                       -- JSON array: names of the keys in its ring, never a key
    sealing_kek text   NOT NULL,                       -- name of the key that it seals with
    started_at  bigint NOT NULL,
    seen_at     bigint NOT NULL                        -- by the database's clock
);
CREATE TABLE primary_kek (
    id     bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    kek_id text   NOT NULL,
    since  bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON instances TO hookswitch_worker;
GRANT SELECT, INSERT, UPDATE ON primary_kek TO hookswitch_worker;
-- A rotation wraps data keys again, of all organisations.
GRANT UPDATE (kek_id, wrapped, changed_version) ON data_keys TO hookswitch_worker;
-- The first bytes of a sealed content: its format and, where it is sealed under the ring, the name of the key. Nothing of the content.
ALTER TABLE dead_events ADD COLUMN seal_head bytea GENERATED ALWAYS AS (substr(envelope, 1, 9)) STORED;
GRANT SELECT (seal_head) ON dead_events TO hookswitch_worker;
