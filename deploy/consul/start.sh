#!/bin/sh
# Starts Consul, and gives it its tokens: it keeps everything in memory. Each service may register itself and
# find the others; nobody else may do anything. /secrets has a file for each service, with its token. No token is an
# argument of a command, because whoever sees the processes sees those.
set -eu
tokens=${TOKENS:-/secrets} private=${TMPDIR:-/tmp}
# put PATH: sends standard input to Consul.
put() {
  curl --silent --show-error --fail --output /dev/null --request PUT --header "@$private/header" --data @- \
    "http://${CONSUL_HTTP_ADDR:-127.0.0.1:8500}/v1/$1"
}
consul agent "$@" -hcl 'acl { enabled = true, default_policy = "deny" }' &
agent=$!
trap 'kill -TERM $agent' TERM INT

# The first token, which may do everything, is known here only, and forgotten below.
until bootstrap=$(consul acl bootstrap 2>/dev/null); do
  kill -0 $agent
  sleep 0.2
done
CONSUL_HTTP_TOKEN=$(echo "$bootstrap" | awk '/^SecretID/ { print $2 }')
export CONSUL_HTTP_TOKEN
(umask 077 && echo "X-Consul-Token: $CONSUL_HTTP_TOKEN" >"$private/header")
for file in "$tokens"/*; do
  name=$(basename "$file")
  consul acl policy create -name "$name" -rules - >/dev/null <<RULES
service "$name" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
RULES
  put acl/token <<TOKEN
{ "SecretID": "$(cat "$file")", "Description": "$name", "Policies": [{ "Name": "$name" }] }
TOKEN
done
# For the health check, and for the agent itself.
consul acl policy create -name agent -rules 'operator = "read" agent_prefix "" { policy = "read" } node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }' >/dev/null
consul acl token create -description agent -policy-name agent | awk '/^SecretID/ { print $2 }' >"$private/agent-token"
put agent/token/agent <<TOKEN
{ "Token": "$(cat "$private/agent-token")" }
TOKEN
rm "$private/header"
unset CONSUL_HTTP_TOKEN
wait $agent || true
# A signal ends the first wait before Consul has left.
wait $agent
