-- An event that a person replays waits among the held events, with its series. Adds only: the release before it runs on this schema.
ALTER TABLE held_events ADD COLUMN series bigint NOT NULL DEFAULT 0;           -- 0: not planned before
ALTER TABLE held_events ADD COLUMN is_forced boolean NOT NULL DEFAULT false;   -- rules run again that have succeeded
GRANT SELECT (series) ON held_events TO hookswitch_tenant;
