//! How a Service is called, to protobuf. What is as it would be without any `ServicePolicy` is left out: then nothing of
//! it travels, and the version is the one it had before.

use super::{Strings, pb};
use crate::policy::settings::{
    Balancer, BalancerPolicy, Breaker, Budget, Ejection, Fallback, Fault, HashKey, RateLimit,
    RequestRule, RequestSettings, Retry, ServiceSettings, Timeouts,
};
use std::time::Duration;

impl Strings {
    pub(super) fn settings(&mut self, settings: &ServiceSettings) -> Option<pb::ServiceSettings> {
        if *settings == ServiceSettings::default() {
            return None;
        }
        Some(pb::ServiceSettings {
            object_ref: self.optional(settings.object.as_deref().unwrap_or_default()),
            balancer: unless_default(&settings.balancer).map(|balancer| self.balancer(balancer)),
            ejection: unless_default(&settings.ejection).map(ejection),
            breaker: unless_default(&settings.breaker).map(|breaker| self.breaker(breaker)),
            budget: unless_default(&settings.budget).map(budget),
            requests: self.request_settings(&settings.requests),
            rules: settings.rules.iter().map(|rule| self.rule(rule)).collect(),
        })
    }

    pub(super) fn rate_limit(&mut self, limit: &RateLimit) -> pb::RateLimit {
        pb::RateLimit {
            object_ref: self.intern(&limit.object),
            ports: limit.ports.iter().copied().map(u32::from).collect(),
            matches: self.matches(&limit.matches),
            requests: limit.requests,
            per_ms: milliseconds(limit.per),
            burst: limit.burst,
            per_client: limit.per_client,
            audit: limit.audit,
        }
    }

    fn rule(&mut self, rule: &RequestRule) -> pb::RequestRule {
        pb::RequestRule {
            object_ref: self.intern(&rule.object),
            matches: self.matches(&rule.matches),
            settings: self.request_settings(&rule.settings),
        }
    }

    fn request_settings(&mut self, settings: &RequestSettings) -> Option<pb::RequestSettings> {
        let settings = unless_default(settings)?;
        Some(pb::RequestSettings {
            timeouts: unless_default(&settings.timeouts).map(timeouts),
            retry: settings.retry.as_ref().map(|retry| self.retry(retry)),
            fault: unless_default(&settings.fault).map(fault),
        })
    }

    fn retry(&mut self, retry: &Retry) -> pb::Retry {
        let statuses = retry.statuses.iter();
        let range = |(from, to): &(u16, u16)| pb::StatusRange {
            from: (*from).into(),
            to: (*to).into(),
        };
        pb::Retry {
            attempts: retry.attempts,
            statuses: statuses.map(range).collect(),
            grpc_codes: retry.grpc,
            method_refs: retry.methods.iter().map(|m| self.intern(m)).collect(),
            backoff_ms: milliseconds(retry.backoff),
            max_backoff_ms: milliseconds(retry.max_backoff),
        }
    }

    fn balancer(&mut self, balancer: &Balancer) -> pb::Balancer {
        use pb::balancer::Policy;
        let (policy, hash_key) = match &balancer.policy {
            BalancerPolicy::Ewma => (Policy::Ewma, None),
            BalancerPolicy::LeastRequest => (Policy::LeastRequest, None),
            BalancerPolicy::RoundRobin => (Policy::RoundRobin, None),
            BalancerPolicy::RingHash(key) => (Policy::RingHash, Some(self.hash_key(key))),
        };
        let zones = balancer.failover_zones.iter();
        pb::Balancer {
            policy: policy.into(),
            hash_key,
            subset: balancer.subset,
            slow_start_ms: milliseconds(balancer.slow_start),
            prefer_zone: balancer.prefer_zone,
            failover_zone_refs: zones.map(|zone| self.intern(zone)).collect(),
        }
    }

    fn hash_key(&mut self, key: &HashKey) -> pb::HashKey {
        use pb::hash_key::{Kind, Source};
        let kind = match key {
            HashKey::Header(name) => Kind::HeaderRef(self.intern(name)),
            HashKey::Cookie(name) => Kind::CookieRef(self.intern(name)),
            HashKey::Source => Kind::Source(Source {}),
        };
        pb::HashKey { kind: Some(kind) }
    }

    fn breaker(&mut self, breaker: &Breaker) -> pb::Breaker {
        pb::Breaker {
            connections: breaker.connections.unwrap_or(0),
            pending: breaker.pending.unwrap_or(0),
            requests: breaker.requests.unwrap_or(0),
            fallback: breaker.fallback.as_ref().map(|to| self.fallback(to)),
        }
    }

    fn fallback(&mut self, fallback: &Fallback) -> pb::Fallback {
        pb::Fallback {
            namespace_ref: self.intern(&fallback.name.namespace),
            name_ref: self.intern(&fallback.name.name),
            port: fallback.name.port.into(),
            endpoints_ref: self.intern(&fallback.endpoints),
        }
    }
}

fn unless_default<T: Default + PartialEq>(value: &T) -> Option<&T> {
    (*value != T::default()).then_some(value)
}

/// Rounded up, so that a wait or a limit never becomes none.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

fn timeouts(timeouts: &Timeouts) -> pb::Timeouts {
    let limit = |time: Option<Duration>| time.map_or(0, milliseconds);
    pb::Timeouts {
        request_ms: limit(timeouts.request),
        response_ms: limit(timeouts.response),
        per_try_ms: limit(timeouts.per_try),
        idle_ms: limit(timeouts.idle),
    }
}

fn fault(fault: &Fault) -> pb::Fault {
    pb::Fault {
        abort_ppm: fault.abort_ppm,
        status: fault.status.into(),
        grpc_code: fault.grpc.unwrap_or(0).into(),
        delay_ppm: fault.delay_ppm,
        delay_ms: milliseconds(fault.delay),
    }
}

fn ejection(ejection: &Ejection) -> pb::Ejection {
    pb::Ejection {
        consecutive: ejection.consecutive,
        success_percent: ejection.success_percent,
        window_ms: milliseconds(ejection.window),
        min_requests: ejection.min_requests,
        min_time_ms: milliseconds(ejection.min_time),
        max_time_ms: milliseconds(ejection.max_time),
        min_healthy_percent: ejection.min_healthy_percent,
    }
}

fn budget(budget: &Budget) -> pb::Budget {
    pb::Budget {
        percent: budget.percent,
        min_per_second: budget.min_per_second,
    }
}
