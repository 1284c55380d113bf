# A small image of the default binary. Data lies in the volume /data.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin kero

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 kero \
    && install --directory --owner=kero --mode=0700 /data
COPY --from=build /source/target/release/kero /usr/local/bin/kero
COPY LICENSE NOTICE /usr/share/doc/kero/
USER kero
ENV KERO_LISTEN=0.0.0.0:8080 KERO_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["kero"]
CMD ["serve"]
