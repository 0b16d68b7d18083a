-- What the admin API keeps for its callers: sessions of people in browsers, and the answers to requests that carried an
-- Idempotency-Key. Adds only: the release before it runs on this schema.

-- A session, or a link that becomes one by its first use.
CREATE TABLE sessions (
    org_id       BLOB    NOT NULL REFERENCES organizations (id),
    token_hash   BLOB    NOT NULL,                     -- SHA-256 of the random part of the cookie or the link
    is_link      INTEGER NOT NULL DEFAULT 0,
    subject      TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (org_id, token_hash)
) STRICT, WITHOUT ROWID;

-- A row without an answer is a request that is being worked on, or that was cut off.
CREATE TABLE request_keys (
    org_id       BLOB    NOT NULL REFERENCES organizations (id),
    key_hash     BLOB    NOT NULL,                     -- SHA-256 of the caller and the key
    request_hash BLOB    NOT NULL,                     -- SHA-256 of method, path, query and body
    answer       BLOB,                                 -- status, headers and body, sealed
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (org_id, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_keys_age ON request_keys (org_id, created_at);
