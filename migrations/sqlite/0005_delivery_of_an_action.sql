-- What became of what an action sent, by the provider's callbacks. Adds only: the release before it runs on this schema.
ALTER TABLE actions ADD COLUMN delivery TEXT;
ALTER TABLE actions ADD COLUMN delivery_code TEXT;
ALTER TABLE actions ADD COLUMN delivery_detail TEXT;
ALTER TABLE actions ADD COLUMN delivery_at INTEGER;
