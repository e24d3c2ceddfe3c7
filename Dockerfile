# Images of all programs, one target each: `docker build --target gateway .`

# What decides about the dependencies: the manifests, with an empty library and program for each of ours.
FROM rust:1.95-slim-bookworm AS manifests
COPY . /src
RUN mkdir /manifests && cd /src && cp --parents Cargo.toml Cargo.lock */Cargo.toml /manifests \
 && cd /manifests && for crate in */; do \
      mkdir "$crate/src" && touch "$crate/src/lib.rs" && echo 'fn main() {}' >"$crate/src/main.rs"; \
    done

# The dependencies, which are built again only when a manifest changes; then the programs.
FROM rust:1.95-slim-bookworm AS build
ENV BUILD="cargo build --locked --profile dist --bins -p gateway -p user-service -p order-service -p payment-service"
WORKDIR /src
COPY --from=manifests /manifests .
RUN $BUILD
COPY . .
# Cargo goes by time, and these files may be older than the empty ones.
RUN find */src -name '*.rs' -exec touch {} + && $BUILD \
 && mkdir /programs && cd target/dist \
 && mv gateway user-service order-service payment-service card-network /programs

# Asks a program in its container whether it is healthy; static, for images with nothing else in them.
FROM rust:1.95-slim-bookworm AS probe
COPY deploy/docker/probe.rs .
RUN rustc -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o /probe probe.rs

# Where volumes are mounted: a new one belongs to whom this folder does.
FROM debian:bookworm-slim AS folders
RUN mkdir /data /secrets && cd /secrets && mkdir gateway user-service order-service payment-service postgres nats

# What all programs of ours have in common.
FROM debian:bookworm-slim AS program
COPY --from=probe /probe /usr/local/bin/
# Listens to everybody in its network. Gives blocks of 1 MiB and more back to the system: a password
# hash needs 19 MiB for a moment.
ENV HOST=0.0.0.0 MALLOC_MMAP_THRESHOLD_=1048576
USER 10001:10001
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.base.name="debian:bookworm-slim"

FROM program AS gateway
COPY gateway.toml /etc/
COPY --from=build /programs/gateway /usr/local/bin/
ENV PORT=8080 CONFIG_FILE=/etc/gateway.toml
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["probe", "8080", "/health/ready"]
CMD ["gateway"]
LABEL org.opencontainers.image.title="gateway" \
      org.opencontainers.image.description="The way in: balances over the replicas of every service."

FROM program AS user-service
COPY --from=build /programs/user-service /usr/local/bin/
ENV PORT=3001
EXPOSE 3001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["probe", "3001", "/health/ready"]
CMD ["user-service"]
LABEL org.opencontainers.image.title="user-service" \
      org.opencontainers.image.description="Owns people and their sessions."

FROM program AS order-service
COPY --from=build /programs/order-service /usr/local/bin/
ENV PORT=3011
EXPOSE 3011
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["probe", "3011", "/health/ready"]
CMD ["order-service"]
LABEL org.opencontainers.image.title="order-service" \
      org.opencontainers.image.description="Owns the catalogue, stock and orders; runs the checkout saga."

FROM program AS payment-service
COPY --from=build /programs/payment-service /usr/local/bin/
ENV PORT=3021
EXPOSE 3021
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["probe", "3021", "/health/ready"]
CMD ["payment-service"]
LABEL org.opencontainers.image.title="payment-service" \
      org.opencontainers.image.description="Owns payments and the ledger; talks to the card network."

FROM program AS card-network
COPY --from=build /programs/card-network /usr/local/bin/
COPY --from=folders --chown=10001:10001 /data /data
ENV PORT=3031 DATABASE_URL=sqlite:///data/card-network.db
EXPOSE 3031
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["probe", "3031", "/health/ready"]
CMD ["card-network"]
LABEL org.opencontainers.image.title="card-network" \
      org.opencontainers.image.description="Simulates a card processor."

# Makes the stack's secrets, each in the volume of its reader. The folders, and so the volumes, are its own.
FROM program AS secrets
COPY scripts/keys.sh /usr/local/lib/
COPY deploy/docker/secrets /usr/local/bin/
COPY --from=folders --chown=10001:10001 /secrets /secrets
CMD ["secrets"]

FROM nats:2.10 AS nats
COPY --from=probe /probe /
COPY --from=folders --chown=10001:10001 /data /data
COPY deploy/docker/nats.conf /nats-server.conf
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["/probe", "8222", "/healthz"]
