//! What a tap shows, as JSON lines: first to whom it is connected, then exchanges, and every second how it fares.

use super::inventory::PodFacts;
use super::rows::Resource;
use super::tap::{Passed, Shown};
use crate::pod_ref::PodRef;
use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt, iter, select_all};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_proxy_api::wire::generated as pb;

/// Lines that travel together.
const AT_ONCE: usize = 256;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Line {
    /// The first.
    Connected {
        /// Pods whose proxies are asked, as `namespace/name`.
        pods: Vec<String>,
        /// Pods that fit and have no proxy.
        without_proxy: Vec<String>,
        /// Pods that fit and whose proxy is not connected.
        not_connected: Vec<String>,
        /// Controllers that could not be asked, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<String>,
    },
    /// A controller answers no more: what its proxies see is missing from here on.
    ControllerGone {
        /// Its address.
        controller: String,
    },
    /// The head of an answer is known.
    Answered(Box<Exchange>),
    /// An answer has ended.
    Ended(Box<Exchange>),
    /// What one proxy has come across so far.
    State {
        /// Pod.
        pod: String,
        /// Exchanges looked at.
        seen: u64,
        /// Of these, fitted.
        matched: u64,
        /// Of these, left out by the proxy.
        skipped: u64,
        /// Lines lost on the way, of all proxies.
        lost: u64,
        /// The proxy shows nothing: as many look at it already as may.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ended: bool,
    },
}

/// One exchange.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exchange {
    /// Pod whose proxy saw it.
    pub pod: String,
    /// Unique at this proxy.
    pub id: u64,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// The other end, `namespace/workload`; empty: unknown.
    pub peer: String,
    /// Both ends proved who they are.
    pub mutual_tls: bool,
    /// Method.
    pub method: String,
    /// Path, without query.
    pub path: String,
    /// Host.
    pub authority: String,
    /// `namespace/name:port` as called.
    pub service: String,
    /// `namespace/name:port` as chosen.
    pub backend: String,
    /// What described the request.
    pub route: String,
    /// Status.
    pub status: u32,
    /// gRPC code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// Code and name of the error, where a proxy answered.
    pub error: String,
    /// From the head of the request until now, microseconds.
    pub duration_us: u64,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// `complete`, `broken`, `late` or `cancelled`.
    pub outcome: String,
    /// Exchanges left out since the last line of this proxy.
    pub skipped: u64,
    /// Fields of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<(String, String)>,
    /// Fields of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<(String, String)>,
}

/// What to look at, as asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// What requests.
    pub start: pb::TapStart,
    /// What pods.
    pub resource: Option<Resource>,
    /// Only this namespace.
    pub namespace: Option<String>,
}

/// Which pods fit, by what can be asked of them.
#[derive(Debug, Default, PartialEq)]
pub struct Fitting {
    /// Their proxies are asked.
    pub pods: BTreeSet<PodRef>,
    without_proxy: Vec<String>,
    not_connected: Vec<String>,
}

impl Wanted {
    /// Takes a parameter of the query string; false: it is none of a tap.
    pub fn take(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let start = &mut self.start;
        match key {
            "resource" => self.resource = Some(value.parse()?),
            "namespace" => self.namespace = Some(value.to_owned()),
            "method" => start.method = value.to_ascii_uppercase(),
            "path" => start.path_prefix = value.to_owned(),
            "peer" => start.peer_workload = value.to_owned(),
            "peer-namespace" => start.peer_namespace = value.to_owned(),
            "service" => start.service = value.to_owned(),
            "header" => start.headers.push(field(value)?),
            "status" => (start.status_from, start.status_to) = status(value)?,
            "denied" => start.denied_only = true,
            "direction" => start.set_direction(direction(value)?),
            "max-rps" => start.max_per_second = number(key, value)?,
            "headers" => start.show_headers = true,
            "secrets" => (start.show_headers, start.show_secrets) = (true, true),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// For the log: what was asked, without values of fields.
    pub fn describe(&self) -> String {
        let start = &self.start;
        let fields: Vec<&str> = start.headers.iter().map(|at| at.name.as_str()).collect();
        format!(
            "resource={} namespace={} method={:?} path={:?} headers={fields:?} denied={} secrets={}",
            self.resource
                .as_ref()
                .map_or_else(|| "all".into(), ToString::to_string),
            self.namespace.as_deref().unwrap_or("all"),
            start.method,
            start.path_prefix,
            start.denied_only,
            start.show_secrets
        )
    }

    /// The pods that fit.
    pub fn fitting(&self, pods: &[PodFacts], connected: &BTreeSet<PodRef>) -> Fitting {
        let mut fitting = Fitting::default();
        for facts in pods {
            let here = |namespace: &String| *namespace == facts.namespace;
            if !self.namespace.as_ref().is_none_or(here)
                || !self
                    .resource
                    .as_ref()
                    .is_none_or(|at| at.holds_facts(facts))
            {
                continue;
            }
            let pod = PodRef::new(&facts.namespace, &facts.name);
            if connected.contains(&pod) {
                fitting.pods.insert(pod);
            } else if facts.meshed {
                fitting.not_connected.push(pod.to_string());
            } else {
                fitting.without_proxy.push(pod.to_string());
            }
        }
        fitting
    }
}

impl Fitting {
    /// The first line; `missing`: controllers that could not be asked.
    pub fn line(&self, missing: Option<String>) -> Line {
        Line::Connected {
            missing,
            pods: self.pods.iter().map(ToString::to_string).collect(),
            without_proxy: self.without_proxy.clone(),
            not_connected: self.not_connected.clone(),
        }
    }
}

/// What the proxies of one controller show.
pub struct Shows {
    /// Another one, by its address; `None`: this one.
    pub controller: Option<String>,
    /// What they show.
    pub passed: BoxStream<'static, Passed>,
}

/// The lines of a tap, for as long as somebody reads them. Lines that are there at once travel together.
pub fn lines(first: &Line, shows: Vec<Shows>) -> impl Stream<Item = Bytes> + Send + use<> {
    let first = text(first);
    let lost = vec![0; shows.len()];
    let shows = shows.into_iter().enumerate().map(|(at, shows)| {
        let gone = shows.controller.map(Err);
        let passed = shows.passed.map(Ok).chain(iter(gone));
        passed.map(move |passed| (at, passed)).boxed()
    });
    let lines = select_all(shows).scan(lost, |lost, (at, passed)| {
        let line = match passed {
            Ok((pod, shown, here)) => {
                lost[at] = here;
                line(&pod, shown, lost.iter().sum())
            }
            Err(controller) => Line::ControllerGone { controller },
        };
        std::future::ready(Some(text(&line)))
    });
    let together = lines
        .ready_chunks(AT_ONCE)
        .map(|lines| lines.concat().into());
    iter([first]).chain(together)
}

fn text(line: &Line) -> Bytes {
    // These values have no way to fail.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn line(pod: &PodRef, shown: Shown, lost: u64) -> Line {
    match shown {
        Shown::State(state) => Line::State {
            pod: pod.to_string(),
            seen: state.seen,
            matched: state.matched,
            skipped: state.skipped,
            lost,
            ended: state.ended,
        },
        Shown::Look(look) if look.ended => Line::Ended(exchange(pod, *look)),
        Shown::Look(look) => Line::Answered(exchange(pod, *look)),
    }
}

fn exchange(pod: &PodRef, look: pb::TapEvent) -> Box<Exchange> {
    let fields = |all: Vec<pb::Field>| all.into_iter().map(|at| (at.name, at.value)).collect();
    let direction = match look.direction() {
        pb::Direction::Outbound => "outbound",
        _ => "inbound",
    };
    Box::new(Exchange {
        pod: pod.to_string(),
        id: look.exchange,
        direction: direction.to_owned(),
        peer: look.peer,
        mutual_tls: look.mutual_tls,
        method: look.method,
        path: look.path,
        authority: look.authority,
        service: look.service,
        backend: look.backend,
        route: look.route,
        status: look.status,
        grpc_status: look.grpc.checked_sub(1),
        error: look.denied_by,
        duration_us: look.duration_us,
        bytes: look.bytes,
        outcome: look.outcome,
        skipped: look.skipped,
        request_headers: fields(look.request_headers),
        response_headers: fields(look.response_headers),
    })
}

/// `name` or `name: value`.
fn field(text: &str) -> Result<pb::Field, String> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let name = name.trim().to_ascii_lowercase();
    match name.is_empty() {
        true => Err(format!("{text:?} is no header like x-user: ann")),
        false => Ok(pb::Field {
            name,
            value: value.trim().to_owned(),
        }),
    }
}

/// `404`, `5xx` or `400-499`.
fn status(text: &str) -> Result<(u32, u32), String> {
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => {
            let class = class.parse().ok().filter(|at: &u32| *at < 6);
            class.map(|at| (at * 100, at * 100 + 99))
        }
        (_, Some((from, to))) => from.parse().ok().zip(to.parse().ok()),
        _ => text.parse().ok().map(|at| (at, at)),
    };
    range
        .filter(|(from, to)| from <= to && (100..600).contains(from) && *to < 600)
        .ok_or_else(|| format!("{text:?} is no status like 404, 5xx or 400-499"))
}

fn direction(text: &str) -> Result<pb::Direction, String> {
    match text {
        "inbound" => Ok(pb::Direction::Inbound),
        "outbound" => Ok(pb::Direction::Outbound),
        _ => Err(format!("{text:?} is neither inbound nor outbound")),
    }
}

fn number(key: &str, text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("{key}: {text:?} is no number"))
}

/// How the tap fared, summed over its proxies: what a reader says when nothing comes.
#[derive(Debug, Default)]
pub struct Tally {
    states: BTreeMap<String, (u64, u64, u64)>,
    lost: u64,
}

impl Tally {
    /// Takes a line in.
    pub fn take(&mut self, line: &Line) {
        if let Line::State {
            pod,
            seen,
            matched,
            skipped,
            lost,
            ..
        } = line
        {
            self.states.insert(pod.clone(), (*seen, *matched, *skipped));
            self.lost = *lost;
        }
    }

    /// Exchanges seen, fitting, and left out or lost.
    pub fn totals(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&(u64, u64, u64)) -> u64| self.states.values().map(of).sum::<u64>();
        (sum(|at| at.0), sum(|at| at.1), sum(|at| at.2) + self.lost)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(name: &str, meshed: bool) -> PodFacts {
        PodFacts {
            namespace: "shop".into(),
            name: name.into(),
            workload: "deploy/web".into(),
            meshed,
            ..PodFacts::default()
        }
    }

    #[test]
    fn what_is_asked_is_read_or_refused() {
        let mut wanted = Wanted::default();
        for (key, value) in [
            ("resource", "deploy/web"),
            ("method", "get"),
            ("status", "5xx"),
            ("header", "X-User: ann"),
            ("direction", "inbound"),
            ("max-rps", "10"),
        ] {
            assert!(wanted.take(key, value).unwrap(), "{key}");
        }
        let start = &wanted.start;
        assert_eq!(
            (start.method.as_str(), start.status_from, start.status_to),
            ("GET", 500, 599)
        );
        assert_eq!(start.headers[0].name, "x-user");
        assert!(!wanted.take("window", "10").unwrap());
        for (key, value) in [
            ("status", "9xx"),
            ("status", "42949674xx"),
            ("status", "x"),
            ("header", ":a"),
            ("max-rps", "-1"),
        ] {
            assert!(wanted.take(key, value).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn pods_that_fit_say_what_can_be_asked_of_them() {
        let wanted = Wanted {
            resource: Some("deploy/web".parse().unwrap()),
            namespace: Some("shop".into()),
            ..Wanted::default()
        };
        let mut elsewhere = facts("d", true);
        elsewhere.workload = "deploy/other".into();
        let pods = [
            facts("a", true),
            facts("b", true),
            facts("c", false),
            elsewhere,
        ];
        let connected = [PodRef::new("shop", "a"), PodRef::new("shop", "d")].into();
        let expected = Line::Connected {
            pods: vec!["shop/a".into()],
            without_proxy: vec!["shop/c".into()],
            not_connected: vec!["shop/b".into()],
            missing: None,
        };
        assert_eq!(wanted.fitting(&pods, &connected).line(None), expected);
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let look = pb::TapEvent {
            method: "GET".into(),
            grpc: 15,
            ended: true,
            ..Default::default()
        };
        let pod = PodRef::new("shop", "a");
        let line = line(&pod, Shown::Look(Box::new(look)), 0);
        let json = text(&line);
        assert!(
            json.starts_with(br#"{"event":"ended","pod":"shop/a""#),
            "{json:?}"
        );
        assert_eq!(serde_json::from_slice::<Line>(&json).unwrap(), line);
    }

    #[tokio::test]
    async fn what_several_controllers_lost_is_added_up_and_one_that_goes_is_named() {
        let state = |pod: &str, lost| {
            let shown = Shown::State(pb::TapState::default());
            (PodRef::new("shop", pod), shown, lost)
        };
        let here = Shows {
            controller: None,
            passed: iter([state("a", 1), state("a", 2)]).boxed(),
        };
        let there = Shows {
            controller: Some("10.0.0.2:8086".into()),
            passed: iter([state("b", 40)]).boxed(),
        };
        let first = Fitting::default().line(None);
        let all: Vec<Bytes> = lines(&first, vec![here, there]).collect().await;
        assert_eq!(
            all.len(),
            2,
            "the first line goes ahead, the others together"
        );
        let lines: Vec<Line> = all[1]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let lost = lines.iter().filter_map(|line| match line {
            Line::State { lost, .. } => Some(*lost),
            _ => None,
        });
        assert_eq!(lost.max(), Some(42));
        let gone = Line::ControllerGone {
            controller: "10.0.0.2:8086".into(),
        };
        assert!(lines.contains(&gone), "{lines:?}");
    }

    #[test]
    fn a_tally_sums_over_proxies() {
        let mut tally = Tally::default();
        for (pod, seen) in [("a", 5), ("b", 7), ("a", 6)] {
            tally.take(&Line::State {
                pod: pod.into(),
                seen,
                matched: 1,
                skipped: 0,
                lost: 2,
                ended: false,
            });
        }
        assert_eq!(tally.totals(), (13, 2, 2));
    }
}
