-- The age of a credential's secret, and after how many days another one is due. Adds only: the release before it runs on this schema.
ALTER TABLE org_credentials ADD COLUMN rotate_after_days INTEGER NOT NULL DEFAULT 90; -- 0: never
ALTER TABLE org_credentials ADD COLUMN secret_since INTEGER;                          -- NULL: since the row was made
CREATE INDEX org_credentials_rotation ON org_credentials (coalesce(secret_since, created_at) + rotate_after_days * 86400000000)
    WHERE is_active = true AND name = '' AND rotate_after_days > 0;
