# The images of all programs; docker-compose.yml says how each is built. PROGRAM, PACKAGE and PORT are its
# columns of programs.txt: `docker build --target program --build-arg PROGRAM=… --build-arg PACKAGE=… …`

# Layers are made again only when what they copy has changed: the dependencies after a change of a
# manifest, the chassis after one of shared/, a program after one of its crate. They all build the same
# set of crates, so that each dependency has the same features everywhere: those that are not copied yet
# are empty.
FROM rust:1.95-slim-bookworm AS manifests
# dist, release or quick (Cargo.toml). `docker compose build --build-arg PROFILE=quick` takes less time.
ARG PROFILE=dist
COPY . /src
RUN mkdir /manifests && cd /src && cp --parents programs.txt Cargo.toml Cargo.lock */Cargo.toml /manifests \
 && cd /manifests && for crate in */; do \
      mkdir "$crate/src" && touch "$crate/src/lib.rs" && echo 'fn main() {}' >"$crate/src/main.rs"; \
    done \
 && packages=$(awk '!/^#/ { print "-p", $2 }' programs.txt | sort -u | tr '\n' ' ') \
 && echo "cargo build --locked --profile $PROFILE --bins $packages" >build

FROM rust:1.95-slim-bookworm AS dependencies
WORKDIR /src
COPY --from=manifests /manifests .
RUN sh build

FROM dependencies AS chassis
COPY shared shared
# Cargo goes by time, and these files may be older than the empty ones.
RUN find shared -name '*.rs' -exec touch {} + && sh build

FROM chassis AS build
ARG PROFILE=dist
ARG PACKAGE
COPY calls.txt .
COPY $PACKAGE $PACKAGE
RUN find "$PACKAGE" -name '*.rs' -exec touch {} + && sh build && mkdir /programs /etc/program \
 && for name in $(awk -v package="$PACKAGE" '$2 == package { print $1 }' programs.txt); do mv "target/$PROFILE/$name" /programs; done
# Its configuration, if it has a file for that: gateway.toml.
COPY *.toml .
RUN if [ -f "$PACKAGE.toml" ]; then mv "$PACKAGE.toml" /etc/program; fi

# Asks a program in its container whether it is healthy; static, for images with nothing else in them.
FROM rust:1.95-slim-bookworm AS probe
COPY deploy/docker/probe.rs .
RUN rustc -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o /probe probe.rs

# Where volumes are mounted: a new one belongs to whom this folder does.
FROM debian:bookworm-slim AS folders
COPY programs.txt /
RUN mkdir /data /secrets && cd /secrets && mkdir postgres nats consul prometheus public authority $(awk '!/^#/ && $3 != "external" { print $1 }' /programs.txt)

# What all images of ours have in common.
FROM debian:bookworm-slim AS base
COPY --from=probe /probe /usr/local/bin/
# Gives blocks of 1 MiB and more back to the system: a password hash needs 19 MiB for a moment.
ENV MALLOC_MMAP_THRESHOLD_=1048576
USER 10001:10001
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.base.name="debian:bookworm-slim"

FROM base AS program
COPY --from=folders --chown=10001:10001 /data /data
ARG PROGRAM
ARG PORT
COPY --from=build /etc/program /etc
COPY --from=build /programs/$PROGRAM /usr/local/bin/
# Listens to everybody in its network.
ENV HOST=0.0.0.0 PROGRAM=$PROGRAM PORT=$PORT CONFIG_FILE=/etc/gateway.toml
EXPOSE $PORT
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD if [ -n "$TLS_FOLDER" ]; then probe $PORT; else probe $PORT /health/live; fi
CMD exec $PROGRAM
LABEL org.opencontainers.image.title="$PROGRAM"

# Makes the stack's secrets, each in the volume of its reader. The folders, and so the volumes, are its own.
# PostgreSQL's image, which runs anyway, has openssl.
FROM postgres:17 AS secrets
COPY programs.txt calls.txt /usr/local/share/
COPY deploy/docker/secrets /usr/local/bin/
COPY --from=folders --chown=10001:10001 /secrets /secrets
USER 10001:10001
ENTRYPOINT []
CMD ["secrets"]

FROM nats:2.10 AS nats
COPY --from=probe /probe /
COPY --from=folders --chown=10001:10001 /data /data
COPY deploy/docker/nats.conf /nats-server.conf
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s CMD ["/probe", "8222", "/healthz"]
