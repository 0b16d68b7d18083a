-- What no attempt may begin for. Adds only: the release before it runs on this schema.
CREATE TABLE pauses (
    target     text   NOT NULL PRIMARY KEY,            -- all, org:…, provider:…, rule:…
    scope      text   NOT NULL,
    org_id     uuid   NOT NULL,                        -- nil: it concerns no single organisation
    provider   text,
    rule_id    uuid,
    reason     text   NOT NULL,
    actor      text   NOT NULL,
    created_at bigint NOT NULL
);
ALTER TABLE pauses ENABLE ROW LEVEL SECURITY;
ALTER TABLE pauses FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON pauses TO hookswitch_tenant USING (org_id = hookswitch_org()) WITH CHECK (org_id = hookswitch_org());
CREATE POLICY worker ON pauses TO hookswitch_worker USING (true) WITH CHECK (true);
GRANT SELECT ON pauses TO hookswitch_tenant;
GRANT SELECT, INSERT, DELETE ON pauses TO hookswitch_worker;
