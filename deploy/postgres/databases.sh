#!/usr/bin/env bash
# A database and a role for each program that has one; no role can connect to another's database. Runs at every
# start, so that a new program gets its own, and a new password counts.
#
# Nobody logs in as the role. Its logins ROLE.a and ROLE.b act as the role: the one whose password is in /secrets,
# and both during a rotation (docs/rotation.md).
set -euo pipefail
PGPASSWORD=$(</secrets/superuser)
export PGPASSWORD PGOPTIONS='-c client_min_messages=warning'
sql() { psql --quiet --set ON_ERROR_STOP=1 "$@"; }

while read -r program _ _ _ _ name _; do
  case $program/$name in '#'*|*/-) continue ;; esac
  sql --set name="$name" <<'SQL'
    SELECT format('CREATE ROLE %I', :'name')
      WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
    ALTER ROLE :"name" NOLOGIN;
    SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
      WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
    REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
  for login in "$name.a" "$name.b"; do
    if [ -s "/secrets/$login" ]; then
      sql --set name="$name" --set login="$login" <<'SQL'
        \set password `cat /secrets/:login`
        SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', :'login', :'name')
          WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec
        ALTER ROLE :"login" PASSWORD :'password';
        ALTER ROLE :"login" SET role = :'name';
SQL
    else
      sql --set login="$login" <<<'DROP ROLE IF EXISTS :"login"'
    fi
  done
done </programs.txt
sql --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
