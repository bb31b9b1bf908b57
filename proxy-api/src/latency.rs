//! Latency as every part of the mesh counts it: in fixed buckets, so that histograms of many proxies add up.

/// Upper bounds of the buckets, microseconds. The last bucket, above all of them, has none.
pub const BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// Number of buckets, the unbounded one included.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Seconds that a share `q` (0 to 1) of the samples stayed below, by straight lines within a bucket, as Prometheus'
/// `histogram_quantile` does. The unbounded bucket counts as its lower bound. `None`: no samples.
pub fn quantile(buckets: &[u64], q: f64) -> Option<f64> {
    let total = buckets.iter().copied().fold(0, u64::saturating_add);
    if total == 0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * total as f64;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (at, count) in buckets.iter().enumerate() {
        let Some(bound) = BOUNDS_US.get(at) else {
            return Some(lower);
        };
        let (upper, count) = (*bound as f64 / 1e6, *count as f64);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * ((rank - below) / count));
        }
        below += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut buckets = [0; BUCKETS];
        assert_eq!(quantile(&buckets, 0.5), None);
        buckets[2] = 100; // 0.5 ms to 1 ms
        assert_eq!(quantile(&buckets, 0.5), Some(0.00075));
        assert_eq!(quantile(&buckets, 1.0), Some(0.001));
        buckets[BUCKETS - 1] = 100;
        assert_eq!(quantile(&buckets, 0.99), Some(30.0), "no upper bound");
        assert_eq!(quantile(&buckets, 0.25), Some(0.00075));
    }
}
