//! Taps: what somebody wants to see, told to the proxies of some pods; what they show, handed back. Bounded: nobody waits
//! for who does not read, and what is lost is counted.

use crate::pod_ref::PodRef;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use parking_lot::Mutex;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::{mpsc, watch};
use weft_proxy_api::wire::generated as pb;

/// Taps at once.
const MAX_TAPS: usize = 16;
/// Looks that may wait for who asked, and what they may take of memory, bytes.
const WAITING: usize = 4_096;
const WAITING_BYTES: usize = 16 << 20;

/// All taps.
#[derive(Debug)]
pub struct Taps {
    sessions: Mutex<BTreeMap<u32, Session>>,
    next: Mutex<u32>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Session {
    start: pb::TapStart,
    pods: BTreeSet<PodRef>,
    shown: mpsc::Sender<(PodRef, Shown)>,
    /// Bytes of what waits.
    held: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

/// What a proxy shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// An exchange.
    Look(Box<pb::TapEvent>),
    /// How the tap fares there.
    State(pb::TapState),
}

/// What a proxy shows, with the number of looks that were lost so far between it and whoever reads here.
pub type Passed = (PodRef, Shown, u64);

/// A tap, as long as it is held.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    id: u32,
    shown: mpsc::Receiver<(PodRef, Shown)>,
    held: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Default for Taps {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            next: Mutex::new(1),
            changed: watch::Sender::new(()),
        }
    }
}

impl Taps {
    /// Begins to look at these pods; `None`: too many do already.
    pub fn start(self: &Arc<Self>, start: pb::TapStart, pods: BTreeSet<PodRef>) -> Option<Tap> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_TAPS {
            return None;
        }
        let id = {
            let mut next = self.next.lock();
            *next = next.wrapping_add(1).max(1);
            *next
        };
        let (sender, shown) = mpsc::channel(WAITING);
        let (held, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let session = Session {
            start: pb::TapStart {
                id,
                batches: true,
                ..start
            },
            pods,
            shown: sender,
            held: held.clone(),
            lost: lost.clone(),
        };
        sessions.insert(id, session);
        drop(sessions);
        self.changed.send_replace(());
        Some(Tap {
            taps: self.clone(),
            id,
            shown,
            held,
            lost,
        })
    }

    /// Tells when taps came or went.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What the proxy of a pod has to do, so that of the taps `known` to it those are left that are wanted: one command,
    /// or nothing. `known` is kept in step.
    pub fn next_command(
        &self,
        pod: &PodRef,
        known: &mut BTreeSet<u32>,
    ) -> Option<pb::observe_command::Command> {
        use pb::observe_command::Command;
        let sessions = self.sessions.lock();
        if let Some(gone) = known.iter().find(|id| !sessions.contains_key(id)).copied() {
            known.remove(&gone);
            return Some(Command::Stop(pb::TapStop { id: gone }));
        }
        let mut wanted = sessions.iter().filter(|(_, at)| at.pods.contains(pod));
        let (id, session) = wanted.find(|(id, _)| !known.contains(id))?;
        known.insert(*id);
        Some(Command::Tap(session.start.clone()))
    }

    /// Hands over what a pod's proxy shows. What nobody asked this pod for goes nowhere.
    pub fn show(&self, pod: &PodRef, id: u32, shown: Shown) {
        let sessions = self.sessions.lock();
        let is_look = matches!(shown, Shown::Look(_));
        if let Some(session) = sessions.get(&id).filter(|at| at.pods.contains(pod))
            && !session.hold(pod, shown)
            // How it fares is said again.
            && is_look
        {
            session.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Session {
    /// Keeps it for who asked, if there is room.
    fn hold(&self, pod: &PodRef, shown: Shown) -> bool {
        let size = shown.size();
        // Looks are shown under the lock of all sessions: nobody else adds meanwhile.
        if self.held.load(Relaxed) + size > WAITING_BYTES {
            return false;
        }
        self.held.fetch_add(size, Relaxed);
        let kept = self.shown.try_send((pod.clone(), shown)).is_ok();
        if !kept {
            self.held.fetch_sub(size, Relaxed);
        }
        kept
    }
}

impl Shown {
    /// What it takes of memory, near enough: a header field takes some, however short it is.
    fn size(&self) -> usize {
        match self {
            Self::Look(look) => {
                let fields = look.request_headers.len() + look.response_headers.len();
                let fields = fields * size_of::<pb::Field>();
                size_of::<pb::TapEvent>() + look.encoded_len() + fields
            }
            Self::State(_) => 0,
        }
    }
}

impl Tap {
    /// What is shown next. May be dropped and called again.
    pub async fn next(&mut self) -> Option<(PodRef, Shown)> {
        let next = self.shown.recv().await?;
        self.held.fetch_sub(next.1.size(), Relaxed);
        Some(next)
    }

    /// How much was lost on its way from here.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// All that is shown, for as long as it is read.
    pub fn stream(self) -> BoxStream<'static, Passed> {
        let shown = unfold(self, |mut tap| async move {
            let (pod, shown) = tap.next().await?;
            let lost = tap.lost();
            Some(((pod, shown, lost), tap))
        });
        shown.boxed()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.sessions.lock().remove(&self.id);
        self.taps.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pb::observe_command::Command;

    fn pod(name: &str) -> PodRef {
        PodRef::new("shop", name)
    }

    fn state(id: u32) -> Shown {
        Shown::State(pb::TapState {
            id,
            ..Default::default()
        })
    }

    #[test]
    fn proxies_are_told_what_is_wanted_of_them_and_no_more() {
        let taps = Arc::new(Taps::default());
        let (mut here, mut there) = (BTreeSet::new(), BTreeSet::new());
        let tap = taps
            .start(pb::TapStart::default(), [pod("a")].into())
            .unwrap();
        let told = taps.next_command(&pod("a"), &mut here);
        assert!(matches!(told, Some(Command::Tap(start)) if start.id == tap.id));
        assert_eq!(taps.next_command(&pod("a"), &mut here), None);
        assert_eq!(taps.next_command(&pod("b"), &mut there), None);
        let id = tap.id;
        drop(tap);
        let told = taps.next_command(&pod("a"), &mut here);
        assert_eq!(told, Some(Command::Stop(pb::TapStop { id })));
        assert_eq!(taps.next_command(&pod("a"), &mut here), None);
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_handed_over_and_losses_are_counted() {
        let taps = Arc::new(Taps::default());
        let mut tap = taps
            .start(pb::TapStart::default(), [pod("a")].into())
            .unwrap();
        taps.show(&pod("b"), tap.id, state(tap.id));
        taps.show(&pod("a"), tap.id + 1, state(tap.id));
        for _ in 0..WAITING {
            taps.show(&pod("a"), tap.id, state(tap.id));
        }
        for _ in 0..3 {
            taps.show(&pod("a"), tap.id, Shown::Look(Box::default()));
            taps.show(&pod("a"), tap.id, state(tap.id));
        }
        assert_eq!(tap.next().await, Some((pod("a"), state(tap.id))));
        assert_eq!(tap.lost(), 3);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        let taps = Arc::new(Taps::default());
        let start = pb::TapStart::default();
        let mut tap = taps.start(start, [pod("a")].into()).unwrap();
        let show = || {
            let look = pb::TapEvent {
                path: "x".repeat(WAITING_BYTES / 4),
                ..Default::default()
            };
            taps.show(&pod("a"), tap.id, Shown::Look(Box::new(look)));
        };
        (0..5).for_each(|_| show());
        assert_eq!(tap.lost(), 2, "three quarters, and what they take beside");
        for _ in 0..3 {
            assert!(tap.next().await.is_some());
        }
        assert_eq!(tap.held.load(Relaxed), 0);
    }

    #[test]
    fn taps_are_bounded() {
        let taps = Arc::new(Taps::default());
        let start = || taps.start(pb::TapStart::default(), BTreeSet::new());
        let held: Vec<_> = (0..MAX_TAPS).map(|_| start().unwrap()).collect();
        assert!(start().is_none());
        drop(held);
        assert!(start().is_some());
    }
}
