//! What is counted on an edge, and what follows from it.

use super::table::OTHER;
use serde::{Deserialize, Serialize, de};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use weft_proxy_api::latency;

/// Reasons of denials that are told apart; a proxy says what it wants.
const MAX_REASONS: usize = 64;

/// Traffic counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// Of these, answered well.
    pub success: u64,
    /// Of these, failed.
    pub failure: u64,
    /// Of these, left by their client.
    pub cancelled: u64,
    /// Requests and connections denied by policy.
    pub denied: u64,
    /// Answers by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<Code, u64>,
    /// Denials by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_by: BTreeMap<String, u64>,
    /// Answers for each bucket of [`latency::BOUNDS_US`], not cumulative.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<u64>,
    /// Sum of all latencies, microseconds.
    pub latency_sum_us: u64,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
    /// Connections that carried bytes rather than HTTP.
    pub connections: u64,
}

/// How requests were answered: `404`, `4xx` (another one of that class), `grpc-14`, `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// HTTP status; 1 to 5 stand for the rest of a class, 0 for what is of no class.
    Http(u16),
    /// gRPC code; 17 stands for what is no code.
    Grpc(u8),
}

impl Counts {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
        if self.denied_by.len() > MAX_REASONS {
            self.fold_reasons();
        }
    }

    /// What the last reasons counted is counted without their names.
    fn fold_reasons(&mut self) {
        let mut rest = 0u64;
        while self.denied_by.len() >= MAX_REASONS {
            let (_, count) = self.denied_by.pop_last().unwrap_or_default();
            rest = rest.saturating_add(count);
        }
        let other = self.denied_by.entry(OTHER.to_owned()).or_default();
        *other = other.saturating_add(rest);
    }

    /// What was counted after `before`. Nothing goes below zero.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut rest = self.clone();
        rest.merge(before, u64::saturating_sub);
        rest.answers.retain(|_, count| *count > 0);
        rest.denied_by.retain(|_, count| *count > 0);
        rest
    }

    /// Bytes it takes, about.
    pub fn size(&self) -> usize {
        let reasons = self.denied_by.keys().map(|reason| reason.len() + 48);
        let lists = self.latency.len() * 8 + self.answers.len() * 24 + reasons.sum::<usize>();
        std::mem::size_of::<Self>() + lists
    }

    /// Nothing was counted.
    pub fn is_zero(&self) -> bool {
        let counted = [
            self.requests,
            self.success,
            self.failure,
            self.cancelled,
            self.denied,
            self.bytes_in,
            self.bytes_out,
            self.connections,
        ];
        counted.iter().all(|count| *count == 0)
    }

    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.success.saturating_add(self.failure)
    }

    /// Share of the answers that are successes; `None`: nothing was answered.
    pub fn success_rate(&self) -> Option<f64> {
        let answered = self.answered();
        (answered > 0).then(|| self.success as f64 / answered as f64)
    }

    /// Seconds that this share of the answers took at most.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        latency::quantile(&self.latency, q)
    }

    fn merge(&mut self, other: &Self, by: fn(u64, u64) -> u64) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.success, other.success),
            (&mut self.failure, other.failure),
            (&mut self.cancelled, other.cancelled),
            (&mut self.denied, other.denied),
            (&mut self.latency_sum_us, other.latency_sum_us),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.connections, other.connections),
        ];
        for (mine, theirs) in pairs {
            *mine = by(*mine, theirs);
        }
        if self.latency.len() < other.latency.len() {
            self.latency.resize(other.latency.len(), 0);
        }
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            *mine = by(*mine, *theirs);
        }
        for (code, theirs) in &other.answers {
            let mine = self.answers.entry(*code).or_default();
            *mine = by(*mine, *theirs);
        }
        for (reason, theirs) in &other.denied_by {
            let mine = self.denied_by.entry(reason.clone()).or_default();
            *mine = by(*mine, *theirs);
        }
    }
}

impl Code {
    /// From the two numbers of the control API; `None`: no such code.
    pub fn from_wire(status: u32, grpc: u32) -> Option<Self> {
        match (status, grpc) {
            (0..=5 | 100..=599, 0) => Some(Code::Http(status as u16)),
            (200, 1..=18) => Some(Code::Grpc((grpc - 1) as u8)),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Http(0) => f.write_str("other"),
            Code::Http(class @ 1..=5) => write!(f, "{class}xx"),
            Code::Http(status) => write!(f, "{status}"),
            Code::Grpc(17) => f.write_str("grpc-other"),
            Code::Grpc(code) => write!(f, "grpc-{code}"),
        }
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = match text {
            "other" => Some(Code::Http(0)),
            "grpc-other" => Some(Code::Grpc(17)),
            _ => match (text.strip_prefix("grpc-"), text.strip_suffix("xx")) {
                (Some(code), _) => code.parse().ok().map(Code::Grpc),
                (_, Some(class)) => class.parse().ok().map(Code::Http),
                _ => text.parse().ok().map(Code::Http),
            },
        };
        code.ok_or_else(|| format!("{text:?} is no code"))
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sums_and_differences_undo_each_other() {
        let one = Counts {
            requests: 3,
            success: 2,
            failure: 1,
            answers: [(Code::Http(200), 2), (Code::Http(500), 1)].into(),
            latency: vec![0, 3],
            ..Counts::default()
        };
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.requests, both.answers[&Code::Http(200)]), (6, 4));
        assert_eq!(both.since(&one), one);
        assert!(one.since(&both).is_zero(), "nothing goes below zero");
        assert_eq!(one.success_rate(), Some(2.0 / 3.0));
        assert_eq!(Counts::default().success_rate(), None);
    }

    #[test]
    fn reasons_without_end_are_added_up_without_their_names() {
        let mut all = Counts::default();
        for n in 0..1000 {
            for reason in [format!("R{n}"), format!("r{n}")] {
                let one = Counts {
                    denied_by: [(reason, 1)].into(),
                    ..Counts::default()
                };
                all.add(&one);
            }
        }
        assert!(all.denied_by.len() <= MAX_REASONS);
        assert_eq!(all.denied_by.values().sum::<u64>(), 2000);
    }

    #[test]
    fn codes_are_read_as_they_are_written() {
        for (wire, text) in [
            ((404, 0), "404"),
            ((4, 0), "4xx"),
            ((0, 0), "other"),
            ((200, 15), "grpc-14"),
            ((200, 18), "grpc-other"),
        ] {
            let code = Code::from_wire(wire.0, wire.1).unwrap();
            assert_eq!(code.to_string(), text);
            assert_eq!(text.parse::<Code>().unwrap(), code);
        }
        for (status, grpc) in [(600, 0), (6, 0), (404, 1), (200, 19)] {
            assert_eq!(Code::from_wire(status, grpc), None);
        }
        let counts = Counts {
            answers: [(Code::Grpc(14), 2)].into(),
            ..Counts::default()
        };
        let json = serde_json::to_string(&counts).unwrap();
        assert!(json.contains(r#""answers":{"grpc-14":2}"#), "{json}");
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), counts);
    }
}
