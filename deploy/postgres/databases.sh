#!/usr/bin/env bash
# One database and one login for each program that has one; no login can connect to another's database.
set -euo pipefail

while read -r program _ _ _ _ name _; do
  case $program/$name in '#'*|*/-) continue ;; esac
  psql --set ON_ERROR_STOP=1 --username postgres --set name="$name" --set password="$(<"/secrets/$name")" <<'SQL'
    CREATE ROLE :"name" LOGIN PASSWORD :'password';
    CREATE DATABASE :"name" OWNER :"name";
    REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done </programs.txt
psql --set ON_ERROR_STOP=1 --username postgres --command 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
