//! What is about this traffic and changed nothing, and what would.

use super::answer::{Decision, NotApplied};
use super::ask::Talk;
use super::judge::Case;
use super::sent::{HttpRequest, Request};
use crate::manifest::Object;
use crate::smi::access::{Rule, Subject, TrafficTarget};
use crate::smi::split::TrafficSplit;
use crate::views::access;
use crate::views::split::{backend, by_age, is_external};
use std::sync::Arc;
use weft_proxy_api::policy::explain::{Miss, Part, misses};
use weft_proxy_api::policy::inbound::{Allow, Caller, Ports};
use weft_proxy_api::policy::matching::HttpMatch;
use weft_proxy_api::policy::outbound::Service;
use weft_proxy_api::policy::{Access, Protocol};

/// Most matches listed of one object, and most objects listed that are about somebody else.
const MOST: usize = 10;

/// Every TrafficTarget about the pod that did not decide, and what would allow a denied request.
pub(super) fn targets(
    talk: &Talk<'_>,
    case: &Case<'_>,
    request: Option<&HttpRequest>,
    decision: &Decision,
) -> (Vec<NotApplied>, Vec<String>) {
    let namespace = &case.pod.metadata.namespace;
    let account = case.pod.spec.account();
    let targets = access::targets(talk.reader(), case.pod);
    let mut look = Look {
        talk,
        case,
        request,
        not_applied: vec![],
        would_allow: vec![],
    };
    for target in &targets {
        let object = format!("TrafficTarget {namespace}/{}", target.metadata.name);
        if decision.decided_by.object.as_ref() != Some(&object) {
            look.target(&object, target, decision);
        }
    }
    if decision.denied.is_some() {
        look.others(&targets);
        look.last_resort(namespace, account);
    }
    (look.not_applied, look.would_allow)
}

struct Look<'a, 'b> {
    talk: &'a Talk<'b>,
    case: &'a Case<'a>,
    request: Option<&'a HttpRequest>,
    not_applied: Vec<NotApplied>,
    would_allow: Vec<String>,
}

impl Look<'_, '_> {
    fn target(&mut self, object: &str, target: &TrafficTarget, decision: &Decision) {
        let allow = self
            .case
            .inbound
            .allow
            .iter()
            .find(|it| it.object == object);
        let mut why = match allow {
            None if self.case.udp => "it names no UDPRoute".to_owned(),
            None => nothing(target),
            Some(allow) => match self.miss(allow, self.talk.caller.caller()) {
                None if self.case.inbound.access == Access::Permissive => {
                    "it allows this, but access is permissive and rules are not enforced".to_owned()
                }
                None => format!(
                    "it allows this as well; {} came first",
                    decision.decided_by.object.as_deref().unwrap_or("another")
                ),
                Some(miss) => {
                    if decision.denied.is_some() {
                        self.remedy(allow, &miss);
                    }
                    self.words(allow, target, &miss)
                }
            },
        };
        for missing in self.missing(target) {
            why = format!("{why}; {missing}");
        }
        self.say(object, why);
    }

    fn miss<'m>(&self, allow: &'m Allow, caller: Caller<'_>) -> Option<Miss<'m>> {
        let view = self.request.map(HttpRequest::view);
        allow.miss(caller, self.case.port, view.as_ref())
    }

    fn words(&self, allow: &Allow, target: &TrafficTarget, miss: &Miss<'_>) -> String {
        let caller = || match &self.talk.caller.identity {
            Some(id) => format!("{}/{}", id.namespace(), id.account()),
            None => "the caller".to_owned(),
        };
        match miss {
            Miss::NoIdentity => format!(
                "the caller proves no identity; its sources are {}",
                sources(allow)
            ),
            Miss::Source => format!("{} is not among its sources ({})", caller(), sources(allow)),
            Miss::Address => format!(
                "{} is a source only from the addresses of certain pods, and {} is none of them",
                caller(),
                self.talk.caller.address
            ),
            Miss::Port => format!(
                "it opens {} of the pod, not {}",
                ports(&allow.ports),
                self.case.port
            ),
            Miss::NotHttp => "it allows HTTP only, and this is not HTTP".to_owned(),
            Miss::Request(none) if none.is_empty() => nothing(target),
            Miss::Request(parts) => listed(parts),
        }
    }

    /// What would make this permission cover the traffic, if one thing is enough.
    fn remedy(&mut self, allow: &Allow, miss: &Miss<'_>) {
        let object = &allow.object;
        let remedy = match miss {
            Miss::Source => {
                let Some(source) = allow.sources.first() else {
                    return;
                };
                let as_source = Caller {
                    identity: Some(&source.identity),
                    address: source
                        .addresses
                        .as_ref()
                        .and_then(|all| all.first().copied())
                        .unwrap_or(self.talk.caller.address),
                };
                if self.miss(allow, as_source).is_some() {
                    return;
                }
                let Some(id) = &self.talk.caller.identity else {
                    return;
                };
                format!(
                    "ServiceAccount {}/{} among the sources of {object}",
                    id.namespace(),
                    id.account()
                )
            }
            Miss::Port => format!(
                "port {} in a TCPRoute among the rules of {object}",
                self.case.port
            ),
            Miss::NotHttp => {
                format!("a TrafficTarget like {object} with nothing but a TCPRoute as its rule")
            }
            Miss::Request(_) => match self.request {
                Some(request) => format!(
                    "a match for {} {} in an HTTPRouteGroup that {object} names",
                    request.method, request.path
                ),
                None => return,
            },
            Miss::NoIdentity | Miss::Address => return,
        };
        self.would_allow.push(remedy);
    }

    /// Names in its rules that lead nowhere.
    fn missing(&self, target: &TrafficTarget) -> Vec<String> {
        let (reader, namespace) = (self.talk.reader(), &target.metadata.namespace);
        let of_rule = |rule: &Rule| match rule {
            Rule::Http { group, matches } => match reader.group(namespace, group) {
                None => vec![format!("there is no HTTPRouteGroup {namespace}/{group}")],
                Some(known) => matches
                    .iter()
                    .filter(|name| known.matches.iter().all(|m| m.name != **name))
                    .map(|name| format!("HTTPRouteGroup {namespace}/{group} has no match {name}"))
                    .collect(),
            },
            Rule::Tcp { route } if reader.tcp_route(namespace, route).is_none() => {
                vec![format!("there is no TCPRoute {namespace}/{route}")]
            }
            Rule::Udp { route } if reader.udp_route(namespace, route).is_none() => {
                vec![format!("there is no UDPRoute {namespace}/{route}")]
            }
            _ => vec![],
        };
        let of_source = |subject: &Subject| match subject {
            Subject::IdentityBinding { namespace, name }
                if reader.binding(namespace, name).is_none() =>
            {
                Some(format!("there is no IdentityBinding {namespace}/{name}"))
            }
            _ => None,
        };
        let of_sources = target.sources.iter().filter_map(of_source);
        target
            .rules
            .iter()
            .flat_map(of_rule)
            .chain(of_sources)
            .collect()
    }

    /// Targets of the same namespace that open other pods: perhaps one was meant for this one.
    fn others(&mut self, mine: &[&Arc<TrafficTarget>]) {
        let meta = &self.case.pod.metadata;
        let (namespace, account) = (&meta.namespace, self.case.pod.spec.account());
        let of_mine = |target: &TrafficTarget| {
            mine.iter()
                .any(|it| it.metadata.name == target.metadata.name)
        };
        let objects = self.talk.state().world.objects();
        let others = objects.filter_map(|loaded| match &loaded.object {
            Object::TrafficTarget(target)
                if target.metadata.namespace == *namespace && !of_mine(target) =>
            {
                Some(target)
            }
            _ => None,
        });
        for target in others.take(MOST) {
            let object = format!("TrafficTarget {namespace}/{}", target.metadata.name);
            let why = match &target.destination.subject {
                Subject::ServiceAccount { name, .. } => format!(
                    "its destination is ServiceAccount {namespace}/{name}, and this pod runs as {namespace}/{account}"
                ),
                Subject::IdentityBinding { name, .. } => format!(
                    "its destination is IdentityBinding {namespace}/{name}, which does not describe this pod"
                ),
            };
            self.not_applied.push(NotApplied { object, why });
        }
    }

    fn last_resort(&mut self, namespace: &str, account: &str) {
        if !self.would_allow.is_empty() {
            return;
        }
        self.would_allow.push(match &self.talk.caller.identity {
            None => "a proxy beside the caller, so that it has an identity, and a TrafficTarget that names it".to_owned(),
            Some(id) => format!(
                "a TrafficTarget in {namespace} with destination ServiceAccount {account}, source ServiceAccount {}/{} and a rule for this",
                id.namespace(),
                id.account()
            ),
        });
    }

    fn say(&mut self, object: &str, why: String) {
        self.not_applied.push(NotApplied {
            object: object.to_owned(),
            why,
        });
    }
}

/// A target that became no permission.
fn nothing(target: &TrafficTarget) -> String {
    let udp = |rule: &Rule| matches!(rule, Rule::Udp { .. });
    match () {
        () if target.sources.is_empty() => "it has no source".to_owned(),
        () if target.rules.is_empty() => "it has no rule".to_owned(),
        () if target.rules.iter().all(udp) => "it is about UDP only".to_owned(),
        () => "none of its rules describes anything".to_owned(),
    }
}

fn sources(allow: &Allow) -> String {
    let names = allow.sources.iter().map(|source| {
        let id = &source.identity;
        format!("{}/{}", id.namespace(), id.account())
    });
    let mut names: Vec<String> = names.collect();
    names.dedup();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let rest = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{rest}", names.join(", "))
}

fn ports(ports: &Ports) -> String {
    match ports {
        Ports::Any => "every port".to_owned(),
        Ports::Only(none) if none.is_empty() => "no port".to_owned(),
        Ports::Only(ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("port {}", ports.join(", "))
        }
    }
}

fn listed(parts: &[(&HttpMatch, Part<'_>)]) -> String {
    let one =
        |(m, part): &(&HttpMatch, Part<'_>)| format!("{}, match {}: {part}", m.object, m.name);
    let mut all: Vec<String> = parts.iter().take(MOST).map(one).collect();
    if parts.len() > MOST {
        all.push(format!("and {} further matches", parts.len() - MOST));
    }
    all.join("; ")
}

/// Every TrafficSplit of the Service that did not decide, and every backend of the deciding one that was left out.
pub(super) fn splits(
    talk: &Talk<'_>,
    service: &Service,
    decided: usize,
    as_http: bool,
) -> Vec<NotApplied> {
    let (namespace, name) = (&service.name.namespace, &service.name.name);
    let mut notes = Vec::new();
    let all = by_age(talk.reader().splits(namespace, name));
    let first = all.iter().find(|split| split.matches.is_empty()).copied();
    for split in &all {
        let object = format!("TrafficSplit {namespace}/{}", split.metadata.name);
        let mine = |route: &weft_proxy_api::policy::outbound::Route| {
            route.object.as_ref() == Some(&object)
        };
        let at = service.routes.iter().position(mine);
        if at == Some(decided) {
            notes.extend(left_out(talk, split, service.name.port));
        } else {
            let why = inert(talk, service, split, at, decided, as_http, first);
            notes.push(NotApplied { object, why });
        }
    }
    notes.extend(leaves(talk, service, decided));
    notes
}

fn inert(
    talk: &Talk<'_>,
    service: &Service,
    split: &TrafficSplit,
    at: Option<usize>,
    decided: usize,
    as_http: bool,
    first: Option<&Arc<TrafficSplit>>,
) -> String {
    match (at, &talk.request) {
        (None, _) if split.matches.is_empty() => {
            let first = first.map_or("another", |first| &first.metadata.name);
            format!("the older TrafficSplit {first} has the same root, and only one applies")
        }
        (None, _) => "none of the HTTPRouteGroups it names describes anything".to_owned(),
        (Some(at), Request::Tls(server))
            if at < decided && service.protocol != Protocol::Opaque =>
        {
            format!(
                "no match of it is about nothing but `host` and fits {server}: nothing else of TLS can be read"
            )
        }
        (Some(_), _) if !as_http && !split.matches.is_empty() => {
            "it is for certain HTTP requests, and this is not HTTP".to_owned()
        }
        (Some(at), Request::Http(request)) if at < decided => {
            let route = &service.routes[at];
            match misses(&route.matches, &request.view()) {
                Some(parts) => listed(&parts),
                None => "another route came first".to_owned(),
            }
        }
        (Some(_), _) => "a route for these requests came first".to_owned(),
    }
}

/// Backends that take no part.
fn left_out(talk: &Talk<'_>, split: &TrafficSplit, port: u16) -> Vec<NotApplied> {
    let namespace = &split.metadata.namespace;
    let mut notes = Vec::new();
    for one in &split.backends {
        if backend(talk.reader(), namespace, &one.service, port).is_some() {
            continue;
        }
        let why = match talk.reader().service(namespace, &one.service) {
            None => "there is no such Service: the other backends share its part".to_owned(),
            Some(service) if is_external(service) => {
                "it is of type ExternalName, which is never a backend".to_owned()
            }
            Some(_) => format!("it has no port {port}: the other backends share its part there"),
        };
        notes.push(NotApplied {
            object: format!("Service {namespace}/{}", one.service),
            why,
        });
    }
    notes
}

/// Splits of the backends themselves: a backend is never split again.
fn leaves(talk: &Talk<'_>, service: &Service, decided: usize) -> Vec<NotApplied> {
    let backends = service.routes.get(decided).map(|route| &route.backends);
    let others = backends
        .into_iter()
        .flatten()
        .filter(|backend| backend.name != service.name);
    let splits = others.flat_map(|backend| {
        let name = &backend.name;
        talk.reader().splits(&name.namespace, &name.name)
    });
    splits
        .map(|split| NotApplied {
            object: format!(
                "TrafficSplit {}/{}",
                split.metadata.namespace, split.metadata.name
            ),
            why: format!(
                "its root {} is a backend here, and a backend is never split again",
                split.service
            ),
        })
        .collect()
}
