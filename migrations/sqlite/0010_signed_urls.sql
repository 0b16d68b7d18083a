-- A rejection shows the URL that its signature was compared over. Adds only: the release before it runs on this schema.
ALTER TABLE rejections ADD COLUMN signed_url TEXT; -- without its query; NULL where the source does not sign over it
