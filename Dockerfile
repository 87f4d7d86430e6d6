# Tollgate in a small image: docker build -t tollgate .
FROM rust:1-slim AS build
WORKDIR /build
# Dependencies change rarely and take minutes: they are built from an empty crate, in a layer that
# only a change of Cargo.toml or Cargo.lock makes anew.
COPY Cargo.toml Cargo.lock ./
COPY third_party third_party
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --bins \
    && rm -r src
COPY src src
# The empty crate's files are younger than the copied ones; without this cargo keeps them.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bins

FROM debian:stable-slim
# Upstreams with public certificates need the public authorities.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tollgate
COPY --from=build /build/target/release/tollgate /usr/local/bin/tollgate
COPY gateway.toml /etc/tollgate/gateway.toml
USER 10001
WORKDIR /etc/tollgate
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["run", "--config", "/etc/tollgate/gateway.toml"]
