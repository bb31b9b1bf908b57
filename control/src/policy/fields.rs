//! The fields of a ServicePolicy.

use weft_proxy_api::policy::settings::bounds;

/// A field below `spec`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its path: `timeouts.request`, `matches[].name`.
    pub path: &'static str,
    /// What is written there.
    pub form: Form,
    /// What holds where it is absent; empty: nothing is asked for.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// What may be written in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Fields of its own.
    Map,
    /// A list of entries with fields of their own.
    Maps,
    /// The name of an object, or of something in one.
    Name,
    /// Names.
    Names,
    /// One of these words.
    Word(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number from, to.
    Count(u32, u32),
    /// Hundredths, also parts of one: `0.5`.
    Share,
    /// A time as Go spells it: `250ms`, `1m30s`.
    Time,
    /// HTTP statuses: `503`, `"5xx"`, `"500-504"`.
    Statuses,
    /// gRPC codes: `unavailable` or `14`.
    Code,
    /// Several of them.
    Codes,
}

/// Required fields, by the path of what they are in.
pub const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["service"]),
    ("matches[]", &["kind", "name"]),
    ("breaker.fallback", &["service"]),
    ("fault.delay", &["duration"]),
    ("rateLimit.perClient", &["requests"]),
];

/// Fields about the Service as a whole: not together with `matches`.
pub const WHOLE: &[&str] = &["retryBudget", "ejection", "breaker", "balancer"];

const PORT: Form = Form::Count(1, 65_535);
const COUNT: Form = Form::Count(*bounds::COUNT.start(), *bounds::COUNT.end());
const COUNT_OR_NONE: Form = Form::Count(0, *bounds::COUNT.end());
const PERCENT: Form = Form::Count(*bounds::PERCENT.start(), *bounds::PERCENT.end());

/// Every field, each after what it is in.
pub const ALL: &[Row] = &[
    row(
        "service",
        Form::Name,
        "",
        "Name of the Service, in the namespace of the object.",
    ),
    row(
        "port",
        PORT,
        "every port",
        "The port of the Service it is about.",
    ),
    row(
        "matches",
        Form::Maps,
        "every request",
        "The requests it is about: any match of any of these groups. Not together with `retryBudget`, `ejection`, `breaker` and `balancer`, which are about the Service as a whole.",
    ),
    row(
        "matches[].kind",
        Form::Word(&["HTTPRouteGroup"]),
        "",
        "Always `HTTPRouteGroup`.",
    ),
    row(
        "matches[].name",
        Form::Name,
        "",
        "Name of the group, in the namespace of the object.",
    ),
    row(
        "matches[].matches",
        Form::Names,
        "all of them",
        "Names of matches in the group.",
    ),
    row("timeouts", Form::Map, "", "Limits of time."),
    row(
        "timeouts.request",
        Form::Time,
        "none",
        "From a request's head to the end of its answer, over all tries.",
    ),
    row(
        "timeouts.response",
        Form::Time,
        "none",
        "From a request's head to the head of its answer, over all tries.",
    ),
    row(
        "timeouts.perTry",
        Form::Time,
        "none",
        "From the head of one try to the head of its answer.",
    ),
    row(
        "timeouts.idle",
        Form::Time,
        "none",
        "Without a byte of body in either direction.",
    ),
    row(
        "retries",
        Form::Map,
        "only what is safe",
        "Which answers are asked for again. Tries that reached nobody are repeated in any case.",
    ),
    row(
        "retries.attempts",
        Form::Count(*bounds::ATTEMPTS.start(), *bounds::ATTEMPTS.end()),
        "1",
        "Tries beyond the first.",
    ),
    row(
        "retries.statuses",
        Form::Statuses,
        "502-504, if no gRPC code is named either",
        "HTTP statuses that are asked for again.",
    ),
    row(
        "retries.grpcCodes",
        Form::Codes,
        "unavailable, if no status is named either",
        "gRPC codes that are asked for again.",
    ),
    row(
        "retries.methods",
        Form::Names,
        "the idempotent ones",
        "Methods that may be repeated.",
    ),
    row(
        "retries.backoff",
        Form::Map,
        "",
        "Waits between tries, with jitter.",
    ),
    row(
        "retries.backoff.min",
        Form::Time,
        "25ms",
        "Before the second try; doubled for each further one.",
    ),
    row(
        "retries.backoff.max",
        Form::Time,
        "250ms",
        "No wait is longer.",
    ),
    row(
        "retryBudget",
        Form::Map,
        "",
        "How many tries beyond the first all requests together may take.",
    ),
    row(
        "retryBudget.percent",
        Form::Count(
            *bounds::BUDGET_PERCENT.start(),
            *bounds::BUDGET_PERCENT.end(),
        ),
        "20",
        "For each hundred requests.",
    ),
    row(
        "retryBudget.minPerSecond",
        COUNT_OR_NONE,
        "10",
        "Always there.",
    ),
    row("ejection", Form::Map, "", "When an endpoint is set aside."),
    row(
        "ejection.consecutiveFailures",
        COUNT_OR_NONE,
        "7",
        "Failures one after the other; 0: not by this.",
    ),
    row(
        "ejection.successPercent",
        PERCENT,
        "80",
        "Successes per hundred below which it is; 0: not by this.",
    ),
    row(
        "ejection.window",
        Form::Time,
        "10s",
        "Over this time, 1s to 10m.",
    ),
    row(
        "ejection.minRequests",
        COUNT,
        "5",
        "With at least so many requests in it.",
    ),
    row(
        "ejection.minTime",
        Form::Time,
        "1s",
        "First time out; doubled at each repetition.",
    ),
    row(
        "ejection.maxTime",
        Form::Time,
        "60s",
        "No time out is longer.",
    ),
    row(
        "ejection.minHealthyPercent",
        PERCENT,
        "50",
        "Endpoints per hundred that are never set aside.",
    ),
    row(
        "breaker",
        Form::Map,
        "",
        "How much one proxy may ask of the Service at once; beyond it requests fail at once.",
    ),
    row(
        "breaker.connections",
        COUNT,
        "no limit",
        "Connections, over all endpoints.",
    ),
    row(
        "breaker.pending",
        COUNT,
        "no limit",
        "Requests that wait for a connection.",
    ),
    row("breaker.requests", COUNT, "no limit", "Requests in flight."),
    row(
        "breaker.fallback",
        Form::Map,
        "",
        "A Service that is asked instead while the breaker is open or no endpoint is left.",
    ),
    row(
        "breaker.fallback.service",
        Form::Name,
        "",
        "Its name, in the namespace of the object.",
    ),
    row(
        "breaker.fallback.port",
        PORT,
        "the port that was called",
        "Its port.",
    ),
    row(
        "balancer",
        Form::Map,
        "",
        "Which endpoint a request goes to.",
    ),
    row(
        "balancer.policy",
        Form::Word(&["ewma", "leastRequest", "roundRobin", "ringHash"]),
        "ewma",
        "How one is chosen: the better of two by latency and load (`ewma`) or by load alone, one after the other, or equal keys to equal endpoints.",
    ),
    row(
        "balancer.hashOn",
        Form::Map,
        "",
        "The key of `ringHash`: exactly one of these.",
    ),
    row(
        "balancer.hashOn.header",
        Form::Name,
        "",
        "The value of a header.",
    ),
    row(
        "balancer.hashOn.cookie",
        Form::Name,
        "",
        "The value of a cookie.",
    ),
    row(
        "balancer.hashOn.source",
        Form::Flag,
        "",
        "`true`: the address that calls.",
    ),
    row(
        "balancer.subset",
        COUNT_OR_NONE,
        "20",
        "Endpoints of a large Service that one worker of a proxy keeps to while it has fewer requests under way; 0: all.",
    ),
    row(
        "balancer.slowStart",
        Form::Time,
        "none",
        "A new endpoint's share grows to its whole in this time.",
    ),
    row(
        "balancer.preferZone",
        Form::Flag,
        "false",
        "Endpoints of the own zone first.",
    ),
    row(
        "balancer.failoverZones",
        Form::Names,
        "",
        "Zones to go to when the own one has too few healthy endpoints, in order; then all others.",
    ),
    row(
        "rateLimit",
        Form::Map,
        "",
        "How much each pod of the Service accepts.",
    ),
    row(
        "rateLimit.requests",
        COUNT,
        "no limit",
        "Requests in each `per`, of all callers together.",
    ),
    row("rateLimit.per", Form::Time, "1s", "In this time, up to 1h."),
    row(
        "rateLimit.burst",
        COUNT,
        "as `requests`",
        "Requests that may come at once.",
    ),
    row(
        "rateLimit.perClient",
        Form::Map,
        "",
        "The same for each client identity by itself.",
    ),
    row(
        "rateLimit.perClient.requests",
        COUNT,
        "",
        "Requests in each `per`.",
    ),
    row(
        "rateLimit.perClient.per",
        Form::Time,
        "1s",
        "In this time, up to 1h.",
    ),
    row(
        "rateLimit.perClient.burst",
        COUNT,
        "as `requests`",
        "Requests that may come at once.",
    ),
    row("fault", Form::Map, "", "Failures made on purpose."),
    row(
        "fault.abort",
        Form::Map,
        "",
        "Requests that are answered at once.",
    ),
    row(
        "fault.abort.percent",
        Form::Share,
        "100",
        "How many of a hundred.",
    ),
    row(
        "fault.abort.status",
        Form::Count(*bounds::STATUS.start(), *bounds::STATUS.end()),
        "503",
        "HTTP status of the answer.",
    ),
    row(
        "fault.abort.grpcCode",
        Form::Code,
        "what the status stands for",
        "gRPC code of the answer to gRPC callers.",
    ),
    row("fault.delay", Form::Map, "", "Requests that wait first."),
    row(
        "fault.delay.percent",
        Form::Share,
        "100",
        "How many of a hundred.",
    ),
    row("fault.delay.duration", Form::Time, "", "How long."),
    row(
        "mode",
        Form::Word(&["enforce", "audit"]),
        "enforce",
        "`audit`: the object does nothing to traffic; its rate limits are counted and said.",
    ),
];

const fn row(path: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Row {
    Row {
        path,
        form,
        default,
        meaning,
    }
}

impl Row {
    /// The path of what it is in, and its own name.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// The fields directly in `path` (empty: in `spec`).
pub fn within(path: &str) -> impl Iterator<Item = &'static Row> {
    ALL.iter().filter(move |row| row.split().0 == path)
}

/// The names of the fields directly in `path`.
pub fn names(path: &str) -> Vec<&'static str> {
    within(path).map(|row| row.split().1).collect()
}

/// The table for the README.
pub fn table() -> String {
    let mut text = "| field of `spec` | default | meaning |\n|---|---|---|\n".to_owned();
    for row in ALL {
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            row.path, row.default, row.meaning
        ));
    }
    text
}
