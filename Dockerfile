# The production image: small, not root, data in two volumes.
#
#   docker build -t vatra .
#   docker run -e VATRA__SERVER_NAME=example.org -p 8008:8008 -v vatra-data:/var/lib/vatra/data -v vatra-media:/var/lib/vatra/media vatra
#
# Settings: VATRA__SECTION__KEY, or a file of your own mounted at /etc/vatra.toml (it replaces config/container.toml whole).
# Accounts: docker exec -i CONTAINER vatra user create NAME
FROM node:22-bookworm-slim AS web
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts
COPY web .
RUN npm run build

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /vatra
COPY . .
COPY --from=web /web/dist web/dist
RUN cargo build --release --locked --bin vatra && strip target/release/vatra

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/vatra --shell /usr/sbin/nologin vatra \
    && install --directory --owner vatra --mode 0700 /var/lib/vatra /var/lib/vatra/data /var/lib/vatra/media
COPY --from=build /vatra/target/release/vatra /usr/local/bin/vatra
COPY config/container.toml /etc/vatra.toml
USER vatra
WORKDIR /var/lib/vatra
# Read by every command in here: the server, the healthcheck and the operator's.
ENV VATRA_CONFIG=/etc/vatra.toml
VOLUME ["/var/lib/vatra/data", "/var/lib/vatra/media"]
EXPOSE 8008 8448
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["vatra", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["vatra"]
