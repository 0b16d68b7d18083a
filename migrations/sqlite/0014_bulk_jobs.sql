-- Work on many actions at once, and an audit that only grows. Adds only: the release before it runs on this schema.
CREATE TABLE bulk_jobs (
    id          BLOB    NOT NULL PRIMARY KEY,
    org_id      BLOB    NOT NULL,
    verb        TEXT    NOT NULL,                      -- retry, cancel
    filter      TEXT    NOT NULL,                      -- JSON: which actions
    state       TEXT    NOT NULL,                      -- running, stopped, done
    planned     INTEGER NOT NULL,
    done        INTEGER NOT NULL,
    skipped     INTEGER NOT NULL,
    position    BLOB    NOT NULL,                      -- the last action that was looked at
    last_action BLOB    NOT NULL,                      -- actions with later ids are not the job's
    actor       TEXT    NOT NULL,
    started_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_jobs_running ON bulk_jobs (id) WHERE state = 'running';
CREATE TRIGGER audit_log_is_never_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT raise(ABORT, 'an audit entry is never changed');
END;
