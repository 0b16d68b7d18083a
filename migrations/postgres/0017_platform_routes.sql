-- Routes that an operator gave to the platform's account, and its events that lead to no organisation. Adds only: the release before it runs on
-- this schema.
ALTER TABLE assistant_org_mapping ADD COLUMN managed_by text;    -- platform, or NULL
ALTER TABLE phone_numbers ADD COLUMN managed_by text;
CREATE INDEX assistant_platform ON assistant_org_mapping (id) WHERE managed_by = 'platform';
CREATE TABLE quarantine (
    id             uuid   NOT NULL PRIMARY KEY,        -- of the event
    source         text   NOT NULL,
    event_type     text   NOT NULL,
    received_at    bigint NOT NULL,
    quarantined_at bigint NOT NULL,
    ids            text   NOT NULL,                    -- JSON array of [kind, value]: the external ids that it names
    envelope       bytea  NOT NULL,                    -- sealed under the ring
    seal_head      bytea  GENERATED ALWAYS AS (substr(envelope, 1, 9)) STORED
);
-- It belongs to no organisation: the role that sees one has no right to it.
GRANT SELECT, INSERT, DELETE ON quarantine TO hookswitch_worker;
CREATE TRIGGER stamp_managed BEFORE UPDATE ON assistant_org_mapping FOR EACH ROW
    WHEN (NEW.changed_version = OLD.changed_version AND NEW.managed_by IS DISTINCT FROM OLD.managed_by) EXECUTE FUNCTION hookswitch_stamp();
CREATE TRIGGER stamp_managed BEFORE UPDATE ON phone_numbers FOR EACH ROW
    WHEN (NEW.changed_version = OLD.changed_version AND NEW.managed_by IS DISTINCT FROM OLD.managed_by) EXECUTE FUNCTION hookswitch_stamp();
