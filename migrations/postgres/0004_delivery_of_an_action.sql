-- What became of what an action sent, by the provider's callbacks. Adds only: the release before it runs on this schema.
ALTER TABLE actions
    ADD COLUMN delivery text,
    ADD COLUMN delivery_code text,
    ADD COLUMN delivery_detail text,
    ADD COLUMN delivery_at bigint;
