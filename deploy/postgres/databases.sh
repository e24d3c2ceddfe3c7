#!/usr/bin/env bash
# For each program that has one, a database with two roles: NAME_owner migrates, NAME works (roles.sql). No role can
# connect to another's database. Runs at every start, so that a new program gets its own, and a new password counts.
#
# Nobody logs in as a role. Its logins ROLE.a and ROLE.b act as the role: the one whose password is in /secrets,
# and both during a rotation (docs/rotation.md).
set -euo pipefail
PGPASSWORD=$(</secrets/superuser)
export PGPASSWORD PGOPTIONS='-c client_min_messages=warning'
sql() { psql --quiet --set ON_ERROR_STOP=1 "$@"; }

# During a rotation there is a next password of the superuser. An interrupted one may have set it already.
if [ -s /secrets/superuser.next ]; then
  set_next() {
    sql <<'SQL'
      \set password `cat /secrets/superuser.next`
      ALTER ROLE postgres PASSWORD :'password';
SQL
  }
  next=$(</secrets/superuser.next)
  set_next 2>/dev/null || PGPASSWORD=$next set_next
  PGPASSWORD=$next
fi

while read -r program _ _ _ _ name _; do
  case $program/$name in '#'*|*/-) continue ;; esac
  for role in "$name" "${name}_owner"; do
    sql --set role="$role" <<'SQL'
      SELECT format('CREATE ROLE %I', :'role')
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
      ALTER ROLE :"role" NOLOGIN;
SQL
  done
  sql --set name="$name" --set worker="$name" --set owner="${name}_owner" <<'SQL'
    SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
      WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
    REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
    GRANT CONNECT ON DATABASE :"name" TO :"worker", :"owner";
    \connect :"name"
    \ir /roles.sql
SQL
  for role in "$name" "${name}_owner"; do
    for login in "$role.a" "$role.b"; do
      if [ -s "/secrets/$login" ]; then
        sql --set role="$role" --set login="$login" <<'SQL'
          \set password `cat /secrets/:login`
          SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', :'login', :'role')
            WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec
          ALTER ROLE :"login" PASSWORD :'password';
          ALTER ROLE :"login" SET role = :'role';
SQL
      else
        sql --set login="$login" <<<'DROP ROLE IF EXISTS :"login"'
      fi
    done
  done
done </programs.txt
sql --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
