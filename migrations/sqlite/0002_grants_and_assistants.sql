-- What OAuth and the assistant manager need. Adds only: the release before it runs on this schema.

-- When a credential that expires is to be refreshed; while it fails, when that is tried next. NULL: it does not expire, or nobody tries again by itself.
ALTER TABLE org_credentials ADD COLUMN refresh_at INTEGER;
CREATE INDEX org_credentials_refresh ON org_credentials (refresh_at) WHERE refresh_at IS NOT NULL;

-- One thing at a time over all instances, without a transaction held meanwhile. Each taking counts the fence up; a write under a lease names its fence.
CREATE TABLE leases (
    org_id      BLOB    NOT NULL REFERENCES organizations (id),
    name        TEXT    NOT NULL,                      -- refresh:{credential id}, assistant:{role}
    fence       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (org_id, name)
) STRICT, WITHOUT ROWID;

-- Consents that were begun and have not come back. A row is taken out by its first use.
CREATE TABLE oauth_consents (
    id           BLOB    NOT NULL PRIMARY KEY,         -- the random part of `state`
    org_id       BLOB    NOT NULL REFERENCES organizations (id),
    provider     TEXT    NOT NULL,
    subject      TEXT    NOT NULL,                     -- who began it
    verifier     BLOB    NOT NULL,                     -- PKCE, sealed
    return_to    TEXT,
    may_replace  INTEGER NOT NULL DEFAULT 0,           -- another account than before is meant
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX oauth_consents_org ON oauth_consents (org_id, expires_at);

-- Assistants that we keep at Vapi: one for each organisation and role.
CREATE TABLE managed_assistants (
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    role            TEXT    NOT NULL,                  -- inbound, outbound
    marker          TEXT    NOT NULL,                  -- stands in the assistant's metadata at Vapi, and finds it again
    assistant_id    TEXT,                              -- NULL until Vapi has answered
    endpoint_id     BLOB    NOT NULL,                  -- where its webhooks go
    sealed          BLOB    NOT NULL,                  -- what is wanted, and the webhooks' secret; sealed as a payload
    state           TEXT    NOT NULL,                  -- making, in_step, drifted, missing
    drift           TEXT    NOT NULL DEFAULT '[]',     -- JSON array of the names of fields that differ at Vapi
    error           TEXT,
    checked_at      INTEGER,
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (org_id, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX managed_assistants_check ON managed_assistants (checked_at);
