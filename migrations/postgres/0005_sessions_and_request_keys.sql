-- What the admin API keeps for its callers: sessions of people in browsers, and the answers to requests that carried an
-- Idempotency-Key. Adds only: the release before it runs on this schema.

-- A session, or a link that becomes one by its first use.
CREATE TABLE sessions (
    org_id       uuid    NOT NULL REFERENCES organizations (id),
    token_hash   bytea   NOT NULL,                     -- SHA-256 of the random part of the cookie or the link
    is_link      boolean NOT NULL DEFAULT false,
    subject      text    NOT NULL,
    role         text COLLATE "C" NOT NULL,
    created_at   bigint  NOT NULL,
    expires_at   bigint  NOT NULL,
    PRIMARY KEY (org_id, token_hash)
);

-- A row without an answer is a request that is being worked on, or that was cut off.
CREATE TABLE request_keys (
    org_id       uuid    NOT NULL REFERENCES organizations (id),
    key_hash     bytea   NOT NULL,                     -- SHA-256 of the caller and the key
    request_hash bytea   NOT NULL,                     -- SHA-256 of method, path, query and body
    answer       bytea,                                -- status, headers and body, sealed
    created_at   bigint  NOT NULL,
    PRIMARY KEY (org_id, key_hash)
);
CREATE INDEX request_keys_age ON request_keys (org_id, created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sessions', 'request_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org())', name);
        -- Not for the worker: it has the policy that every table has, and no right.
        EXECUTE format('CREATE POLICY worker ON %I TO hookswitch_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO hookswitch_tenant', name);
    END LOOP;
END $$;
