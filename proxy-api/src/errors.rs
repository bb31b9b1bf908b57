//! Every failure the proxy itself can answer with: code, name, status, what it means and what to do about it.
//! The proxy answers and counts by this table, and `meshctl explain` prints it, so that a code found in a log leads to
//! the same words everywhere. Codes are never reused.

/// What the table says about one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// Which failure this is.
    pub kind: ErrorKind,
    /// `E104`: for search boxes and scripts.
    pub code: &'static str,
    /// `no-endpoints`: for people, metrics labels and the `weft-error` header.
    pub name: &'static str,
    /// Status of the answer to an HTTP client.
    pub http_status: u16,
    /// Status of the answer to a gRPC client.
    pub grpc_status: u8,
    /// What happened, in one or two sentences.
    pub meaning: &'static str,
    /// What to look at or change.
    pub remedy: &'static str,
}

impl ErrorCode {
    /// The row with this code (`E104`, `e104`, `104`) or name (`no-endpoints`).
    pub fn find(text: &str) -> Option<&'static Self> {
        let text = text.trim();
        let digits = text.trim_start_matches(['E', 'e']);
        let is =
            |row: &&Self| row.name.eq_ignore_ascii_case(text) || row.code.get(1..) == Some(digits);
        ALL.iter().find(is)
    }
}

/// `E104 no-endpoints`, as the `weft-error` header carries it.
impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.name)
    }
}

macro_rules! table {
    ($($kind:ident $code:literal $name:literal $http:literal $grpc:literal $meaning:literal $remedy:literal)*) => {
        /// A failure of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorKind {
            $(#[doc = $meaning] $kind,)*
        }

        /// The table, ordered by code.
        pub const ALL: &[ErrorCode] = &[$(ErrorCode {
            kind: ErrorKind::$kind, code: $code, name: $name, http_status: $http, grpc_status: $grpc,
            meaning: $meaning, remedy: $remedy,
        },)*];
    };
}

impl ErrorKind {
    /// What the table says about it.
    pub const fn row(self) -> &'static ErrorCode {
        &ALL[self as usize]
    }

    /// `E104`.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// `no-endpoints`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Status of the answer to an HTTP client.
    pub const fn http_status(self) -> u16 {
        self.row().http_status
    }

    /// Status of the answer to a gRPC client.
    pub const fn grpc_status(self) -> u8 {
        self.row().grpc_status
    }
}

// E103 and E120 stood for what no proxy has ever answered.
//
// gRPC: 4 DEADLINE_EXCEEDED, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED, 9 FAILED_PRECONDITION, 12 UNIMPLEMENTED,
// 13 INTERNAL, 14 UNAVAILABLE (the one that clients retry by themselves).
table! {
    BadRequest "E101" "bad-request" 400 13
        "The request breaks the rules of HTTP in a way that two programs could read differently, so it was refused rather than repaired."
        "Look at the client: both Content-Length and Transfer-Encoding, a repeated Host, a bare LF or NUL, a folded header or a bad chunk size."
    NotHttp "E102" "not-http" 400 13
        "The port is declared as HTTP, or carries HTTP rules, and the bytes that arrived are not HTTP."
        "Talk HTTP to this port, or take its HTTP rules away and list it in the annotation config.weft.mesh/opaque-ports."
    NoEndpoints "E104" "no-endpoints" 503 14
        "The service that the request goes to has no ready endpoint."
        "Check that the pods of the service run and are ready, and that its selector matches their labels."
    AllWeightsZero "E105" "all-weights-zero" 503 14
        "Every backend of the TrafficSplit has weight 0, so nobody may receive the request."
        "Give at least one backend of the TrafficSplit a weight above 0, or delete the TrafficSplit."
    ConnectFailed "E106" "connect-failed" 502 14
        "The connection to the endpoint was refused, reset, or found no way there."
        "Check that the application listens on that port and address, and that no network policy or firewall stands between."
    ConnectTimeout "E107" "connect-timeout" 504 14
        "The endpoint did not answer the attempt to connect in time."
        "Look for a host that is gone or overloaded, or a firewall that drops packets silently."
    PeerIdentity "E108" "peer-identity" 502 14
        "The endpoint proved to be somebody else than the identity the controller named, so nothing was sent to it."
        "Usually an address was reused and the controller is behind: see whether it answers. If it persists, check the pod's service account."
    TlsHandshake "E109" "tls-handshake" 502 14
        "Mutual TLS with the other proxy could not be set up."
        "Check that both proxies run, trust the same roots and have current certificates (/config on the admin port), and that the clocks agree."
    PolicyUnknown "E110" "policy-unknown" 503 14
        "The proxy has no policy for this port or destination yet, and does not guess."
        "The controller has not answered: check that it runs and that this proxy can reach it (/ready on the admin port says what is missing)."
    Denied "E111" "denied" 403 7
        "No permission allows this client to make this request."
        "Write a TrafficTarget with the client's service account as source (and matching rules), or correct the existing one."
    Loop "E112" "loop" 508 9
        "The request would come back to the proxy that it left."
        "A client inside the pod addresses the proxy's own port, or the application forwards to its own service: correct the address."
    RefusedTarget "E113" "refused-target" 403 7
        "The target is one that nobody outside may reach through a proxy: loopback, link-local, cloud metadata, or the proxy's own ports."
        "Address the application by the pod's or the service's address."
    Overloaded "E114" "overloaded" 503 14
        "A limit on requests in flight, pending or connections was reached, or the memory allowed is nearly used up, so the request was refused at once instead of queued."
        "Add replicas, make the service faster, or raise the limit if the machine has room."
    ResponseTimeout "E115" "response-timeout" 504 4
        "The response did not start within the response timeout."
        "See why the service is slow on this route, or raise the response timeout."
    RequestTimeout "E116" "request-timeout" 504 4
        "The request, including its retries, was not finished within its timeout."
        "See which attempt took the time, or raise the request timeout."
    UpstreamReset "E117" "upstream-reset" 502 14
        "The endpoint closed or reset the connection or stream before its response was complete."
        "Look into the application's log for a crash, a restart, or an idle timeout shorter than its clients'."
    UpstreamProtocol "E118" "upstream-protocol" 502 13
        "The endpoint's response breaks the rules of HTTP."
        "Check that the port speaks the HTTP version that is declared for it (port name or appProtocol), and look at its headers."
    ShuttingDown "E119" "shutting-down" 503 14
        "The proxy is shutting down and takes no new requests on this connection."
        "Nothing, if a rollout is under way: clients retry elsewhere. Otherwise see who stopped the pod."
    HeaderTooLarge "E121" "header-too-large" 431 8
        "The head of the request is larger than the proxy reads."
        "Look for a cookie or token that grows; heads are limited to 64 KiB and 99 fields (HTTP/2: 32 KiB), lines to 32 KiB."
    Ejected "E122" "ejected" 503 14
        "Every endpoint that could serve the request was taken out of use after repeated failures."
        "See why the service fails (its 5xx and connect failures); endpoints are tried again by themselves after a pause."
    RateLimited "E123" "rate-limited" 429 8
        "The client sent more requests than its rate limit allows."
        "Slow down as Retry-After says, or raise the limit."
    HeaderTimeout "E124" "header-timeout" 408 4
        "The client started a request and did not finish its head in time."
        "Look at the client or the network in front of it; this is also what a slow-header attack looks like."
    NoIdentity "E125" "no-identity" 503 14
        "The proxy has no valid certificate of its own, and the peer may only be called under mutual TLS."
        "Check that the controller runs, that the token is mounted and that its service account still exists."
    ControlUnreachable "E126" "control-unreachable" 503 14
        "The proxy needed an answer of the controller for a new destination and could not reach it."
        "Check the controller and its address; destinations that were in use keep working meanwhile."
    UnsupportedUpgrade "E127" "unsupported-upgrade" 501 12
        "The request asks to upgrade the connection to a protocol that cannot be carried on this route."
        "Use a protocol that works over HTTP/1.1 upgrade (websocket), an endpoint that takes extended CONNECT (RFC 8441), or list the port as opaque."
    ClientGone "E128" "client-gone" 499 1
        "The client went away before its response was complete. Only logs and metrics show this."
        "Usually a timeout of the client: compare it with the latency of the service."
    FaultInjected "E129" "fault-injected" 503 14
        "A fault was injected on purpose by a policy."
        "Remove the fault from the policy when the experiment is over."
    Internal "E130" "internal" 500 13
        "The proxy failed in a way that it should not."
        "Please report it, with the proxy's log around that moment."
    TryTimeout "E131" "try-timeout" 504 4
        "One try at the request got no response within the time that the policy gives a single try."
        "See why the service is slow on this route, raise the time of a try, or allow more tries."
    IdleTimeout "E132" "idle-timeout" 504 4
        "No byte went either way for longer than the idle timeout."
        "Raise the idle timeout of the policy, or let the stream send something now and then."
    BreakerOpen "E133" "breaker-open" 503 14
        "The proxy already has as much under way to the service as the breaker of its ServicePolicy allows, and the service has no fallback that could answer."
        "See why the service is slow, or raise the limit (connections, pending or requests) that weft_backend_breaker_refused_total names."
    TooManyConnections "E134" "too-many-connections" 503 14
        "The proxy has as many connections as it takes at once, or half of them wait for clients of one address to say who they are; so the next one was closed. Only logs and metrics show this."
        "See who holds so many connections (weft_connections_open), give the sidecar more memory, or set WEFT_PROXY_MAX_CONNECTIONS."
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_rise_and_belong_to_their_kind() {
        assert!(ALL.is_sorted_by(|a, b| a.code < b.code));
        for (i, row) in ALL.iter().enumerate() {
            assert!(row.code.len() == 4 && row.code[1..].parse::<u16>().is_ok());
            assert_eq!(row.kind as usize, i);
            assert_eq!(row.kind.row(), row);
            assert!(
                (400..600).contains(&row.http_status) && (1..=16).contains(&row.grpc_status),
                "{row}"
            );
            assert!(
                row.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{row}"
            );
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn a_row_is_found_by_code_or_name() {
        for text in ["E104", "e104", "104", " no-endpoints ", "No-Endpoints"] {
            assert_eq!(
                ErrorCode::find(text).unwrap().kind,
                ErrorKind::NoEndpoints,
                "{text}"
            );
        }
        for text in ["", "E", "E99", "no endpoints", "E1040"] {
            assert_eq!(ErrorCode::find(text), None, "{text}");
        }
        assert_eq!(ErrorKind::Denied.row().to_string(), "E111 denied");
    }
}
