//! What is suspicious between objects that are each valid: names that lead nowhere, splits that do nothing, rules that nobody
//! enforces. Each finding has a code ([`codes`]).

pub mod codes;
mod pods;
mod routes;
mod splits;
mod targets;

use super::policy;
use super::world::{Reader, World};
use crate::manifest::{Loaded, Object, Problem, Severity};
pub use codes::Code;

const NO_UDP: &str =
    "the proxies carry no UDP: it is part of the computed policy only, and opens no TCP";

/// Something suspicious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// Where and what.
    pub problem: Problem,
}

/// What is not in force as it is written: names that lead nowhere, what is ignored.
pub fn all(world: &World) -> Vec<Problem> {
    let found = find(world, None).into_iter().map(|finding| finding.problem);
    // An error is what was not accepted; here everything was.
    let warned = |problem: Problem| Problem {
        severity: problem.severity.min(Severity::Warning),
        ..problem
    };
    found.map(warned).collect()
}

/// The same, and what is in force and probably not meant. It looks at every pod, so it is for whoever asks, not for every
/// change.
pub fn thorough(world: &World) -> Vec<Finding> {
    let opened = targets::Opened::new(&Reader::new(world), world);
    find(world, Some(&opened))
}

fn find(world: &World, opened: Option<&targets::Opened<'_>>) -> Vec<Finding> {
    let reader = Reader::new(world);
    let mut findings = Vec::new();
    for loaded in world.objects() {
        let mut about = About {
            loaded,
            thorough: opened.is_some(),
            findings: &mut findings,
        };
        match &loaded.object {
            Object::TrafficSplit(split) => splits::findings(&reader, split, &mut about),
            Object::TrafficTarget(target) => targets::findings(&reader, opened, target, &mut about),
            Object::IdentityBinding(binding) => targets::binding(&reader, binding, &mut about),
            Object::HttpRouteGroup(group) => routes::findings(group, &mut about),
            Object::UdpRoute(_) => about.say(Code::NoUdp, "kind", NO_UDP), // D09
            Object::ServicePolicy(it) => {
                policy::findings::of(&reader, it, |field, message| {
                    about.say(Code::Policy, field, message);
                });
            }
            Object::Pod(pod) => pods::findings(&reader, pod, &mut about),
            Object::Namespace(namespace) => {
                pods::mode(&namespace.metadata.annotations, &mut about);
            }
            _ => {}
        }
    }
    findings
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
