# One small image with all four programs, linked statically, and nothing else: no shell, no libraries.
#   docker build -t weft.mesh/weft:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The C library is inside: glibc, which all figures are of. A target has to be named, or the flag would be for macros and
# build scripts, too, which need a dynamic one. What is linked this way asks for no library at run time, or there is no image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    host="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --bins --target "$host" \
    && mkdir /out \
    && for program in weft-proxy weft-init weft-control meshctl; do cp "target/$host/release/$program" /out/ || exit; done \
    && ! readelf -dl /out/* | grep -E 'NEEDED|INTERP'

FROM scratch
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin
# The user of the proxy, whose traffic the redirection leaves alone. weft-init is told to run as root by the pod.
USER 2102:2102
CMD ["weft-control"]
