# shellcheck shell=bash disable=SC2034,SC2120
# Functions that the scripts share. They need bash 4.4, coreutils and util-linux, but not jq or openssl.

# The caller's shell must not influence the scripts. `bash -p` ignores its functions and options. Some variables and
# the language are reset. NO_PROXY is set, because the stack is on this machine.
case $- in *p*) ;; *) exec bash -p "$0" "$@" ;; esac
set -euo pipefail
unset BASH_ENV ENV CDPATH GREP_OPTIONS POSIXLY_CORRECT BASH_COMPAT TMOUT
export LC_ALL=C NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || { echo "The scripts need bash 4.4 or newer. This is bash $BASH_VERSION." >&2; exit 1; }
# Ignores ~/.curlrc.
curl() { command curl -q "$@"; }
SELF=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUN=data/run LOGS=data/logs SECRETS=.secrets
GATEWAY=http://127.0.0.1:8080 ADMIN=http://127.0.0.1:9090 CONSOLE=http://127.0.0.1:3051

# programs [KIND]: the lines of programs.txt: all, or those of one kind.
programs() { awk -v kind="${1:-}" '!/^#/ && (kind == "" || $3 == kind)' programs.txt; }
# The number of replicas of all services together.
REPLICAS=$(programs service | awk '{ sum += $5 } END { print sum }')

die() { printf '%s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }

# within SECONDS COMMAND...: repeats a command until it succeeds, for at most this time.
within() {
  local end=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    [ "$(now_ms)" -lt $end ] || return 1
    sleep 0.1
  done
}

# grep_none ARGUMENT...: succeeds if grep finds nothing. It fails if grep cannot read a file.
grep_none() {
  local status=0
  grep "$@" || status=$?
  [ $status = 1 ]
}

# Prints the comment at the top of the calling script, and exits.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$SELF"; exit "${1:-0}"; }

# The port of a program's first replica.
port_of() { programs | awk -v name="$1" '$1 == name { print $4 }'; }

# The profile of all builds. Cargo.toml explains the profile `quick`. For benchmarks, use
# LAB=off PROFILE=release scripts/up.
PROFILE=${PROFILE:-quick}
BIN=${CARGO_TARGET_DIR:-target}/$PROFILE
# xtask COMMAND...: builds and runs the crate xtask, the part of the scripts that is written in Rust.
xtask() { cargo run --profile "$PROFILE" --quiet -p xtask -- "$@"; }
# json [--each PATH] PATH...: prints values of the JSON on standard input, in columns. `xtask` must run before it,
# because it builds the program.
json() { "$BIN/xtask" json "$@"; }

# build_programs: builds all programs and xtask, only with the features that one machine needs: no PostgreSQL, no NATS.
build_programs() {
  local name package database packages=() features=''
  while read -r name package _ _ _ database _; do
    packages+=(-p "$package")
    [ "$database" = - ] || features+=$package/sqlite,
  done < <(programs)
  cargo build --profile "$PROFILE" --quiet --bins -p xtask "${packages[@]}" --no-default-features --features "$features"
}

# The program that listens on a port, if this user may see it.
owner_of() {
  local inode pid
  inode=$(awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "0A" { print $10; exit }' /proc/net/tcp /proc/net/tcp6 2>/dev/null) || true
  pid=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3) || true
  if [ -n "$pid" ]; then printf '%s (process %s)' "$(cat "/proc/$pid/comm")" "$pid"; else printf 'another program'; fi
}

# ports_are_free NAME:PORT...: if a port is taken, names the program that listens on it, and exits with 1.
ports_are_free() {
  local entry port
  for entry in "$@"; do
    port=${entry#*:}
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
    die "port $port, which ${entry%:*} needs, is taken by $(owner_of "$port")"
  done
}

# Checks the ports of all replicas.
all_ports_are_free() {
  local name port replicas i ports=(gateway-admin:9090 console-otlp:4318)
  while read -r name _ _ port replicas _; do
    for ((i = 0; i < replicas; i++)); do ports+=("$name:$((port + i))"); done
  done < <(programs)
  ports_are_free "${ports[@]}"
}

# it_runs HEADLINE LOGS DOWN: prints the addresses, the admin's login, first requests to try, and how to stop the stack.
it_runs() {
  # shellcheck source=/dev/null
  source "$SECRETS/admin.env"
  cat <<TEXT
$1

  Shop         $GATEWAY
  API          $GATEWAY      documented at $GATEWAY/docs
  Console      $CONSOLE      map, orders, traces, messages, numbers; for admins
  Admin        $ADMIN_EMAIL  $ADMIN_PASSWORD
  Logs         $2

To try:

  curl $GATEWAY/api/products
  curl $GATEWAY/api/users -H 'content-type: application/json' -d '{"email":"ann@example.com","name":"Ann","password":"correct horse"}'
  curl $GATEWAY/api/sessions -H 'content-type: application/json' -d '{"email":"ann@example.com","password":"correct horse"}'

scripts/smoke tests the running stack, step by step. $3 stops the stack.
TEXT
}

# build_driver PROGRAM: builds a program of the crate `bench`, and sets $driver to its path. CI uses the profile dev,
# in which the tests have built it already.
build_driver() {
  local profile=${DRIVER_PROFILE:-$PROFILE}
  cargo build --profile "$profile" --quiet -p bench --bin "$1"
  driver=${CARGO_TARGET_DIR:-target}/${profile/%dev/debug}/$1
}

# driver PROGRAM: the same, for a program that needs the running stack of scripts/up.
driver() {
  [ -s "$SECRETS/admin.env" ] || die "The stack is not running: start it with scripts/up. If it runs in docker compose, add --compose."
  build_driver "$1"
}

# drive_on ARGUMENT...: replaces this process by the driver. Only the driver gets the admin's login.
drive_on() {
  set -a
  # shellcheck source=/dev/null
  source "$SECRETS/admin.env"
  exec "$driver" "$@"
}

# drive PROGRAM [--compose] [--altered] [--lab] [FLAG VALUE]...: runs a program of the crate `bench` on the running stack.
drive() {
  local program=$1 args=() arg
  shift
  for arg in "$@"; do
    case $arg in
      --help) usage ;;
      --compose) args+=(--compose true) && write_admin_env ;;
      --altered) args+=(--altered true) ;;
      --lab) args+=(--lab-faults true) ;;
      *) args+=("$arg") ;;
    esac
  done
  driver "$program"
  drive_on "${args[@]}"
}

# begin_load LOG [ARGUMENT]...: customers read and order until `end_load`. Failures are written to the log. Call
# `driver load` first.
load=''
begin_load() {
  local line
  exec {load_output}< <(drive_on "${@:2}" 2>>"$1")
  load=$!
  read -r line <&"$load_output" && [ "$line" = running ] || die "The load did not start: see $1."
}
# end_load: stops the load, and puts its counts into $counts. Fails if an invariant is broken.
end_load() {
  local status=0
  kill -TERM "$load"
  read -r counts <&"$load_output" || counts=''
  exec {load_output}<&-
  wait "$load" || status=$?
  load=''
  return $status
}
# count NAME: one of the counts.
count() { grep -o "\b$1=[0-9.]*" <<<"$counts" | cut -d= -f2; }
