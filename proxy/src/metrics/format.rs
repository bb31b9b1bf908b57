//! The two texts a scrape can be: what Prometheus has always read, and OpenMetrics, by what the asking one accepts.

/// How to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0: families without `_total`, units, an end that proves nothing is missing.
    OpenMetrics,
}

const OPEN: &str = "application/openmetrics-text";

impl Format {
    /// By an `Accept` header (RFC 9110 section 12.5.1). OpenMetrics must be named: what takes anything may be a person.
    pub fn accepted(accept: &str) -> Self {
        let best = |kind: &str| {
            let of = accept.split(',').filter_map(|one| {
                let mut parts = one.split(';').map(str::trim);
                let same = parts.next()?.eq_ignore_ascii_case(kind);
                same.then(|| weight(parts))
            });
            of.fold(0.0, f32::max)
        };
        let open = best(OPEN);
        if open > 0.0 && open >= best("text/plain") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `q` among the parameters; nothing said is 1, nonsense is 0.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> f32 {
    let q = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    q.map_or(1.0, |q| q.parse().ok().filter(|q| *q <= 1.0).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_goes_to_who_prefers_it() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            (OPEN, Format::OpenMetrics),
            (
                "APPLICATION/OpenMetrics-Text; version=1.0.0",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "text/plain;q=0.9, application/openmetrics-text;q=0.1",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
