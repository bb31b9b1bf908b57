//! Counts as metrics, numbers as Kubernetes quantities, times as Go writes them.

use crate::traffic::Counts;
use serde_json::{Value, json};
use std::time::Duration;

/// Latencies told.
const QUANTILES: [(&str, f64); 3] = [
    ("p99_response_latency", 0.99),
    ("p90_response_latency", 0.9),
    ("p50_response_latency", 0.5),
];

/// The metrics of an object. Nothing was answered: all of them are 0.
pub(super) fn metrics(counts: &Counts) -> Vec<Value> {
    let latency = QUANTILES.iter().map(|(name, share)| {
        let seconds = counts.quantile(*share).unwrap_or(0.0);
        // A thousandth of a millisecond is a microsecond.
        let micros = (seconds * 1e6).round() as u64;
        json!({"name": name, "unit": "ms", "value": quantity(u128::from(micros))})
    });
    let counted = [
        ("success_count", counts.success),
        ("failure_count", counts.failure),
    ];
    let counted = counted.iter().map(
        |(name, count)| json!({"name": name, "unit": "", "value": quantity(u128::from(*count) * 1000)}),
    );
    latency.chain(counted).collect()
}

/// Thousandths as a quantity in its canonical form: the largest unit that leaves no fraction.
pub(super) fn quantity(thousandths: u128) -> String {
    const UNITS: [&str; 8] = ["m", "", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut unit) = (thousandths, 0);
    if number == 0 {
        return "0".into();
    }
    while number.is_multiple_of(1000) && unit + 1 < UNITS.len() {
        (number, unit) = (number / 1000, unit + 1);
    }
    format!("{number}{}", UNITS[unit])
}

/// A duration as Go reads it: `30s`, `1m30s`, `1.5h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
        let (number, tail) = rest.split_at(rest.find(|letter| !is_number(letter))?);
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    let some = !text.is_empty();
    Duration::try_from_secs_f64(seconds).ok().filter(|_| some)
}

/// A duration from a second on, as Go writes it: `30s`, `1m30s`, `1h0m0s`.
pub(super) fn go(time: Duration) -> String {
    let whole = time.as_secs();
    let mut seconds = (whole % 60).to_string();
    if time.subsec_nanos() > 0 {
        let fraction = format!(".{:09}", time.subsec_nanos());
        seconds.push_str(fraction.trim_end_matches('0'));
    }
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
