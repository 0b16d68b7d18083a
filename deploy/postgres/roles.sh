#!/bin/sh
# The logins and the database of Hookswitch, made once on a fresh server, as its superuser. The server
# is the one that PGHOST, PGPORT and the like name; in compose.yaml its image runs this file.
#
#   hookswitch_owner    owns the database and its tables; `hookswitch migrate` runs as it
#   hookswitch          what `hookswitch serve` runs as: it owns nothing, and takes on the two roles
#   hookswitch_backup   what pg_dump runs as: it reads everything, past row-level security
#
# The two roles under row-level security belong to the whole server: put no second installation on it.
set -eu
secrets=${SECRETS:-/run/secrets}
owner=$(cat "$secrets/postgres_owner_password")
login=$(cat "$secrets/postgres_password")
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<SQL
CREATE ROLE hookswitch_tenant NOLOGIN;
CREATE ROLE hookswitch_worker NOLOGIN;
CREATE ROLE hookswitch_owner LOGIN PASSWORD '$owner';
CREATE ROLE hookswitch LOGIN PASSWORD '$login';
CREATE ROLE hookswitch_backup LOGIN BYPASSRLS;
GRANT hookswitch_tenant, hookswitch_worker TO hookswitch_owner, hookswitch;
GRANT pg_read_all_data TO hookswitch_backup;
CREATE DATABASE hookswitch OWNER hookswitch_owner;
REVOKE CONNECT ON DATABASE hookswitch FROM PUBLIC;
GRANT CONNECT ON DATABASE hookswitch TO hookswitch, hookswitch_backup;
SQL
