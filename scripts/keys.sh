# Makes keys and passwords; for scripts/up, and for the service `secrets` of docker-compose.yml.

# A password that needs no quoting in URLs and configuration files.
random_password() { head -c 24 /dev/urandom | base64 -w 0 | tr '+/' '-_'; }

random_key() { head -c 32 /dev/urandom | base64 -w 0; }

# An Ed25519 key in PKCS#8 (RFC 8410): a fixed head, then 32 random bytes.
random_signing_key() {
  echo '-----BEGIN PRIVATE KEY-----'
  { printf '\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20'; head -c 32 /dev/urandom; } | base64 -w 64
  echo '-----END PRIVATE KEY-----'
}
