-- What no attempt may begin for. Adds only: the release before it runs on this schema.
CREATE TABLE pauses (
    target     TEXT    NOT NULL PRIMARY KEY,           -- all, org:…, provider:…, rule:…
    scope      TEXT    NOT NULL,
    org_id     BLOB    NOT NULL,                       -- nil: it concerns no single organisation
    provider   TEXT,
    rule_id    BLOB,
    reason     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
