# What the scripts share. Bash and coreutils; no jq, no openssl.

set -euo pipefail
SELF=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUN=data/run LOGS=data/logs SECRETS=.secrets
GATEWAY=http://127.0.0.1:8080 ADMIN=http://127.0.0.1:9090

# name, binary, port, database file
PROGRAMS=(
  "card-network card-network 3031 card-network.db"
  "gateway gateway 8080 -"
  "user-service-1 user-service 3001 users.db"
  "user-service-2 user-service 3002 users.db"
  "order-service-1 order-service 3011 orders.db"
  "order-service-2 order-service 3012 orders.db"
  "payment-service-1 payment-service 3021 payments.db"
  "payment-service-2 payment-service 3022 payments.db"
)

die() { printf '%s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }

# Prints the comment at the head of the script that called.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$SELF"; exit "${1:-0}"; }

# When a process began: with its id this names it, though ids are used again.
began() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# The id of the process in a pid file ("id began"), if that very process runs.
running() {
  local pid start
  [ -f "$1" ] && read -r pid start <"$1" && [ "$(began "$pid")" = "$start" ] && printf '%s' "$pid"
}

# Who listens on a port, as far as this user may know.
owner_of() {
  local inode pid
  inode=$(awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "0A" { print $10; exit }' /proc/net/tcp /proc/net/tcp6 2>/dev/null) || true
  pid=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3) || true
  if [ -n "$pid" ]; then printf '%s (process %s)' "$(cat "/proc/$pid/comm")" "$pid"; else printf 'another program'; fi
}

# ports_are_free NAME:PORT...: ends the script, naming who has the port, if one is taken.
ports_are_free() {
  local entry port
  for entry in "$@"; do
    port=${entry#*:}
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
    die "port $port, which ${entry%:*} needs, is taken by $(owner_of "$port")"
  done
}

# Waits until the gateway counts six healthy replicas and serves, for 30 s; tells a terminal how far
# it is; leaves in $first when the catalogue was served first, in ms.
await_replicas() {
  local count=0
  first=''
  for _ in $(seq 1 600); do
    if [ -z "$first" ] && curl -fsS -o /dev/null "$GATEWAY/api/products?limit=1" 2>/dev/null; then first=$(now_ms); fi
    count=$(curl -fsS "$ADMIN/registry/services" 2>/dev/null | grep -o '"health":"healthy"' | wc -l) || count=0
    [ ! -t 1 ] || printf '\r%s of 6 replicas are healthy ' "$count"
    [ "$count" -ge 6 ] && [ -n "$first" ] && curl -fsS -o /dev/null "$GATEWAY/health/ready" 2>/dev/null && break
    sleep 0.05
  done
  [ ! -t 1 ] || echo
  [ -n "$first" ] && [ "$count" -ge 6 ]
}

# Prints what a newcomer may do first.
to_try() {
  cat <<TEXT
To try:

  curl $GATEWAY/api/products
  curl $GATEWAY/api/users -H 'content-type: application/json' -d '{"email":"ann@example.com","name":"Ann","password":"correct horse"}'
  curl $GATEWAY/api/sessions -H 'content-type: application/json' -d '{"email":"ann@example.com","password":"correct horse"}'

TEXT
}

# The first value of a field in the JSON on standard input.
json() { { grep -o "\"$1\":\(\"[^\"]*\"\|[^,}]*\)" || true; } | head -n 1 | cut -d: -f2- | tr -d '"'; }

# driver PROGRAM: builds a program of the crate `bench`, and leaves its path in $driver.
driver() {
  [ -s "$SECRETS/admin.env" ] || die "It does not run: start it with scripts/up, or add --compose if it runs in docker compose."
  cargo build --release --quiet -p bench --bin "$1"
  driver=${CARGO_TARGET_DIR:-target}/release/$1
}

# drive_on ARGUMENT...: becomes the driver, which alone gets the admin's login.
drive_on() {
  set -a
  # shellcheck source=/dev/null
  source "$SECRETS/admin.env"
  exec "$driver" "$@"
}

# drive PROGRAM [--compose] [FLAG VALUE]...: runs such a program on the running stack.
drive() {
  local program=$1 args=() arg
  shift
  for arg in "$@"; do
    case $arg in
      --help) usage ;;
      --compose) args+=(--compose true) && write_admin_env ;;
      *) args+=("$arg") ;;
    esac
  done
  driver "$program"
  drive_on "${args[@]}"
}
