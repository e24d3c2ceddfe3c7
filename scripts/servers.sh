# Servers for the tests of adapters, in containers, on free ports of loopback. Those that TEST_POSTGRES_URL,
# TEST_NATS_URL and TEST_CONSUL_URL already name are used instead; those whose image is not here are not
# started, and their tests are skipped.

SERVERS=()

# serve IMAGE [docker options] -- [arguments]: starts a server, and leaves its id in $server.
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
# answers WHAT COMMAND...: waits until the command ends well, for 30 s.
answers() { within 30 "${@:2}" >/dev/null 2>&1 || die "$1 does not answer: docker logs $server"; }
connects() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}"); }

start_servers() {
  local at http rpc gossip
  if [ -z "${TEST_POSTGRES_URL:-}" ] && is_here postgres:17; then
    serve postgres:17 -e POSTGRES_HOST_AUTH_METHOD=trust -p 127.0.0.1::5432 -- postgres -c fsync=off -c full_page_writes=off -c max_connections=500
    at=$(address 5432)
    # Over TCP, which the server that sets everything up does not listen to.
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
    read -r http rpc gossip < <(free_ports)
    serve hashicorp/consul:1.20 --network host -- agent -dev -bind 127.0.0.1 -client 127.0.0.1 -http-port "$http" \
      -server-port "$rpc" -serf-lan-port "$gossip" -serf-wan-port -1 -dns-port -1 -grpc-port -1
    answers Consul curl -fsS "http://127.0.0.1:$http/v1/catalog/nodes"
    export TEST_CONSUL_URL=consul://127.0.0.1:$http
  fi
}

stop_servers() { [ ${#SERVERS[@]} -eq 0 ] || docker rm --force --volumes "${SERVERS[@]}" >/dev/null; }
