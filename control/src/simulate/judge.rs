//! The destination's side: what the proxy of one pod says.

use super::answer::{Applies, DecidedBy, Decision, NotApplied, Verdict};
use super::applies;
use super::ask::Talk;
use super::question::Protocol as Spoken;
use super::route::Routed;
use super::sent::{HttpRequest, Request};
use super::why;
use crate::manifest::workload::Pod;
use crate::pod_ref::PodRef;
use crate::smi::access::Rule;
use crate::views::world::Reader;
use crate::views::{ViewKey, access};
use http::{HeaderName, HeaderValue};
use weft_proxy_api::errors::ErrorKind;
use weft_proxy_api::names::{headers, keys};
use weft_proxy_api::policy::inbound::Verdict as OfRequest;
use weft_proxy_api::policy::inbound::{
    Allow, AllowedBy, ConnectionVerdict, DenyReason, Inbound, Traffic,
};
use weft_proxy_api::policy::outbound::Endpoint;
use weft_proxy_api::policy::{Access, Protocol};
use weft_proxy_api::wire::Body;

/// What one pod says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) decision: Decision,
    pub(super) applies: Vec<Applies>,
    pub(super) not_applied: Vec<NotApplied>,
    pub(super) would_allow: Vec<String>,
}

impl Judged {
    pub(super) fn of(decision: Decision) -> Self {
        Self {
            decision,
            applies: vec![],
            not_applied: vec![],
            would_allow: vec![],
        }
    }
}

impl Decision {
    /// The mesh cannot or will not, for a reason that has no code.
    pub(super) fn refuse(reason: String) -> Box<Self> {
        Box::new(Self {
            verdict: Verdict::Refuse,
            status: None,
            grpc_status: None,
            code: None,
            denied: None,
            audit: false,
            reason,
            decided_by: DecidedBy::default(),
        })
    }

    /// As a caller of this protocol sees it: only HTTP has a status, only gRPC a code of its own.
    pub(super) fn of(mut self: Box<Self>, protocol: Spoken) -> Box<Self> {
        if !protocol.is_http() {
            self.status = None;
        }
        if protocol != Spoken::Grpc {
            self.grpc_status = None;
        }
        self
    }

    fn allowed(reason: String, decided_by: DecidedBy) -> Self {
        Self {
            verdict: Verdict::Allow,
            status: Some(200),
            grpc_status: Some(0),
            decided_by,
            ..*Self::refuse(reason)
        }
    }

    fn denied(reason: DenyReason, kind: ErrorKind, decided_by: DecidedBy) -> Self {
        Self {
            verdict: Verdict::Deny,
            denied: Some(reason.label().into()),
            decided_by,
            ..*refused(kind, reason.explain().to_owned())
        }
    }
}

/// The mesh answers with one of its errors.
pub(super) fn refused(kind: ErrorKind, reason: String) -> Box<Decision> {
    Box::new(Decision {
        status: Some(kind.http_status()),
        grpc_status: Some(kind.grpc_status()),
        code: Some(kind.row().to_string()),
        ..*Decision::refuse(reason)
    })
}

/// What the proxy of this endpoint says.
pub(super) fn judge(talk: &mut Talk<'_>, routed: &Routed, endpoint: &Endpoint) -> Judged {
    let name = PodRef::new(&endpoint.namespace, &endpoint.pod);
    let Some(pod) = talk.pod(&name.namespace, &name.name) else {
        let at = endpoint.address;
        return no_proxy(
            routed,
            talk,
            format!("no pod is known at {at}: nobody judges there"),
        );
    };
    if endpoint.identity.is_none() {
        let port = endpoint.address.port();
        let why = format!("no proxy stands before port {port} of Pod {name}: nobody judges there");
        return no_proxy(routed, talk, why);
    }
    match talk.view(ViewKey::Inbound(name)) {
        Ok(Body::Inbound(inbound)) => {
            let udp = talk.question.protocol == Spoken::Udp;
            let inbound = match udp {
                true => datagrams(inbound, talk.reader(), pod),
                false => inbound,
            };
            let case = Case {
                pod,
                inbound: &inbound,
                port: endpoint.address.port(),
                udp,
            };
            case.judge(talk, routed)
        }
        Ok(_) => Judged::of(*Decision::refuse("the pod has no policy".to_owned())),
        Err(why) => Judged::of(*Decision::refuse(why)),
    }
}

fn no_proxy(routed: &Routed, talk: &Talk<'_>, why: String) -> Judged {
    if let Some(refused) = not_http(routed, talk) {
        return Judged::of(refused);
    }
    let decided_by = DecidedBy {
        object: None,
        rule: Some("no proxy".to_owned()),
    };
    Judged::of(Decision::allowed(why, decided_by))
}

/// A port that is declared to speak HTTP takes nothing else, already at the caller.
fn not_http(routed: &Routed, talk: &Talk<'_>) -> Option<Decision> {
    let is_bytes = !talk.question.protocol.is_http();
    (routed.http_only && is_bytes).then(|| {
        let why = "the port is declared to speak HTTP, and these bytes are not HTTP";
        *refused(ErrorKind::NotHttp, why.to_owned())
    })
}

/// One pod, its policy, and the port that is reached.
pub(super) struct Case<'a> {
    pub(super) pod: &'a Pod,
    pub(super) inbound: &'a Inbound,
    pub(super) port: u16,
    pub(super) udp: bool,
}

/// The policy for datagrams, as far as there is one: UDPRoutes stand alone, and probes and declared protocols are TCP's.
fn datagrams(inbound: Inbound, reader: &Reader<'_>, pod: &Pod) -> Inbound {
    Inbound {
        allow: access::allow_udp(reader, pod),
        ports: vec![],
        probes: vec![],
        ..inbound
    }
}

impl Case<'_> {
    fn judge(&self, talk: &mut Talk<'_>, routed: &Routed) -> Judged {
        // Bytes on a port declared so are bytes, be they HTTP or not.
        let plain_bytes =
            !talk.caller.meshed && self.inbound.protocol(self.port) == Protocol::Opaque;
        let request = match &talk.request {
            Request::Http(request) if !routed.bytes && !plain_bytes => Some(seen(request, talk)),
            _ => None,
        };
        let decision = match &request {
            Some(request) => self.request(talk, request),
            None => self.bytes(talk, routed),
        };
        let (not_applied, would_allow) = why::targets(talk, self, request.as_ref(), &decision);
        let limits = &self.inbound.rate_limits;
        let applies = request.map(|it| applies::limits(limits, self.port, &it));
        Judged {
            decision,
            applies: applies.unwrap_or_default(),
            not_applied,
            would_allow,
        }
    }

    fn request(&self, talk: &Talk<'_>, request: &HttpRequest) -> Decision {
        let caller = talk.caller.caller();
        match self
            .inbound
            .judge_request(caller, self.port, &request.view())
        {
            OfRequest::Allow(by) => self.allowed(talk.reader(), by, Some(request)),
            OfRequest::Audit(reason) => self.audited(talk.reader(), reason),
            OfRequest::Deny(reason) => {
                Decision::denied(reason, ErrorKind::Denied, self.mode(talk.reader()))
            }
        }
    }

    fn bytes(&self, talk: &Talk<'_>, routed: &Routed) -> Decision {
        use ConnectionVerdict as Is;
        let declared_http = matches!(
            self.inbound.protocol(self.port),
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc
        );
        let (reader, refused_before) = (talk.reader(), not_http(routed, talk));
        match self.inbound.judge_connection(talk.caller.caller(), self.port) {
            Is::Deny(reason) => Decision::denied(reason, ErrorKind::Denied, self.mode(reader)),
            Is::HttpOnly => {
                Decision::denied(DenyReason::NotHttp, ErrorKind::NotHttp, self.mode(reader))
            }
            Is::Allow(_) | Is::Audit(_) if refused_before.is_some() || declared_http => {
                refused_before.unwrap_or_else(|| {
                    let why = "the port of the pod is declared to speak HTTP, and these bytes are not HTTP";
                    *refused(ErrorKind::NotHttp, why.to_owned())
                })
            }
            Is::Allow(by) => self.allowed(reader, by, None),
            Is::Audit(reason) => self.audited(reader, reason),
        }
    }

    fn allowed(
        &self,
        reader: &Reader<'_>,
        by: AllowedBy,
        request: Option<&HttpRequest>,
    ) -> Decision {
        match by {
            AllowedBy::Permissive => Decision::allowed(
                "access is permissive: no TrafficTarget is enforced".to_owned(),
                self.mode(reader),
            ),
            AllowedBy::Probe => {
                let object = format!(
                    "Pod {}/{}",
                    self.pod.metadata.namespace, self.pod.metadata.name
                );
                let why = "it asks what the pod's health probe asks, which anybody may".to_owned();
                Decision::allowed(why, DecidedBy::new(object, "health probe"))
            }
            AllowedBy::Rule(index) | AllowedBy::Request { rule: index, .. } => {
                let Some(allow) = self.inbound.allow.get(index) else {
                    return *Decision::refuse("the permission is unknown".to_owned());
                };
                let rule = self.rule(reader, allow, request);
                Decision::allowed(
                    format!("{} allows it", allow.object),
                    DecidedBy::new(allow.object.clone(), rule),
                )
            }
        }
    }

    fn audited(&self, reader: &Reader<'_>, reason: DenyReason) -> Decision {
        let why = format!(
            "audit mode lets it pass; strict access would deny it: {}",
            reason.explain()
        );
        Decision {
            audit: true,
            denied: Some(reason.label().into()),
            ..Decision::allowed(why, self.mode(reader))
        }
    }

    /// What of a permission covers the traffic.
    fn rule(&self, reader: &Reader<'_>, allow: &Allow, request: Option<&HttpRequest>) -> String {
        if let (Traffic::Http(matches), Some(request)) = (&allow.traffic, request) {
            let fits = matches.iter().find(|m| m.fits(&request.view()));
            return fits.map_or_else(String::new, |m| format!("{}, match {}", m.object, m.name));
        }
        let meta = &self.pod.metadata;
        let named = |name: &str| allow.object == format!("TrafficTarget {}/{name}", meta.namespace);
        let targets = access::targets(reader, self.pod);
        let target = targets.iter().find(|target| named(&target.metadata.name));
        let routes = target.into_iter().flat_map(|target| &target.rules);
        let routes = routes.filter_map(|rule| match rule {
            Rule::Tcp { route } if !self.udp => {
                Some(format!("TCPRoute {}/{route}", meta.namespace))
            }
            Rule::Udp { route } if self.udp => Some(format!("UDPRoute {}/{route}", meta.namespace)),
            _ => None,
        });
        routes.collect::<Vec<_>>().join(", ")
    }

    /// Who says how strict access is.
    pub(super) fn mode(&self, reader: &Reader<'_>) -> DecidedBy {
        let meta = &self.pod.metadata;
        let of_namespace = || {
            let namespace = reader.namespace(&meta.namespace)?;
            let said = namespace.metadata.annotations.contains_key(keys::ACCESS);
            said.then(|| format!("Namespace {}", meta.namespace))
        };
        let object = match meta.annotations.contains_key(keys::ACCESS) {
            true => format!("Pod {}/{}", meta.namespace, meta.name),
            false => of_namespace().unwrap_or_else(|| "mesh".to_owned()),
        };
        let rule = match self.inbound.access {
            Access::Strict => "access strict: what nothing allows is denied",
            Access::Permissive => "access permissive",
            Access::Audit => "access audit",
        };
        DecidedBy::new(object, rule)
    }
}

/// The request as the destination's proxy judges it: it tells the application who calls, and rules see that as well.
fn seen(request: &HttpRequest, talk: &Talk<'_>) -> HttpRequest {
    let mut request = request.clone();
    if let Some(id) = &talk.caller.identity
        && let Ok(id) = HeaderValue::from_str(id.as_str())
    {
        let name = HeaderName::from_static(headers::CLIENT_ID);
        request.headers.insert(name, id);
    }
    request
}
