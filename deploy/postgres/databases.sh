#!/usr/bin/env bash
# For each program that has one, a database with two logins: NAME_owner migrates, NAME works (roles.sql). No login
# can connect to another's database. Runs at every start, so that a new program gets its own, and a new password
# counts.
set -euo pipefail
PGPASSWORD=$(</secrets/superuser)
export PGPASSWORD

while read -r program _ _ _ _ name _; do
  case $program/$name in '#'*|*/-) continue ;; esac
  for login in "$name" "${name}_owner"; do
    psql --quiet --set ON_ERROR_STOP=1 --set login="$login" <<'SQL'
      \set password `cat /secrets/:login`
      SELECT format('CREATE ROLE %I LOGIN', :'login')
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec
      ALTER ROLE :"login" PASSWORD :'password';
SQL
  done
  psql --quiet --set ON_ERROR_STOP=1 --set name="$name" --set worker="$name" --set owner="${name}_owner" <<'SQL'
    SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
      WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
    REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
    GRANT CONNECT ON DATABASE :"name" TO :"worker", :"owner";
    \connect :"name"
    \ir /roles.sql
SQL
done </programs.txt
psql --quiet --set ON_ERROR_STOP=1 --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
