//! Endpoints that die, freeze, fail or are cut off.

use super::{ROW, Row, ejections, inside, kill, sum, victim};
use crate::promise::Promise::{Admitted, AtMost, Gap, Goodput, Lost, Recovered, Refused, Tries};
use harness::balancing::{policy, tell};
use harness::{Mesh, echo, moody};

/// Requests that each endpoint of row 18 answers at once, and the milliseconds each takes: 50 per second, 150 of all three.
const PLACES: &str = "places=2&delay=40";

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "6",
        fault: "application of 1 endpoint of 3 killed (-9)",
        promises: &[Lost(16)],
        inject: |mesh, _| kill(mesh, "web", "app", "KILL"),
        ..ROW
    },
    Row {
        name: "12",
        fault: "1 endpoint of 3 cut off (DROP both ways)",
        promises: &[Gap(1000), Recovered(2000), Lost(16)],
        short: 15,
        full: 30,
        inject: |mesh, _| partition(mesh, "-I"),
        heal: |mesh| partition(mesh, "-D"),
        ..ROW
    },
    Row {
        name: "18",
        fault: "four times as many requests as the application can answer; breaker of 9 requests",
        promises: &[Goodput(120.0), Admitted(100), Refused(50), Recovered(1000)],
        manifests: || {
            vec![
                moody("web", 3),
                echo("client", 1),
                policy("breaker: { requests: 9 }"),
            ]
        },
        rate: [75, 600],
        connections: 64,
        prepare: |mesh| tell_all(mesh, PLACES),
        ..ROW
    },
    Row {
        name: "21",
        fault: "all endpoints answer 500; retries on",
        promises: &[Tries(20.0, 10.0), Recovered(1000)],
        manifests: || {
            vec![
                moody("web", 3),
                echo("client", 1),
                policy("retries: { attempts: 3, statuses: [5xx] }"),
            ]
        },
        inject: |mesh, _| tell_all(mesh, "status=500"),
        heal: |mesh| tell_all(mesh, "status=200"),
        look: |mesh| {
            let labels = [("result", "tried")];
            let tries = sum(mesh, "client", "weft_retries_total", &labels)?;
            Ok(vec![("more tries", tries)])
        },
        ..ROW
    },
    Row {
        name: "22",
        fault: "all endpoints restarted one after the other (TERM)",
        promises: &[Lost(0)],
        short: 30,
        inject: |mesh, _| mesh.client().restart("Deployment", "default", "web"),
        ..ROW
    },
    Row {
        name: "22k",
        fault: "proxy of 1 endpoint of 3 killed (-9)",
        promises: &[Lost(16)],
        inject: |mesh, _| kill(mesh, "web", "weft-proxy", "KILL"),
        ..ROW
    },
    Row {
        name: "33",
        fault: "application of 1 endpoint of 3 frozen (STOP)",
        promises: &[Lost(16), Gap(1000)],
        inject: |mesh, _| kill(mesh, "web", "app", "STOP"),
        heal: |mesh| kill(mesh, "web", "app", "CONT"),
        ..ROW
    },
    Row {
        name: "15",
        fault: "client's proxy stopped for 5 s (STOP)",
        promises: &[Recovered(2000), AtMost("ejections", 0.0)],
        short: 5,
        full: 5,
        watched: false,
        inject: |mesh, _| kill(mesh, "client", "weft-proxy", "STOP"),
        heal: |mesh| kill(mesh, "client", "weft-proxy", "CONT"),
        look: ejections,
        ..ROW
    },
];

fn tell_all(mesh: &Mesh, mood: &str) -> anyhow::Result<()> {
    let pods = mesh.pods("web")?;
    pods.iter().try_for_each(|pod| tell(mesh, pod, mood))
}

fn partition(mesh: &Mesh, how: &str) -> anyhow::Result<()> {
    let line = format!(
        "for t in iptables ip6tables; do $t -w {how} INPUT ! -i lo -j DROP && $t -w {how} OUTPUT ! -o lo -j DROP || exit 1; done"
    );
    inside(mesh, &victim(mesh, "web")?, &line).map(drop)
}
