//! What ServicePolicies add: which object gives which setting, and what of it is certain to happen. What depends on load or chance
//! is told and changes no verdict.

use super::answer::{Applies, DecidedBy, Decision, NotApplied};
use super::ask::Talk;
use super::judge::refused;
use super::sent::{HttpRequest, Request};
use crate::manifest::k8s::Service as Manifest;
use crate::policy::ServicePolicy;
use crate::views::policy::{about, holder, object};
use std::sync::Arc;
use std::time::Duration;
use weft_proxy_api::errors::ErrorKind;
use weft_proxy_api::policy::outbound::Service;
use weft_proxy_api::policy::settings::{
    Balancer, BalancerPolicy, Breaker, Budget, Ejection, Fault, HashKey, MILLION, RateLimit,
    RequestSettings, Retry, ServiceSettings, Timeouts,
};

/// What the caller's proxy adds to a request to a Service; the answer that it makes itself, if that is certain.
pub(super) fn at_caller(
    talk: &mut Talk<'_>,
    service: &Service,
    as_http: bool,
) -> Option<Box<Decision>> {
    let settings = &service.settings;
    let whole = settings.object.clone().unwrap_or_default();
    of_service(settings, as_http)
        .into_iter()
        .for_each(|(setting, value)| talk.applies(&whole, setting, value));
    let decided = match &talk.request {
        Request::Http(request) if as_http => Some(settings.rule(&request.view())),
        _ => None,
    };
    others(talk, service, decided.flatten(), as_http);
    let (object, requests) = match decided? {
        Some(rule) => (
            settings.rules[rule].object.clone(),
            settings.rules[rule].settings.clone(),
        ),
        None => (whole, settings.requests.clone()),
    };
    of_requests(&requests)
        .into_iter()
        .for_each(|(setting, value)| talk.applies(&object, setting, value));
    certain(&object, &requests)
}

/// A failure that is made of every request, or a wait that is longer than the request may take.
fn certain(object: &str, settings: &RequestSettings) -> Option<Box<Decision>> {
    let (fault, timeouts) = (&settings.fault, &settings.timeouts);
    let by = |rule: String| DecidedBy::new(object, rule);
    if fault.delay_ppm == MILLION {
        let limits = [
            (
                timeouts.request,
                ErrorKind::RequestTimeout,
                "timeouts.request",
            ),
            (
                timeouts.response,
                ErrorKind::ResponseTimeout,
                "timeouts.response",
            ),
            (timeouts.per_try, ErrorKind::TryTimeout, "timeouts.perTry"),
        ];
        let limits = limits
            .into_iter()
            .filter_map(|(limit, kind, name)| Some((limit?, kind, name)));
        let first = limits.min_by_key(|(limit, ..)| *limit);
        if let Some((limit, kind, name)) = first.filter(|(limit, ..)| *limit <= fault.delay) {
            let why = format!(
                "{object} delays every request by {}, and allows {} ({name})",
                time(fault.delay),
                time(limit)
            );
            return Some(Box::new(Decision {
                decided_by: by(format!("fault.delay, {name}")),
                ..*refused(kind, why)
            }));
        }
    }
    (fault.abort_ppm == MILLION).then(|| {
        let why = format!("{object} aborts every request with status {}", fault.status);
        Box::new(Decision {
            status: Some(fault.status),
            grpc_status: Some(fault.grpc_status()),
            decided_by: by("fault.abort".to_owned()),
            ..*refused(ErrorKind::FaultInjected, why)
        })
    })
}

/// Policies about this port that give nothing to this request.
fn others(talk: &mut Talk<'_>, service: &Service, decided: Option<usize>, as_http: bool) {
    let (name, port) = (&service.name, service.name.port);
    let Some(manifest) = talk.reader().service(&name.namespace, &name.name) else {
        return;
    };
    let policies = about(talk.reader(), manifest, port);
    let enforced: Vec<_> = policies.iter().filter(|it| !it.audit).copied().collect();
    let held = holder(&enforced);
    let rule = decided.map(|at| service.settings.rules[at].object.clone());
    let mut notes = of_other_ports(talk, manifest, port);
    for policy in policies {
        let object = object(&policy.metadata);
        let why = match held {
            _ if policy.audit => {
                "it is in audit mode: nothing is done to traffic, only its rate limits are counted"
                    .to_owned()
            }
            _ if policy.matches.is_some() && !as_http => {
                "it is for certain HTTP requests, and this is not HTTP".to_owned()
            }
            _ if policy.matches.is_some() && rule.as_ref() == Some(&object) => continue,
            _ if policy.matches.is_some() && fits_too(service, &object, talk) => {
                format!("{} came first", rule.as_deref().unwrap_or("another"))
            }
            _ if policy.matches.is_some() => "none of its matches fits this request".to_owned(),
            Some(held) if !Arc::ptr_eq(held, policy) => format!(
                "{} holds for this port: it {}",
                self::object(&held.metadata),
                match held.port.is_some() && policy.port.is_none() {
                    true => "names it",
                    false => "is older",
                }
            ),
            _ => continue,
        };
        notes.push(NotApplied { object, why });
    }
    notes
        .into_iter()
        .for_each(|it| talk.not_applied(&it.object, it.why));
}

/// Does a rule of this object fit the request as well?
fn fits_too(service: &Service, object: &str, talk: &Talk<'_>) -> bool {
    let Request::Http(request) = &talk.request else {
        return false;
    };
    let mut mine = service
        .settings
        .rules
        .iter()
        .filter(|rule| rule.object == object);
    mine.any(|rule| rule.matches.iter().any(|m| m.fits(&request.view())))
}

fn of_other_ports(talk: &Talk<'_>, service: &Manifest, port: u16) -> Vec<NotApplied> {
    let meta = &service.metadata;
    let all = talk
        .reader()
        .policies(&meta.namespace, &meta.name)
        .into_iter();
    let other = |policy: &Arc<ServicePolicy>| policy.port.filter(|own| *own != port);
    all.filter_map(|policy| {
        let own = other(policy)?;
        Some(NotApplied {
            object: object(&policy.metadata),
            why: format!("it is about port {own} only"),
        })
    })
    .collect()
}

/// Limits that the destination's proxy holds callers of this request to.
pub(super) fn limits(limits: &[RateLimit], port: u16, request: &HttpRequest) -> Vec<Applies> {
    let view = request.view();
    let fits = |limit: &&RateLimit| {
        (limit.ports.is_empty() || limit.ports.contains(&port))
            && (limit.matches.is_empty() || limit.matches.iter().any(|m| m.fits(&view)))
    };
    let said = limits.iter().filter(fits).map(|limit| Applies {
        object: limit.object.clone(),
        setting: "rateLimit".to_owned(),
        value: format!(
            "{} requests per {} to each pod{}, {} at once; more are {}",
            limit.requests,
            time(limit.per),
            if limit.per_client {
                " from each client identity"
            } else {
                ""
            },
            limit.burst,
            if limit.audit {
                "counted (audit)"
            } else {
                "answered with 429 (E123)"
            },
        ),
    });
    said.collect()
}

/// Everything that ServicePolicies give to a port of a Service: to all requests, and to those that a rule is about.
pub fn given(settings: &ServiceSettings) -> Vec<Applies> {
    let whole = settings.object.clone().unwrap_or_default();
    let of_all = of_service(settings, true)
        .into_iter()
        .chain(of_requests(&settings.requests));
    let of_all = of_all.map(|said| (whole.clone(), said));
    let of_rules = settings.rules.iter().flat_map(|rule| {
        let said = of_requests(&rule.settings).into_iter();
        said.map(|said| (rule.object.clone(), said))
    });
    let one = |(object, (setting, value)): (String, (&str, String))| Applies {
        object,
        setting: setting.to_owned(),
        value,
    };
    of_all.chain(of_rules).map(one).collect()
}

type Said = Vec<(&'static str, String)>;

/// For every request and connection to the Service: what is not as it would be without a policy.
fn of_service(settings: &ServiceSettings, as_http: bool) -> Said {
    let mut said = Said::new();
    if settings.balancer != Balancer::default() {
        said.push(("balancer", balancer(&settings.balancer)));
    }
    if settings.ejection != Ejection::default() {
        said.push(("ejection", ejection(&settings.ejection)));
    }
    if settings.breaker != Breaker::default() {
        said.push(("breaker", breaker(&settings.breaker)));
    }
    if as_http && settings.budget != Budget::default() {
        let Budget {
            percent,
            min_per_second,
        } = settings.budget;
        said.push((
            "retryBudget",
            format!("{percent} % of the requests and {min_per_second} per second"),
        ));
    }
    said
}

fn of_requests(settings: &RequestSettings) -> Said {
    let mut said = Said::new();
    if settings.timeouts != Timeouts::default() {
        said.push(("timeouts", timeouts(&settings.timeouts)));
    }
    if let Some(retry) = &settings.retry {
        said.push(("retries", retries(retry)));
    }
    if settings.fault != Fault::default() {
        said.push(("fault", fault(&settings.fault)));
    }
    said
}

fn timeouts(timeouts: &Timeouts) -> String {
    let parts = [
        ("request", timeouts.request),
        ("response", timeouts.response),
        ("per try", timeouts.per_try),
        ("idle", timeouts.idle),
    ];
    let parts = parts
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name} {}", time(limit?))));
    parts.collect::<Vec<_>>().join(", ")
}

fn retries(retry: &Retry) -> String {
    let mut on: Vec<String> = retry
        .statuses
        .iter()
        .map(|(from, to)| match from == to {
            true => from.to_string(),
            false => format!("{from}-{to}"),
        })
        .collect();
    let codes = (0..32).filter(|code| retry.has_grpc(*code));
    on.extend(codes.map(|code| format!("gRPC {code}")));
    let methods = match retry.methods.is_empty() {
        true => "idempotent methods".to_owned(),
        false => retry.methods.join(", "),
    };
    format!(
        "{} more tries on {}, for {methods}",
        retry.attempts,
        on.join(", ")
    )
}

fn fault(fault: &Fault) -> String {
    let share = |ppm: u32| f64::from(ppm) * 100.0 / f64::from(MILLION);
    let mut parts = Vec::new();
    if fault.delay_ppm > 0 {
        parts.push(format!(
            "{} % wait {}",
            share(fault.delay_ppm),
            time(fault.delay)
        ));
    }
    if fault.abort_ppm > 0 {
        parts.push(format!(
            "{} % are answered with {} (E129)",
            share(fault.abort_ppm),
            fault.status
        ));
    }
    parts.join(", ")
}

fn balancer(balancer: &Balancer) -> String {
    let policy = match &balancer.policy {
        BalancerPolicy::Ewma => "the better of two by latency and requests in flight".to_owned(),
        BalancerPolicy::LeastRequest => "the better of two by requests in flight".to_owned(),
        BalancerPolicy::RoundRobin => "one after the other".to_owned(),
        BalancerPolicy::RingHash(HashKey::Header(name)) => {
            format!("equal values of the header {name} go to the same endpoint")
        }
        BalancerPolicy::RingHash(HashKey::Cookie(name)) => {
            format!("equal values of the cookie {name} go to the same endpoint")
        }
        BalancerPolicy::RingHash(HashKey::Source) => {
            "the same calling address goes to the same endpoint".to_owned()
        }
    };
    let zone = match balancer.prefer_zone {
        true => ", endpoints of the own zone first",
        false => "",
    };
    format!("{policy}{zone}")
}

fn ejection(ejection: &Ejection) -> String {
    format!(
        "an endpoint is set aside for {} to {} after {} failures in a row, or below {} % of success",
        time(ejection.min_time),
        time(ejection.max_time),
        ejection.consecutive,
        ejection.success_percent
    )
}

fn breaker(breaker: &Breaker) -> String {
    let parts = [
        ("connections", breaker.connections),
        ("waiting requests", breaker.pending),
        ("requests in flight", breaker.requests),
    ];
    let parts = parts
        .into_iter()
        .filter_map(|(name, most)| Some(format!("{} {name}", most?)));
    let mut parts: Vec<String> = parts.collect();
    match &breaker.fallback {
        Some(to) => parts.push(format!("else {} is asked", to.name)),
        None => parts.push("more fail at once (E133)".to_owned()),
    }
    parts.join(", ")
}

/// `250ms`, `2s`, `1.5s`.
fn time(time: Duration) -> String {
    format!("{time:?}")
}
