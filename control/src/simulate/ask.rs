//! One question: what is known while it is answered, where what is sent ([`super::sent`]) goes, and what is said there.

use super::Simulation;
use super::answer::{
    Answer, Applies, BackendAnswer, DecidedBy, Decision, NotApplied, Verdict, share,
};
use super::complete::NOBODY;
use super::judge::{Judged, judge, refused};
use super::question::{Protocol, Question, To};
use super::route::{self, Routed, Way};
use super::sent::{Asker, Request};
use crate::manifest::workload::Pod;
use crate::manifest::{Kind, ObjectKey};
use crate::views::ViewKey;
use crate::views::world::Reader;
use std::collections::BTreeSet;
use weft_proxy_api::errors::ErrorKind;
use weft_proxy_api::policy::outbound::Endpoint;
use weft_proxy_api::wire::Body;

/// Most pods of one backend that are asked; the others are alike or the answer is of no use to a reader.
const MAX_PODS: usize = 1000;

/// What is known while a question is answered.
pub(super) struct Talk<'a> {
    sim: &'a Simulation,
    reader: Reader<'a>,
    pub(super) question: &'a Question,
    pub(super) caller: Asker,
    pub(super) request: Request,
    not_applied: BTreeSet<NotApplied>,
    applies: BTreeSet<Applies>,
    assumed: Vec<String>,
}

/// What happens.
pub(super) fn ask(sim: &Simulation, question: &Question) -> Answer {
    let mut talk = Talk {
        sim,
        reader: Reader::new(&sim.state().world),
        question,
        caller: Asker {
            identity: None,
            address: NOBODY,
            meshed: false,
        },
        request: Request::Bytes,
        not_applied: BTreeSet::new(),
        applies: BTreeSet::new(),
        assumed: vec![],
    };
    match talk.prepare() {
        Ok(routed) => talk.decide(routed),
        Err(decision) => talk.answer(*decision, None, vec![], vec![]),
    }
}

impl<'a> Talk<'a> {
    pub(super) fn reader(&self) -> &Reader<'a> {
        &self.reader
    }

    pub(super) fn state(&self) -> &'a super::Completed {
        self.sim.state()
    }

    pub(super) fn not_applied(&mut self, object: &str, why: String) {
        self.not_applied.insert(NotApplied {
            object: object.to_owned(),
            why,
        });
    }

    pub(super) fn applies(&mut self, object: &str, setting: &str, value: String) {
        self.applies.insert(Applies {
            object: object.to_owned(),
            setting: setting.to_owned(),
            value,
        });
    }

    pub(super) fn assume(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.assumed.contains(&what) {
            self.assumed.push(what);
        }
    }

    pub(super) fn view(&self, key: ViewKey) -> Result<Body, String> {
        self.sim.view(key)
    }

    /// The members of an endpoint set, as proxies have them.
    pub(super) fn endpoints(&self, name: &str) -> Result<Vec<Endpoint>, Box<Decision>> {
        match self.view(ViewKey::Endpoints(name.to_owned())) {
            Ok(Body::Endpoints(endpoints)) => Ok(endpoints),
            Ok(_) => Ok(vec![]),
            Err(why) => Err(Decision::refuse(why)),
        }
    }

    /// A pod, or the one that stands for the workload of this name. What was assumed about it is noted.
    pub(super) fn pod(&mut self, namespace: &str, name: &str) -> Option<&'a Pod> {
        let state = self.sim.state();
        let stands = state.pod_of_workload(namespace, name);
        let name = match self.reader.pod(namespace, name) {
            Some(_) => name,
            None => &stands?.name,
        };
        let pod = self.reader.pod(namespace, name)?;
        self.note_pod(pod);
        Some(pod)
    }

    pub(super) fn note_pod(&mut self, pod: &Pod) {
        let meta = &pod.metadata;
        let key = ObjectKey::new(Kind::Pod, &meta.namespace, &meta.name);
        for note in self.sim.state().assumed(&key).to_vec() {
            self.assume(note);
        }
    }

    fn prepare(&mut self) -> Result<Routed, Box<Decision>> {
        self.caller = self.who()?;
        if self.question.protocol.is_http() {
            self.request = Request::Http(self.http()?);
        }
        if let Some(server) = &self.question.sni {
            self.request = Request::Tls(server.clone());
        }
        if self.question.connect.is_some() {
            self.assume(
                "the application takes extended CONNECT (RFC 8441); one that does not is answered for with 501 (E127)",
            );
        }
        if self.question.protocol == Protocol::Udp {
            self.assume(
                "proxies judge datagrams as the policy says; they carry no UDP so far, and it goes past them",
            );
        }
        match &self.question.to {
            To::Service {
                namespace,
                name,
                port,
            } => route::to_service(self, namespace, name, port),
            To::Pod {
                namespace,
                name,
                port,
            } => route::to_pod(self, namespace, name, port),
        }
    }

    /// Asks every pod that could serve.
    fn decide(mut self, routed: Routed) -> Answer {
        let total: u128 = routed.ways.iter().map(|way| u128::from(way.weight)).sum();
        let mut all: Vec<Judged> = Vec::new();
        let mut backends = Vec::new();
        for way in &routed.ways {
            let judged = self.way(&routed, way);
            let spoken = self.question.protocol;
            backends.extend(backend(way, total, &judged, spoken));
            if way.weight > 0 {
                all.extend(judged);
            }
        }
        let decision = match routed.ways.iter().any(|way| way.weight > 0) {
            false => nobody(&routed, self.question.protocol),
            true => merged(&all),
        };
        if decision.verdict != Verdict::Mixed {
            backends
                .iter_mut()
                .for_each(|it: &mut BackendAnswer| it.decision = None);
        }
        let mut would_allow: Vec<String> = Vec::new();
        for judged in all {
            self.not_applied.extend(judged.not_applied);
            self.applies.extend(judged.applies);
            let new = judged.would_allow.into_iter();
            would_allow.extend(
                new.filter(|it| !would_allow.contains(it))
                    .collect::<Vec<_>>(),
            );
        }
        self.answer(decision, routed.route, backends, would_allow)
    }

    /// What each pod behind a backend says; alike ones once.
    fn way(&mut self, routed: &Routed, way: &Way) -> Vec<Judged> {
        if let Some(fallback) = routed.instead_of(way) {
            return self.pods(routed, fallback);
        }
        if way.endpoints.is_empty() {
            let name = way
                .name
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let why = format!("{name} has no ready endpoint");
            return vec![Judged::of(
                *refused(ErrorKind::NoEndpoints, why).of(self.question.protocol),
            )];
        }
        self.pods(routed, way)
    }

    fn pods(&mut self, routed: &Routed, way: &Way) -> Vec<Judged> {
        let mut all: Vec<Judged> = Vec::new();
        for endpoint in way.endpoints.iter().take(MAX_PODS) {
            let judged = judge(self, routed, endpoint);
            if !all.contains(&judged) {
                all.push(judged);
            }
        }
        all
    }

    fn answer(
        self,
        decision: Decision,
        route: Option<DecidedBy>,
        backends: Vec<BackendAnswer>,
        would_allow: Vec<String>,
    ) -> Answer {
        Answer {
            decision: *Box::new(decision).of(self.question.protocol),
            from: self.caller.identity.map(|id| id.as_str().to_owned()),
            to: self.question.to.to_string(),
            request: described(self.question),
            route,
            backends,
            also_applies: self.applies.into_iter().collect(),
            not_applied: self.not_applied.into_iter().collect(),
            would_allow,
            assumed: self.assumed,
        }
    }
}

/// What is sent, in a few words.
fn described(question: &Question) -> String {
    let Question { method, path, .. } = question;
    match (&question.connect, &question.sni) {
        (Some(protocol), _) => format!("{method} {path} ({protocol})"),
        (None, Some(server)) => format!("tls to {server}"),
        (None, None) if question.protocol.is_http() => format!("{method} {path}"),
        (None, None) => question.protocol.to_string(),
    }
}

fn backend(way: &Way, total: u128, judged: &[Judged], spoken: Protocol) -> Option<BackendAnswer> {
    let name = way.name.as_ref()?;
    Some(BackendAnswer {
        service: name.name.clone(),
        namespace: name.namespace.clone(),
        port: name.port,
        share: share(way.weight, total),
        weight: way.weight,
        endpoints: way.endpoints.len(),
        decision: Some(*Box::new(merged(judged)).of(spoken)),
    })
}

/// Nobody may receive it.
fn nobody(routed: &Routed, protocol: Protocol) -> Decision {
    let object = routed.route.as_ref().and_then(|route| route.object.clone());
    let whose = object.as_deref().unwrap_or("the route");
    let (kind, why) = match routed.ways.is_empty() {
        // Bytes know no better answer than that there is nobody.
        true if !protocol.is_http() => (ErrorKind::NoEndpoints, "no backend exists on this port"),
        true => (ErrorKind::AllWeightsZero, "no backend exists on this port"),
        false => (ErrorKind::AllWeightsZero, "every weight is 0"),
    };
    Decision {
        decided_by: routed.route.clone().unwrap_or_default(),
        ..*refused(kind, format!("{whose}: {why}"))
    }
}

/// One decision for all, if they agree.
fn merged(all: &[Judged]) -> Decision {
    let Some(first) = all.first() else {
        return *Decision::refuse("nobody serves".to_owned());
    };
    let mut verdicts: Vec<Verdict> = all.iter().map(|it| it.decision.verdict).collect();
    verdicts.sort_unstable();
    verdicts.dedup();
    if verdicts.len() == 1 {
        return first.decision.clone();
    }
    let reason =
        "it depends on where it is sent: the backends (or pods of a backend) decide differently";
    let each: BTreeSet<String> = all
        .iter()
        .map(|it| format!("{}: {}", it.decision.verdict.as_str(), it.decision.reason))
        .collect();
    let each: Vec<String> = each.into_iter().collect();
    Decision {
        verdict: Verdict::Mixed,
        ..*Decision::refuse(format!("{reason}; {}", each.join("; ")))
    }
}
