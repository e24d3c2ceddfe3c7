# shellcheck shell=bash
# Starts servers for the tests of adapters, in containers, on free ports of loopback. If TEST_POSTGRES_URL,
# TEST_NATS_URL or TEST_CONSUL_URL is set, the tests use that server. If Docker does not have an image, its server is
# not started, and its tests are skipped.

SERVERS=() SERVER_FILES=''

# serve IMAGE [docker options] -- [arguments]: starts a server, and sets $server to its id.
serve() {
  local image=$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  server=$(docker run --detach --rm "${options[@]}" "$image" "$@")
  SERVERS+=("$server")
}
is_here() { docker image inspect "$1" >/dev/null 2>&1; }
address() { docker port "$server" "$1" | sed -n 1p; }
# Three ports that were free a moment ago.
free_ports() {
  local port ports=()
  while [ ${#ports[@]} -lt 3 ]; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ports+=("$port")
  done
  echo "${ports[@]}"
}
# answers NAME COMMAND...: waits for at most 30 s until the command succeeds.
answers() { within 30 "${@:2}" >/dev/null 2>&1 || die "$1 does not answer: docker logs $server"; }
connects() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}"); }

start_servers() {
  local at http rpc gossip
  if [ -z "${TEST_POSTGRES_URL:-}" ] && is_here postgres:17; then
    serve postgres:17 -e POSTGRES_HOST_AUTH_METHOD=trust -p 127.0.0.1::5432 -- postgres -c fsync=off -c full_page_writes=off -c max_connections=500
    at=$(address 5432)
    # Over TCP: the temporary server that initializes the database does not listen on TCP.
    answers PostgreSQL docker exec "$server" pg_isready -h 127.0.0.1 -U postgres
    export TEST_POSTGRES_URL=postgres://postgres@$at/postgres
  fi
  if [ -z "${TEST_NATS_URL:-}" ] && is_here nats:2.10; then
    serve nats:2.10 -p 127.0.0.1::4222 -- --jetstream
    at=$(address 4222)
    answers NATS connects "$at"
    export TEST_NATS_URL=nats://$at
  fi
  # On the host's network, so that its health checks reach the tests' servers.
  if [ -z "${TEST_CONSUL_URL:-}" ] && is_here hashicorp/consul:1.20 && [ "$(uname)" = Linux ]; then
    # Another program may have taken a port meanwhile.
    for _ in 1 2 3; do
      read -r http rpc gossip < <(free_ports)
      serve hashicorp/consul:1.20 --network host -- agent -dev -bind 127.0.0.1 -client 127.0.0.1 -http-port "$http" \
        -server-port "$rpc" -serf-lan-port "$gossip" -serf-wan-port -1 -dns-port -1 -grpc-port -1
      if within 15 curl -fsS "http://127.0.0.1:$http/v1/catalog/nodes" >/dev/null 2>&1; then break; fi
    done
    answers Consul curl -fsS "http://127.0.0.1:$http/v1/catalog/nodes"
    export TEST_CONSUL_URL=consul://127.0.0.1:$http
  fi
  if [ -z "${TEST_COMPOSE_SECRETS:-}" ] && is_here postgres:17 && is_here nats:2.10 && is_here hashicorp/consul:1.20 && [ "$(uname)" = Linux ]; then
    start_compose_servers
  fi
}

# Starts PostgreSQL, NATS and Consul like docker-compose.yml, with the logins and tokens that its service `secrets`
# generates. TEST_COMPOSE_SECRETS is the folder with the volumes. In this folder, the file NAME-address holds the address
# of a server, and the script `rotate STEP` runs a step of scripts/rotate-secrets.
start_compose_servers() {
  local http rpc gossip make postgres
  SERVER_FILES=$(mktemp -d)
  export TEST_COMPOSE_SECRETS=$SERVER_FILES
  chmod 755 "$SERVER_FILES"
  programs | awk '$3 != "external" { print $1 }' | (cd "$SERVER_FILES" && xargs mkdir postgres nats consul prometheus public)
  make=(docker run --rm --user "$(id -u):$(id -g)" --env "PROGRAMS=$PWD/programs.txt" --env "CALLS=$PWD/calls.txt"
    --volume "$PWD:$PWD:ro" --volume "$SERVER_FILES:/secrets" --entrypoint "$PWD/deploy/docker/secrets" postgres:17)
  "${make[@]}"
  serve postgres:17 -e POSTGRES_PASSWORD_FILE=/secrets/superuser -e PGHOST=127.0.0.1 -e PGUSER=postgres -p 127.0.0.1::5432 \
    --volume "$SERVER_FILES/postgres:/secrets:ro" --volume "$PWD/deploy/postgres/databases.sh:/databases.sh:ro" \
    --volume "$PWD/deploy/postgres/roles.sql:/roles.sql:ro" \
    --volume "$PWD/programs.txt:/programs.txt:ro" -- postgres -c fsync=off
  postgres=$server
  address 5432 >"$SERVER_FILES/postgres-address"
  answers PostgreSQL docker exec "$postgres" pg_isready -U postgres
  docker exec "$postgres" bash /databases.sh
  serve nats:2.10 -p 127.0.0.1::4222 --volume "$PWD/deploy/docker/nats.conf:/nats-server.conf:ro" \
    --volume "$SERVER_FILES/nats:/secrets:ro" --tmpfs /data -- --config /nats-server.conf
  address 4222 >"$SERVER_FILES/nats-address"
  answers NATS connects "$(<"$SERVER_FILES/nats-address")"
  { echo '#!/usr/bin/env bash'; echo 'set -e'; printf '%q ' "${make[@]}"; echo '"$1"'
    echo "docker exec $postgres bash /databases.sh; docker kill --signal HUP $server"; } >"$SERVER_FILES/rotate"
  read -r http rpc gossip < <(free_ports)
  serve hashicorp/consul:1.20 --network host --user 100:1000 --tmpfs /consul/data:uid=100,gid=1000,mode=0700 --tmpfs /tmp \
    --volume "$SERVER_FILES/consul:/secrets:ro" --volume "$PWD/deploy/consul/start.sh:/start.sh:ro" \
    --env CONSUL_HTTP_ADDR="127.0.0.1:$http" --entrypoint sh -- /start.sh -server -bootstrap-expect=1 -data-dir=/consul/data \
    -bind 127.0.0.1 -client 127.0.0.1 -log-level=warn -hcl 'performance { raft_multiplier = 1 }' \
    -http-port "$http" -server-port "$rpc" -serf-lan-port "$gossip" -serf-wan-port -1 -dns-port -1 -grpc-port -1
  echo "127.0.0.1:$http" >"$SERVER_FILES/consul-address"
  answers Consul docker exec "$server" test -s /tmp/agent-token
  echo "docker exec $server sh /start.sh tokens" >>"$SERVER_FILES/rotate"
  chmod +x "$SERVER_FILES/rotate"
}

stop_servers() {
  [ ${#SERVERS[@]} -eq 0 ] || docker rm --force --volumes "${SERVERS[@]}" >/dev/null || true
  [ -z "$SERVER_FILES" ] || rm -rf "$SERVER_FILES"
}
