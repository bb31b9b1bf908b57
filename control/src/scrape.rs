//! Reads what a proxy says of itself at `/metrics` (Prometheus text format 0.0.4), for the demonstration, the command
//! line and the tests. Tolerant: a line that cannot be read is left out.

use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The most a scrape may say.
const MAX_SCRAPE: u64 = 16 << 20;
/// How long the other end may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape(Vec<Sample>);

/// One line of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the series, with `_bucket`, `_sum` or `_count` for histograms.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Scrape {
    /// Parses the text.
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// GETs `/metrics` on an open connection to an admin port. Blocks, but not for a silent one.
    pub fn fetch(stream: TcpStream) -> anyhow::Result<Self> {
        Ok(Self::parse(&get(stream, "/metrics")?))
    }

    /// Sum of the series with this name whose labels have all these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The series with this name whose labels have all these values.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(k, v)| sample.label(k) == *v)
        })
    }

    /// Adds the samples of another scrape.
    pub fn extend(&mut self, other: Scrape) {
        self.0.extend(other.0);
    }
}

impl Sample {
    /// A label's value; empty if it is not there.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Body of a GET on an open connection, which is closed by it. An error if the status is not 200.
pub fn get(mut stream: TcpStream, path: &str) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream
        .take(MAX_SCRAPE)
        .read_to_string(&mut answer)
        .context("the answer broke off")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(
        status == "200",
        "{path} was answered with {status}: {}",
        body.trim()
    );
    Ok(body.to_owned())
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => (&line[..end], line[end + 1..].split_whitespace().next()?),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample {
        name: name.trim().to_owned(),
        labels: self::labels(labels)?,
        value: value.trim().parse().ok()?,
    })
}

fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_start_matches(',');
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_label_and_understands_escapes() {
        let scrape = Scrape::parse(
            "# HELP a x\na{b=\"1\",c=\"q\\\"\\\\\\n\"} 2\na{b=\"2\"} 3 1700000000\nplain 4\nbroken{\nb nan-sense\n",
        );
        assert_eq!(scrape.sum("a", &[]), 5.0);
        assert_eq!(scrape.sum("a", &[("b", "2")]), 3.0);
        assert_eq!(scrape.sum("a", &[("c", "q\"\\\n")]), 2.0);
        assert_eq!(scrape.sum("plain", &[]), 4.0);
        assert_eq!(scrape.sum("absent", &[]), 0.0);
    }
}
