-- Routes that an operator gave to the platform's account, and its events that lead to no organisation. Adds only: the release before it runs on
-- this schema.
ALTER TABLE assistant_org_mapping ADD COLUMN managed_by TEXT;    -- platform, or NULL
ALTER TABLE phone_numbers ADD COLUMN managed_by TEXT;
CREATE INDEX assistant_platform ON assistant_org_mapping (id) WHERE managed_by = 'platform';
CREATE TABLE quarantine (
    id             BLOB    NOT NULL PRIMARY KEY,       -- of the event
    source         TEXT    NOT NULL,
    event_type     TEXT    NOT NULL,
    received_at    INTEGER NOT NULL,
    quarantined_at INTEGER NOT NULL,
    ids            TEXT    NOT NULL,                   -- JSON array of [kind, value]: the external ids that it names
    envelope       BLOB    NOT NULL,                   -- sealed under the ring
    seal_head      BLOB    GENERATED ALWAYS AS (substr(envelope, 1, 9)) VIRTUAL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER assistant_org_mapping_stamp_managed AFTER UPDATE OF managed_by ON assistant_org_mapping
WHEN NEW.changed_version = OLD.changed_version AND NEW.managed_by IS NOT OLD.managed_by
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE assistant_org_mapping SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER phone_numbers_stamp_managed AFTER UPDATE OF managed_by ON phone_numbers
WHEN NEW.changed_version = OLD.changed_version AND NEW.managed_by IS NOT OLD.managed_by
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE phone_numbers SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;
