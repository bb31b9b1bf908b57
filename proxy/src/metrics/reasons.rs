//! Why something was not let in, or not let out: the values of `reason` in `weft_policy_denied_total`, and what each of
//! them means. A reason that is not in this table cannot be counted.

/// Reason, and meaning.
pub const REASONS: &[(&str, &str)] = &[
    ("no_identity", "policy: the caller proved no identity"),
    (
        "not_a_source",
        "policy: no TrafficTarget lists the caller as a source for this port",
    ),
    (
        "no_matching_route",
        "policy: the caller is listed, but no rule describes the request",
    ),
    (
        "not_http",
        "policy: the caller is listed for HTTP only, and this is not HTTP",
    ),
    (
        "not_redirected",
        "the connection was made to the proxy's own port instead of being redirected there",
    ),
    ("gone", "the connection was gone before it was looked at"),
    (
        "internal_target",
        "from outside to loopback, link-local, multicast or metadata addresses",
    ),
    ("own_port", "from outside to a port of the proxy itself"),
    (
        "foreign_target",
        "from outside to an address that is not the pod's: it is no router",
    ),
    (
        "silent",
        "the client said nothing for a minute, and might not have been answered without",
    ),
    ("tls_timeout", "handshake: not over in time"),
    ("tls_absent", "handshake: no certificate was shown"),
    ("tls_expired", "handshake: the certificate has ended"),
    (
        "tls_not_yet_valid",
        "handshake: the certificate is not valid yet; a clock may be wrong",
    ),
    (
        "tls_unknown_ca",
        "handshake: the certificate was signed by nobody we trust",
    ),
    (
        "tls_wrong_identity",
        "handshake: the certificate is somebody else's",
    ),
    (
        "tls_not_a_workload",
        "handshake: the certificate names no workload of this trust domain",
    ),
    ("tls_malformed", "handshake: the certificate cannot be read"),
    (
        "tls_ours_refused",
        "handshake: the peer refused our certificate",
    ),
    (
        "tls_handshake",
        "handshake: failed otherwise, or spoke no protocol of ours",
    ),
];

/// Is this reason in the table?
pub(super) fn is_known(reason: &str) -> bool {
    REASONS.iter().any(|(known, _)| *known == reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_proxy_api::policy::inbound::DenyReason;

    #[test]
    fn every_reason_is_there_once_with_its_meaning() {
        assert!(
            DenyReason::ALL
                .iter()
                .all(|reason| is_known(reason.label()))
        );
        for (at, (reason, meaning)) in REASONS.iter().enumerate() {
            assert!(
                REASONS[..at].iter().all(|(other, _)| other != reason),
                "{reason} twice"
            );
            assert!(
                !meaning.is_empty() && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }
}
