-- The last use of each signing secret, and the secret that verified an event. Adds only: the release before it runs on this schema.
ALTER TABLE endpoint_secrets ADD COLUMN last_used_at INTEGER;
ALTER TABLE events ADD COLUMN secret_id BLOB;
