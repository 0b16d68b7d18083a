-- An event that a person replays waits among the held events, with its series. Adds only: the release before it runs on this schema.
ALTER TABLE held_events ADD COLUMN series INTEGER NOT NULL DEFAULT 0;    -- 0: not planned before
ALTER TABLE held_events ADD COLUMN is_forced INTEGER NOT NULL DEFAULT 0; -- rules run again that have succeeded
