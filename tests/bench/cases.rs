//! What is measured: one table. Names are those of the published comparison, so that figures can be laid side by side.

/// Kind of traffic, and how much of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1 on `connections`, one request at a time on each; `close`: a connection to a request.
    Http1 {
        connections: usize,
        path: &'static str,
        close: bool,
    },
    /// HTTP/2 on `connections` × `streams`.
    Http2 {
        connections: usize,
        streams: usize,
        path: &'static str,
    },
    /// Bytes from client to server on this many connections.
    Up(usize),
    /// Bytes from server to client.
    Down(usize),
    /// A small message back and forth.
    Echo(usize),
    /// A new connection, one message, the end; so many at a time.
    Connect(usize),
    /// Connections that do nothing: memory. HTTP ones have had one request.
    Idle { http: bool },
    /// From exec of the client-side proxy to the first answered request.
    Start,
    /// Size of the stripped program.
    Size,
    /// Memory of the proxies before any load.
    Memory,
}

/// What the headline figure of a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// CPU µs of both proxies per request.
    PerRequest,
    /// CPU s of both proxies per GB.
    PerGigabyte,
    /// No CPU figure.
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    pub(crate) unit: Unit,
    /// Requests per second, sent whether or not earlier ones were answered; 0: as many as possible.
    pub(crate) rate: u32,
    pub(crate) about: &'static str,
}

const fn h1(connections: usize, path: &'static str, close: bool) -> Load {
    Load::Http1 {
        connections,
        path,
        close,
    }
}

const fn h2(connections: usize, streams: usize, path: &'static str) -> Load {
    Load::Http2 {
        connections,
        streams,
        path,
    }
}

const fn case(name: &'static str, load: Load, unit: Unit, rate: u32, about: &'static str) -> Case {
    Case {
        name,
        load,
        unit,
        rate,
        about,
    }
}

pub(crate) const GRPC: &str = "/bench.Echo/Unary";

pub(crate) const ALL: &[Case] = &[
    case(
        "h1_c1",
        h1(1, "/1k", false),
        Unit::PerRequest,
        0,
        "HTTP/1.1, 1 connection, 1 KB",
    ),
    case(
        "h1_c32",
        h1(32, "/1k", false),
        Unit::PerRequest,
        0,
        "HTTP/1.1, 32 connections, 1 KB",
    ),
    case(
        "h1_c256",
        h1(256, "/1k", false),
        Unit::PerRequest,
        0,
        "HTTP/1.1, 256 connections, 1 KB",
    ),
    case(
        "h1_close",
        h1(32, "/1k", true),
        Unit::PerRequest,
        0,
        "HTTP/1.1, a connection to a request, 32 at a time",
    ),
    case(
        "h2_s100",
        h2(1, 100, "/1k"),
        Unit::PerRequest,
        0,
        "HTTP/2, 1 connection × 100 streams, 1 KB",
    ),
    case(
        "h2_c8s12",
        h2(8, 12, "/1k"),
        Unit::PerRequest,
        0,
        "HTTP/2, 8 connections × 12 streams, 1 KB",
    ),
    case(
        "grpc",
        h2(8, 12, GRPC),
        Unit::PerRequest,
        0,
        "gRPC-like unary calls with trailers, 8 × 12",
    ),
    case(
        "body_64k",
        h1(32, "/64k", false),
        Unit::PerRequest,
        0,
        "HTTP/1.1, 32 connections, 64 KB",
    ),
    case(
        "body_10m",
        h1(8, "/10m", false),
        Unit::PerGigabyte,
        0,
        "HTTP/1.1, 8 connections, 10 MB",
    ),
    case(
        "tcp_bulk1",
        Load::Up(1),
        Unit::PerGigabyte,
        0,
        "opaque TCP, client to server, 1 connection",
    ),
    case(
        "tcp_bulk16",
        Load::Up(16),
        Unit::PerGigabyte,
        0,
        "opaque TCP, client to server, 16 connections",
    ),
    case(
        "tcp_down1",
        Load::Down(1),
        Unit::PerGigabyte,
        0,
        "opaque TCP, server to client, 1 connection",
    ),
    case(
        "tcp_echo",
        Load::Echo(1),
        Unit::PerRequest,
        0,
        "opaque TCP, 64 bytes back and forth, 1 connection",
    ),
    case(
        "tls_new",
        Load::Connect(16),
        Unit::PerRequest,
        0,
        "new opaque connections, one message each, 16 at a time",
    ),
    case(
        "h1_r2k",
        h1(32, "/1k", false),
        Unit::PerRequest,
        2_000,
        "HTTP/1.1, 2000 requests/s, 32 connections",
    ),
    case(
        "h2_r2k",
        h2(1, 100, "/1k"),
        Unit::PerRequest,
        2_000,
        "HTTP/2, 2000 requests/s, 1 connection",
    ),
    case(
        "tcp_r2k",
        Load::Echo(32),
        Unit::PerRequest,
        2_000,
        "opaque TCP, 2000 messages/s, 32 connections",
    ),
    case(
        "idle_tcp",
        Load::Idle { http: false },
        Unit::Other,
        0,
        "memory of an idle opaque connection",
    ),
    case(
        "idle_http",
        Load::Idle { http: true },
        Unit::Other,
        0,
        "memory of an idle HTTP/1.1 connection",
    ),
    case(
        "start",
        Load::Start,
        Unit::Other,
        0,
        "exec of the client side to the first answer",
    ),
    case("size", Load::Size, Unit::Other, 0, "size of the program"),
    case(
        "rss",
        Load::Memory,
        Unit::Other,
        0,
        "memory of the two proxies before any load",
    ),
];

impl Case {
    /// Seconds a repetition is repeated for are only meant for cases that send load.
    pub(crate) fn timed(&self) -> bool {
        self.unit != Unit::Other
    }
}
