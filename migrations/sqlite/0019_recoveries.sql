-- When the database was put back from a backup: what was received before may have been acted on since. Adds only: the release before it runs on this schema.
CREATE TABLE recoveries (
    recovered_at INTEGER NOT NULL PRIMARY KEY,
    restored_to  INTEGER NOT NULL,                     -- the moment of the backup
    actor        TEXT    NOT NULL
) STRICT;
