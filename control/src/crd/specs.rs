//! HTTPRouteGroup, TCPRoute and UDPRoute.

use super::schema::{list, map, object, one_of, open, port, said, text};
use crate::smi::Version;
use crate::smi::specs::METHODS;
use serde_json::{Value, json};

pub(super) fn group(version: Version) -> Value {
    let methods: Vec<&str> = ["*"].into_iter().chain(METHODS).collect();
    let mut fields = vec![
        ("name", text()),
        (
            "pathRegex",
            said(
                text(),
                "Regular expression; anchored at the start of the path, open at its end.",
            ),
        ),
        (
            "methods",
            said(list(one_of(&methods)), "Any, where it is empty."),
        ),
    ];
    if version >= Version::V1Alpha2 {
        // A map, or a list of maps with one entry each: both are in use (D04).
        let headers = json!({"x-kubernetes-preserve-unknown-fields": true});
        let meaning = "Names of headers, and the regular expression that the whole value must fit.";
        fields.push(("headers", said(headers, meaning)));
    }
    let matches = list(open(&["name"], &fields));
    let matches = said(matches, "Descriptions of requests; any of them may fit.");
    let meaning = "What requests look like; TrafficTargets and TrafficSplits refer to it.";
    let flat = ("matches", matches.clone());
    let nested = ("spec", map(&[], &[("matches", matches)]));
    // Both places in every version: people write either, and what is dropped would describe nothing (D34).
    object(meaning, &[], &[nested, flat])
}

pub(super) fn route(version: Version) -> Value {
    let meaning = "Ports; TrafficTargets refer to it.";
    // What is not known here is refused by the controller: without its ports a route is every port.
    let spec = match version {
        Version::V1Alpha4 => {
            let ports = said(list(port()), "Every port, where it is empty.");
            let matches = open(&[], &[("name", text()), ("ports", ports)]);
            open(&[], &[("matches", matches)])
        }
        _ => open(&[], &[]),
    };
    object(meaning, &[], &[("spec", spec)])
}
