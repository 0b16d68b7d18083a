-- The account that an action's first try went to. Adds only: the release before it runs on this schema.
ALTER TABLE actions ADD COLUMN account TEXT;
