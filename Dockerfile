# Hookswitch's image: the binary, OpenSSL for Kafka, the authorities' certificates, nothing else. It runs as a
# user without a name, and writes below /var/lib/hookswitch only, so that its root may be read-only.
FROM rust:1.95.0-slim-bookworm AS build
# librdkafka is built from its source, with OpenSSL, because a hosted Kafka asks for TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
# rust-toolchain.toml asks for clippy and rustfmt too; the image's own compiler is enough.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --features kafka-tls --bin hookswitch \
    && install -D target/dist/hookswitch /out/hookswitch

FROM debian:12.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/hookswitch
COPY --from=build /out/hookswitch /usr/local/bin/hookswitch
WORKDIR /var/lib/hookswitch
USER 65532:65532
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["hookswitch"]
CMD ["serve"]
