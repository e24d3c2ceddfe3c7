# shellcheck shell=bash disable=SC2034,SC2120
# What the scripts share. Bash 4.4, coreutils and util-linux; no jq, no openssl.

# What the caller's shell has must change nothing: its functions and options (`bash -p` takes none from the
# environment), its variables, its language, and its proxies, since everything here is on this machine.
case $- in *p*) ;; *) exec bash -p "$0" "$@" ;; esac
set -euo pipefail
unset BASH_ENV ENV CDPATH GREP_OPTIONS POSIXLY_CORRECT BASH_COMPAT TMOUT
export LC_ALL=C NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || { echo "This needs bash 4.4 or newer, and is $BASH_VERSION." >&2; exit 1; }
# Without what ~/.curlrc sets.
curl() { command curl -q "$@"; }
SELF=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUN=data/run LOGS=data/logs SECRETS=.secrets
GATEWAY=http://127.0.0.1:8080 ADMIN=http://127.0.0.1:9090

# programs [KIND]: their lines in programs.txt, all or those of a kind.
programs() { awk -v kind="${1:-}" '!/^#/ && (kind == "" || $3 == kind)' programs.txt; }
# The replicas of all services together.
REPLICAS=$(programs service | awk '{ sum += $5 } END { print sum }')

die() { printf '%s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }

# within SECONDS COMMAND...: repeats a command until it succeeds, for so long.
within() {
  local end=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    [ "$(now_ms)" -lt $end ] || return 1
    sleep 0.1
  done
}

# Prints the comment at the head of the script that called.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$SELF"; exit "${1:-0}"; }

# The port of a program's first replica.
port_of() { programs | awk -v name="$1" '$1 == name { print $4 }'; }

# What is built here: Cargo.toml says what the profile `quick` is. Figures want PROFILE=release scripts/up.
PROFILE=${PROFILE:-quick}
BIN=${CARGO_TARGET_DIR:-target}/$PROFILE
# xtask COMMAND...: builds and runs the part of the scripts that is written in Rust.
xtask() { cargo run --profile "$PROFILE" --quiet -p xtask -- "$@"; }
# json [--each PATH] PATH...: values in the JSON on standard input, in columns. Only after `xtask`, which builds it.
json() { "$BIN/xtask" json "$@"; }

# build_programs: all programs and xtask, with what runs on one machine alone: neither PostgreSQL nor NATS.
build_programs() {
  local name package database packages=() features=''
  while read -r name package _ _ _ database _; do
    packages+=(-p "$package")
    [ "$database" = - ] || features+=$package/sqlite,
  done < <(programs)
  cargo build --profile "$PROFILE" --quiet --bins -p xtask "${packages[@]}" --no-default-features --features "$features"
}

# Who listens on a port, as far as this user may know.
owner_of() {
  local inode pid
  inode=$(awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "0A" { print $10; exit }' /proc/net/tcp /proc/net/tcp6 2>/dev/null) || true
  pid=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3) || true
  if [ -n "$pid" ]; then printf '%s (process %s)' "$(cat "/proc/$pid/comm")" "$pid"; else printf 'another program'; fi
}

# ports_are_free NAME:PORT...: ends the script, naming the port's owner, if one is taken.
ports_are_free() {
  local entry port
  for entry in "$@"; do
    port=${entry#*:}
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
    die "port $port, which ${entry%:*} needs, is taken by $(owner_of "$port")"
  done
}

# The ports of all replicas.
all_ports_are_free() {
  local name port replicas i ports=(gateway-admin:9090)
  while read -r name _ _ port replicas _; do
    for ((i = 0; i < replicas; i++)); do ports+=("$name:$((port + i))"); done
  done < <(programs)
  ports_are_free "${ports[@]}"
}

# it_runs HEADLINE LOGS DOWN: says where everything is, what a newcomer may do first, and what ends it.
it_runs() {
  # shellcheck source=/dev/null
  source "$SECRETS/admin.env"
  cat <<TEXT
$1

  API          $GATEWAY      documented at $GATEWAY/docs
  Dashboard    $ADMIN
  Admin        $ADMIN_EMAIL  $ADMIN_PASSWORD
  Logs         $2

To try:

  curl $GATEWAY/api/products
  curl $GATEWAY/api/users -H 'content-type: application/json' -d '{"email":"ann@example.com","name":"Ann","password":"correct horse"}'
  curl $GATEWAY/api/sessions -H 'content-type: application/json' -d '{"email":"ann@example.com","password":"correct horse"}'

scripts/smoke tells the whole story; $3 ends it.
TEXT
}

# driver PROGRAM: builds a program of the crate `bench`, and leaves its path in $driver.
driver() {
  [ -s "$SECRETS/admin.env" ] || die "It does not run: start it with scripts/up, or add --compose if it runs in docker compose."
  cargo build --profile "$PROFILE" --quiet -p bench --bin "$1"
  driver=$BIN/$1
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
