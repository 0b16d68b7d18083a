-- Ids are UUIDs in 16 bytes; times are microseconds since the Unix epoch, UTC; every row of a tenant carries its org_id.
-- `changed_version` is the value of config_version at the row's last change: refreshes load what lies above the version they know.

CREATE TABLE config_version (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO config_version (id, version) VALUES (1, 1);

CREATE TABLE organizations (
    id              BLOB    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    is_active       INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX organizations_changed ON organizations (changed_version);

-- One data key (DEK) an organisation and version, wrapped by the key-encryption key named kek_id.
CREATE TABLE data_keys (
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    version         INTEGER NOT NULL,
    kek_id          TEXT    NOT NULL,
    wrapped         BLOB    NOT NULL,
    seals           INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL,
    PRIMARY KEY (org_id, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX data_keys_changed ON data_keys (changed_version);

-- A disconnected credential keeps its row (id, account fingerprint) and loses its ciphertext.
CREATE TABLE org_credentials (
    id                  BLOB    NOT NULL PRIMARY KEY,
    org_id              BLOB    NOT NULL REFERENCES organizations (id),
    provider            TEXT    NOT NULL,
    name                TEXT    NOT NULL DEFAULT '',  -- destinations of http.post have one each; '' for the others
    is_active           INTEGER NOT NULL DEFAULT 1,
    sealed              BLOB,
    version             INTEGER NOT NULL DEFAULT 1,
    state               TEXT    NOT NULL,
    cause               TEXT,
    error               TEXT,                          -- the provider's words, cut
    missing             TEXT,                          -- what a limited credential cannot do
    account_id          TEXT,
    account_name        TEXT,
    account_fingerprint TEXT,
    last_four           TEXT,
    checked_at          INTEGER,
    last_verified_at    INTEGER,
    last_used_at        INTEGER,
    first_failed_at     INTEGER,
    failing_version     INTEGER,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    changed_version     INTEGER NOT NULL,
    UNIQUE (org_id, provider, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX org_credentials_changed ON org_credentials (changed_version);
CREATE INDEX org_credentials_account ON org_credentials (provider, account_id) WHERE is_active = 1;

CREATE TABLE assistant_org_mapping (
    id              BLOB    NOT NULL PRIMARY KEY,
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    assistant_id    TEXT    NOT NULL,
    role            TEXT,                              -- inbound, outbound, or NULL
    name            TEXT,
    state           TEXT    NOT NULL,                  -- pending, live, released
    proof           TEXT,                              -- read_at_provider, made_by_us, approved_by_operator
    proven_at       INTEGER,
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL,
    UNIQUE (org_id, assistant_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX assistant_live ON assistant_org_mapping (assistant_id) WHERE state = 'live';
CREATE INDEX assistant_changed ON assistant_org_mapping (changed_version);

CREATE TABLE phone_numbers (
    id                 BLOB    NOT NULL PRIMARY KEY,
    org_id             BLOB    NOT NULL REFERENCES organizations (id),
    number             TEXT    NOT NULL,               -- E.164
    provider           TEXT    NOT NULL,               -- twilio or vapi
    account_id         TEXT,                           -- Twilio's account SID
    provider_number_id TEXT,                           -- Twilio's PN…, Vapi's phone number id
    state              TEXT    NOT NULL,
    proof              TEXT,
    proven_at          INTEGER,
    version            INTEGER NOT NULL DEFAULT 1,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    changed_version    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- A Twilio number is a route together with its account: the same number in another account is another claim, so that the old route stays as a tombstone.
CREATE UNIQUE INDEX phone_number_claim ON phone_numbers (org_id, number, provider, (CASE provider WHEN 'twilio' THEN ifnull(account_id, '') ELSE '' END));
CREATE INDEX phone_number_provider_id ON phone_numbers (provider, provider_number_id) WHERE state = 'live';
CREATE UNIQUE INDEX phone_number_live ON phone_numbers (number, provider, ifnull(account_id, '')) WHERE state = 'live';
CREATE INDEX phone_numbers_changed ON phone_numbers (changed_version);

CREATE TABLE endpoints (
    id              BLOB    NOT NULL PRIMARY KEY,
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    source          TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    ignored_types   TEXT    NOT NULL DEFAULT '[]',     -- JSON array of kinds
    is_active       INTEGER NOT NULL DEFAULT 1,
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoints_org ON endpoints (org_id, id);
CREATE INDEX endpoints_changed ON endpoints (changed_version);

-- Signing secrets: of an endpoint, or (endpoint_id NULL) of the organisation for a source. Several are valid at once while one is rotated.
CREATE TABLE endpoint_secrets (
    id              BLOB    NOT NULL PRIMARY KEY,
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    endpoint_id     BLOB,
    source          TEXT    NOT NULL,
    plan            TEXT    NOT NULL,                  -- JSON of source::Plan
    sealed          BLOB,                              -- NULL once erased
    last_four       TEXT,
    not_after       INTEGER,
    is_active       INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoint_secrets_org ON endpoint_secrets (org_id, source, endpoint_id);
CREATE INDEX endpoint_secrets_changed ON endpoint_secrets (changed_version);

CREATE TABLE rules (
    id              BLOB    NOT NULL PRIMARY KEY,
    org_id          BLOB    NOT NULL REFERENCES organizations (id),
    spec            TEXT    NOT NULL,                  -- JSON of domain::RuleSpec
    is_deleted      INTEGER NOT NULL DEFAULT 0,
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    changed_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rules_org ON rules (org_id, id) WHERE is_deleted = 0;
CREATE INDEX rules_changed ON rules (changed_version);

CREATE TABLE events (
    id           BLOB    NOT NULL PRIMARY KEY,
    org_id       BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    event_type   TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    endpoint_id  BLOB,
    time         INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    content_type TEXT    NOT NULL,
    path         TEXT    NOT NULL,
    query        TEXT    NOT NULL,
    headers      TEXT    NOT NULL,                     -- JSON array of [name, value]
    traceparent  TEXT,
    hops         INTEGER NOT NULL DEFAULT 0,
    body_sealed  BLOB,                                 -- sealed with the organisation's data key; NULL once forgotten
    body_bytes   INTEGER NOT NULL,
    dead_reason  TEXT                                  -- set when the event could not be planned at all
) STRICT, WITHOUT ROWID;
CREATE INDEX events_org ON events (org_id, id);
CREATE INDEX events_subject ON events (org_id, subject, id);

-- Narrow and unpartitioned: untouched by retention of events and by `forget` (rule 14).
-- hash = 16 bytes of SHA-256 over source, endpoint or none, and the event's dedupe key.
CREATE TABLE dedupe_keys (
    org_id     BLOB    NOT NULL,
    hash       BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (org_id, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE actions (
    id                 BLOB    NOT NULL PRIMARY KEY,
    org_id             BLOB    NOT NULL,
    event_id           BLOB    NOT NULL,
    rule_id            BLOB    NOT NULL,
    rule_name          TEXT    NOT NULL,
    kind               TEXT    NOT NULL,
    provider           TEXT    NOT NULL,
    credential_name    TEXT    NOT NULL DEFAULT '',
    state              TEXT    NOT NULL,
    cause              TEXT,
    detail             TEXT,                           -- the provider's words or ours, cut
    http_status        INTEGER,
    provider_code      TEXT,
    request_sealed     BLOB,                           -- rendered once, at plan (rule 4)
    idempotency_key    TEXT    NOT NULL,
    series             INTEGER NOT NULL DEFAULT 0,     -- counts replays of the event
    due_at             INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    attempts           INTEGER NOT NULL DEFAULT 0,     -- tries that count
    look_ups           INTEGER NOT NULL DEFAULT 0,
    absences           INTEGER NOT NULL DEFAULT 0,     -- look-ups in a row that found nothing
    fence              INTEGER NOT NULL DEFAULT 0,
    lease_until        INTEGER,
    first_sent_at      INTEGER,
    credential_version INTEGER,
    provider_ref       TEXT,
    hops               INTEGER NOT NULL DEFAULT 0,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What can be claimed, in order, without finished rows: the cost of a claim does not grow with the ledger.
CREATE INDEX actions_due ON actions (org_id, provider, due_at, id) WHERE state IN ('pending', 'waiting', 'unknown');
CREATE INDEX actions_leases ON actions (lease_until) WHERE state = 'running';
CREATE INDEX actions_parked ON actions (org_id, provider, credential_name) WHERE state = 'parked';
CREATE INDEX actions_org ON actions (org_id, id);
CREATE INDEX actions_event ON actions (event_id);
CREATE INDEX actions_state ON actions (org_id, state, id) WHERE state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead');
CREATE INDEX actions_unknown ON actions (first_sent_at) WHERE state = 'unknown' AND first_sent_at IS NOT NULL;
CREATE UNIQUE INDEX actions_provider_ref ON actions (org_id, provider, provider_ref) WHERE provider_ref IS NOT NULL;
-- 16 bytes of SHA-256 over the event's dedupe hash, rule and series: the plan's ON CONFLICT target (rules 4, 14).
CREATE TABLE idempotency_keys (
    org_id     BLOB    NOT NULL,
    hash       BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (org_id, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    action_id          BLOB    NOT NULL,
    number             INTEGER NOT NULL,               -- the fence that the attempt ran under
    org_id             BLOB    NOT NULL,
    is_look_up         INTEGER NOT NULL DEFAULT 0,
    started_at         INTEGER NOT NULL,
    ended_at           INTEGER,
    outcome            TEXT,
    cause              TEXT,
    http_status        INTEGER,
    provider_code      TEXT,
    detail             TEXT,
    credential_version INTEGER,
    PRIMARY KEY (action_id, number)
) STRICT, WITHOUT ROWID;

-- Whose turn it is (rule 22): one row for each organisation and provider with something that can be claimed. `due_at` is when its next turn
-- comes: never before its next action is due, and after a turn never before that turn, so that the order of due_at is the rotation.
CREATE TABLE turns (
    org_id       BLOB    NOT NULL,
    provider     TEXT    NOT NULL,
    due_at       INTEGER NOT NULL,
    last_turn_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, provider)
) STRICT, WITHOUT ROWID;
CREATE INDEX turns_next ON turns (due_at);

-- Requests that never became events; a bounded ring.
CREATE TABLE rejections (
    id          BLOB    NOT NULL PRIMARY KEY,
    seq         INTEGER NOT NULL,                      -- without gaps: the newest less the oldest is how many there are
    at          INTEGER NOT NULL,
    source      TEXT    NOT NULL,
    endpoint_id BLOB,
    org_id      BLOB,                                  -- whose ids or endpoint it claimed; NULL: nobody's
    is_claimed  INTEGER NOT NULL DEFAULT 0,            -- on the shared URL, by ids: the head is withheld from the organisation
    cause       TEXT    NOT NULL,
    status      INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    ids         TEXT    NOT NULL DEFAULT '[]',         -- JSON array of {kind, value}
    head        TEXT    NOT NULL DEFAULT ''            -- redacted
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX rejections_seq ON rejections (seq);
CREATE INDEX rejections_org ON rejections (org_id, id);

-- What could not be made an event's row: undecodable, or poison. Kept until a person looks.
CREATE TABLE dead_events (
    id          BLOB    NOT NULL PRIMARY KEY,
    org_id      BLOB,
    source      TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    dead_at     INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    envelope    BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_log (
    id          BLOB    NOT NULL PRIMARY KEY,
    org_id      BLOB    NOT NULL,
    at          INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    verb        TEXT    NOT NULL,
    target_kind TEXT    NOT NULL,
    target_id   TEXT    NOT NULL,
    fields      TEXT    NOT NULL DEFAULT '[]'          -- names of changed fields, never values
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_log_org ON audit_log (org_id, id);
