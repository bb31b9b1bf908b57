//! Latencies in buckets whose width is a 64th of their value: quantiles to 1.6 %, in fixed memory.

const FINE: u32 = 6;

pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; index(u64::MAX) + 1],
            count: 0,
        }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.buckets[index(nanos)] += 1;
        self.count += 1;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Microseconds below which this share of the values lies; 0 where there are none.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, number) in self.buckets.iter().enumerate() {
            seen += number;
            if seen >= wanted {
                return middle(at) / 1_000.0;
            }
        }
        0.0
    }
}

fn index(value: u64) -> usize {
    let value = value.max(1 << FINE);
    let power = value.ilog2();
    (((power - FINE) as usize) << FINE) + ((value >> (power - FINE)) as usize & ((1 << FINE) - 1))
}

fn middle(index: usize) -> f64 {
    let power = (index >> FINE) as u32 + FINE;
    let part = (index & ((1 << FINE) - 1)) as f64 + 0.5;
    2f64.powi(power as i32) * (1.0 + part / f64::from(1u32 << FINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut all = Histogram::new();
        (1..=100_000u64).for_each(|n| all.record(n * 1_000));
        for (share, wanted) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let seen = all.quantile(share);
            assert!((seen / wanted - 1.0f64).abs() < 0.02, "{share}: {seen}");
        }
        assert_eq!(Histogram::new().quantile(0.5), 0.0);
    }
}
