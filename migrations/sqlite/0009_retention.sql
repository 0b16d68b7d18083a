-- The day's actions of each organisation. Adds only: the release before it runs on this schema.
CREATE TABLE action_days (
    org_id BLOB    NOT NULL,
    day    INTEGER NOT NULL,                           -- days since the Unix epoch, UTC
    used   INTEGER NOT NULL,                           -- rows of actions planned on that day, also those whose rule failed
    PRIMARY KEY (org_id, day)
) STRICT, WITHOUT ROWID;
