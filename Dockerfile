# The production image: small, not root, data in two volumes.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /vatra
COPY . .
RUN cargo build --release --locked --bin vatra

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl libstdc++6 \
    && rm -rf /var/lib/apt/lists/* && useradd --system --home /var/lib/vatra --create-home vatra \
    && mkdir -p /var/lib/vatra/data /var/lib/vatra/media && chown -R vatra:vatra /var/lib/vatra
COPY --from=build /vatra/target/release/vatra /usr/local/bin/vatra
USER vatra
ENV VATRA__DATA_DIR=/var/lib/vatra/data VATRA__MEDIA_DIR=/var/lib/vatra/media VATRA__CLIENT__LISTEN=0.0.0.0:8008
VOLUME ["/var/lib/vatra/data", "/var/lib/vatra/media"]
EXPOSE 8008 8448
HEALTHCHECK --interval=30s --timeout=5s CMD ["curl", "--fail", "--silent", "http://127.0.0.1:8008/health/ready"]
# Settings: mount a file and pass --config /etc/vatra.toml, or set VATRA__SECTION__KEY.
ENTRYPOINT ["vatra"]
CMD ["--config", "/etc/vatra.toml"]
