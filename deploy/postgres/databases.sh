#!/bin/sh
# A role and a database of its own for each URL in /run/secrets, and for Temporal. It may be run again: what is there
# stays, and the passwords become those of the files.
set -eu
PGPASSWORD="$(cat /run/secrets/postgres_password)"
export PGPASSWORD

role() { # NAME PASSWORD
  ROLE="$1" PASSWORD="$2" psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$SERVER_URL" <<'SQL'
\getenv role ROLE
\getenv password PASSWORD
SELECT format('CREATE ROLE %I LOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', :'role', :'password') \gexec
SQL
}

database() { # NAME OWNER
  DATABASE="$1" OWNER="$2" psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$SERVER_URL" <<'SQL'
\getenv database DATABASE
\getenv owner OWNER
SELECT format('GRANT %I TO CURRENT_USER', :'owner')
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'database') \gexec
SQL
}

for file in /run/secrets/mallbots_*_database_url; do
  url="$(cat "$file")"
  credentials="${url#*://}"
  credentials="${credentials%%@*}"
  name="${url##*/}"
  role "${credentials%%:*}" "${credentials#*:}"
  database "${name%%\?*}" "${credentials%%:*}"
done

role temporal "$(cat /run/secrets/temporal_database_password)"
database temporal temporal
database temporal_visibility temporal
echo "every role has its database"
