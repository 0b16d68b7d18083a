-- What an organisation's own people choose; one without a row has chosen nothing. Adds only: the release before it runs on this schema.
CREATE TABLE organization_settings (
    org_id          BLOB    NOT NULL PRIMARY KEY REFERENCES organizations (id),
    time_zone       TEXT,                              -- of the IANA database; NULL: UTC
    opening_hours   TEXT,                              -- JSON of domain::OpeningHours
    quiet_hours     TEXT,                              -- JSON of domain::QuietHours
    retention_days  INTEGER,                           -- NULL: the installation's
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX organization_settings_changed ON organization_settings (changed_version);
CREATE INDEX organization_settings_retention ON organization_settings (org_id) WHERE retention_days IS NOT NULL;

CREATE TRIGGER organization_settings_stamp_new AFTER INSERT ON organization_settings
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE organization_settings SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE org_id = NEW.org_id;
END;

CREATE TRIGGER organization_settings_stamp_changed AFTER UPDATE OF time_zone, opening_hours, quiet_hours, retention_days ON organization_settings
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.time_zone IS NOT OLD.time_zone
    OR NEW.opening_hours IS NOT OLD.opening_hours
    OR NEW.quiet_hours IS NOT OLD.quiet_hours
    OR NEW.retention_days IS NOT OLD.retention_days
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE organization_settings SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE org_id = NEW.org_id;
END;
