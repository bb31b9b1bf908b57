//! How a Service is called, from protobuf. A number outside its bounds is malformed, never cut to fit.

use super::strings::Strings;
use super::{At, DecodeError, each, malformed, missing, pb, port};
use crate::policy::settings::{
    Balancer, BalancerPolicy, Breaker, Budget, Ejection, Fallback, Fault, HashKey, MILLION,
    RateLimit, RequestRule, RequestSettings, Retry, ServiceSettings, Timeouts, bounds,
};
use std::ops::RangeInclusive;
use std::time::Duration;

impl Strings<'_> {
    pub(super) fn settings(
        &self,
        message: Option<&pb::ServiceSettings>,
    ) -> Result<ServiceSettings, DecodeError> {
        let Some(message) = message else {
            return Ok(ServiceSettings::default());
        };
        at_most("rules", &message.rules, bounds::MAX_RULES)?;
        let object = self.get("object_ref", message.object_ref)?;
        Ok(ServiceSettings {
            object: object.map(str::to_owned),
            balancer: part(&message.balancer, "balancer", |m| self.balancer(m))?,
            ejection: part(&message.ejection, "ejection", ejection)?,
            breaker: part(&message.breaker, "breaker", |m| self.breaker(m))?,
            budget: part(&message.budget, "budget", budget)?,
            requests: part(&message.requests, "requests", |m| self.requests(m))?,
            rules: each("rules", &message.rules, |rule| self.rule(rule))?,
        })
    }

    pub(super) fn rate_limit(&self, message: &pb::RateLimit) -> Result<RateLimit, DecodeError> {
        Ok(RateLimit {
            object: self.required("object_ref", message.object_ref)?,
            ports: each("ports", &message.ports, |number| port("", *number))?,
            matches: self.matches("matches", &message.matches)?,
            requests: within("requests", message.requests, bounds::COUNT)?,
            per: time("per_ms", message.per_ms, bounds::PER_MS)?,
            burst: within("burst", message.burst, bounds::COUNT)?,
            per_client: message.per_client,
            audit: message.audit,
        })
    }

    fn rule(&self, message: &pb::RequestRule) -> Result<RequestRule, DecodeError> {
        if message.matches.is_empty() {
            // It would fit everything, or nothing: neither is what somebody asked for.
            return Err(missing("matches"));
        }
        Ok(RequestRule {
            object: self.required("object_ref", message.object_ref)?,
            matches: self.matches("matches", &message.matches)?,
            settings: part(&message.settings, "settings", |m| self.requests(m))?,
        })
    }

    fn requests(&self, message: &pb::RequestSettings) -> Result<RequestSettings, DecodeError> {
        let retry = message.retry.as_ref();
        Ok(RequestSettings {
            timeouts: part(&message.timeouts, "timeouts", timeouts)?,
            retry: retry.map(|m| self.retry(m).at("retry")).transpose()?,
            fault: part(&message.fault, "fault", fault)?,
        })
    }

    fn retry(&self, message: &pb::Retry) -> Result<Retry, DecodeError> {
        at_most("statuses", &message.statuses, bounds::MAX_STATUSES)?;
        at_most("method_refs", &message.method_refs, bounds::MAX_METHODS)?;
        if message.grpc_codes & !bounds::grpc_mask() != 0 {
            return Err(malformed("grpc_codes", "holds what is no gRPC failure"));
        }
        let backoff = optional_time("backoff_ms", message.backoff_ms)?.unwrap_or_default();
        let max = optional_time("max_backoff_ms", message.max_backoff_ms)?.unwrap_or_default();
        if max < backoff {
            return Err(malformed("max_backoff_ms", "less than backoff_ms"));
        }
        Ok(Retry {
            attempts: within("attempts", message.attempts, bounds::ATTEMPTS)?,
            statuses: each("statuses", &message.statuses, statuses)?,
            grpc: message.grpc_codes,
            methods: each("method_refs", &message.method_refs, |method| {
                self.method(*method)
            })?,
            backoff,
            max_backoff: max,
        })
    }

    fn method(&self, reference: u32) -> Result<String, DecodeError> {
        let method = self.required("", reference)?;
        match http::Method::from_bytes(method.as_bytes()) {
            Ok(_) => Ok(method),
            Err(_) => Err(malformed("", "not a method")),
        }
    }

    fn balancer(&self, message: &pb::Balancer) -> Result<Balancer, DecodeError> {
        at_most(
            "failover_zone_refs",
            &message.failover_zone_refs,
            bounds::MAX_ZONES,
        )?;
        Ok(Balancer {
            policy: self.balancer_policy(message)?,
            subset: within("subset", message.subset, 0..=*bounds::COUNT.end())?,
            slow_start: optional_time("slow_start_ms", message.slow_start_ms)?.unwrap_or_default(),
            prefer_zone: message.prefer_zone,
            failover_zones: each("failover_zone_refs", &message.failover_zone_refs, |zone| {
                self.required("", *zone)
            })?,
        })
    }

    fn balancer_policy(&self, message: &pb::Balancer) -> Result<BalancerPolicy, DecodeError> {
        use pb::balancer::Policy;
        let number = message.policy;
        let policy = Policy::try_from(number)
            .map_err(|_| malformed("policy", format!("{number} is not a way to balance")))?;
        match (policy, &message.hash_key) {
            (Policy::RingHash, Some(key)) => {
                Ok(BalancerPolicy::RingHash(self.hash_key(key).at("hash_key")?))
            }
            (Policy::RingHash, None) => Err(missing("hash_key")),
            (_, Some(_)) => Err(malformed("hash_key", "belongs to ring hash only")),
            (Policy::Ewma, None) => Ok(BalancerPolicy::Ewma),
            (Policy::LeastRequest, None) => Ok(BalancerPolicy::LeastRequest),
            (Policy::RoundRobin, None) => Ok(BalancerPolicy::RoundRobin),
        }
    }

    fn hash_key(&self, message: &pb::HashKey) -> Result<HashKey, DecodeError> {
        use pb::hash_key::Kind;
        match message.kind.as_ref().ok_or_else(|| missing("kind"))? {
            Kind::HeaderRef(name) => {
                let name = self.required("header_ref", *name)?;
                match http::HeaderName::from_lowercase(name.as_bytes()) {
                    Ok(_) => Ok(HashKey::Header(name)),
                    Err(_) => Err(malformed(
                        "header_ref",
                        "not the name of a header field in lower case",
                    )),
                }
            }
            Kind::CookieRef(name) => {
                let name = self.required("cookie_ref", *name)?;
                match bounds::is_token(&name) {
                    true => Ok(HashKey::Cookie(name)),
                    false => Err(malformed("cookie_ref", "not the name of a cookie")),
                }
            }
            Kind::Source(_) => Ok(HashKey::Source),
        }
    }

    fn breaker(&self, message: &pb::Breaker) -> Result<Breaker, DecodeError> {
        let fallback = message.fallback.as_ref();
        Ok(Breaker {
            connections: optional_count("connections", message.connections)?,
            pending: optional_count("pending", message.pending)?,
            requests: optional_count("requests", message.requests)?,
            fallback: fallback
                .map(|m| self.fallback(m).at("fallback"))
                .transpose()?,
        })
    }

    fn fallback(&self, message: &pb::Fallback) -> Result<Fallback, DecodeError> {
        Ok(Fallback {
            name: self.service_port(message.namespace_ref, message.name_ref, message.port)?,
            endpoints: self.required("endpoints_ref", message.endpoints_ref)?,
        })
    }
}

fn timeouts(message: &pb::Timeouts) -> Result<Timeouts, DecodeError> {
    Ok(Timeouts {
        request: optional_time("request_ms", message.request_ms)?,
        response: optional_time("response_ms", message.response_ms)?,
        per_try: optional_time("per_try_ms", message.per_try_ms)?,
        idle: optional_time("idle_ms", message.idle_ms)?,
    })
}

fn statuses(message: &pb::StatusRange) -> Result<(u16, u16), DecodeError> {
    let (from, to) = (status("from", message.from)?, status("to", message.to)?);
    match from <= to {
        true => Ok((from, to)),
        false => Err(malformed("to", "less than from")),
    }
}

fn status(field: &str, number: u32) -> Result<u16, DecodeError> {
    let number = within(field, number, bounds::STATUS)?;
    u16::try_from(number).map_err(|error| malformed(field, error))
}

fn fault(message: &pb::Fault) -> Result<Fault, DecodeError> {
    let abort_ppm = within("abort_ppm", message.abort_ppm, 0..=MILLION)?;
    let delay_ppm = within("delay_ppm", message.delay_ppm, 0..=MILLION)?;
    let aborts = abort_ppm > 0 || message.status > 0 || message.grpc_code > 0;
    let grpc = match message.grpc_code {
        0 => None,
        code => u8::try_from(within("grpc_code", code, bounds::GRPC_CODE)?).ok(),
    };
    Ok(Fault {
        abort_ppm,
        status: match aborts {
            true => status("status", message.status)?,
            false => 0,
        },
        grpc,
        delay_ppm,
        delay: match delay_ppm {
            0 => optional_time("delay_ms", message.delay_ms)?.unwrap_or_default(),
            _ => time("delay_ms", message.delay_ms, bounds::TIME_MS)?,
        },
    })
}

fn ejection(message: &pb::Ejection) -> Result<Ejection, DecodeError> {
    let none_or_count = 0..=*bounds::COUNT.end();
    let min_time = time("min_time_ms", message.min_time_ms, bounds::TIME_MS)?;
    let max_time = time("max_time_ms", message.max_time_ms, bounds::TIME_MS)?;
    if max_time < min_time {
        return Err(malformed("max_time_ms", "less than min_time_ms"));
    }
    let percent = |field, number| within(field, number, bounds::PERCENT);
    Ok(Ejection {
        consecutive: within("consecutive", message.consecutive, none_or_count)?,
        success_percent: percent("success_percent", message.success_percent)?,
        window: time("window_ms", message.window_ms, bounds::WINDOW_MS)?,
        min_requests: within("min_requests", message.min_requests, bounds::COUNT)?,
        min_time,
        max_time,
        min_healthy_percent: percent("min_healthy_percent", message.min_healthy_percent)?,
    })
}

fn budget(message: &pb::Budget) -> Result<Budget, DecodeError> {
    let most = 0..=*bounds::COUNT.end();
    Ok(Budget {
        percent: within("percent", message.percent, bounds::BUDGET_PERCENT)?,
        min_per_second: within("min_per_second", message.min_per_second, most)?,
    })
}

/// A message that stands for its defaults where it is absent.
fn part<M, T: Default>(
    message: &Option<M>,
    field: &str,
    decode: impl Fn(&M) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    match message {
        Some(message) => decode(message).at(field),
        None => Ok(T::default()),
    }
}

pub(super) fn at_most<M>(field: &str, list: &[M], most: usize) -> Result<(), DecodeError> {
    match list.len() {
        length if length > most => Err(malformed(
            field,
            format!("{length} entries; at most {most} are accepted"),
        )),
        _ => Ok(()),
    }
}

fn within(field: &str, number: u32, range: RangeInclusive<u32>) -> Result<u32, DecodeError> {
    match range.contains(&number) {
        true => Ok(number),
        false => Err(malformed(
            field,
            format!("{number} is not from {} to {}", range.start(), range.end()),
        )),
    }
}

fn time(field: &str, ms: u32, range: RangeInclusive<u32>) -> Result<Duration, DecodeError> {
    within(field, ms, range).map(|ms| Duration::from_millis(ms.into()))
}

fn optional_time(field: &str, ms: u32) -> Result<Option<Duration>, DecodeError> {
    match ms {
        0 => Ok(None),
        _ => time(field, ms, bounds::TIME_MS).map(Some),
    }
}

fn optional_count(field: &str, number: u32) -> Result<Option<u32>, DecodeError> {
    match number {
        0 => Ok(None),
        _ => within(field, number, bounds::COUNT).map(Some),
    }
}
