#!/usr/bin/env bash
# A database and a login for each program that has one; no login can connect to another's database. Runs at
# every start, so that a new program gets its own, and a new password counts.
set -euo pipefail
PGPASSWORD=$(</secrets/superuser)
export PGPASSWORD

while read -r program _ _ _ _ name _; do
  case $program/$name in '#'*|*/-) continue ;; esac
  psql --quiet --set ON_ERROR_STOP=1 --set name="$name" <<'SQL'
    \set password `cat /secrets/:name`
    SELECT format('CREATE ROLE %I LOGIN', :'name')
      WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
    ALTER ROLE :"name" PASSWORD :'password';
    SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
      WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
    REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done </programs.txt
psql --quiet --set ON_ERROR_STOP=1 --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
