//! What a row is judged by.

use crate::rows::Row;
use harness::Mesh;
use harness::load::Sample;

/// Memory, descriptors and series of the client's proxy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    rss: f64,
    descriptors: f64,
    series: f64,
}

/// The figures of one row.
pub(crate) struct Figures {
    requests: usize,
    lost: usize,
    first: Option<i64>,
    last: Option<i64>,
    recover: Option<i64>,
    gap: u64,
    p99: [u64; 3],
    gauges: [Gauges; 3],
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
    pub(crate) const HEAD: &str = "| row | fault | lost of requests (ppm) | first / last failure after the fault | recovered after healing | longest gap | p99 before / fault / healed | RSS before / peak / after | descriptors | series | promise |\n|---|---|---|---|---|---|---|---|---|---|---|";

    /// `broken` and `healed` in milliseconds since 1970; samples by the time they were due.
    pub(crate) fn of(samples: &[Sample], broken: u64, healed: u64, gauges: [Gauges; 3]) -> Self {
        let lost: Vec<u64> = samples
            .iter()
            .filter(|sample| !good(sample))
            .map(|sample| sample.due)
            .collect();
        let since =
            |from: u64, at: u64| i64::try_from(at).unwrap_or(0) - i64::try_from(from).unwrap_or(0);
        let phases = [0..broken, broken..healed, healed..u64::MAX];
        Self {
            requests: samples.len(),
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
            gauges,
        }
    }

    pub(crate) fn line(&self, row: &Row) -> String {
        let ppm = self.lost * 1_000_000 / self.requests.max(1);
        let ms = |at: Option<i64>| at.map_or("–".into(), |at| format!("{at} ms"));
        let [before, peak, after] = self.gauges;
        format!(
            "| {} | {} | {} of {} ({ppm}) | {} / {} | {} | {} ms | {} / {} / {} ms | {:.0} / {:.0} / {:.0} MiB | {} / {} / {} | {} / {} / {} | {} |",
            row.name,
            row.fault,
            self.lost,
            self.requests,
            ms(self.first),
            ms(self.last),
            self.recover
                .map_or("at once".into(), |at| format!("{at} ms")),
            self.gap,
            self.p99[0],
            self.p99[1],
            self.p99[2],
            before.rss,
            peak.rss,
            after.rss,
            before.descriptors,
            peak.descriptors,
            after.descriptors,
            before.series,
            peak.series,
            after.series,
            row.promise
        )
    }
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

fn p99<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    let mut took: Vec<u64> = samples.map(|sample| sample.took / 1000).collect();
    took.sort_unstable();
    let at = (took.len() * 99).div_ceil(100);
    took.get(at.saturating_sub(1)).copied().unwrap_or(0)
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
        let figures = Figures::of(&samples, 2000, 3000, Default::default());
        assert_eq!((figures.requests, figures.lost), (6, 3));
        assert_eq!(
            (figures.first, figures.last, figures.recover),
            (Some(100), Some(1100), Some(100))
        );
        assert_eq!((figures.gap, figures.p99), (1502, [1, 9, 3]));
    }
}
