# A small image of the default binary. It runs as nobody in particular (65532) and needs to write to /data only:
#   docker build -t kero . && docker run --read-only --tmpfs /tmp -v kero:/data -p 127.0.0.1:8080:8080 kero
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin kero && install --directory --mode=0700 /out/data

# glibc and the certificates of public authorities; no shell, no package manager
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /source/target/release/kero /usr/local/bin/kero
COPY LICENSE NOTICE /usr/share/doc/kero/
USER 65532:65532
ENV KERO_LISTEN=0.0.0.0:8080 KERO_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/kero"]
CMD ["serve"]
