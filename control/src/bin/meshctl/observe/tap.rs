//! `meshctl tap`: single requests as they pass. It says at once to whom it is connected, and when nothing comes, what it
//! saw that did not match.

use super::Scope;
use super::connect::Target;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use weft_control::terminal::plain;
use weft_control::traffic::api::encoded;
use weft_control::traffic::rows::Resource;
use weft_control::traffic::show::{Exchange, Line, Tally};

/// After so long without a match it is said what did not match.
const QUIET: Duration = Duration::from_secs(5);
/// Lines read and not yet shown, at most.
const AHEAD: usize = 1024;

/// What to look at
#[derive(Debug, Args)]
pub(crate) struct Filters {
    /// Pods to look at: deploy, pod, svc, sa or ns, with or without /NAME [default: all]
    pub(crate) resource: Option<Resource>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Only with this method
    #[arg(long)]
    method: Option<String>,
    /// Only paths that start like this
    #[arg(long)]
    path: Option<String>,
    /// Only with this other end: deploy/NAME (outbound), sa/NAME (inbound)
    #[arg(long, value_name = "KIND/NAME")]
    peer: Option<String>,
    /// Only calls to this service, as namespace/name
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Only with this header, "name" or "name: value"; may be repeated
    #[arg(long)]
    header: Vec<String>,
    /// Only these statuses: 404, 5xx or 400-499
    #[arg(long)]
    status: Option<String>,
    /// Only what policy denied
    #[arg(long)]
    denied: bool,
    /// Only inbound or outbound
    #[arg(long, value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Requests a second of each proxy, at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    max_rps: u32,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Show requests as they pass
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    filters: Filters,
    /// End after so many requests
    #[arg(long)]
    max: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Show header fields; authorization and cookies are blotted out
    #[arg(long)]
    headers: bool,
    /// Show their values as well
    #[arg(long)]
    show_secrets: bool,
    /// How
    #[arg(short, long, value_enum, default_value_t = TapFormat::Text)]
    output: TapFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TapFormat {
    Text,
    Json,
}

impl Filters {
    /// As the API wants it.
    pub(crate) fn query(&self) -> String {
        let mut parts = vec![format!("max-rps={}", self.max_rps)];
        let mut add = |key: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{key}={}", encoded(&value))));
        };
        add("resource", self.resource.as_ref().map(ToString::to_string));
        add("namespace", self.scope.only());
        add("method", self.method.clone());
        add("path", self.path.clone());
        add("peer", self.peer.clone());
        add("service", self.service.clone());
        add("status", self.status.clone());
        add("direction", self.direction.clone());
        for header in &self.header {
            add("header", Some(header.clone()));
        }
        if self.denied {
            parts.push("denied".into());
        }
        parts.join("&")
    }
}

/// 0, or 1 if there is no pod to look at.
pub(crate) fn run(args: &TapArgs) -> Result<ExitCode> {
    let mut path = format!("/api/v1/tap?{}", args.filters.query());
    if args.headers {
        path.push_str("&headers");
    }
    if args.show_secrets {
        path.push_str("&secrets");
    }
    let mut lines = args.filters.target.lines(&path)?;
    // Read aside: the time is over whether or not another line comes.
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::spawn(move || lines.try_for_each(|line| sender.send(line)));
    let mut out = std::io::stdout().lock();
    let mut progress = Progress::new();
    let mut deadline = None;
    while let Some(line) = next(&receiver, deadline) {
        let line = line?;
        if let Line::Connected { pods, .. } = &line {
            eprint!("{}", connected(&line));
            if pods.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            // The time counts from when it has begun.
            deadline = args.seconds.and_then(super::later);
        }
        if let Line::ControllerGone { controller } = &line {
            eprintln!("meshctl: the controller {controller} answers no more");
        }
        if let Some(hint) = progress.take(&line, Instant::now()) {
            eprintln!("{hint}");
        }
        let shown = match args.output {
            TapFormat::Json => Some(serde_json::to_string(&line)? + "\n"),
            TapFormat::Text => text(&line),
        };
        if let Some(shown) = shown
            && (out.write_all(shown.as_bytes()).is_err() || out.flush().is_err())
        {
            break;
        }
        let enough = args.max.is_some_and(|max| progress.ended >= max);
        if enough || deadline.is_some_and(|at| Instant::now() >= at) {
            break;
        }
    }
    eprintln!("{}", progress.summary());
    Ok(ExitCode::SUCCESS)
}

/// The next line; `None`: the time is over, or the controller has ended the stream.
fn next(lines: &Receiver<Result<Line>>, deadline: Option<Instant>) -> Option<Result<Line>> {
    match deadline {
        None => lines.recv().ok(),
        Some(at) => {
            let left = at.saturating_duration_since(Instant::now());
            lines.recv_timeout(left).ok()
        }
    }
}

/// To whom it is connected.
pub(super) fn connected(line: &Line) -> String {
    let Line::Connected {
        pods,
        without_proxy,
        not_connected,
        missing,
    } = line
    else {
        return String::new();
    };
    let mut text = match pods.len() {
        0 => {
            "no proxy to look at there; -A looks in every namespace, -n in another one\n".to_owned()
        }
        1 => format!("looking at the proxy of {}\n", pods[0]),
        n => format!("looking at {n} proxies: {}\n", pods.join(", ")),
    };
    if !without_proxy.is_empty() {
        text.push_str(&format!("without a proxy: {}\n", without_proxy.join(", ")));
    }
    if !not_connected.is_empty() {
        text.push_str(&format!("not connected: {}\n", not_connected.join(", ")));
    }
    if let Some(missing) = missing {
        text.push_str(&format!("{missing}\n"));
    }
    text
}

/// How it goes.
struct Progress {
    tally: Tally,
    since: Instant,
    told: bool,
    shown: u64,
    ended: u64,
    /// Pods whose proxies show nothing.
    refused: BTreeSet<String>,
}

impl Progress {
    fn new() -> Self {
        Self {
            tally: Tally::default(),
            since: Instant::now(),
            told: false,
            shown: 0,
            ended: 0,
            refused: BTreeSet::new(),
        }
    }

    /// A hint, once, if nothing has matched for long, or if a proxy shows nothing.
    fn take(&mut self, line: &Line, now: Instant) -> Option<String> {
        self.tally.take(line);
        match line {
            Line::Answered(_) => self.shown += 1,
            Line::Ended(_) => self.ended += 1,
            Line::State {
                pod, ended: true, ..
            } if self.refused.insert(pod.clone()) => {
                return Some(format!(
                    "{} shows nothing: as many look at it already as may",
                    plain(pod)
                ));
            }
            _ => {}
        }
        let quiet = now.saturating_duration_since(self.since) >= QUIET;
        if self.told || self.shown > 0 || !quiet {
            return None;
        }
        self.told = true;
        let (seen, ..) = self.tally.totals();
        Some(match seen {
            0 => "nothing has passed there yet".to_owned(),
            n => format!("{n} requests have passed and none matched: drop a filter"),
        })
    }

    fn summary(&self) -> String {
        let (seen, matched, skipped) = self.tally.totals();
        // What was shown after the last word of a proxy has passed and fitted as well.
        let shown = self.shown;
        let (seen, matched) = (seen.max(shown), matched.max(shown));
        format!("{shown} requests shown; {seen} seen, {matched} matched, {skipped} left out")
    }
}

/// The line for people; `None`: nothing to show.
fn text(line: &Line) -> Option<String> {
    match line {
        Line::Connected { .. } | Line::State { .. } | Line::ControllerGone { .. } => None,
        Line::Answered(at) => Some(answered(at)),
        Line::Ended(at) => Some(ended(at)),
    }
}

fn answered(at: &Exchange) -> String {
    let (proxy, src, dst) = match at.direction.as_str() {
        "outbound" => ("out", at.pod.as_str(), at.peer.as_str()),
        _ => ("in", at.peer.as_str(), at.pod.as_str()),
    };
    let unknown = |text: &str| {
        if text.is_empty() {
            "unknown".to_owned()
        } else {
            plain(text)
        }
    };
    let id = format!("{}:{}", at.pod, at.id);
    let mut out = format!(
        "req id={id} proxy={proxy} src={} dst={} tls={} :method={} :authority={} :path={}",
        unknown(src),
        unknown(dst),
        at.mutual_tls,
        plain(&at.method),
        plain(&at.authority),
        plain(&at.path)
    );
    for (key, value) in [("service", &at.service), ("route", &at.route)] {
        if !value.is_empty() {
            out.push_str(&format!(" {key}={value:?}"));
        }
    }
    out.push('\n');
    out.push_str(&fields(&at.request_headers));
    let error = match at.error.as_str() {
        "" => String::new(),
        error => format!(" error={error:?}"),
    };
    out.push_str(&format!(
        "rsp id={id} :status={} latency={}µs{error}\n",
        at.status, at.duration_us
    ));
    out.push_str(&fields(&at.response_headers));
    if at.skipped > 0 {
        out.push_str(&format!("    {} more were left out\n", at.skipped));
    }
    out
}

fn fields(all: &[(String, String)]) -> String {
    all.iter()
        .map(|(name, value)| format!("    {}: {}\n", plain(name), value.escape_debug()))
        .collect()
}

fn ended(at: &Exchange) -> String {
    let grpc = at
        .grpc_status
        .map_or_else(String::new, |code| format!(" grpc-status={code}"));
    let outcome = match at.outcome.as_str() {
        "complete" | "" => String::new(),
        outcome => format!(" outcome={}", plain(outcome)),
    };
    format!(
        "end id={}:{} duration={}µs response-length={}B{grpc}{outcome}\n",
        at.pod, at.id, at.duration_us, at.bytes
    )
}

impl Target {
    /// The lines of a stream.
    pub(super) fn lines(&self, path: &str) -> Result<impl Iterator<Item = Result<Line>> + use<>> {
        use std::io::BufRead;
        let lines = self.stream(path)?.lines();
        Ok(lines.map(|line| {
            let line = line.context("the controller ended the stream")?;
            serde_json::from_str(&line).context("a line cannot be read")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            pod: "shop/web-1".into(),
            id: 7,
            direction: "inbound".into(),
            peer: "shop/sa/load".into(),
            mutual_tls: true,
            method: "GET".into(),
            path: "/cell".into(),
            authority: "web:8080".into(),
            route: "HTTPRouteGroup shop/pages cell".into(),
            status: 200,
            duration_us: 1504,
            bytes: 1337,
            grpc_status: Some(0),
            outcome: "complete".into(),
            request_headers: vec![("cookie".into(), "[redacted]".into())],
            ..Exchange::default()
        }
    }

    #[test]
    fn a_request_is_three_lines() {
        let expected = "\
req id=shop/web-1:7 proxy=in src=shop/sa/load dst=shop/web-1 tls=true :method=GET :authority=web:8080 :path=/cell route=\"HTTPRouteGroup shop/pages cell\"
    cookie: [redacted]
rsp id=shop/web-1:7 :status=200 latency=1504µs
";
        assert_eq!(answered(&exchange()), expected);
        let expected = "end id=shop/web-1:7 duration=1504µs response-length=1337B grpc-status=0\n";
        assert_eq!(ended(&exchange()), expected);
    }

    #[test]
    fn what_was_requested_does_not_steer_the_terminal() {
        let hostile = Exchange {
            path: "/\u{1b}[2J\r\n".into(),
            outcome: "\u{9b}5n".into(),
            ..exchange()
        };
        let shown = answered(&hostile) + &ended(&hostile);
        let steers = |letter: char| letter.is_control() && letter != '\n';
        assert!(!shown.contains(steers), "{shown:?}");
        assert!(shown.contains(":path=/\\u{1b}[2J\\r\\n"), "{shown}");
    }

    #[test]
    fn the_time_ends_without_another_line() {
        let (sender, receiver) = sync_channel(1);
        let soon = Some(Instant::now());
        assert!(next(&receiver, soon).is_none(), "nobody says anything");
        let state = Line::ControllerGone {
            controller: "10.0.0.7:8086".into(),
        };
        assert!(sender.send(Ok(state)).is_ok());
        assert!(next(&receiver, None).is_some());
        drop(sender);
        assert!(next(&receiver, None).is_none(), "the stream has ended");
    }

    #[test]
    fn silence_is_explained_once() {
        let mut progress = Progress::new();
        let state = Line::State {
            pod: "shop/web-1".into(),
            seen: 41,
            matched: 0,
            skipped: 0,
            lost: 0,
            ended: false,
        };
        let later = progress.since + QUIET;
        assert_eq!(progress.take(&state, progress.since), None);
        let hint = progress.take(&state, later);
        assert_eq!(
            hint.as_deref(),
            Some("41 requests have passed and none matched: drop a filter")
        );
        assert_eq!(progress.take(&state, later), None);
    }

    #[test]
    fn a_proxy_that_shows_nothing_is_named_once() {
        let mut progress = Progress::new();
        let state = Line::State {
            pod: "shop/web-1".into(),
            seen: 0,
            matched: 0,
            skipped: 0,
            lost: 0,
            ended: true,
        };
        let hint = progress.take(&state, progress.since);
        let expected = "shop/web-1 shows nothing: as many look at it already as may";
        assert_eq!(hint.as_deref(), Some(expected));
        assert_eq!(progress.take(&state, progress.since), None);
    }
}
