# One small image with all four programs, linked statically, and nothing else: no shell, no libraries.
#   docker build -t weft.mesh/weft:0.1.0 .
FROM rust:1.95-alpine AS build
# The cryptography and the allocator are C, and include headers of the kernel, which Alpine keeps apart from its compiler.
RUN apk add --no-cache build-base linux-headers
WORKDIR /src
COPY . .
# Alpine's own target is musl; what is linked for it needs no library at run time, or there is no image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins \
    && mkdir /out \
    && cp target/release/weft-proxy target/release/weft-init target/release/weft-control target/release/meshctl /out/ \
    && ! readelf -d /out/* | grep NEEDED

FROM scratch
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin
# The user of the proxy, whose traffic the redirection leaves alone. weft-init is told to run as root by the pod.
USER 2102:2102
CMD ["weft-control"]
