-- The account that an action's first try went to. Adds only: the release before it runs on this schema.
ALTER TABLE actions ADD COLUMN account text;

-- A claim reads which account is connected; a fingerprint tells nothing of the account.
GRANT SELECT (account_fingerprint) ON org_credentials TO hookswitch_worker;
