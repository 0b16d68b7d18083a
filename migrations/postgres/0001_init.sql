-- The schema of migrations/sqlite, in the words of Postgres. Times are microseconds since the Unix epoch, UTC, as the domain counts them; every row of
-- a tenant carries its org_id, and row-level security is forced on every table that has one.
-- `changed_version` is the value of config_version at the row's last change: refreshes load what lies above the version they know.

CREATE TABLE config_version (
    id      bigint  PRIMARY KEY CHECK (id = 1),
    version bigint  NOT NULL
);
INSERT INTO config_version (id, version) VALUES (1, 1);

CREATE TABLE organizations (
    id              uuid    NOT NULL PRIMARY KEY,
    name            text COLLATE "C" NOT NULL,
    is_active       boolean NOT NULL DEFAULT true,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0
);
CREATE INDEX organizations_changed ON organizations (changed_version);

-- One data key (DEK) an organisation and version, wrapped by the key-encryption key named kek_id.
CREATE TABLE data_keys (
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    version         bigint  NOT NULL,
    kek_id          text    NOT NULL,
    wrapped         bytea   NOT NULL,
    seals           bigint  NOT NULL DEFAULT 0,
    created_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, version)
);
CREATE INDEX data_keys_changed ON data_keys (changed_version);

-- A disconnected credential keeps its row (id, account fingerprint) and loses its ciphertext.
CREATE TABLE org_credentials (
    id                  uuid    NOT NULL PRIMARY KEY,
    org_id              uuid    NOT NULL REFERENCES organizations (id),
    provider            text COLLATE "C" NOT NULL,
    name                text COLLATE "C" NOT NULL DEFAULT '',  -- destinations of http.post have one each; '' for the others
    is_active           boolean NOT NULL DEFAULT true,
    sealed              bytea,
    version             bigint  NOT NULL DEFAULT 1,
    state               text    NOT NULL,
    cause               text,
    error               text,                          -- the provider's words, cut
    missing             text,                          -- what a limited credential cannot do
    account_id          text,
    account_name        text,
    account_fingerprint text,
    last_four           text,
    checked_at          bigint,
    last_verified_at    bigint,
    last_used_at        bigint,
    first_failed_at     bigint,
    failing_version     bigint,
    created_at          bigint  NOT NULL,
    updated_at          bigint  NOT NULL,
    refresh_at          bigint,                        -- when one that expires is to be refreshed; NULL: never, or nobody tries again by itself
    changed_version     bigint  NOT NULL DEFAULT 0,
    -- What the worker's role may know of a secret that it may not read.
    has_sealed          boolean NOT NULL GENERATED ALWAYS AS (sealed IS NOT NULL) STORED,
    UNIQUE (org_id, provider, name)
);
CREATE INDEX org_credentials_changed ON org_credentials (changed_version);
CREATE INDEX org_credentials_account ON org_credentials (provider, account_id) WHERE is_active;

CREATE TABLE assistant_org_mapping (
    id              uuid    NOT NULL PRIMARY KEY,
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    assistant_id    text COLLATE "C" NOT NULL,
    role            text,                              -- inbound, outbound, or NULL
    name            text,
    state           text    NOT NULL,                  -- pending, live, released
    proof           text,                              -- read_at_provider, made_by_us, approved_by_operator
    proven_at       bigint,
    version         bigint  NOT NULL DEFAULT 1,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0,
    UNIQUE (org_id, assistant_id)
);
CREATE UNIQUE INDEX assistant_live ON assistant_org_mapping (assistant_id) WHERE state = 'live';
CREATE INDEX assistant_changed ON assistant_org_mapping (changed_version);

CREATE TABLE phone_numbers (
    id                 uuid    NOT NULL PRIMARY KEY,
    org_id             uuid    NOT NULL REFERENCES organizations (id),
    number             text COLLATE "C" NOT NULL,               -- E.164
    provider           text COLLATE "C" NOT NULL,               -- twilio or vapi
    account_id         text,                           -- Twilio's account SID
    provider_number_id text,                           -- Twilio's PN…, Vapi's phone number id
    state              text    NOT NULL,
    proof              text,
    proven_at          bigint,
    version            bigint  NOT NULL DEFAULT 1,
    created_at         bigint  NOT NULL,
    updated_at         bigint  NOT NULL,
    changed_version    bigint  NOT NULL DEFAULT 0
);
-- A Twilio number is a route together with its account: the same number in another account is another claim, so that the old route stays as a tombstone.
CREATE UNIQUE INDEX phone_number_claim ON phone_numbers (org_id, number, provider, (CASE provider WHEN 'twilio' THEN coalesce(account_id, '') ELSE '' END));
CREATE INDEX phone_number_provider_id ON phone_numbers (provider, provider_number_id) WHERE state = 'live';
CREATE UNIQUE INDEX phone_number_live ON phone_numbers (number, provider, coalesce(account_id, '')) WHERE state = 'live';
CREATE INDEX phone_numbers_changed ON phone_numbers (changed_version);

CREATE TABLE endpoints (
    id              uuid    NOT NULL PRIMARY KEY,
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    source          text    NOT NULL,
    name            text COLLATE "C" NOT NULL,
    ignored_types   text    NOT NULL DEFAULT '[]',     -- JSON array of kinds
    is_active       boolean NOT NULL DEFAULT true,
    version         bigint  NOT NULL DEFAULT 1,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0
);
CREATE INDEX endpoints_org ON endpoints (org_id, id);
CREATE INDEX endpoints_changed ON endpoints (changed_version);

-- Signing secrets: of an endpoint, or (endpoint_id NULL) of the organisation for a source. Several are valid at once while one is rotated.
CREATE TABLE endpoint_secrets (
    id              uuid    NOT NULL PRIMARY KEY,
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    endpoint_id     uuid,
    source          text    NOT NULL,
    plan            text    NOT NULL,                  -- JSON of source::Plan
    sealed          bytea,                              -- NULL once erased
    last_four       text,
    not_after       bigint,
    is_active       boolean NOT NULL DEFAULT true,
    created_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0
);
CREATE INDEX endpoint_secrets_org ON endpoint_secrets (org_id, source, endpoint_id);
CREATE INDEX endpoint_secrets_changed ON endpoint_secrets (changed_version);

CREATE TABLE rules (
    id              uuid    NOT NULL PRIMARY KEY,
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    spec            text    NOT NULL,                  -- JSON of domain::RuleSpec
    is_deleted      boolean NOT NULL DEFAULT false,
    version         bigint  NOT NULL DEFAULT 1,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    changed_version bigint  NOT NULL DEFAULT 0
);
CREATE INDEX rules_org ON rules (org_id, id) WHERE NOT is_deleted;
CREATE INDEX rules_changed ON rules (changed_version);

CREATE TABLE events (
    id           uuid    NOT NULL PRIMARY KEY,
    org_id       uuid    NOT NULL,
    source       text    NOT NULL,
    event_type   text    NOT NULL,
    subject      text    NOT NULL,
    endpoint_id  uuid,
    time         bigint  NOT NULL,
    received_at  bigint  NOT NULL,
    content_type text    NOT NULL,
    path         text    NOT NULL,
    query        text    NOT NULL,
    headers      text    NOT NULL,                     -- JSON array of [name, value]
    traceparent  text,
    hops         bigint  NOT NULL DEFAULT 0,
    body_sealed  bytea,                                 -- sealed with the organisation's data key; NULL once forgotten
    body_bytes   bigint  NOT NULL,
    dead_reason  text    -- set when the event could not be planned at all
);
CREATE INDEX events_org ON events (org_id, id);
CREATE INDEX events_subject ON events (org_id, subject, id);

-- Narrow and unpartitioned: untouched by retention of events and by `forget` (rule 14).
-- hash = 16 bytes of SHA-256 over source, endpoint or none, and the event's dedupe key.
CREATE TABLE dedupe_keys (
    org_id     uuid    NOT NULL,
    hash       bytea   NOT NULL,
    created_at bigint  NOT NULL,
    PRIMARY KEY (org_id, hash)
);

CREATE TABLE actions (
    id                 uuid    NOT NULL PRIMARY KEY,
    org_id             uuid    NOT NULL,
    event_id           uuid    NOT NULL,
    rule_id            uuid    NOT NULL,
    rule_name          text    NOT NULL,
    kind               text    NOT NULL,
    provider           text COLLATE "C" NOT NULL,
    credential_name    text    NOT NULL DEFAULT '',
    state              text    NOT NULL,
    cause              text,
    detail             text,                           -- the provider's words or ours, cut
    http_status        bigint,
    provider_code      text,
    request_sealed     bytea,                           -- rendered once, at plan (rule 4)
    idempotency_key    text    NOT NULL,
    series             bigint  NOT NULL DEFAULT 0,     -- counts replays of the event
    due_at             bigint  NOT NULL,
    expires_at         bigint  NOT NULL,
    attempts           bigint  NOT NULL DEFAULT 0,     -- tries that count
    look_ups           bigint  NOT NULL DEFAULT 0,
    absences           bigint  NOT NULL DEFAULT 0,     -- look-ups in a row that found nothing
    fence              bigint  NOT NULL DEFAULT 0,
    lease_until        bigint,
    first_sent_at      bigint,
    credential_version bigint,
    provider_ref       text,
    hops               bigint  NOT NULL DEFAULT 0,
    created_at         bigint  NOT NULL,
    updated_at         bigint  NOT NULL
);
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
    org_id     uuid    NOT NULL,
    hash       bytea   NOT NULL,
    created_at bigint  NOT NULL,
    PRIMARY KEY (org_id, hash)
);

CREATE TABLE attempts (
    action_id          uuid    NOT NULL,
    number             bigint  NOT NULL,               -- the fence that the attempt ran under
    org_id             uuid    NOT NULL,
    is_look_up         boolean NOT NULL DEFAULT false,
    started_at         bigint  NOT NULL,
    ended_at           bigint,
    outcome            text,
    cause              text,
    http_status        bigint,
    provider_code      text,
    detail             text,
    credential_version bigint,
    PRIMARY KEY (action_id, number)
);

-- Whose turn it is (rule 22): one row for each organisation and provider with something that can be claimed. `due_at` is when its next turn
-- comes: never before its next action is due, and after a turn never before that turn, so that the order of due_at is the rotation.
CREATE TABLE turns (
    org_id       uuid    NOT NULL,
    provider     text COLLATE "C" NOT NULL,
    due_at       bigint  NOT NULL,
    last_turn_at bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, provider)
);
CREATE INDEX turns_next ON turns (due_at);

-- Requests that never became events; a bounded ring.
CREATE TABLE rejections (
    id          uuid    NOT NULL PRIMARY KEY,
    seq         bigint  NOT NULL,                      -- without gaps: the newest less the oldest is how many there are
    at          bigint  NOT NULL,
    source      text    NOT NULL,
    endpoint_id uuid,
    org_id      uuid,                                  -- whose ids or endpoint it claimed; NULL: nobody's
    is_claimed  boolean NOT NULL DEFAULT false,            -- on the shared URL, by ids: the head is withheld from the organisation
    cause       text    NOT NULL,
    status      bigint  NOT NULL,
    bytes       bigint  NOT NULL,
    ids         text    NOT NULL DEFAULT '[]',         -- JSON array of {kind, value}
    head        text    NOT NULL DEFAULT ''            -- redacted
);
CREATE UNIQUE INDEX rejections_seq ON rejections (seq);
CREATE INDEX rejections_org ON rejections (org_id, id);

-- What could not be made an event's row: undecodable, or poison. Kept until a person looks.
CREATE TABLE dead_events (
    id          uuid    NOT NULL PRIMARY KEY,
    org_id      uuid,
    source      text    NOT NULL,
    event_type  text    NOT NULL,
    received_at bigint  NOT NULL,
    dead_at     bigint  NOT NULL,
    reason      text    NOT NULL,
    envelope    bytea   NOT NULL
);

CREATE TABLE audit_log (
    id          uuid    NOT NULL PRIMARY KEY,
    org_id      uuid    NOT NULL,
    at          bigint  NOT NULL,
    actor       text    NOT NULL,
    verb        text    NOT NULL,
    target_kind text    NOT NULL,
    target_id   text    NOT NULL,
    fields      text    NOT NULL DEFAULT '[]'          -- names of changed fields, never values
);
CREATE INDEX audit_log_org ON audit_log (org_id, id);

CREATE INDEX org_credentials_refresh ON org_credentials (refresh_at) WHERE refresh_at IS NOT NULL;

-- One thing at a time over all instances, without a transaction held meanwhile. Each taking counts the fence up; a write under a lease names its fence.
CREATE TABLE leases (
    org_id      uuid    NOT NULL REFERENCES organizations (id),
    name        text COLLATE "C" NOT NULL,                      -- refresh:{credential id}, assistant:{role}
    fence       bigint  NOT NULL,
    lease_until bigint  NOT NULL,
    PRIMARY KEY (org_id, name)
);

-- Consents that were begun and have not come back. A row is taken out by its first use.
CREATE TABLE oauth_consents (
    id           uuid    NOT NULL PRIMARY KEY,         -- the random part of `state`
    org_id       uuid    NOT NULL REFERENCES organizations (id),
    provider     text COLLATE "C" NOT NULL,
    subject      text    NOT NULL,                     -- who began it
    verifier     bytea   NOT NULL,                     -- PKCE, sealed
    return_to    text,
    may_replace  boolean NOT NULL DEFAULT false,           -- another account than before is meant
    expires_at   bigint  NOT NULL
);
CREATE INDEX oauth_consents_org ON oauth_consents (org_id, expires_at);

-- Assistants that we keep at Vapi: one for each organisation and role.
CREATE TABLE managed_assistants (
    org_id          uuid    NOT NULL REFERENCES organizations (id),
    role            text COLLATE "C" NOT NULL,                  -- inbound, outbound
    marker          text    NOT NULL,                  -- stands in the assistant's metadata at Vapi, and finds it again
    assistant_id    text,                              -- NULL until Vapi has answered
    endpoint_id     uuid    NOT NULL,                  -- where its webhooks go
    sealed          bytea   NOT NULL,                  -- what is wanted, and the webhooks' secret; sealed as a payload
    state           text    NOT NULL,                  -- making, in_step, drifted, missing
    drift           text    NOT NULL DEFAULT '[]',     -- JSON array of the names of fields that differ at Vapi
    error           text,
    checked_at      bigint,
    version         bigint  NOT NULL DEFAULT 1,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    PRIMARY KEY (org_id, role)
);
CREATE INDEX managed_assistants_check ON managed_assistants (checked_at);

-- Claimed rows leave the partial indexes; what they leave behind is cleaned up long before a fifth of the ledger has changed.
ALTER TABLE actions SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE turns SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE config_version SET (fillfactor = 50);

-- Changes of configuration. Hookswitch's own writes count the version up first and stamp their rows with it, one transaction after the other; what a
-- person changes by hand is stamped here. One notification a transaction, none for events or actions.
CREATE FUNCTION hookswitch_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hookswitch_config', NEW.version::text);
    RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER UPDATE OF version ON config_version FOR EACH ROW EXECUTE FUNCTION hookswitch_notify();

CREATE FUNCTION hookswitch_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE config_version SET version = version + 1 WHERE id = 1 RETURNING version INTO NEW.changed_version;
    RETURN NEW;
END $$;

DO $$
DECLARE
    one record;
    changed text;
BEGIN
    -- What each table has that routes, secrets and rules in memory are made of; the rest (uses, seals, refreshed tokens) is news to nobody.
    FOR one IN SELECT * FROM (VALUES
        ('organizations', ARRAY['is_active']),
        ('data_keys', ARRAY['kek_id', 'wrapped']),
        ('org_credentials', ARRAY['is_active', 'account_id']),
        ('assistant_org_mapping', ARRAY['org_id', 'assistant_id', 'state']),
        ('phone_numbers', ARRAY['org_id', 'number', 'provider', 'account_id', 'provider_number_id', 'state']),
        ('endpoints', ARRAY['source', 'ignored_types', 'is_active']),
        ('endpoint_secrets', ARRAY['plan', 'sealed', 'not_after', 'is_active']),
        ('rules', ARRAY['spec', 'is_deleted'])
    ) AS stamped (name, columns) LOOP
        SELECT string_agg(format('NEW.%1$I IS DISTINCT FROM OLD.%1$I', c), ' OR ') INTO changed FROM unnest(one.columns) AS c;
        EXECUTE format('CREATE TRIGGER stamp_new BEFORE INSERT ON %I FOR EACH ROW WHEN (NEW.changed_version = 0) EXECUTE FUNCTION hookswitch_stamp()', one.name);
        EXECUTE format('CREATE TRIGGER stamp_changed BEFORE UPDATE ON %I FOR EACH ROW WHEN (NEW.changed_version = OLD.changed_version AND (%s)) '
            'EXECUTE FUNCTION hookswitch_stamp()', one.name, changed);
    END LOOP;
END $$;

-- Two roles, which a login takes on; neither owns a table, and neither passes row-level security by.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['hookswitch_tenant', 'hookswitch_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this cluster was first
            END;
        END IF;
        IF NOT pg_has_role(current_user, wanted, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
        END IF;
    END LOOP;
END $$;

-- The organisation of a transaction. Unset: none, and so no row.
CREATE FUNCTION hookswitch_org() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('hookswitch.org_id', true), '')::uuid
$$;

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT table_name AS name, CASE table_name WHEN 'organizations' THEN 'id' ELSE 'org_id' END AS org
        FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND table_name NOT IN ('config_version', '_sqlx_migrations')
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t.name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t.name);
        EXECUTE format('CREATE POLICY tenant ON %I TO hookswitch_tenant USING (%2$I = hookswitch_org()) WITH CHECK (%2$I = hookswitch_org())', t.name, t.org);
        EXECUTE format('CREATE POLICY worker ON %I TO hookswitch_worker USING (true) WITH CHECK (true)', t.name);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO hookswitch_tenant, hookswitch_worker', current_schema());
END $$;

-- A login that has the roles and nothing else finds out whether the schema is its binary's.
DO $$
BEGIN
    IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
        GRANT SELECT ON _sqlx_migrations TO hookswitch_tenant, hookswitch_worker;
    END IF;
END $$;

GRANT SELECT, UPDATE ON config_version TO hookswitch_tenant, hookswitch_worker;

-- The role that sees one organisation: what the admin API does, and a credential for the attempt that needs it.
GRANT SELECT, INSERT ON organizations, audit_log TO hookswitch_tenant;
GRANT SELECT, INSERT, UPDATE ON data_keys, org_credentials, endpoints, endpoint_secrets, rules, leases, turns TO hookswitch_tenant;
GRANT SELECT, UPDATE ON assistant_org_mapping, phone_numbers, actions, attempts TO hookswitch_tenant;
GRANT SELECT ON events, rejections, dead_events TO hookswitch_tenant;
GRANT SELECT, INSERT, DELETE ON oauth_consents TO hookswitch_tenant;
GRANT SELECT, DELETE ON managed_assistants TO hookswitch_tenant;

-- The role that serves all: it reads no credential's ciphertext, no event's body, no audit entry.
GRANT SELECT ON organizations, data_keys, endpoints, endpoint_secrets, rules, leases TO hookswitch_worker;
GRANT SELECT (id, org_id, provider, name, is_active, version, state, account_id, last_verified_at, refresh_at, created_at, changed_version, has_sealed)
    ON org_credentials TO hookswitch_worker;
GRANT SELECT, INSERT, UPDATE ON assistant_org_mapping, phone_numbers, managed_assistants, actions, attempts TO hookswitch_worker;
GRANT INSERT ON audit_log TO hookswitch_worker;
GRANT SELECT (id, org_id), INSERT ON events, dead_events TO hookswitch_worker;
GRANT SELECT, INSERT ON dedupe_keys, idempotency_keys TO hookswitch_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON turns TO hookswitch_worker;
GRANT SELECT, INSERT, DELETE ON rejections TO hookswitch_worker;
GRANT SELECT, DELETE ON oauth_consents TO hookswitch_worker;
