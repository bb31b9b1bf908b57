//! Writes status, as the one replica that holds the Lease: only what changed, only so much at once, and an Event when an
//! object is rejected.

use super::lease::{Candidate, give_back, stand};
use super::rbac::STATUS_LEASE;
use super::round::{Proxies, Whose, Work};
use super::shares;
use super::status::{ACCEPTED, Facts, conditions, is_settled};
use crate::index::{Index, Said};
use crate::manifest::{Kind, ObjectKey, Problem, Severity};
use crate::peers::Peers;
use crate::serve::proxies::{Lacking, ProxyStatus};
use crate::source::kube::ledger::{Condition, Entry, Ledger};
use crate::views::findings::{Finding, NO_UDP};
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// Objects written in one round: what a thousand changes at once cost the API server.
const MAX_WRITES: usize = 20;
/// How long a generation must be known before anything is said of it: the index takes it in meanwhile, and the proxies are told.
const SETTLE: Duration = Duration::from_millis(500);
/// How much longer the index may take where there is much to take in; something is said of it then all the same.
const LAG: Duration = Duration::from_secs(10);
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Longest message in a status.
const MAX_MESSAGE: usize = 1024;
/// Told once, when an object was refused so often in a row: then it is not for a moment only.
const TELL_AFTER: u32 = 3;

/// An object whose status is not right: as it is known, its conditions, and what it should say of ports.
type Due = (ObjectKey, Entry, Vec<Condition>, Value);

/// What the writer looks at.
pub struct Writer {
    /// Talks to the API server.
    pub client: Client,
    /// Who we are, and where the Lease is.
    pub candidate: Candidate,
    /// The objects and their problems.
    pub index: Arc<Index>,
    /// Their generations and what their status says.
    pub ledger: Arc<Ledger>,
    /// Who is connected, here and to the other controllers.
    pub peers: Peers,
}

/// The candidate of this process: replicas have host names of their own, and a restarted one is another.
pub fn candidate(namespace: &str) -> Candidate {
    let host = nix::unistd::gethostname().unwrap_or_default();
    Candidate {
        namespace: namespace.to_owned(),
        name: STATUS_LEASE.to_owned(),
        identity: format!("{}_{:08x}", host.to_string_lossy(), fastrand::u32(..)),
    }
}

impl Writer {
    /// Runs until `stopping`, and then gives the Lease back.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let (leading, leads) = watch::channel(false);
        let standing = stand(self.client.clone(), self.candidate.clone(), leading);
        tokio::select! {
            () = standing => {}
            () = self.write(leads) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        give_back(self.client.clone(), &self.candidate).await;
    }

    async fn write(&self, leads: watch::Receiver<bool>) {
        let recorder = Recorder::new(
            self.client.clone(),
            Reporter {
                controller: "weft-control".into(),
                instance: Some(self.candidate.identity.clone()),
            },
        );
        // What is not read yet looks like missing.
        if self
            .index
            .synced()
            .wait_for(|synced| *synced)
            .await
            .is_err()
        {
            return;
        }
        let mut rounds = interval(EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = Work::default();
        let mut led = false;
        loop {
            rounds.tick().await;
            let leads_now = *leads.borrow();
            if leads_now && !led {
                // Whoever wrote before may have left anything undone.
                work.touch(self.ledger.keys());
            }
            led = leads_now;
            if led {
                self.round(&mut work, &recorder, &leads).await;
            }
        }
    }

    async fn round(&self, work: &mut Work, recorder: &Recorder, leads: &watch::Receiver<bool>) {
        let ready = self.ready(work);
        let own = self.peers.shared().proxies.count();
        if !work.is_due(&ready, own, Instant::now()) {
            return;
        }
        // Counted after it was seen what is ready: a change that comes meanwhile is of the next round.
        let proxies = self.proxies(work, &ready).await;
        let due = self.due(work, &ready, &proxies);
        if proxies.of == Whose::Everybody && proxies.heard {
            work.known_everywhere(&ready, Instant::now());
        }
        for (key, entry, after, ports) in due.into_iter().take(MAX_WRITES) {
            // Whoever lost the Lease in between writes no more.
            if !*leads.borrow() {
                return;
            }
            let written = timeout(CALL_LIMIT, self.put(&key, &entry, &after, &ports)).await;
            match written {
                Ok(Ok(())) => {
                    work.retries.taken(&key);
                    // At once: what is seen of the object while the event is on its way comes after it.
                    self.ledger.wrote(&key, &entry.uid, after.clone(), ports);
                    report(recorder, &key, &entry, &after).await;
                }
                Ok(Err(error)) if is_refusal(&error) => {
                    if work.retries.refused(&key, Instant::now()) == TELL_AFTER {
                        tracing::warn!("the status of {key} cannot be written: {error:#}");
                    }
                }
                Ok(Err(error)) => tracing::debug!("status of {key}: {error:#}"),
                Err(_) => tracing::debug!("status of {key}: no answer"),
            }
        }
    }

    /// The objects of which something can be said now, of those that something happened to or whose proxies are waited for.
    fn ready(&self, work: &mut Work) -> Vec<ObjectKey> {
        work.touch(self.ledger.take_touched());
        let (now, retries) = (Instant::now(), &work.retries);
        let mut ready = Vec::new();
        work.open.retain(|key, open| {
            if open.is_right {
                ready.push(key.clone());
                return true;
            }
            let Some(entry) = self.ledger.entry(key) else {
                return false;
            };
            let is_young = entry.seen.elapsed() < SETTLE || self.is_behind(key, &entry);
            if !is_young && !retries.waits(key, now) {
                open.begin(&entry.uid, entry.generation, now);
                ready.push(key.clone());
            }
            true
        });
        ready
    }

    /// The proxies of all controllers. While an own one lacks each of the objects, nothing that others say changes anything.
    pub(crate) async fn proxies(&self, work: &Work, ready: &[ObjectKey]) -> Proxies {
        let alone = self.peers.is_alone();
        let own = Proxies {
            lacking: self.peers.shared().proxies.lacking(),
            heard: true,
            of: if alone { Whose::All } else { Whose::Own },
        };
        let is_lacking = |key| {
            let (proxies, current) = work.open.get(key).map_or((0, 0), |it| own.count(it));
            current < proxies
        };
        if alone || !ready.is_empty() && ready.iter().all(is_lacking) {
            return own;
        }
        let asked = Instant::now();
        let all = self.peers.everybody(true).await;
        // How long ago somebody was told something was true when it was said.
        let under_way = asked.elapsed();
        let lacking = all.proxies.iter().map(ProxyStatus::lacking);
        let earlier = |it: Lacking| Lacking {
            since: it.since.checked_sub(under_way).unwrap_or(it.since),
            ..it
        };
        let missing = all.controllers.and_then(|it| it.missing());
        Proxies {
            lacking: lacking.map(|it| it.map(earlier)).collect(),
            heard: all.up_to_date && missing.is_none(),
            of: Whose::Everybody,
        }
    }

    /// The objects whose status is not right, of those that are ready.
    fn due(&self, work: &mut Work, ready: &[ObjectKey], proxies: &Proxies) -> Vec<Due> {
        let (now, mut due) = (Timestamp::now(), Vec::new());
        for key in ready {
            let Some(open) = work.open.get_mut(key) else {
                continue;
            };
            let Some(entry) = self.ledger.entry(key) else {
                work.open.remove(key);
                continue;
            };
            // The proxies were counted for the state before.
            if !open.is_of(&entry.uid, entry.generation) {
                open.is_right = false;
                continue;
            }
            let facts = self.facts(key, &entry, proxies.count(open), proxies.heard);
            let ports = self.index.read(|world| shares::ports(world, key));
            let ports = ports.unwrap_or_else(|| entry.ports.clone());
            let after = conditions(&facts, &entry.conditions, now);
            open.is_right = after.is_none() && ports == entry.ports;
            match after {
                None if open.is_right && is_settled(&facts, &entry.conditions) => {
                    work.open.remove(key);
                }
                None if open.is_right => work.retries.taken(key),
                after => {
                    let after = after.unwrap_or_else(|| entry.conditions.clone());
                    due.push((key.clone(), entry, after, ports));
                }
            }
        }
        work.retries.keep(|key| work.open.contains_key(key));
        due.sort_by_key(|(key, ..)| work.retries.times(key));
        due
    }

    fn facts(
        &self,
        key: &ObjectKey,
        entry: &Entry,
        (proxies, current): (usize, usize),
        heard: bool,
    ) -> Facts {
        let file = entry.watched.origin(&key.namespace, &key.name);
        let Said { written, found } = self.index.said(key, &file);
        let errors = written.iter().filter(|it| it.severity == Severity::Error);
        let of = |which: fn(&Finding) -> bool| found.iter().filter(move |it| which(it));
        Facts {
            generation: entry.generation,
            rejected: told(errors),
            unresolved: told(of(|it| it.code.is_reference()).map(|it| &it.problem)),
            proxies,
            current,
            unheard: !heard,
            unsupported: (key.kind == Kind::UdpRoute).then(|| NO_UDP.to_owned()),
        }
    }

    /// Has the index not taken in yet what is known of an object? The proxies are not told before, so that none of them
    /// lacks anything. What is rejected it never takes in.
    fn is_behind(&self, key: &ObjectKey, entry: &Entry) -> bool {
        let is_known = self.index.read(|world| {
            let object = world.object(key).map(|loaded| &loaded.object);
            object.and_then(|it| it.metadata()).is_some_and(|known| {
                let (uid, generation) = (known.uid.as_deref(), known.generation);
                uid == Some(&*entry.uid) && generation == Some(entry.generation)
            })
        });
        if is_known || entry.seen.elapsed() >= LAG {
            return false;
        }
        let file = entry.watched.origin(&key.namespace, &key.name);
        let Said { written, .. } = self.index.said(key, &file);
        written.iter().all(|it| it.severity != Severity::Error)
    }

    async fn put(
        &self,
        key: &ObjectKey,
        entry: &Entry,
        after: &[Condition],
        ports: &Value,
    ) -> Result<()> {
        let version = entry.api_version.rsplit('/').next().unwrap_or_default();
        let resource = ApiResource {
            group: entry.watched.group.into(),
            version: version.into(),
            api_version: entry.api_version.clone(),
            kind: entry.watched.kind.into(),
            plural: entry.watched.plural.into(),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        // With its uid: the status of another object of the same name is not ours to write.
        let mut status = json!({"observedGeneration": entry.generation, "conditions": after});
        if *ports != entry.ports {
            status["ports"] = ports.clone();
        }
        let patch = json!({"metadata": {"uid": entry.uid}, "status": status});
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }
}

/// Was it refused for what it is, rather than not taken now?
fn is_refusal(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => {
            (400..500).contains(&status.code) && ![409, 429].contains(&status.code)
        }
        _ => false,
    }
}

/// Tells once that a generation was rejected.
async fn report(recorder: &Recorder, key: &ObjectKey, entry: &Entry, after: &[Condition]) {
    let rejection = |all: &[Condition]| {
        let found = all
            .iter()
            .find(|it| it.type_ == ACCEPTED && it.status == "False");
        found.map(|it| (it.observed_generation, it.message.clone()))
    };
    let Some((_, message)) =
        rejection(after).filter(|new| Some(new) != rejection(&entry.conditions).as_ref())
    else {
        return;
    };
    let event = Event {
        type_: EventType::Warning,
        reason: "Invalid".into(),
        note: Some(message),
        action: "Accept".into(),
        secondary: None,
    };
    let object = ObjectReference {
        api_version: Some(entry.api_version.clone()),
        kind: Some(entry.watched.kind.into()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(entry.uid.clone()),
        ..ObjectReference::default()
    };
    match timeout(CALL_LIMIT, recorder.publish(&event, &object)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!("an event about {key}: {error}"),
        Err(_) => tracing::debug!("an event about {key}: no answer"),
    }
}

/// `field: message; …`, as long as a status may be.
fn told<'a>(problems: impl Iterator<Item = &'a Problem>) -> Option<String> {
    let line = |problem: &Problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.message),
        None => problem.message.clone(),
    };
    let text = problems.map(line).collect::<Vec<_>>().join("; ");
    let cut = text.chars().take(MAX_MESSAGE).collect::<String>();
    (!cut.is_empty()).then_some(cut)
}
