//! Every setting of the proxy, in one table: meaning, name, default and parser on neighbouring lines. All mistakes are
//! reported at once; values are never printed, as one of them may be a secret put in the wrong place.

mod parse;

pub(crate) use parse::duration;

use crate::connection::Direction;
use crate::tell::access::{Filter, Form};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use weft_proxy_api::names::{DEFAULT_TRUST_DOMAIN, proxy_env as env};

/// One row of the table, for help and documentation.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Environment variable.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Value where it is not set; empty: none, or required.
    pub default: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $meaning:literal])+ $field:ident: $type:ty = $name:expr, $default:expr, $parse:path;)+) => {
        /// The settings, checked.
        #[derive(Debug, Clone)]
        pub struct Config { $($(#[doc = $meaning])+ pub $field: $type,)+ }

        /// The table.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: $name, meaning: concat!($($meaning, " "),+).trim_ascii(), default: $default,
        }),+];

        impl Config {
            /// From whatever `get` knows; an empty value counts as not set. Reports every mistake, not the first one.
            pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Mistakes> {
                let mut mistakes = Vec::new();
                $(let $field = {
                    let given = get($name).filter(|value| !value.trim().is_empty());
                    let value = given.as_deref().unwrap_or($default);
                    $parse(value.trim()).map_err(|reason| mistakes.push((&$name, reason))).ok()
                };)+
                match ($($field,)+) {
                    ($(Some($field),)+) if mistakes.is_empty() => Ok(Self { $($field,)+ }),
                    _ => Err(Mistakes(mistakes.into_iter().map(|(n, reason)| format!("{n} {reason}")).collect())),
                }
            }
        }
    };
}

settings! {
    /// The pod this proxy serves, as `namespace/name`. Required.
    workload: Workload = env::WORKLOAD, "", parse::workload;

    /// Where the controller is, as `host:port`. Required.
    control_addr: String = env::CONTROL_ADDR, "", parse::host_port;

    /// File with the token that proves which workload this is. Required.
    token_file: PathBuf = env::TOKEN_FILE, "", parse::required_path;

    /// File with the roots (PEM) trusted for the first call to the controller.
    trust_anchors_file: Option<PathBuf> = env::TRUST_ANCHORS_FILE, "", parse::path;

    /// The same roots as text (PEM), where there is no file.
    trust_anchors: Vec<Vec<u8>> = env::TRUST_ANCHORS, "", parse::pem;

    /// Trust domain of the mesh.
    trust_domain: String = env::TRUST_DOMAIN, DEFAULT_TRUST_DOMAIN, parse::text;

    /// Where redirected connections of the application arrive. REDIRECT turns the destination of local packets into
    /// loopback, so nobody else can reach it.
    outbound: Vec<SocketAddr> = env::OUTBOUND_ADDR, "127.0.0.1:4140,[::1]:4140", parse::addresses;

    /// Where redirected connections to the application arrive.
    inbound: Vec<SocketAddr> = env::INBOUND_ADDR, "[::]:4143", parse::addresses;

    /// Health, metrics, configuration. Only this host, unless said otherwise: pods say `[::]:4191`, as the kubelet and
    /// scrapers come from outside; what shows or changes more than health and metrics stays with loopback there too.
    admin: Vec<SocketAddr> = env::ADMIN_ADDR, "127.0.0.1:4191,[::1]:4191", parse::addresses;

    /// Worker threads; `0`: as many as the CPU quota and affinity allow.
    workers: usize = env::WORKERS, "0", parse::workers;

    /// Connections accepted at once, in both directions together; the next one is closed at once. `0`: as many as
    /// descriptors (two for each) and the memory limit of the container (32 KiB for each, beyond 24 MiB) allow.
    max_connections: usize = env::MAX_CONNECTIONS, "0", parse::count;

    /// Connections to endpoints and the application kept for later requests, of HTTP/1 those that are idle, of HTTP/2 all;
    /// beyond it one that was not used for long is closed. Never more than connections are accepted; 1024 idle ones of
    /// one endpoint and worker.
    max_idle: usize = env::MAX_IDLE, "2048", parse::count;

    /// Mark set on every connection the proxy opens (decimal or 0x…), where its user id cannot be told apart.
    mark: Option<u32> = env::MARK, "", parse::mark;

    /// Log filter, e.g. `info` or `warn,weft_proxy=debug`.
    log: String = env::LOG, "info", parse::text;

    /// Log lines as `plain` text or `json`.
    log_format: LogFormat = env::LOG_FORMAT, "plain", parse::log_format;

    /// A line for each request on standard output: `common` or `json`. Not set: none.
    access_log: Option<Form> = env::ACCESS_LOG, "", parse::access_log;

    /// Which requests get a line: any of `5xx` (`4xx`, …), `errors` (made by the proxy, or broken off), `denied`,
    /// `slower=250ms`, and `sample=0.01` for a share of the others. Not set: all.
    access_log_filter: Filter = env::ACCESS_LOG_FILTER, "", str::parse;

    /// `true`: the access log shows queries. They often carry secrets.
    access_log_query: bool = env::ACCESS_LOG_QUERY, "false", parse::switch;

    /// Collector of traces (OTLP over gRPC, not encrypted by the proxy), as `host:port`. Requests that say they are traced
    /// get a span at each proxy. Not set: traces pass through untouched.
    trace_collector: Option<String> = env::TRACE_COLLECTOR, "", parse::maybe_host_port;

    /// Share of the requests without trace that begin one, from 0 to 1.
    trace_ratio: f64 = env::TRACE_RATIO, "0", crate::tell::share;

    /// Name of the service in traces. Not set: the name of the pod.
    trace_service: String = env::TRACE_SERVICE, "", parse::text;

    /// `false`: a scrape leaves out the figures under Linkerd's names, which dashboards made for that ask for.
    metrics_aliases: bool = env::METRICS_ALIASES, "true", parse::switch;

    /// Zone of the node.
    zone: String = env::ZONE, "", parse::text;

    /// How long a shutdown, or the end of a proxy that was upgraded, waits for what still runs.
    shutdown_grace: Duration = env::SHUTDOWN_GRACE, "30s", parse::duration;

    /// `true`: `POST /shutdown` from loopback ends the proxy, as `weft-proxy await --shutdown` asks at the end of a job.
    admin_shutdown: bool = env::ADMIN_SHUTDOWN, "false", parse::switch;

    /// Unix socket where a new proxy of the same user takes the listeners over (`weft-proxy --take-over`). Its folder must
    /// be closed to other users. Not set: no hot upgrade.
    upgrade_socket: Option<PathBuf> = env::UPGRADE_SOCKET, "", parse::path;

    /// `false`: connections of bytes between two proxies share no tunnel; each is one of its own.
    tunnels: bool = env::TUNNELS, "true", parse::switch;

    /// Ports never treated as HTTP, in either direction: `25,3306,6000-6010`.
    opaque_ports: Vec<(u16, u16)> = env::OPAQUE_PORTS, "", parse::ports;

    /// Listeners whose connections all have the same original destination, for hosts without redirection:
    /// `outbound LISTEN=TARGET`, `inbound LISTEN=TARGET` or `inbound LISTEN=TARGET=DIAL`, separated by commas.
    fixed_targets: Vec<FixedTarget> = env::FIXED_TARGETS, "", parse::fixed_targets;
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For programs.
    Json,
}

/// A listener whose connections all have the same original destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedTarget {
    /// To or from the application.
    pub direction: Direction,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The destination its connections are said to have.
    pub target: SocketAddr,
    /// Where the application is dialled (inbound).
    pub dial: SocketAddr,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings are not usable:")?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

impl Config {
    /// From the environment.
    pub fn from_env() -> Result<Self, Mistakes> {
        let mut config = Self::read(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })?;
        config.read_anchors()?;
        Ok(config)
    }

    /// The roots are in a file or in the environment; having none is a mistake.
    fn read_anchors(&mut self) -> Result<(), Mistakes> {
        let mistake =
            |reason: String| Mistakes(vec![format!("{} {reason}", env::TRUST_ANCHORS_FILE)]);
        if let Some(file) = &self.trust_anchors_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| mistake(format!("cannot be read: {error}")))?;
            self.trust_anchors
                .extend(parse::pem(&text).map_err(mistake)?);
        }
        if self.trust_anchors.is_empty() {
            return Err(mistake(format!(
                "(or {}) must hold at least one certificate",
                env::TRUST_ANCHORS
            )));
        }
        Ok(())
    }

    /// Is this port never to be treated as HTTP?
    pub fn is_opaque(&self, port: u16) -> bool {
        self.opaque_ports
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&port))
    }
}

#[cfg(test)]
mod tests;
