-- What an organisation's own people choose; one without a row has chosen nothing. Adds only: the release before it runs on this schema.
CREATE TABLE organization_settings (
    org_id          uuid   NOT NULL PRIMARY KEY REFERENCES organizations (id),
    time_zone       text,                              -- of the IANA database; NULL: UTC
    opening_hours   text,                              -- JSON of domain::OpeningHours
    quiet_hours     text,                              -- JSON of domain::QuietHours
    retention_days  bigint,                            -- NULL: the installation's
    version         bigint NOT NULL DEFAULT 1,
    created_at      bigint NOT NULL,
    updated_at      bigint NOT NULL,
    changed_version bigint NOT NULL DEFAULT 0
);
CREATE INDEX organization_settings_changed ON organization_settings (changed_version);
CREATE INDEX organization_settings_retention ON organization_settings (org_id) WHERE retention_days IS NOT NULL;
ALTER TABLE organization_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE organization_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON organization_settings TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON organization_settings TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON organization_settings TO hookswitch_tenant;
GRANT SELECT ON organization_settings TO hookswitch_worker;
CREATE TRIGGER stamp_new BEFORE INSERT ON organization_settings FOR EACH ROW WHEN (NEW.changed_version = 0) EXECUTE FUNCTION hookswitch_stamp();
CREATE TRIGGER stamp_changed BEFORE UPDATE ON organization_settings FOR EACH ROW WHEN (
    NEW.changed_version = OLD.changed_version AND (
        NEW.time_zone IS DISTINCT FROM OLD.time_zone
        OR NEW.opening_hours IS DISTINCT FROM OLD.opening_hours
        OR NEW.quiet_hours IS DISTINCT FROM OLD.quiet_hours
        OR NEW.retention_days IS DISTINCT FROM OLD.retention_days
    )
) EXECUTE FUNCTION hookswitch_stamp();
