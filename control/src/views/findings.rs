//! What is suspicious between objects that are each valid: names that lead nowhere, splits that do nothing, rules that nobody
//! enforces. Each finding has a code ([`codes`]).

pub mod codes;
mod pods;
mod routes;
mod splits;
mod targets;

use super::policy;
use super::world::{Reader, Topic, World};
use crate::manifest::{Loaded, Object, Severity};
use crate::manifest::{ObjectKey, Problem};
pub use codes::Code;
use std::collections::HashSet;

/// Why UDPRoutes do nothing to datagrams (D09).
pub const NO_UDP: &str =
    "the proxies carry no UDP: it is part of the computed policy only, and opens no TCP";

/// Most findings kept of one object at every change: it can name thousands of objects that are not there.
const MOST: usize = 50;

/// Something suspicious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// Where and what.
    pub problem: Problem,
}

/// What is not in force of one object as it is written: names that lead nowhere, what is ignored. Beside it, every topic
/// this was computed from but the object itself: as long as none is touched, the findings stay.
pub fn of(world: &World, key: &ObjectKey) -> (Vec<Finding>, HashSet<Topic>) {
    let reader = Reader::new(world);
    let mut findings = Vec::new();
    if let Some(loaded) = world.object(key) {
        find(&reader, None, loaded, &mut findings);
    }
    bound(&mut findings);
    // An error is what was not accepted; here everything was.
    for Finding { problem, .. } in &mut findings {
        problem.severity = problem.severity.min(Severity::Warning);
    }
    (findings, reader.into_topics())
}

/// Counts what is more than [`MOST`]; what the status of an object is made of stays first.
fn bound(findings: &mut Vec<Finding>) {
    let Some(left_out @ 1..) = findings.len().checked_sub(MOST) else {
        return;
    };
    findings.sort_by_key(|it| !it.code.is_reference());
    findings.truncate(MOST);
    if let Some(mut more) = findings.last().cloned() {
        more.problem.field = None;
        more.problem.message = format!("{left_out} further findings are not shown");
        findings.push(more);
    }
}

/// The same, and what is in force and probably not meant. It looks at every pod, so it is for whoever asks, not for every
/// change.
pub fn thorough(world: &World) -> Vec<Finding> {
    let reader = Reader::new(world);
    let opened = targets::Opened::new(&reader, world);
    let mut findings = Vec::new();
    for loaded in world.objects() {
        find(&reader, Some(&opened), loaded, &mut findings);
    }
    findings
}

fn find(
    reader: &Reader<'_>,
    opened: Option<&targets::Opened<'_>>,
    loaded: &Loaded,
    findings: &mut Vec<Finding>,
) {
    let about = &mut About {
        loaded,
        thorough: opened.is_some(),
        findings,
    };
    match &loaded.object {
        Object::TrafficSplit(split) => splits::findings(reader, split, about),
        Object::TrafficTarget(target) => targets::findings(reader, opened, target, about),
        Object::IdentityBinding(binding) => targets::binding(reader, binding, about),
        Object::HttpRouteGroup(group) => routes::findings(group, about),
        Object::UdpRoute(_) => about.say(Code::NoUdp, "kind", NO_UDP), // D09
        Object::ServicePolicy(it) => {
            policy::findings::of(reader, it, |code, field, message| {
                about.say(code, field, message);
            });
        }
        Object::Pod(pod) => pods::findings(reader, pod, about),
        Object::Namespace(namespace) => pods::mode(&namespace.metadata.annotations, about),
        _ => {}
    }
}

/// Collects what is said about one object.
struct About<'a> {
    loaded: &'a Loaded,
    thorough: bool,
    findings: &'a mut Vec<Finding>,
}

impl About<'_> {
    fn say(&mut self, code: Code, field: impl Into<String>, message: impl Into<String>) {
        let problem = Problem {
            origin: self.loaded.origin.clone(),
            object: Some(self.loaded.key.to_string()),
            field: Some(field.into()),
            message: message.into(),
            severity: code.row().severity,
        };
        self.findings.push(Finding { code, problem });
    }

    /// What is in force, and probably not meant.
    fn hint(&mut self, code: Code, field: impl Into<String>, message: impl Into<String>) {
        if self.thorough {
            self.say(code, field, message);
        }
    }
}
