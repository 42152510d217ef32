# A worker image: runlane, bash, python3. Tasks run as the image's user, without root.
#
#   docker build -t runlane .
#   docker run --init -e RUNLANE_SERVER=nats://host:4222 runlane
#
# --init: runlane reaps every process of its tasks itself, but not what others bring in, such as a
# background process that was left behind by `docker exec`.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin runlane && install -D target/release/runlane /out/runlane

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin runlane
COPY --from=build /out/runlane /usr/local/bin/runlane
USER 10001:10001
WORKDIR /home/runlane
# The first SIGTERM drains; see docs/operations.md for the time that it takes.
STOPSIGNAL SIGTERM
ENTRYPOINT ["runlane"]
CMD ["worker"]
