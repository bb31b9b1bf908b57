//! What this workload accepts at most, with the state of it: for each rule, and where it says so for each client, one
//! number (the generic cell rate algorithm). All workers share it, and a new version of the policy goes on counting.

use crate::balance;
use crate::metrics::{Count, Metrics};
use foldhash::HashMap;
use foldhash::HashMapExt;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use weft_proxy_api::identity::SpiffeId;
use weft_proxy_api::policy::matching::RequestView;
use weft_proxy_api::policy::settings::RateLimit;

/// Clients of one rule that are counted each by itself; of more, the last ones share a count with those that have no
/// identity.
pub const MOST_CLIENTS: usize = 10_000;
/// How often a full table is looked through, nanoseconds.
const SWEEP: u64 = 1_000_000_000;

/// One rule, and what it has seen.
pub struct RateRule {
    /// As checked.
    pub limit: RateLimit,
    /// What a client is told that comes too often.
    pub detail: String,
    /// Nanoseconds between two requests.
    interval: u64,
    /// How far ahead of that a burst may be.
    tolerance: u64,
    shared: Arc<Bucket>,
    clients: Mutex<Clients>,
    limited: Count,
}

/// When the next request would be due if they came evenly, as [`balance::now`] says it.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

struct Clients {
    known: HashMap<SpiffeId, Arc<Bucket>>,
    swept: u64,
}

impl RateRule {
    /// Nothing seen yet.
    pub fn new(limit: RateLimit, metrics: &Metrics) -> Arc<Self> {
        let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: never more than was said.
        let interval = per.div_ceil(u64::from(limit.requests.max(1))).max(1);
        Arc::new(Self {
            detail: detail(&limit),
            interval,
            tolerance: interval.saturating_mul(u64::from(limit.burst.max(1)) - 1),
            shared: Arc::default(),
            clients: Mutex::new(Clients {
                known: HashMap::new(),
                swept: 0,
            }),
            limited: metrics.rate_limited(&limit.object, limit.audit),
            limit,
        })
    }

    /// Is a request on this port to be counted?
    pub fn covers(&self, port: u16) -> bool {
        self.limit.ports.is_empty() || self.limit.ports.contains(&port)
    }

    /// Is this request to be counted?
    pub fn fits(&self, request: &RequestView<'_>) -> bool {
        let matches = &self.limit.matches;
        matches.is_empty() || matches.iter().any(|m| m.fits(request))
    }

    /// Where a client is counted. To be kept as long as the client is there.
    pub fn bucket(&self, client: Option<&SpiffeId>, now: u64) -> Arc<Bucket> {
        match client {
            Some(client) if self.limit.per_client => self.clients.lock().bucket(client, now),
            _ => None,
        }
        .unwrap_or_else(|| self.shared.clone())
    }

    /// Counts a request; `Err`: it comes too early, by so much. In audit it is let pass.
    pub fn take(&self, bucket: &Bucket, now: u64) -> Result<(), Duration> {
        let taken = bucket.take(now, self.interval, self.tolerance);
        let Err(early) = taken else {
            return Ok(());
        };
        self.limited.inc();
        if self.limit.audit {
            return Ok(());
        }
        Err(Duration::from_nanos(early))
    }
}

fn detail(limit: &RateLimit) -> String {
    let whose = if limit.per_client {
        " of one client"
    } else {
        ""
    };
    format!(
        "{} lets {} requests{whose} pass in {:?}, {} at once",
        limit.object, limit.requests, limit.per, limit.burst
    )
}

impl Bucket {
    fn take(&self, now: u64, interval: u64, tolerance: u64) -> Result<(), u64> {
        let mut early = 0;
        let next = |due: u64| {
            let due = due.max(now);
            early = (due - now).saturating_sub(tolerance);
            (early == 0).then(|| due.saturating_add(interval))
        };
        match self.0.fetch_update(Relaxed, Relaxed, next) {
            Ok(_) => Ok(()),
            Err(_) => Err(early),
        }
    }

    /// As good as new: forgetting it forgets nothing.
    fn is_fresh(&self, now: u64) -> bool {
        self.0.load(Relaxed) <= now
    }
}

impl Clients {
    /// `None`: there are too many.
    fn bucket(&mut self, client: &SpiffeId, now: u64) -> Option<Arc<Bucket>> {
        if let Some(bucket) = self.known.get(client) {
            return Some(bucket.clone());
        }
        if self.known.len() >= MOST_CLIENTS && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.known
                .retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_fresh(now));
        }
        if self.known.len() >= MOST_CLIENTS {
            return None;
        }
        let bucket = Arc::<Bucket>::default();
        self.known.insert(client.clone(), bucket.clone());
        Some(bucket)
    }
}

/// Where one connection is counted: found once for each version of the policy, so that a request takes no lock.
#[derive(Clone, Default)]
pub struct Bound {
    version: u64,
    buckets: Vec<(Arc<RateRule>, Arc<Bucket>)>,
}

impl Bound {
    /// Counts a request under every rule that covers it. `Err`: a rule refuses it, until after this time.
    pub fn take(
        &mut self,
        (rules, version): (&[Arc<RateRule>], u64),
        (client, port): (Option<&SpiffeId>, u16),
        request: &RequestView<'_>,
    ) -> Result<(), (Arc<RateRule>, Duration)> {
        if rules.is_empty() {
            return Ok(());
        }
        let now = balance::now();
        if self.version != version {
            let covering = rules.iter().filter(|rule| rule.covers(port));
            let bound = covering.map(|rule| (rule.clone(), rule.bucket(client, now)));
            (self.version, self.buckets) = (version, bound.collect());
        }
        let fitting = self.buckets.iter().filter(|(rule, _)| rule.fits(request));
        for (rule, bucket) in fitting {
            rule.take(bucket, now)
                .map_err(|wait| (rule.clone(), wait))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: u64 = 1_000_000;

    fn limit(requests: u32, burst: u32) -> RateLimit {
        RateLimit {
            object: "ServicePolicy shop/web".into(),
            ports: Vec::new(),
            matches: Vec::new(),
            requests,
            per: Duration::from_secs(1),
            burst,
            per_client: false,
            audit: false,
        }
    }

    fn client(name: &str) -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", name).unwrap()
    }

    fn passed(rule: &RateRule, bucket: &Bucket, now: u64, times: usize) -> usize {
        (0..times)
            .filter(|_| rule.take(bucket, now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let metrics = Metrics::new("shop");
        let rule = RateRule::new(limit(100, 5), &metrics);
        let bucket = rule.bucket(None, 1);
        assert_eq!(passed(&rule, &bucket, 1, 10), 5);
        assert_eq!(rule.take(&bucket, 1), Err(Duration::from_millis(10)));
        assert_eq!(passed(&rule, &bucket, 1 + 10 * MS, 10), 1);
        assert_eq!(passed(&rule, &bucket, 1 + 40 * MS, 10), 3);
        assert_eq!(passed(&rule, &bucket, 1 + 3_600_000 * MS, 10), 5);
        assert_eq!(
            metrics.rate_limited("ServicePolicy shop/web", false).get(),
            27
        );
    }

    #[test]
    fn over_any_time_no_more_pass_than_rate_and_burst() {
        let metrics = Metrics::new("shop");
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let (requests, burst) = (random.u32(1..2000), random.u32(1..50));
            let rule = RateRule::new(limit(requests, burst), &metrics);
            let bucket = rule.bucket(None, 1);
            let (mut now, mut passed) = (1, 0_u64);
            for _ in 0..1000 {
                now += random.u64(0..4 * MS);
                passed += u64::from(rule.take(&bucket, now).is_ok());
                let most = u64::from(burst) + (now - 1) * u64::from(requests) / 1_000_000_000;
                assert!(passed <= most, "{passed} of {most}");
            }
        }
    }

    #[test]
    fn each_client_has_its_own_count_where_the_rule_says_so() {
        let metrics = Metrics::new("shop");
        let each = RateLimit {
            per_client: true,
            ..limit(1, 2)
        };
        let rule = RateRule::new(each, &metrics);
        let (a, b) = (client("a"), client("b"));
        for whose in [Some(&a), Some(&b), None] {
            let bucket = rule.bucket(whose, 1);
            assert_eq!(passed(&rule, &bucket, 1, 5), 2, "{whose:?}");
        }
        let again = rule.bucket(Some(&a), 1);
        assert_eq!(passed(&rule, &again, 1, 5), 0, "another connection");
    }

    #[test]
    fn clients_are_bounded_and_those_at_rest_are_forgotten() {
        let metrics = Metrics::new("shop");
        let each = RateLimit {
            per_client: true,
            ..limit(1, 1)
        };
        let rule = RateRule::new(each, &metrics);
        for n in 0..MOST_CLIENTS {
            let bucket = rule.bucket(Some(&client(&format!("c{n}"))), 1);
            assert!(rule.take(&bucket, 1).is_ok());
        }
        let late = rule.bucket(Some(&client("late")), SWEEP / 2);
        assert!(Arc::ptr_eq(&late, &rule.shared), "all are counted still");
        let later = rule.bucket(Some(&client("late")), 3 * SWEEP);
        assert!(!Arc::ptr_eq(&later, &rule.shared));
        assert_eq!(rule.clients.lock().known.len(), 1);
    }

    #[test]
    fn audit_counts_and_lets_pass() {
        let metrics = Metrics::new("shop");
        let audit = RateLimit {
            audit: true,
            ..limit(1, 1)
        };
        let rule = RateRule::new(audit, &metrics);
        let bucket = rule.bucket(None, 1);
        assert_eq!(passed(&rule, &bucket, 1, 5), 5);
        assert_eq!(
            metrics.rate_limited("ServicePolicy shop/web", true).get(),
            4
        );
    }
}
