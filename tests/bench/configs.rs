//! Configuration of the peers that are not ours, as a careful operator would write it for speed: mutual TLS 1.3 between the
//! sides, AES-128-GCM, kept connections, no logs. Their ports differ per protocol, so the redirection does too.

use crate::certs::{BOTH, CHAIN, KEY, NAME, ROOT};
use crate::world::{SERVER, Side};
use weft_proxy_api::names::PROXY_UID;

/// Ports of the two sides: HTTP/1.1, HTTP/2, bytes.
const CLIENT_PORTS: [u16; 3] = [4140, 4141, 4142];
const SERVER_PORTS: [u16; 3] = [4143, 4144, 4145];

/// The same redirection that weft-init makes, to a port for each protocol.
pub(crate) fn redirection(side: Side, ports: [u16; 3]) -> String {
    let (hook, except) = match side {
        Side::Client => ("output", format!("meta skuid != {PROXY_UID} ")),
        Side::Server => ("prerouting", String::new()),
    };
    let rule = |(from, to): (u16, u16)| {
        format!("add rule ip bench steer {except}tcp dport {from} redirect to :{to}\n")
    };
    let rules: String = crate::world::PORTS
        .into_iter()
        .zip(ports)
        .map(rule)
        .collect();
    format!(
        "add table ip bench\nadd chain ip bench steer {{ type nat hook {hook} priority -100; }}\n{rules}"
    )
}

/// Ports of a side.
pub(crate) fn ports(side: Side) -> [u16; 3] {
    if side == Side::Client {
        CLIENT_PORTS
    } else {
        SERVER_PORTS
    }
}

pub(crate) fn haproxy(side: Side, folder: &str, workers: usize) -> String {
    let [http1, http2, bytes] = ports(side);
    let tls = format!("ssl crt {folder}/{BOTH} ca-file {folder}/{ROOT} verify required");
    let (bind, server) = match side {
        Side::Client => (
            String::new(),
            format!("{tls} sni str({NAME}) verifyhost {NAME}"),
        ),
        Side::Server => (tls, String::new()),
    };
    // Between the sides HTTP/2 carries both, which is the quicker of the two here.
    let (bind_alpn, alpn, prior) = match side {
        Side::Client => ("", "alpn h2", ""),
        Side::Server => ("alpn h2,http/1.1", "", "proto h2"),
    };
    format!(
        "global
    nbthread {workers}
    maxconn 9500
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
listen http1
    bind 0.0.0.0:{http1} {bind} {bind_alpn}
    server next {SERVER}:8080 {server} {alpn}
listen http2
    bind 0.0.0.0:{http2} {bind} {bind_alpn}
    server next {SERVER}:8081 {server} {alpn} {prior}
listen bytes
    mode tcp
    bind 0.0.0.0:{bytes} {bind}
    server next {SERVER}:7000 {server}
"
    )
}

pub(crate) fn nginx(
    side: Side,
    folder: &str,
    workers: usize,
    stream_module: Option<&str>,
) -> String {
    let [http1, http2, bytes] = ports(side);
    let name = if side == Side::Client { "c" } else { "s" };
    let accept = format!(
        "ssl_certificate {folder}/{CHAIN}; ssl_certificate_key {folder}/{KEY}; ssl_client_certificate {folder}/{ROOT};
        ssl_verify_client on; ssl_verify_depth 3; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let offer = |prefix: &str| {
        format!(
            "{prefix}_ssl_certificate {folder}/{CHAIN}; {prefix}_ssl_certificate_key {folder}/{KEY};
        {prefix}_ssl_trusted_certificate {folder}/{ROOT}; {prefix}_ssl_verify on; {prefix}_ssl_verify_depth 3; {prefix}_ssl_name {NAME};
        {prefix}_ssl_server_name on; {prefix}_ssl_protocols TLSv1.3; {prefix}_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
        )
    };
    let (ssl, accept, scheme, grpc, tls, grpc_tls, raw_tls) = match side {
        Side::Client => (
            "",
            String::new(),
            "https",
            "grpcs",
            offer("proxy"),
            offer("grpc"),
            format!("proxy_ssl on; {}", offer("proxy")),
        ),
        Side::Server => (
            "ssl",
            accept,
            "http",
            "grpc",
            String::new(),
            String::new(),
            String::new(),
        ),
    };
    let kept = "keepalive 600; keepalive_requests 1000000000; keepalive_timeout 600s;";
    let scratch: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{name}-{kind};\n    "))
        .concat();
    let (load, stream) = match stream_module {
        None => (String::new(), String::new()),
        Some(path) => (
            format!("load_module {path};\n"),
            format!(
                "stream {{\n    server {{ listen {bytes} {ssl}; {accept} proxy_pass {SERVER}:7000; {raw_tls} }}\n}}\n"
            ),
        ),
    };
    format!(
        "{load}worker_processes {workers};
daemon off;
pid {folder}/{name}.pid;
error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    {scratch}keepalive_requests 1000000000;
    keepalive_timeout 600s;
    http2_max_concurrent_streams 1000;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_max_temp_file_size 0;
    upstream one {{ server {SERVER}:8080; {kept} }}
    upstream two {{ server {SERVER}:8081; {kept} }}
    server {{ listen {http1} {ssl}; {accept} location / {{ proxy_pass {scheme}://one; {tls} }} }}
    server {{
        listen {http2} {ssl} http2; {accept}
        location / {{ proxy_pass {scheme}://two; {tls} }}
        location /bench. {{ grpc_pass {grpc}://two; {grpc_tls} }}
    }}
}}
{stream}"
    )
}
