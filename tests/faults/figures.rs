//! What a row is judged by.

use harness::Mesh;
use harness::balancing::p99;
use harness::load::Sample;

/// Memory, descriptors and series of the client's proxy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    /// MiB.
    pub(crate) rss: f64,
    pub(crate) descriptors: f64,
    pub(crate) series: f64,
}

/// The figures of one row. Times in milliseconds.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    /// From the first to the last of them.
    pub(crate) seconds: f64,
    pub(crate) lost: usize,
    /// Since the fault.
    pub(crate) first: Option<i64>,
    /// Since the fault.
    pub(crate) last: Option<i64>,
    /// Last failure since the healing.
    pub(crate) recover: Option<i64>,
    pub(crate) gap: u64,
    /// Before, during, and after the fault.
    pub(crate) p99: [u64; 3],
    pub(crate) during: During,
    /// Before, at the peak, and at the end.
    pub(crate) gauges: [Gauges; 3],
    /// What else the row looks at, by how much it grew.
    pub(crate) more: Vec<(&'static str, f64)>,
}

/// While the fault held.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct During {
    /// Answered well, per second.
    pub(crate) goodput: f64,
    /// 99th percentile of these.
    pub(crate) admitted: u64,
    /// 99th percentile of those that were answered otherwise.
    pub(crate) refused: u64,
    /// When the last good answer was due, since the fault.
    pub(crate) last_good: Option<i64>,
}

/// Reads them from the metrics of the client's proxy.
pub(crate) fn gauges(mesh: &Mesh) -> anyhow::Result<Gauges> {
    let metrics = mesh.metrics("client")?;
    Ok(Gauges {
        rss: metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20),
        descriptors: metrics.sum("process_open_fds", &[]),
        series: metrics.sum("weft_metrics_series", &[]),
    })
}

impl Gauges {
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            descriptors: self.descriptors.max(other.descriptors),
            series: self.series.max(other.series),
        }
    }
}

impl Figures {
    /// `broken` and `healed` in milliseconds since 1970; samples by the time they were due.
    pub(crate) fn of(
        samples: &[Sample],
        broken: u64,
        healed: u64,
        gauges: [Gauges; 3],
        more: Vec<(&'static str, f64)>,
    ) -> Self {
        let lost: Vec<u64> = samples
            .iter()
            .filter(|sample| !good(sample))
            .map(|sample| sample.due)
            .collect();
        let phases = [0..broken, broken..healed, healed..u64::MAX];
        Self {
            requests: samples.len(),
            seconds: match samples {
                [first, .., last] => (last.due - first.due) as f64 / 1000.0,
                _ => 0.0,
            },
            lost: lost.len(),
            first: lost.first().map(|at| since(broken, *at)),
            last: lost.last().map(|at| since(broken, *at)),
            recover: lost
                .iter()
                .rfind(|at| **at >= healed)
                .map(|at| since(healed, *at)),
            gap: gap(samples),
            p99: phases
                .map(|phase| p99(samples.iter().filter(|sample| phase.contains(&sample.due)))),
            during: During::of(samples, broken, healed),
            gauges,
            more,
        }
    }
}

impl During {
    fn of(samples: &[Sample], broken: u64, healed: u64) -> Self {
        let inside = |sample: &&Sample| (broken..healed).contains(&sample.due);
        let all: Vec<&Sample> = samples.iter().filter(inside).collect();
        let (admitted, others): (Vec<&Sample>, _) = all.into_iter().partition(|at| good(at));
        let answered = others.into_iter().filter(|at| at.status != 0);
        let seconds = (healed.saturating_sub(broken)) as f64 / 1000.0;
        Self {
            goodput: admitted.len() as f64 / seconds.max(0.001),
            last_good: admitted.last().map(|at| since(broken, at.due)),
            admitted: p99(admitted),
            refused: p99(answered),
        }
    }
}

fn since(from: u64, at: u64) -> i64 {
    i64::try_from(at).unwrap_or(0) - i64::try_from(from).unwrap_or(0)
}

fn good(sample: &Sample) -> bool {
    (200..300).contains(&sample.status) && sample.took <= 2_000_000
}

/// The longest time between two answers, in milliseconds.
fn gap(samples: &[Sample]) -> u64 {
    let mut answered: Vec<u64> = samples
        .iter()
        .filter(|sample| good(sample))
        .map(|sample| sample.due + sample.took / 1000)
        .collect();
    answered.sort_unstable();
    let gaps = answered.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_counted_from_the_fault_and_recovery_from_the_healing() {
        let sample = |due, took, status| Sample { due, took, status };
        let samples = [
            sample(1000, 1000, 200),
            sample(2000, 1000, 200),
            sample(2100, 9000, 0),
            sample(2200, 5000, 503),
            sample(3100, 2000, 502),
            sample(3500, 3000, 200),
        ];
        let figures = Figures::of(&samples, 2000, 3000, Default::default(), Vec::new());
        assert_eq!((figures.requests, figures.lost), (6, 3));
        assert_eq!(
            (figures.first, figures.last, figures.recover),
            (Some(100), Some(1100), Some(100))
        );
        assert_eq!((figures.gap, figures.p99), (1502, [1, 9, 3]));
        let during = figures.during;
        assert_eq!((during.goodput, during.last_good), (1.0, Some(0)));
        assert_eq!((during.admitted, during.refused), (1, 5));
    }
}
