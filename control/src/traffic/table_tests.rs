#![allow(clippy::unwrap_used)]
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(workload: &str) -> EdgeKey {
    EdgeKey {
        direction: Direction::Outbound,
        peer_workload: workload.into(),
        ..EdgeKey::default()
    }
}

fn counts(requests: u64) -> Counts {
    Counts {
        requests,
        success: requests,
        latency: vec![0, requests],
        ..Counts::default()
    }
}

/// A process that has run for `uptime` seconds and counted this on the edge to `web`.
fn summary(incarnation: u64, uptime: u64, series: u64, requests: u64) -> Summary {
    Summary {
        incarnation,
        uptime: SECOND * u32::try_from(uptime).unwrap(),
        edges: vec![(key("web"), series, counts(requests))],
        ..Summary::default()
    }
}

struct Story {
    table: TrafficTable,
    pod: PodRef,
    start: Instant,
}

impl Story {
    fn new() -> Self {
        Self {
            table: TrafficTable::default(),
            pod: PodRef::new("default", "a"),
            start: Instant::now(),
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + SECOND * u32::try_from(second).unwrap()
    }

    fn record(&self, second: u64, summary: Summary) {
        self.table.record(&self.pod, summary, self.at(second));
    }

    /// Requests, and seconds they cover.
    fn seen(&self, second: u64, window: Option<u64>) -> (u64, u64) {
        let window = window.map(Duration::from_secs);
        let all = self.table.snapshot(window, self.at(second));
        let requests = all[0].edges.iter().map(|(_, n)| n.requests).sum();
        (requests, all[0].covers.as_secs())
    }
}

#[test]
fn totals_are_as_the_proxy_says_and_windows_are_differences() {
    let story = Story::new();
    story.record(5, summary(1, 5, 1, 10));
    story.record(10, summary(1, 10, 1, 30));
    story.record(15, summary(1, 15, 1, 35));
    assert_eq!(story.seen(15, None), (35, 15));
    assert_eq!(story.seen(15, Some(10)), (25, 10));
    assert_eq!(story.seen(15, Some(60)), (35, 15));
    assert_eq!(story.seen(100, Some(10)), (0, 0), "silent for long");
}

#[test]
fn a_report_that_comes_twice_counts_once_and_a_lost_one_is_in_the_next() {
    let story = Story::new();
    story.record(5, summary(1, 5, 1, 10));
    story.record(6, summary(1, 6, 1, 10));
    story.record(20, summary(1, 20, 1, 50));
    assert_eq!(story.seen(20, None), (50, 20));
    assert_eq!(story.seen(20, Some(60)), (50, 20));
}

#[test]
fn a_controller_that_comes_late_knows_the_totals_but_not_their_rate() {
    let story = Story::new();
    story.record(5, summary(1, 3600, 1, 1000));
    assert_eq!(story.seen(5, None), (1000, 3600));
    assert_eq!(story.seen(5, Some(60)), (0, 0));
    story.record(10, summary(1, 3605, 1, 1010));
    assert_eq!(story.seen(10, Some(60)), (10, 5));
}

#[test]
fn a_new_process_and_a_new_series_count_from_zero() {
    let story = Story::new();
    story.record(5, summary(1, 5, 1, 10));
    story.record(10, summary(2, 2, 1, 3));
    assert_eq!(story.seen(10, None).0, 13);
    assert_eq!(story.seen(10, Some(60)).0, 13);
    story.record(15, summary(2, 7, 9, 1));
    assert_eq!(story.seen(15, None).0, 14);
}

#[test]
fn old_samples_are_merged_and_then_forgotten() {
    let story = Story::new();
    for second in (5..=1000).step_by(5) {
        story.record(second, summary(1, second, 1, second * 10));
    }
    let pods = story.table.pods.lock();
    let samples = pods[&story.pod].samples.len();
    drop(pods);
    assert!((20..60).contains(&samples), "{samples}");
    let (requests, seconds) = story.seen(1000, Some(600));
    assert_eq!(requests, seconds * 10);
    // The oldest sample may reach a little further back.
    assert!((570..=630).contains(&seconds), "{seconds}");
    assert_eq!(story.seen(1000, None).0, 10_000);
}

#[test]
fn who_reports_without_a_pause_has_no_more_samples() {
    let story = Story::new();
    for n in 1..=2000 {
        let now = story.at(1) + Duration::from_millis(1) * n;
        let said = summary(1, 1, 1, u64::from(n));
        story.table.record(&story.pod, said, now);
    }
    let pods = story.table.pods.lock();
    let samples = pods[&story.pod].samples.len();
    drop(pods);
    assert!(samples <= 22, "{samples}");
    assert_eq!(story.seen(3, Some(60)).0, 2000);
}

#[test]
fn edges_and_pods_are_bounded_and_nothing_is_lost() {
    let story = Story::new();
    let edges = (0..3000).map(|n| (key(&format!("w{n}")), n, counts(1)));
    let many = Summary {
        incarnation: 1,
        edges: edges.collect(),
        ..Summary::default()
    };
    story.record(1, many);
    assert_eq!(story.table.len(), MAX_EDGES + 1);
    assert_eq!(story.seen(1, None).0, 3000);
    for n in 0..MAX_PODS as u32 {
        let later = story.at(1) + Duration::from_millis(1) * (n + 1);
        let pod = PodRef::new("default", format!("p{n}"));
        story.table.record(&pod, Summary::default(), later);
    }
    let all = story.table.snapshot(None, story.at(5));
    assert_eq!(all.len(), MAX_PODS);
    assert!(all.iter().all(|pod| pod.pod != story.pod));
}

#[test]
fn a_window_has_no_more_edges_than_a_pod_and_loses_nothing() {
    let story = Story::new();
    for second in 1..=3u64 {
        let edges = (0..1_000).map(|n| (key(&format!("{second}-{n}")), n, counts(1)));
        let said = Summary {
            incarnation: 1,
            edges: edges.collect(),
            ..Summary::default()
        };
        story.record(second, said);
    }
    let all = story.table.snapshot(Some(SECOND * 60), story.at(3));
    assert_eq!(all[0].edges.len(), MAX_EDGES + 1);
    assert_eq!(story.seen(3, Some(60)).0, 3_000);
}

#[test]
fn samples_take_only_so_much_whatever_is_said() {
    let (story, long) = (Story::new(), "x".repeat(8_000));
    for second in 1..=20u64 {
        let edges = (0..500).map(|n| (key(&format!("{second}-{n}-{long}")), n, counts(1)));
        let said = Summary {
            incarnation: 1,
            edges: edges.collect(),
            ..Summary::default()
        };
        story.record(second, said);
    }
    let pods = story.table.pods.lock();
    let samples = &pods[&story.pod].samples;
    let size: usize = samples.iter().map(|sample| sample.size).sum();
    assert!(samples.len() < 20 && size <= MAX_SAMPLES, "{size}");
    assert!(size > MAX_SAMPLES / 2, "only the oldest go");
}

#[test]
fn a_pod_that_reports_no_more_is_forgotten() {
    let story = Story::new();
    story.record(1, summary(1, 1, 1, 10));
    let other = PodRef::new("default", "b");
    story
        .table
        .record(&other, Summary::default(), story.at(2000));
    let all = story.table.snapshot(None, story.at(2000));
    assert_eq!((all.len(), &all[0].pod), (1, &other));
}
