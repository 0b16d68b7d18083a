-- A rejection shows the URL that its signature was compared over. What the worker logs of an attempt names the subject of its
-- event. Adds only: the release before it runs on this schema.
ALTER TABLE rejections ADD COLUMN signed_url text; -- without its query; NULL where the source does not sign over it
GRANT SELECT (subject) ON events TO hookswitch_worker;
