#!/bin/sh
# Starts Consul, and gives it its tokens: it keeps everything in memory. Each service may register itself and
# find the others; nobody else may do anything. /secrets has a file for each service, with its token.
set -eu
tokens=${TOKENS:-/secrets}
consul agent "$@" -hcl 'acl { enabled = true, default_policy = "deny" }' &
agent=$!
trap 'kill -TERM $agent' TERM INT

# The first token, which may do everything, is known in this shell only.
until bootstrap=$(consul acl bootstrap 2>/dev/null); do
  kill -0 $agent
  sleep 0.2
done
CONSUL_HTTP_TOKEN=$(echo "$bootstrap" | awk '/^SecretID/ { print $2 }')
export CONSUL_HTTP_TOKEN
for file in "$tokens"/*; do
  name=$(basename "$file")
  consul acl policy create -name "$name" -rules - >/dev/null <<RULES
service "$name" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
RULES
  consul acl token create -description "$name" -policy-name "$name" -secret "$(cat "$file")" >/dev/null
done
# For the health check, and for the agent itself.
consul acl policy create -name agent -rules 'operator = "read" agent_prefix "" { policy = "read" } node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }' >/dev/null
consul acl token create -description agent -policy-name agent | awk '/^SecretID/ { print $2 }' >/tmp/agent-token
consul acl set-agent-token agent "$(cat /tmp/agent-token)" >/dev/null
unset CONSUL_HTTP_TOKEN
wait $agent || true
# A signal ends the first wait before Consul has left.
wait $agent
