#!/bin/sh
# Starts Consul, and gives it its tokens: it keeps everything in memory. Each service may register itself and
# find the others; nobody else may do anything. /secrets has a file for each service, with its token. No token is an
# argument of a command, because everybody who can list the processes can read those.
#
# usage: start.sh [OPTION OF CONSUL]... | start.sh tokens
# `tokens` runs beside it, after a step of a rotation: creates the tokens of new files (NAME.next), and deletes those
# that are in no file any more.
set -eu
tokens=${TOKENS:-/secrets} private=${TMPDIR:-/tmp}
# api METHOD PATH: sends standard input to Consul.
api() {
  curl --silent --show-error --fail --output /dev/null --request "$1" --header "@$private/header" --data @- \
    "http://${CONSUL_HTTP_ADDR:-127.0.0.1:8500}/v1/$2"
}
# is_in FILE FOLDER: a file of the folder is the same.
is_in() {
  for one in "$2"/*; do
    ! cmp -s "$1" "$one" || return 0
  done
  return 1
}
# Makes the tokens in Consul those in the files. `given` remembers them, by the names under which Consul deletes them.
give_tokens() {
  for file in "$tokens"/*; do
    is_in "$file" "$private/given" || give "$file"
  done
  for given in "$private/given"/*; do
    if ! is_in "$given" "$tokens"; then
      api DELETE "acl/token/$(basename "$given")" </dev/null
      rm "$given"
    fi
  done
}
give() {
  name=$(basename "$1" .next) accessor=$(cat /proc/sys/kernel/random/uuid)
  api PUT acl/token <<TOKEN
{ "AccessorID": "$accessor", "SecretID": "$(cat "$1")", "Description": "$name", "Policies": [{ "Name": "$name" }] }
TOKEN
  cp "$1" "$private/given/$accessor"
}
umask 077
if [ "${1:-}" = tokens ]; then
  give_tokens
  exit
fi
consul agent "$@" -hcl 'acl { enabled = true, default_policy = "deny" }' &
agent=$!
trap 'kill -TERM $agent' TERM INT

# The first token, which may do everything, stays in this container, in memory: a rotation needs it.
until bootstrap=$(consul acl bootstrap 2>/dev/null); do
  kill -0 $agent
  sleep 0.2
done
CONSUL_HTTP_TOKEN=$(echo "$bootstrap" | awk '/^SecretID/ { print $2 }')
export CONSUL_HTTP_TOKEN
mkdir -p "$private/given"
echo "X-Consul-Token: $CONSUL_HTTP_TOKEN" >"$private/header"
for file in "$tokens"/*; do
  case $file in *.next) continue ;; esac
  name=$(basename "$file")
  consul acl policy create -name "$name" -rules - >/dev/null <<RULES
service "$name" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
RULES
done
give_tokens
# The token of the health check and of the agent itself.
consul acl policy create -name agent -rules 'operator = "read" agent_prefix "" { policy = "read" } node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }' >/dev/null
consul acl token create -description agent -policy-name agent | awk '/^SecretID/ { print $2 }' >"$private/agent-token"
api PUT agent/token/agent <<TOKEN
{ "Token": "$(cat "$private/agent-token")" }
TOKEN
unset CONSUL_HTTP_TOKEN
wait $agent || true
# A signal ends the first wait before Consul has left.
wait $agent
