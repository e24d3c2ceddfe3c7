# shellcheck shell=bash
# Functions that the scripts share, for the stack in docker compose.

# The containers of a service, or of all.
containers() { docker compose ps --quiet "$@"; }
# The first container of a service. `head` would exit before docker has printed everything, and docker would fail.
first_of() { containers "$1" | sed -n 1p; }

# ask CONTAINER PORT PATH [HEADER]: sends a GET to the program in a container, from inside, and prints the response.
# The header may contain a token, so it is on no command line.
ask() { PROBE_HEADER=${4:-} docker exec -e PROBE_HEADER "$1" probe "$2" "$3"; }

# The memory of the program in a container, in kB.
container_rss() { docker exec "$1" sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/1/status; }

# Waits for at most a minute until every container is healthy.
await_healthy() { within 60 are_healthy; }
are_healthy() { [ "$(docker compose ps --format '{{.Health}}' | grep . | sort -u)" = healthy ]; }

# Waits for at most 30 s until the gateway is ready and all replicas are healthy. Reads the gateway's metrics, which have
# a line for each replica.
await_replicas() { within 30 are_replicas_healthy; }
are_replicas_healthy() {
  local healthy
  healthy=$(curl -fsS "$ADMIN/metrics" 2>/dev/null | grep -c '^http_client_replica_state{.*state="healthy".* 1$') || true
  [ "${healthy:-0}" -ge "$REPLICAS" ] && curl -fsS -o /dev/null "$GATEWAY/health/ready" 2>/dev/null
}

# Writes the admin's login to .secrets/admin.env. It comes from the program that has the secret `admin`.
write_admin_env() {
  local container
  need_docker
  container=$(first_of "$(programs | awk '$8 ~ /admin/ { print $1 }')")
  [ -n "$container" ] || die "The stack is not running in docker compose: start it with scripts/up --compose."
  mkdir -p "$SECRETS" && chmod 700 "$SECRETS"
  (
    umask 077
    docker exec "$container" bash -c 'printf "ADMIN_EMAIL=%s\nADMIN_PASSWORD=%s\n" "$ADMIN_EMAIL" "$(</secrets/admin-password)"' >"$SECRETS/admin.env"
  )
}

# Exits with an error if docker compose cannot be used.
need_docker() {
  type -P docker >/dev/null || die "missing: docker. See https://docs.docker.com/engine/install"
  docker compose version >/dev/null 2>&1 || die "missing: docker compose, version 2"
  docker info >/dev/null 2>&1 || die "Docker does not answer: does it run, and may you use it (are you in the group docker)?"
}

# compose_up [OVERLAY]...: builds and starts the stack, with overlays such as `checks`.
compose_up() {
  need_docker
  type -P curl >/dev/null || die "missing: curl"
  COMPOSE_FILE=docker-compose.yml
  for overlay in "$@"; do
    [ -f "deploy/compose.$overlay.yml" ] || die "there is no overlay deploy/compose.$overlay.yml"
    COMPOSE_FILE+=:deploy/compose.$overlay.yml
  done
  export COMPOSE_FILE
  case " $* " in *" observability "*) export TRACES_URL=http://jaeger:4318 ;; esac
  case " $* " in *" mutual-tls "*) export TLS_FOLDER=/secrets/tls ;; esac
  [ -n "$(containers)" ] || ports_are_free gateway:8080 gateway:9090 prometheus:9091

  echo "Building (the first time takes some minutes) …"
  docker compose build --quiet ${IMAGE_PROFILE:+--build-arg "PROFILE=$IMAGE_PROFILE"}
  docker compose up --detach --wait --wait-timeout 180 || die "Some containers did not become healthy: see docker compose ps, docker compose logs. scripts/down --compose stops the stack."
  await_replicas || die "The gateway does not see $REPLICAS healthy replicas: see $ADMIN."
  write_admin_env
  it_runs "The stack is running." $'docker compose logs\n  Prometheus   http://127.0.0.1:9091' "scripts/down --compose"
}
