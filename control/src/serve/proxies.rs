//! Which proxies are connected, and how current each is. This is what `meshctl status` and `meshctl wait` look at.

use crate::pod_ref::PodRef;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a connected proxy is doing.
#[derive(Debug, Clone)]
pub struct ProxyStatus {
    /// The pod it serves.
    pub pod: PodRef,
    /// Zone it said it is in; empty: unknown.
    pub zone: String,
    /// Version of the proxy program.
    pub version: String,
    /// Since when it is connected.
    pub connected: Instant,
    /// Since when it lacks something; `None`: it holds the current version of all it subscribed to.
    pub stale_since: Option<Instant>,
    /// Number of its subscriptions.
    pub subscriptions: usize,
    /// Why it refused a version last, on this stream.
    pub last_nack: Option<String>,
}

impl ProxyStatus {
    /// Whether it holds the current version of all it subscribed to.
    pub fn synced(&self) -> bool {
        self.stale_since.is_none()
    }

    /// That it lacks something.
    pub fn lacking(&self) -> Option<Lacking> {
        self.stale_since.map(|since| Lacking {
            since,
            connected: self.connected,
        })
    }
}

/// A proxy that lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// Since then.
    pub since: Instant,
    /// It has been connected since then: what it was told before, it may not have taken over.
    pub connected: Instant,
}

impl Lacking {
    /// Only what came after this moment: what was published by then, its proxy has.
    pub fn is_only_after(&self, moment: Instant) -> bool {
        self.connected < moment && self.since > moment + TOLD
    }
}

/// Until the streams to the proxies have seen what was just published, with much to spare.
const TOLD: Duration = Duration::from_millis(500);

/// Streams one pod may have open: its proxy has one, two while it is replaced, and a few that were not found dead yet.
pub const MAX_OF_POD: usize = 16;
/// Subscriptions of one pod: twice what its proxy may have, since an old stream may not be found dead yet.
pub const MAX_SUBSCRIPTIONS_OF_POD: usize = 2 * super::session::MAX_SUBSCRIPTIONS;
/// Streams on which one pod may report: each may hold a message that is not complete, and who is refused comes again.
pub const MAX_REPORTING: usize = 4;

/// All connected proxies.
#[derive(Debug, Default)]
pub struct Proxies {
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, ProxyStatus>,
    /// What each pod has of them.
    of_pod: HashMap<PodRef, OfPod>,
    /// How many are open on which it reports, by the pod that its certificate names.
    reporting: HashMap<String, usize>,
}

/// What one pod has open.
#[derive(Debug, Default)]
struct OfPod {
    streams: usize,
    /// On all of them.
    subscriptions: usize,
}

impl Streams {
    /// Changes what is told of a stream, and the sum of its pod with it.
    fn update(&mut self, stream: u64, change: impl FnOnce(&mut ProxyStatus)) {
        let Some(status) = self.open.get_mut(&stream) else {
            return;
        };
        let before = status.subscriptions;
        change(status);
        if status.subscriptions != before
            && let Some(of_pod) = self.of_pod.get_mut(&status.pod)
        {
            of_pod.subscriptions = of_pod.subscriptions + status.subscriptions - before;
        }
    }
}

impl Proxies {
    /// Enters a proxy; it leaves when the returned entry is dropped.
    pub fn enter(self: &Arc<Self>, status: ProxyStatus) -> Entry {
        let mut streams = self.streams.lock();
        let stream = streams.next;
        streams.next += 1;
        let of_pod = streams.of_pod.entry(status.pod.clone()).or_default();
        of_pod.streams += 1;
        of_pod.subscriptions += status.subscriptions;
        streams.open.insert(stream, status);
        Entry {
            proxies: self.clone(),
            stream,
        }
    }

    /// One status for each pod, by namespace and name. A pod that reconnected before its old stream was found dead is
    /// told by its newest stream.
    pub fn list(&self) -> Vec<ProxyStatus> {
        let newest: BTreeMap<PodRef, ProxyStatus> = self
            .streams
            .lock()
            .open
            .values()
            .map(|status| (status.pod.clone(), status.clone()))
            .collect();
        newest.into_values().collect()
    }

    /// How many streams a pod has open.
    pub fn streams_of(&self, pod: &PodRef) -> usize {
        let streams = self.streams.lock();
        streams.of_pod.get(pod).map_or(0, |of_pod| of_pod.streams)
    }

    /// A stream on which the pod that a certificate names reports; `None`: it has [`MAX_REPORTING`]. Asked before anything is
    /// read of it: what is read may be long.
    pub fn report(self: &Arc<Self>, certificate: &str) -> Option<Reporting> {
        let mut streams = self.streams.lock();
        let open = streams.reporting.entry(certificate.to_owned()).or_default();
        if *open >= MAX_REPORTING {
            return None;
        }
        *open += 1;
        Some(Reporting {
            proxies: self.clone(),
            certificate: certificate.to_owned(),
        })
    }

    /// What each of the list lacks.
    pub fn lacking(&self) -> Vec<Option<Lacking>> {
        let streams = self.streams.lock();
        let newest: BTreeMap<&PodRef, Option<Lacking>> = streams
            .open
            .values()
            .map(|status| (&status.pod, status.lacking()))
            .collect();
        newest.into_values().collect()
    }

    /// How many pods are in the list, and how many of them are [`ProxyStatus::synced`].
    pub fn count(&self) -> (usize, usize) {
        let all = self.lacking();
        let synced = all.iter().filter(|since| since.is_none()).count();
        (all.len(), synced)
    }
}

/// The place of one stream in the list.
#[derive(Debug)]
pub struct Entry {
    proxies: Arc<Proxies>,
    stream: u64,
}

impl Entry {
    /// Changes what is told about this proxy.
    pub fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        self.proxies.streams.lock().update(self.stream, change);
    }

    /// May one more be added to so many subscriptions of this stream? False: the pod has [`MAX_SUBSCRIPTIONS_OF_POD`].
    pub fn may_subscribe(&self, subscriptions: usize) -> bool {
        let mut streams = self.proxies.streams.lock();
        streams.update(self.stream, |status| status.subscriptions = subscriptions);
        let status = streams.open.get(&self.stream);
        let of_pod = status.and_then(|status| streams.of_pod.get(&status.pod));
        of_pod.is_none_or(|of_pod| of_pod.subscriptions < MAX_SUBSCRIPTIONS_OF_POD)
    }
}

/// A stream on which a pod reports, as long as this is held.
#[derive(Debug)]
pub struct Reporting {
    proxies: Arc<Proxies>,
    certificate: String,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let mut streams = self.proxies.streams.lock();
        let Some(open) = streams.reporting.get_mut(&self.certificate) else {
            return;
        };
        *open -= 1;
        if *open == 0 {
            streams.reporting.remove(&self.certificate);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut streams = self.proxies.streams.lock();
        let Some(gone) = streams.open.remove(&self.stream) else {
            return;
        };
        if let Some(of_pod) = streams.of_pod.get_mut(&gone.pod) {
            of_pod.streams -= 1;
            of_pod.subscriptions -= gone.subscriptions;
            if of_pod.streams == 0 {
                streams.of_pod.remove(&gone.pod);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pod: &str, version: &str) -> ProxyStatus {
        ProxyStatus {
            pod: PodRef::new("default", pod),
            zone: String::new(),
            version: version.into(),
            connected: Instant::now(),
            stale_since: None,
            subscriptions: 0,
            last_nack: None,
        }
    }

    #[test]
    fn a_pod_is_listed_once_by_its_newest_stream() {
        let proxies = Arc::new(Proxies::default());
        let versions = |proxies: &Proxies| {
            proxies
                .list()
                .iter()
                .map(|s| s.version.clone())
                .collect::<Vec<_>>()
        };
        let _other = proxies.enter(status("b", "0"));
        let old = proxies.enter(status("a", "1"));
        let new = proxies.enter(status("a", "2"));
        assert_eq!(versions(&proxies), ["2", "0"]);
        old.update(|status| status.stale_since = Some(Instant::now()));
        assert!(proxies.list().iter().all(ProxyStatus::synced));
        assert_eq!(proxies.count(), (2, 2));
        let of = |pod: &str| proxies.streams_of(&PodRef::new("default", pod));
        assert_eq!((of("a"), of("b"), of("c")), (2, 1, 0));
        drop(new);
        assert_eq!((of("a"), of("b")), (1, 1));
        assert_eq!(versions(&proxies), ["1", "0"]);
        assert_eq!(proxies.count(), (2, 1));
        drop(old);
        assert_eq!(of("a"), 0);
        assert_eq!(versions(&proxies), ["0"]);
    }

    #[test]
    fn what_was_published_is_with_who_was_connected_and_lacks_only_later_things() {
        let moment = Instant::now();
        let after = |ms| moment + Duration::from_millis(ms);
        let before = moment.checked_sub(Duration::from_secs(1)).unwrap_or(moment);
        for (connected, since, expected) in [
            (before, after(501), true),
            (before, after(500), false),
            (before, before, false),
            // With what it held before it came.
            (after(1), after(501), false),
        ] {
            let lacking = Lacking { since, connected };
            assert_eq!(lacking.is_only_after(moment), expected, "{lacking:?}");
        }
    }

    #[test]
    fn all_streams_of_a_pod_share_its_subscriptions() {
        let proxies = Arc::new(Proxies::default());
        let half = MAX_SUBSCRIPTIONS_OF_POD / 2;
        let first = proxies.enter(status("a", "1"));
        let second = proxies.enter(status("a", "1"));
        let other = proxies.enter(status("b", "1"));
        assert!(first.may_subscribe(half));
        assert!(second.may_subscribe(half - 1));
        assert!(!second.may_subscribe(half));
        assert!(other.may_subscribe(half));
        first.update(|status| status.subscriptions -= 1);
        assert!(second.may_subscribe(half));
        assert!(!second.may_subscribe(half + 1));
        drop(first);
        assert!(second.may_subscribe(half + 1));
        drop((second, other));
        assert!(proxies.streams.lock().of_pod.is_empty());
    }

    #[test]
    fn one_pod_reports_on_so_many_streams_and_leaves_nothing() {
        let proxies = Arc::new(Proxies::default());
        let mut open: Vec<_> = (0..MAX_REPORTING)
            .filter_map(|_| proxies.report("default/a"))
            .collect();
        assert_eq!(open.len(), MAX_REPORTING);
        assert!(proxies.report("default/a").is_none());
        assert!(proxies.report("default/b").is_some());
        open.pop();
        assert!(proxies.report("default/a").is_some());
        open.clear();
        assert!(proxies.streams.lock().reporting.is_empty());
    }
}
