//! A tree becomes a ServicePolicy. What is wrong is reported all at once, each with its field; nothing is guessed and nothing
//! that is not known is passed by.

use super::values::{code, count, flag, refuse, service, share, statuses, time, word};
use super::{Breaker, Fallback, Limit, MatchRef, ServicePolicy, fields};
use crate::manifest::k8s::ObjectMeta;
use crate::manifest::report::{Field, Report};
use crate::smi::TOP;
use std::ops::RangeInclusive;
use std::time::Duration;
use weft_proxy_api::policy::settings::{
    Balancer, BalancerPolicy, Budget, Ejection, Fault, HashKey, MILLION, RequestSettings, Retry,
    Timeouts, bounds,
};

/// Bits of the gRPC codes and ranges of the HTTP statuses that are asked for again where neither is named.
const AGAIN: (&[(u16, u16)], u32) = (&[(502, 504)], 1 << 14);
/// Waits between tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));
const PORTS: RangeInclusive<u32> = 1..=65_535;

/// Reads v1alpha1. `None` if something is wrong; what, is in the report.
pub fn read(root: &Field<'_>, metadata: ObjectMeta, report: &mut Report) -> Option<ServicePolicy> {
    root.reject_unknown(&[&TOP[..], &["status"]].concat(), report);
    let spec = root.get("spec");
    known(&spec, "", report)?;
    not_with_matches(&spec, report);
    let service = service(&spec.get("service"), report).map(str::to_owned);
    let port = port(&spec.get("port"), report);
    let matches = matches(&spec.get("matches"), report);
    let requests = requests(&spec, report);
    let budget = part(&spec, "retryBudget", report, read_budget);
    let ejection = part(&spec, "ejection", report, read_ejection);
    let breaker = part(&spec, "breaker", report, read_breaker);
    let balancer = part(&spec, "balancer", report, read_balancer);
    let limits = part(&spec, "rateLimit", report, read_limits);
    let mode = word(&spec.get("mode"), &["enforce", "audit"], report);
    let policy = ServicePolicy {
        metadata,
        service: service?,
        port: port?,
        matches: matches?,
        requests: requests?,
        budget: budget?,
        ejection: ejection?,
        breaker: breaker?,
        balancer: balancer?,
        limits: limits?.unwrap_or_default(),
        audit: mode? == Some(1),
    };
    policy.warn_of_nothing(&spec, report);
    policy.refuse_itself(&spec, report);
    (!report.failed()).then_some(policy)
}

impl ServicePolicy {
    fn warn_of_nothing(&self, spec: &Field<'_>, report: &mut Report) {
        let whole = self.budget.is_some()
            || self.ejection.is_some()
            || self.breaker.is_some()
            || self.balancer.is_some();
        if !whole && self.requests.is_none() && self.limits.is_empty() {
            report.warn(spec, "asks for nothing");
        }
    }

    fn refuse_itself(&self, spec: &Field<'_>, report: &mut Report) {
        let fallback = self.breaker.as_ref().and_then(|b| b.fallback.as_ref());
        let same = |to: &&Fallback| to.service == self.service && to.port == self.port;
        if fallback.filter(same).is_some() {
            let field = spec.get("breaker").get("fallback").get("service");
            report.error(&field, "must be another Service, or another port of it");
        }
    }
}

/// Checks that it is a map, if it is there, and has only the fields of the table.
fn known(field: &Field<'_>, path: &str, report: &mut Report) -> Option<()> {
    field.expect_map(report)?;
    field.reject_unknown(&fields::names(path), report);
    Some(())
}

/// The field `name` of `spec`, if it is there.
fn part<T>(
    spec: &Field<'_>,
    name: &str,
    report: &mut Report,
    read: impl FnOnce(&Field<'_>, &mut Report) -> Option<T>,
) -> Option<Option<T>> {
    let field = spec.get(name);
    if !field.is_present() {
        return Some(None);
    }
    known(&field, name, report)?;
    read(&field, report).map(Some)
}

fn not_with_matches(spec: &Field<'_>, report: &mut Report) {
    if !spec.get("matches").is_present() {
        return;
    }
    for name in fields::WHOLE {
        let field = spec.get(name);
        if field.is_present() {
            report.error(
                &field,
                "is about the Service as a whole: it belongs to an object without matches",
            );
        }
    }
}

fn port(field: &Field<'_>, report: &mut Report) -> Option<Option<u16>> {
    let number = count(field, PORTS, report)?;
    Some(number.and_then(|number| u16::try_from(number).ok()))
}

/// An empty list is refused: it could mean every request or none.
fn matches(field: &Field<'_>, report: &mut Report) -> Option<Option<Vec<MatchRef>>> {
    if !field.is_present() {
        return Some(None);
    }
    let items = field.items(report)?;
    if items.is_empty() {
        report.error(field, "must have at least one entry, or be left out");
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| match_ref(item, report)).collect();
    read.into_iter().collect::<Option<_>>().map(Some)
}

fn match_ref(item: &Field<'_>, report: &mut Report) -> Option<MatchRef> {
    known(item, "matches[]", report)?;
    let kind = item.get("kind").text(report);
    let kind = kind.and_then(|_| word(&item.get("kind"), &["HTTPRouteGroup"], report));
    let group = item.get("name").name(report);
    let names = item.get("matches");
    let list = texts(&names, report);
    if names.is_present() && list.as_ref().is_some_and(Vec::is_empty) {
        report.error(&names, "must have at least one name, or be left out");
        return None;
    }
    kind?;
    Some(MatchRef {
        group: group?.to_owned(),
        names: list?,
    })
}

fn texts(field: &Field<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = field.items(report)?;
    let read: Vec<_> = items.iter().map(|item| item.text(report)).collect();
    read.into_iter()
        .map(|text| text.map(str::to_owned))
        .collect()
}

/// `None` inside: none of the three is there.
fn requests(spec: &Field<'_>, report: &mut Report) -> Option<Option<RequestSettings>> {
    let timeouts = part(spec, "timeouts", report, read_timeouts);
    let retry = part(spec, "retries", report, read_retries);
    let fault = part(spec, "fault", report, read_fault);
    let (timeouts, retry, fault) = (timeouts?, retry?, fault?);
    let asked = timeouts.is_some() || retry.is_some() || fault.is_some();
    Some(asked.then(|| RequestSettings {
        timeouts: timeouts.unwrap_or_default(),
        retry,
        fault: fault.unwrap_or_default(),
    }))
}

fn read_timeouts(field: &Field<'_>, report: &mut Report) -> Option<Timeouts> {
    let mut limit = |name: &str| time(&field.get(name), bounds::TIME_MS, report);
    let (request, response) = (limit("request"), limit("response"));
    let (per_try, idle) = (limit("perTry"), limit("idle"));
    Some(Timeouts {
        request: request?,
        response: response?,
        per_try: per_try?,
        idle: idle?,
    })
}

fn read_retries(field: &Field<'_>, report: &mut Report) -> Option<Retry> {
    let attempts = count(&field.get("attempts"), bounds::ATTEMPTS, report);
    let statuses = list(
        &field.get("statuses"),
        bounds::MAX_STATUSES,
        report,
        statuses,
    );
    let codes = list(
        &field.get("grpcCodes"),
        bounds::MAX_STATUSES,
        report,
        |f, r| code(f, r)?,
    );
    let methods = list(&field.get("methods"), bounds::MAX_METHODS, report, method);
    let (min, max) = backoff(&field.get("backoff"), report)?;
    let (mut statuses, codes) = (statuses?, codes?);
    let mut grpc = codes.iter().fold(0, |mask, code| mask | 1 << code);
    if statuses.is_empty() && codes.is_empty() {
        (statuses, grpc) = (AGAIN.0.to_vec(), AGAIN.1);
    }
    Some(Retry {
        attempts: attempts?.unwrap_or(1),
        statuses,
        grpc,
        methods: methods?,
        backoff: min,
        max_backoff: max,
    })
}

fn backoff(field: &Field<'_>, report: &mut Report) -> Option<(Duration, Duration)> {
    known(field, "retries.backoff", report)?;
    let min = time(&field.get("min"), bounds::TIME_MS, report);
    let max = time(&field.get("max"), bounds::TIME_MS, report);
    let min = min?.unwrap_or(BACKOFF.0);
    // Who names only the first wait does not want it cut.
    let max = max?.unwrap_or(BACKOFF.1.max(min));
    if max < min {
        report.error(&field.get("max"), "must not be less than min");
        return None;
    }
    Some((min, max))
}

/// Methods are case-sensitive, and nobody calls `get`.
fn method(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let method = field.text(report)?;
    let is_method = bounds::is_token(method) && !method.bytes().any(|b| b.is_ascii_lowercase());
    match is_method && method.len() <= 32 {
        true => Some(method.to_owned()),
        false => refuse(field, "must be a method in capitals", report),
    }
}

fn read_fault(field: &Field<'_>, report: &mut Report) -> Option<Fault> {
    let (abort, delay) = (field.get("abort"), field.get("delay"));
    if !abort.is_present() && !delay.is_present() {
        report.error(field, "must have abort, delay or both");
        return None;
    }
    let mut fault = Fault::default();
    if abort.is_present() {
        known(&abort, "fault.abort", report)?;
        let percent = share(&abort.get("percent"), report);
        let status = count(&abort.get("status"), bounds::STATUS, report);
        let grpc = code(&abort.get("grpcCode"), report);
        fault.abort_ppm = percent?.unwrap_or(MILLION);
        fault.status = u16::try_from(status?.unwrap_or(503)).ok()?;
        fault.grpc = grpc?;
    }
    if delay.is_present() {
        known(&delay, "fault.delay", report)?;
        let percent = share(&delay.get("percent"), report);
        let duration = required(&delay.get("duration"), report, |f, r| {
            time(f, bounds::TIME_MS, r)
        });
        fault.delay_ppm = percent?.unwrap_or(MILLION);
        fault.delay = duration?;
    }
    Some(fault)
}

fn read_budget(field: &Field<'_>, report: &mut Report) -> Option<Budget> {
    let percent = count(&field.get("percent"), bounds::BUDGET_PERCENT, report);
    let least = field.get("minPerSecond");
    let least = count(&least, 0..=*bounds::COUNT.end(), report);
    let default = Budget::default();
    Some(Budget {
        percent: percent?.unwrap_or(default.percent),
        min_per_second: least?.unwrap_or(default.min_per_second),
    })
}

fn read_ejection(field: &Field<'_>, report: &mut Report) -> Option<Ejection> {
    let none_or_count = 0..=*bounds::COUNT.end();
    let failures = count(&field.get("consecutiveFailures"), none_or_count, report);
    let success = count(&field.get("successPercent"), bounds::PERCENT, report);
    let window = time(&field.get("window"), bounds::WINDOW_MS, report);
    let requests = count(&field.get("minRequests"), bounds::COUNT, report);
    let min = time(&field.get("minTime"), bounds::TIME_MS, report);
    let max = time(&field.get("maxTime"), bounds::TIME_MS, report);
    let healthy = count(&field.get("minHealthyPercent"), bounds::PERCENT, report);
    let default = Ejection::default();
    let min_time = min?.unwrap_or(default.min_time);
    let max_time = max?.unwrap_or(default.max_time.max(min_time));
    if max_time < min_time {
        report.error(&field.get("maxTime"), "must not be less than minTime");
        return None;
    }
    Some(Ejection {
        consecutive: failures?.unwrap_or(default.consecutive),
        success_percent: success?.unwrap_or(default.success_percent),
        window: window?.unwrap_or(default.window),
        min_requests: requests?.unwrap_or(default.min_requests),
        min_time,
        max_time,
        min_healthy_percent: healthy?.unwrap_or(default.min_healthy_percent),
    })
}

fn read_breaker(field: &Field<'_>, report: &mut Report) -> Option<Breaker> {
    let mut limit = |name: &str| count(&field.get(name), bounds::COUNT, report);
    let (connections, pending, requests) =
        (limit("connections"), limit("pending"), limit("requests"));
    let to = field.get("fallback");
    let fallback = match to.is_present() {
        true => Some(read_fallback(&to, report)?),
        false => None,
    };
    Some(Breaker {
        connections: connections?,
        pending: pending?,
        requests: requests?,
        fallback,
    })
}

fn read_fallback(field: &Field<'_>, report: &mut Report) -> Option<Fallback> {
    known(field, "breaker.fallback", report)?;
    let service = service(&field.get("service"), report);
    let port = port(&field.get("port"), report);
    Some(Fallback {
        service: service?.to_owned(),
        port: port?,
    })
}

fn read_balancer(field: &Field<'_>, report: &mut Report) -> Option<Balancer> {
    const POLICIES: [&str; 4] = ["ewma", "leastRequest", "roundRobin", "ringHash"];
    let chosen = word(&field.get("policy"), &POLICIES, report);
    let key = hash_key(&field.get("hashOn"), report);
    let subset = count(&field.get("subset"), 0..=*bounds::COUNT.end(), report);
    let slow_start = time(&field.get("slowStart"), bounds::TIME_MS, report);
    let prefer_zone = flag(&field.get("preferZone"), report);
    let zones = list(
        &field.get("failoverZones"),
        bounds::MAX_ZONES,
        report,
        |f, r| f.text(r).map(str::to_owned),
    );
    let policy = match (chosen?.unwrap_or(0), key?) {
        (3, Some(key)) => BalancerPolicy::RingHash(key),
        (3, None) => {
            report.error(&field.get("hashOn"), "is missing: ringHash needs a key");
            return None;
        }
        (_, Some(_)) => {
            report.error(&field.get("hashOn"), "belongs to the policy ringHash only");
            return None;
        }
        (1, None) => BalancerPolicy::LeastRequest,
        (2, None) => BalancerPolicy::RoundRobin,
        (_, None) => BalancerPolicy::Ewma,
    };
    let default = Balancer::default();
    Some(Balancer {
        policy,
        subset: subset?.unwrap_or(default.subset),
        slow_start: slow_start?.unwrap_or(default.slow_start),
        prefer_zone: prefer_zone?.unwrap_or(default.prefer_zone),
        failover_zones: zones?,
    })
}

fn hash_key(field: &Field<'_>, report: &mut Report) -> Option<Option<HashKey>> {
    if !field.is_present() {
        return Some(None);
    }
    known(field, "balancer.hashOn", report)?;
    let header = field.get("header").text_if_any(report);
    let cookie = field.get("cookie").text_if_any(report);
    let source = flag(&field.get("source"), report);
    match (header?, cookie?, source?) {
        (Some(name), None, None) => match http::HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => Some(Some(HashKey::Header(name.as_str().to_owned()))),
            Err(_) => refuse(&field.get("header"), "must be the name of a header", report),
        },
        (None, Some(name), None) if bounds::is_token(name) && name.len() <= 256 => {
            Some(Some(HashKey::Cookie(name.to_owned())))
        }
        (None, Some(_), None) => {
            refuse(&field.get("cookie"), "must be the name of a cookie", report)
        }
        (None, None, Some(true)) => Some(Some(HashKey::Source)),
        _ => {
            report.error(
                field,
                "must have exactly one of header, cookie and source: true",
            );
            None
        }
    }
}

fn read_limits(field: &Field<'_>, report: &mut Report) -> Option<Vec<Limit>> {
    let per_client = field.get("perClient");
    let of_all = field.get("requests").is_present() || !per_client.is_present();
    let mut limits = Vec::new();
    if of_all {
        limits.push(limit(field, false, report));
    } else {
        for name in ["per", "burst"] {
            if field.get(name).is_present() {
                report.error(&field.get(name), "says nothing without requests beside it");
            }
        }
    }
    if per_client.is_present() {
        known(&per_client, "rateLimit.perClient", report)?;
        limits.push(limit(&per_client, true, report));
    }
    limits.into_iter().collect()
}

fn limit(field: &Field<'_>, per_client: bool, report: &mut Report) -> Option<Limit> {
    let requests = required(&field.get("requests"), report, |f, r| {
        count(f, bounds::COUNT, r)
    });
    let per = time(&field.get("per"), bounds::PER_MS, report);
    let burst = count(&field.get("burst"), bounds::COUNT, report);
    let requests = requests?;
    Some(Limit {
        requests,
        per: per?.unwrap_or(Duration::from_secs(1)),
        burst: burst?.unwrap_or(requests),
        per_client,
    })
}

fn required<T>(
    field: &Field<'_>,
    report: &mut Report,
    read: impl FnOnce(&Field<'_>, &mut Report) -> Option<Option<T>>,
) -> Option<T> {
    let value = read(field, report)?;
    if value.is_none() {
        report.error(field, "is missing");
    }
    value
}

/// A list of at most so many entries, each read by itself.
fn list<T>(
    field: &Field<'_>,
    most: usize,
    report: &mut Report,
    mut read: impl FnMut(&Field<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let items = field.items(report)?;
    if items.len() > most {
        report.error(
            field,
            format!("has {} entries; at most {most}", items.len()),
        );
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| read(item, report)).collect();
    read.into_iter().collect()
}
