-- The values before and after a change, and the address that it came from. Adds only: the release before it runs on this schema.
ALTER TABLE audit_log ADD COLUMN address TEXT;
ALTER TABLE audit_log ADD COLUMN changes TEXT;         -- JSON: fields with their values, of secrets only what happened to them
