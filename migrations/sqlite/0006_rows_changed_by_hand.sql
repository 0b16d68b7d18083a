-- Rows changed by hand are stamped, so that every instance sees them within one poll, as on Postgres. Our own writes stamp
-- their rows themselves. Adds only: the release before it runs on this schema.

CREATE TRIGGER organizations_stamp_new AFTER INSERT ON organizations
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE organizations SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER organizations_stamp_changed AFTER UPDATE OF is_active ON organizations
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.is_active IS NOT OLD.is_active
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE organizations SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER data_keys_stamp_new AFTER INSERT ON data_keys
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE data_keys SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE org_id = NEW.org_id AND version = NEW.version;
END;

CREATE TRIGGER data_keys_stamp_changed AFTER UPDATE OF kek_id, wrapped ON data_keys
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.kek_id IS NOT OLD.kek_id
    OR NEW.wrapped IS NOT OLD.wrapped
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE data_keys SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE org_id = NEW.org_id AND version = NEW.version;
END;

CREATE TRIGGER org_credentials_stamp_new AFTER INSERT ON org_credentials
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE org_credentials SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER org_credentials_stamp_changed AFTER UPDATE OF is_active, account_id ON org_credentials
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.is_active IS NOT OLD.is_active
    OR NEW.account_id IS NOT OLD.account_id
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE org_credentials SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER assistant_org_mapping_stamp_new AFTER INSERT ON assistant_org_mapping
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE assistant_org_mapping SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER assistant_org_mapping_stamp_changed AFTER UPDATE OF org_id, assistant_id, state ON assistant_org_mapping
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.org_id IS NOT OLD.org_id
    OR NEW.assistant_id IS NOT OLD.assistant_id
    OR NEW.state IS NOT OLD.state
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE assistant_org_mapping SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER phone_numbers_stamp_new AFTER INSERT ON phone_numbers
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE phone_numbers SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER phone_numbers_stamp_changed AFTER UPDATE OF org_id, number, provider, account_id, provider_number_id, state ON phone_numbers
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.org_id IS NOT OLD.org_id
    OR NEW.number IS NOT OLD.number
    OR NEW.provider IS NOT OLD.provider
    OR NEW.account_id IS NOT OLD.account_id
    OR NEW.provider_number_id IS NOT OLD.provider_number_id
    OR NEW.state IS NOT OLD.state
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE phone_numbers SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER endpoints_stamp_new AFTER INSERT ON endpoints
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE endpoints SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER endpoints_stamp_changed AFTER UPDATE OF source, ignored_types, is_active ON endpoints
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.source IS NOT OLD.source
    OR NEW.ignored_types IS NOT OLD.ignored_types
    OR NEW.is_active IS NOT OLD.is_active
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE endpoints SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER endpoint_secrets_stamp_new AFTER INSERT ON endpoint_secrets
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE endpoint_secrets SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER endpoint_secrets_stamp_changed AFTER UPDATE OF plan, sealed, not_after, is_active ON endpoint_secrets
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.plan IS NOT OLD.plan
    OR NEW.sealed IS NOT OLD.sealed
    OR NEW.not_after IS NOT OLD.not_after
    OR NEW.is_active IS NOT OLD.is_active
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE endpoint_secrets SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER rules_stamp_new AFTER INSERT ON rules
WHEN NEW.changed_version = 0
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE rules SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;

CREATE TRIGGER rules_stamp_changed AFTER UPDATE OF spec, is_deleted ON rules
WHEN NEW.changed_version = OLD.changed_version AND (
    NEW.spec IS NOT OLD.spec
    OR NEW.is_deleted IS NOT OLD.is_deleted
)
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1;
    UPDATE rules SET changed_version = (SELECT version FROM config_version WHERE id = 1) WHERE id = NEW.id;
END;
