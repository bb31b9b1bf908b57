//! The Prometheus text format (0.0.4) and OpenMetrics (1.0), written into one string.

use super::catalogue::{Kind, Metric};
use super::format::Format;
use super::histogram::{BOUNDS_US, Snapshot};
use std::fmt::{Display, Write};

/// One label of a sample.
pub(super) type Label<'a> = (&'a str, &'a str);

/// What a scrape will read.
#[derive(Default)]
pub(super) struct Text {
    out: String,
    format: Format,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        let out = String::new();
        Self { out, format }
    }

    /// Name, kind and help of what follows. All samples of a metric stand together.
    pub(super) fn head(&mut self, metric: &Metric) {
        let (mut name, kind) = (metric.name, metric.kind.label());
        if self.format == Format::OpenMetrics && metric.kind == Kind::Counter {
            name = name.strip_suffix("_total").unwrap_or(name);
        }
        let _ = writeln!(
            self.out,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            metric.help
        );
        // A unit may only be said of a name that ends with it.
        let unit = metric.unit;
        let ends = !unit.is_empty() && name.strip_suffix(unit).is_some_and(|at| at.ends_with('_'));
        if self.format == Format::OpenMetrics && ends {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.series(name, "", labels, None);
        let _ = writeln!(self.out, " {value}");
    }

    /// A histogram in units of `per_unit` microseconds.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        seen: &Snapshot,
        per_unit: u64,
    ) {
        let mut cumulative = 0;
        for (at, n) in seen.buckets.iter().enumerate() {
            cumulative += n;
            let bound = BOUNDS_US.get(at).map(|us| *us as f64 / per_unit as f64);
            self.series(name, "_bucket", labels, Some(bound));
            let _ = writeln!(self.out, " {cumulative}");
        }
        self.series(name, "_sum", labels, None);
        let _ = writeln!(self.out, " {}", seen.sum_us as f64 / per_unit as f64);
        self.series(name, "_count", labels, None);
        let _ = writeln!(self.out, " {cumulative}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Name and labels; `le`: also the bound of a bucket, where `None` is infinite.
    fn series(&mut self, name: &str, suffix: &str, labels: &[Label<'_>], le: Option<Option<f64>>) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        let mut before = '{';
        for (label, value) in labels {
            self.out.push(before);
            self.out.push_str(label);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
            before = ',';
        }
        if let Some(bound) = le {
            self.out.push(before);
            before = ',';
            let _ = match bound {
                Some(bound) => write!(self.out, "le=\"{bound}\""),
                None => write!(self.out, "le=\"+Inf\""),
            };
        }
        if before == ',' {
            self.out.push('}');
        }
    }
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
