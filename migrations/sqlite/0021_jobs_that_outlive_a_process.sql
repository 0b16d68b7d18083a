-- A job belongs to a process while that renews its lease, and then to the next one. Adds only: the release before it runs on this schema.
ALTER TABLE bulk_jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;       -- counts its holders: a former one is refused
ALTER TABLE bulk_jobs ADD COLUMN lease_until INTEGER NOT NULL DEFAULT 0; -- until then it is its holder's
CREATE INDEX bulk_jobs_free ON bulk_jobs (lease_until) WHERE state = 'running';
CREATE INDEX bulk_jobs_of_org ON bulk_jobs (org_id, id);
-- The wrapping of the data keys with the primary key, in the same way.
ALTER TABLE primary_kek ADD COLUMN wrap_fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE primary_kek ADD COLUMN wrap_lease_until INTEGER;             -- NULL: no rotation is under way
