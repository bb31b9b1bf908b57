//! Every finding by code: what is meant, how bad it is, and what to do. `meshctl analyze` prints the codes, and
//! `meshctl explain` this table; W170 and W171 are no findings in manifests, but what the controller says of itself. Codes are never reused.

use crate::manifest::Severity;

/// What the table says about one finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Which it is.
    pub code: Code,
    /// `W101`: for search boxes and scripts.
    pub number: &'static str,
    /// `missing-route`: for people.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
    /// What to look at or change.
    pub remedy: &'static str,
}

macro_rules! table {
    ($($code:ident $number:literal $name:literal $severity:ident $meaning:literal $remedy:literal)*) => {
        /// A finding of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
        }

        /// The table, ordered by code.
        pub const ALL: &[Row] = &[$(Row {
            code: Code::$code, number: $number, name: $name, severity: Severity::$severity,
            meaning: $meaning, remedy: $remedy,
        },)*];
    };
}

impl Code {
    /// What the table says about it.
    pub fn row(self) -> &'static Row {
        &ALL[self as usize]
    }

    /// Is it about something that is named and not there?
    pub fn is_reference(self) -> bool {
        matches!(
            self,
            Self::MissingRoute
                | Self::UnknownMatch
                | Self::MissingBinding
                | Self::NoRoot
                | Self::NoBackend
                | Self::SelectsNothing
                | Self::PolicyReference
        )
    }
}

impl Row {
    /// The row with this code (`W101`, `w101`) or name (`missing-route`).
    pub fn find(text: &str) -> Option<&'static Self> {
        let text = text.trim();
        let is = |row: &&Self| {
            row.name.eq_ignore_ascii_case(text) || row.number.eq_ignore_ascii_case(text)
        };
        ALL.iter().find(is)
    }
}

table! {
    Invalid "W001" "invalid-object" Error
        "The manifest cannot be accepted as it is written. What was valid before stays in force; after a restart there is nothing."
        "Correct the field that is named; the message says what would be right."
    Odd "W002" "odd-field" Warning
        "The manifest is accepted, but a part of it is ignored, overridden or probably not what was meant."
        "Remove or correct what is named."
    Ignored "W003" "ignored-kind" Info
        "The object is of a kind that the mesh has nothing to do with."
        "Nothing, unless it was meant for the mesh: then check apiVersion and kind."
    Suspicious "W100" "suspicious" Warning
        "Two objects are each valid, and together they probably do not mean what was meant."
        "Read the message; it says what is in force."
    MissingRoute "W101" "missing-route" Error
        "A rule of a TrafficTarget names an HTTPRouteGroup, TCPRoute or UDPRoute that does not exist in its namespace: the rule allows nothing."
        "Create the route in the namespace of the TrafficTarget, or correct its name."
    UnknownMatch "W102" "unknown-match" Error
        "A rule of a TrafficTarget names a match that its HTTPRouteGroup does not have: it allows nothing."
        "Correct the name, or add the match; without a list of matches all of the group are meant."
    MissingBinding "W103" "missing-binding" Error
        "A TrafficTarget names an IdentityBinding that does not exist: nobody is meant."
        "Create the IdentityBinding, or name a ServiceAccount."
    BindingIdentity "W104" "binding-identity" Warning
        "An IdentityBinding lists an identity that nobody can prove, or that belongs to another namespace: it is ignored."
        "List identities of the form spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT of the binding's own namespace."
    AllowsNothing "W105" "allows-nothing" Warning
        "A TrafficTarget allows nothing to anybody: it has no source, no rule, or no rule that describes anything."
        "Give it sources and rules, or delete it."
    NoDestination "W106" "no-destination" Info
        "No pod here runs as the destination of a TrafficTarget."
        "Compare the destination with serviceAccountName of the pods that were meant."
    UnreachablePort "W107" "unreachable-port" Warning
        "A TrafficTarget opens a port that no Service exposes on the destination's pods and no container lists."
        "Ports in rules are those of Services first, else those of pods: correct the number."
    HttpOnBytes "W108" "http-rules-on-bytes" Warning
        "A TrafficTarget allows HTTP requests only, on a port that is declared to carry bytes: nothing is ever recognised there, so nothing is allowed."
        "Use a TCPRoute for this port, or take it off the annotation config.weft.mesh/opaque-ports (or rename the Service's port)."
    NotEnforced "W109" "not-enforced" Warning
        "A TrafficTarget opens pods that have no proxy: nobody enforces it there."
        "Put the pods into the mesh (annotation weft.mesh/inject), or accept that everybody may call them."
    NoRoot "W110" "missing-root" Warning
        "The root Service of a TrafficSplit does not exist; the split does nothing until it does."
        "Create the Service, or correct spec.service."
    NoBackend "W111" "missing-backend" Warning
        "A backend of a TrafficSplit does not exist; the others share its part."
        "Create the Service, or take the backend out."
    AllZero "W112" "all-weights-zero" Error
        "Every weight of a TrafficSplit is 0: requests are answered with 503."
        "Give at least one backend a weight above 0, or delete the split."
    NoEndpoints "W113" "backend-without-endpoints" Warning
        "A backend of a TrafficSplit has a share and no ready endpoint: its share of the requests fails with 503."
        "Check that its pods run and are ready and that its selector fits them, or set its weight to 0."
    BackendPort "W115" "backend-without-port" Warning
        "A backend of a TrafficSplit lacks a port that the root has: it takes no part there."
        "Give the backend a port of the same number; target ports may differ."
    SecondSplit "W116" "second-split" Error
        "An older TrafficSplit without conditions has the same root: only one applies, and this one does nothing."
        "Merge the two, delete one, or give one of them conditions (spec.matches)."
    ShadowedSplit "W117" "shadowed-split" Warning
        "An older TrafficSplit of the same root takes every request that this one describes: this one never applies."
        "Make the conditions of the older one narrower, or delete one of them."
    SelectsNothing "W118" "selects-nothing" Error
        "A condition of a TrafficSplit names an HTTPRouteGroup that is missing or empty: it selects nothing."
        "Create the HTTPRouteGroup in the split's namespace, or correct its name."
    NoAddress "W119" "root-without-address" Warning
        "The root of a TrafficSplit is headless or an ExternalName: callers never reach an address that could be split."
        "Use a root Service with a cluster address."
    External "W120" "external-backend" Warning
        "A backend of a TrafficSplit is of type ExternalName, which leads out of the mesh: it takes no part."
        "Use a Service with endpoints of its own."
    ConditionsOnBytes "W121" "conditions-on-bytes" Warning
        "A TrafficSplit has conditions about HTTP, and every port of its root is declared to carry bytes: it never applies."
        "Take the conditions away, or declare what the port really speaks."
    RedundantMatch "W130" "redundant-match" Info
        "Another match of the same HTTPRouteGroup fits everything that this one fits."
        "Delete it, or make the other one narrower."
    EmptyGroup "W131" "empty-group" Warning
        "An HTTPRouteGroup without matches describes no request."
        "Add matches; one without path, methods and headers describes every request."
    HttpsProbe "W140" "https-probe" Warning
        "Strict access refuses a health probe by HTTPS: inside TLS it looks like any caller without an identity."
        "Probe by plain HTTP or exec, or let the port bypass the mesh (config.weft.mesh/skip-inbound-ports)."
    AccessMode "W141" "access-mode" Warning
        "The annotation config.weft.mesh/access is neither strict, permissive nor audit; strict is applied."
        "Write one of the three."
    MetricsTier "W142" "metrics-tier" Warning
        "The annotation config.weft.mesh/metrics is neither edges, routes nor endpoints; the default of the mesh is applied."
        "Write one of the three."
    TcpProbe "W143" "tcp-probe" Info
        "A health probe by a mere connection always succeeds: the proxy takes the connection, whatever the application does."
        "Probe by httpGet, grpc or exec, or let the port bypass the mesh (config.weft.mesh/skip-inbound-ports)."
    NoUdp "W150" "udp" Warning
        "UDP is part of the computed policy, but the proxies carry no UDP: datagrams go past them."
        "Guard UDP by other means, e.g. a NetworkPolicy."
    Policy "W160" "service-policy" Warning
        "A ServicePolicy asks for something that is not in force, or not as it is written."
        "Read the message; it says what holds instead."
    PolicyReference "W161" "missing-policy-reference" Warning
        "A ServicePolicy names a Service, an HTTPRouteGroup or a match that does not exist: that part of it does nothing."
        "Create what is named in the namespace of the ServicePolicy, or correct the name."
    NoStatus "W170" "no-status" Error
        "No replica of the controller can hold the Lease of whoever writes status, so objects get neither conditions nor Events. Everything else goes on."
        "Create the controller's namespace (meshctl install has it), and give its account the rights to Leases there; meshctl check says which is missing."
    NotRead "W171" "not-read" Warning
        "The controller could not take in all that is written within five seconds: its answer is of the state that it knows."
        "Ask again. If it stays so, the controller's log says what it cannot read."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_unique_and_found_by_code_and_name() {
        for (at, row) in ALL.iter().enumerate() {
            assert_eq!(row.code as usize, at);
            assert_eq!(Row::find(row.number), Some(row));
            assert_eq!(Row::find(&row.name.to_uppercase()), Some(row));
            assert!(ALL[..at].iter().all(|other| other.number < row.number));
            assert!(
                row.meaning.ends_with('.') && row.remedy.ends_with('.'),
                "{}",
                row.number
            );
        }
        assert_eq!(Row::find("W999"), None);
    }
}
