//! The inbound policy of this workload, ready to judge, with a counter for each way a judgement can end.

use super::RateRule;
use crate::metrics::{Count, Metrics};
use std::sync::Arc;
use weft_proxy_api::policy::Protocol;
use weft_proxy_api::policy::inbound::{
    AllowedBy, Caller, ConnectionVerdict, DenyReason, Inbound, Verdict,
};
use weft_proxy_api::policy::matching::RequestView;

/// Policy of one version, with its counters.
pub struct InboundPlan {
    /// The policy as checked.
    pub inbound: Inbound,
    /// Version of the policy.
    pub version: u64,
    counters: Counters,
    rates: Vec<Arc<RateRule>>,
}

struct Counters {
    /// Same order as the policy's permissions.
    rules: Vec<Count>,
    permissive: Count,
    probe: Count,
    /// Denied, and would be denied but for audit mode; same order as `DenyReason::ALL`.
    denied: [(Count, Count); DenyReason::ALL.len()],
    /// The same where a permission names the caller; of [`NEAR`], in the order of the policy's permissions.
    near: Vec<[(Count, Count); NEAR.len()]>,
}

/// Why something is denied to a caller that a permission names.
const NEAR: [DenyReason; 2] = [DenyReason::NoMatchingRoute, DenyReason::NotHttp];

impl InboundPlan {
    /// Compiles a policy.
    pub fn new(inbound: Inbound, version: u64, metrics: &Metrics) -> Self {
        let counters = Counters::new(&inbound, metrics);
        let limits = inbound.rate_limits.iter().cloned();
        let rates = limits.map(|limit| RateRule::new(limit, metrics)).collect();
        Self {
            version,
            counters,
            rates,
            inbound,
        }
    }

    /// Goes on counting where `before` stopped: rules that say the same keep what they have seen, each its own.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let mut left: Vec<_> = before.rates.iter().collect();
        for rule in &mut self.rates {
            let same = left.iter().position(|known| known.limit == rule.limit);
            if let Some(same) = same {
                *rule = left.remove(same).clone();
            }
        }
        self
    }

    /// How much is accepted at most, and the version that says so.
    pub fn rates(&self) -> (&[Arc<RateRule>], u64) {
        (&self.rates, self.version)
    }

    /// What the port was declared to speak.
    pub fn protocol(&self, port: u16) -> Protocol {
        self.inbound.protocol(port)
    }

    /// Judges a connection and counts the verdict (of `HttpOnly` the requests are counted, each by itself).
    pub fn connection(&self, caller: Caller<'_>, port: u16) -> ConnectionVerdict {
        let verdict = self.inbound.judge_connection(caller, port);
        match verdict {
            ConnectionVerdict::Allow(by) => self.counters.allowed(by),
            ConnectionVerdict::Audit(reason) => self.denied(caller, port, reason, true),
            ConnectionVerdict::Deny(reason) => self.denied(caller, port, reason, false),
            ConnectionVerdict::HttpOnly => {}
        }
        verdict
    }

    /// Judges a request and counts the verdict.
    pub fn request(&self, caller: Caller<'_>, port: u16, request: &RequestView<'_>) -> Verdict {
        let verdict = self.inbound.judge_request(caller, port, request);
        match verdict {
            Verdict::Allow(by) => self.counters.allowed(by),
            Verdict::Audit(reason) => self.denied(caller, port, reason, true),
            Verdict::Deny(reason) => self.denied(caller, port, reason, false),
        }
        verdict
    }

    fn denied(&self, caller: Caller<'_>, port: u16, reason: DenyReason, audit: bool) {
        let near = self.inbound.nearest(caller, port);
        self.counters.denied(reason, audit, near);
    }
}

impl Counters {
    fn new(inbound: &Inbound, metrics: &Metrics) -> Self {
        let rule = |by: &str| metrics.allowed(by);
        let denied = |reason: DenyReason, rule: &str| {
            let count = |audit| metrics.denied_near(reason.label(), audit, rule);
            (count(false), count(true))
        };
        Self {
            rules: inbound
                .allow
                .iter()
                .map(|allow| rule(&allow.object))
                .collect(),
            permissive: rule(inbound.by(AllowedBy::Permissive)),
            probe: rule(inbound.by(AllowedBy::Probe)),
            denied: DenyReason::ALL.map(|reason| denied(reason, "none")),
            near: inbound
                .allow
                .iter()
                .map(|allow| NEAR.map(|reason| denied(reason, &allow.object)))
                .collect(),
        }
    }

    fn allowed(&self, by: AllowedBy) {
        match by {
            AllowedBy::Rule(index) | AllowedBy::Request { rule: index, .. } => {
                if let Some(rule) = self.rules.get(index) {
                    rule.inc();
                }
            }
            AllowedBy::Permissive => self.permissive.inc(),
            AllowedBy::Probe => self.probe.inc(),
        }
    }

    fn denied(&self, reason: DenyReason, audit: bool, near: Option<usize>) {
        let at = |reasons: &[DenyReason]| reasons.iter().position(|known| *known == reason);
        let near = near.and_then(|rule| self.near.get(rule)?.get(at(&NEAR)?));
        let counts = near.or_else(|| self.denied.get(at(&DenyReason::ALL)?));
        if let Some((denied, audited)) = counts {
            if audit { audited } else { denied }.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weft_proxy_api::identity::SpiffeId;
    use weft_proxy_api::policy::Access;
    use weft_proxy_api::policy::inbound::{Allow, Ports, Probe, Source, Traffic};
    use weft_proxy_api::policy::settings::RateLimit;

    fn id(account: &str) -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", account).unwrap()
    }

    fn policy(access: Access) -> Inbound {
        let allow = |object: &str, account, ports, traffic| Allow {
            object: object.into(),
            sources: vec![Source {
                identity: id(account),
                addresses: None,
            }],
            ports: Ports::Only(ports),
            traffic,
        };
        Inbound {
            workload: "deploy/web".into(),
            access,
            ports: vec![(9000, Protocol::Opaque), (8000, Protocol::Http1)],
            allow: vec![
                allow("TrafficTarget shop/tcp", "front", vec![9000], Traffic::Any),
                allow(
                    "TrafficTarget shop/http",
                    "front",
                    vec![8080],
                    Traffic::Http(Vec::new()),
                ),
            ],
            probes: vec![Probe {
                port: 8081,
                path: Some("/healthz".into()),
            }],
            rate_limits: vec![],
            access_from: String::new(),
            explain_denials: false,
            metrics: Default::default(),
        }
    }

    fn caller(identity: Option<&SpiffeId>) -> Caller<'_> {
        Caller {
            identity,
            address: [10, 0, 0, 1].into(),
        }
    }

    #[test]
    fn a_denial_is_counted_at_the_permission_that_came_nearest() {
        let metrics = Metrics::new("shop");
        let plan = InboundPlan::new(policy(Access::Audit), 1, &metrics);
        let front = id("front");
        plan.connection(caller(Some(&front)), 8080);
        plan.connection(caller(None), 8080);
        let near = |rule| metrics.denied_near("not_http", true, rule).get();
        assert_eq!((near("TrafficTarget shop/http"), near("none")), (1, 0));
        assert_eq!(metrics.denied("no_identity", true).get(), 1);
    }

    #[test]
    fn every_judgement_is_counted_by_what_decided() {
        let metrics = Metrics::new("shop");
        let plan = InboundPlan::new(policy(Access::Strict), 1, &metrics);
        let (front, other) = (id("front"), id("other"));
        assert!(matches!(
            plan.connection(caller(Some(&front)), 9000),
            ConnectionVerdict::Allow(_)
        ));
        assert!(matches!(
            plan.connection(caller(Some(&front)), 8080),
            ConnectionVerdict::HttpOnly
        ));
        assert!(matches!(
            plan.connection(caller(Some(&other)), 9000),
            ConnectionVerdict::Deny(_)
        ));
        assert!(matches!(
            plan.connection(caller(None), 9000),
            ConnectionVerdict::Deny(_)
        ));
        assert_eq!(metrics.allowed("TrafficTarget shop/tcp").get(), 1);
        assert_eq!(metrics.denied("not_a_source", false).get(), 1);
        assert_eq!(metrics.denied("no_identity", false).get(), 1);
    }

    #[test]
    fn a_new_version_goes_on_counting_under_rules_that_say_the_same() {
        let metrics = Metrics::new("shop");
        let limit = |requests| RateLimit {
            object: "ServicePolicy shop/web".into(),
            ports: vec![],
            matches: vec![],
            requests,
            per: std::time::Duration::from_secs(1),
            burst: 1,
            per_client: false,
            audit: false,
        };
        let plan = |limits: &[u32], version| {
            let rate_limits = limits.iter().map(|requests| limit(*requests)).collect();
            let inbound = Inbound {
                rate_limits,
                ..policy(Access::Strict)
            };
            InboundPlan::new(inbound, version, &metrics)
        };
        let before = plan(&[1, 2], 1);
        let after = plan(&[2, 3], 2).after(&before);
        assert!(Arc::ptr_eq(&after.rates().0[0], &before.rates().0[1]));
        assert_eq!(after.rates().0[1].limit.requests, 3);
        let twice = plan(&[7, 7], 3);
        let again = plan(&[7, 7, 7], 4).after(&twice);
        let (rules, before) = (again.rates().0, twice.rates().0);
        for at in [0, 1] {
            assert!(Arc::ptr_eq(&rules[at], &before[at]), "each keeps its own");
        }
        assert!(!before.iter().any(|rule| Arc::ptr_eq(rule, &rules[2])));
    }

    #[test]
    fn audit_counts_what_it_would_deny() {
        let metrics = Metrics::new("shop");
        let plan = InboundPlan::new(policy(Access::Audit), 1, &metrics);
        assert!(matches!(
            plan.connection(caller(None), 9000),
            ConnectionVerdict::Audit(_)
        ));
        assert_eq!(metrics.denied("no_identity", true).get(), 1);
        assert_eq!(metrics.denied("no_identity", false).get(), 0);
    }
}
