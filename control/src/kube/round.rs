//! What is left to do for who writes status, and what of it depends on which proxies. Pure: the time comes in.
//!
//! An object is in force with a proxy that lacks nothing, or only what changed after all controllers knew the object: where
//! endpoints come and go all the time there is no moment at which every proxy has everything.

use super::retries::Retries;
use crate::manifest::ObjectKey;
use crate::serve::proxies::Lacking;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long what the proxies were last seen to have counts, while nothing happens here.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Everything that is left to do.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Objects whose status was refused.
    pub(super) retries: Retries,
    /// Objects whose status may have to change.
    pub(super) open: BTreeMap<ObjectKey, Open>,
    /// Our own proxies, and current ones, when they were last looked at.
    proxies: (usize, usize),
    /// When that was.
    asked: Option<Instant>,
}

/// One object.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// What its times are of: uid and generation.
    state: Option<(String, i64)>,
    /// It was in force here by then.
    here: Option<Instant>,
    /// And at every controller.
    everywhere: Option<Instant>,
    /// Its status is right, as long as the proxies stay as they are.
    pub(super) is_right: bool,
}

/// What is known of all proxies.
#[derive(Debug, Clone)]
pub(crate) struct Proxies {
    /// What each lacks.
    pub(crate) lacking: Vec<Option<Lacking>>,
    /// Every controller has read what is written, and said so.
    pub(crate) heard: bool,
    /// Whose these are.
    pub(crate) of: Whose,
}

/// Proxies that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of the only controller there is.
    All,
    /// Our own; nothing that others say could change anything.
    Own,
    /// Those of every controller that answered.
    Everybody,
}

impl Work {
    /// These have changed.
    pub(crate) fn touch(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        for key in keys {
            self.open.entry(key).or_default().is_right = false;
        }
    }

    /// Is there anything to look at, of what is ready? What only the proxies decide is looked at when ours have changed, and
    /// now and then: to ask the others has each of them list all there is.
    pub(super) fn is_due(
        &mut self,
        ready: &[ObjectKey],
        proxies: (usize, usize),
        now: Instant,
    ) -> bool {
        let is_right = |key| self.open.get(key).is_some_and(|it| it.is_right);
        let same = proxies == self.proxies && ready.iter().all(is_right);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < ASK_AGAIN;
        if ready.is_empty() || same && self.asked.is_some_and(is_fresh) {
            return false;
        }
        (self.proxies, self.asked) = (proxies, Some(now));
        true
    }

    /// Every controller said that it has read what is written: these objects are among it.
    pub(super) fn known_everywhere(&mut self, keys: &[ObjectKey], now: Instant) {
        for key in keys {
            if let Some(open) = self.open.get_mut(key) {
                open.everywhere.get_or_insert(now);
            }
        }
    }
}

impl Open {
    /// This state of the object is in force here.
    pub(super) fn begin(&mut self, uid: &str, generation: i64, now: Instant) {
        if self.is_of(uid, generation) {
            return;
        }
        *self = Self {
            state: Some((uid.to_owned(), generation)),
            here: Some(now),
            ..Self::default()
        };
    }

    /// Are its times of this state?
    pub(super) fn is_of(&self, uid: &str, generation: i64) -> bool {
        let state = self.state.as_ref();
        state.is_some_and(|(known, at)| known == uid && *at == generation)
    }
}

impl Proxies {
    /// How many there are, and with how many of them an object is in force.
    pub(super) fn count(&self, open: &Open) -> (usize, usize) {
        let told = match self.of {
            Whose::All | Whose::Own => open.here,
            Whose::Everybody => open.everywhere,
        };
        let is_later = |it: Lacking| told.is_some_and(|told| it.is_only_after(told));
        let current = self.lacking.iter().filter(|it| it.is_none_or(is_later));
        let current = current.count();
        (self.lacking.len(), current)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::Kind;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::TrafficSplit, "shop", name)
    }

    fn proxies(of: Whose, lacking: &[Option<Instant>]) -> Proxies {
        let connected = |since| {
            let connected = Instant::now().checked_sub(Duration::from_secs(3600));
            let connected = connected.unwrap_or(since);
            Lacking { since, connected }
        };
        Proxies {
            lacking: lacking.iter().map(|it| it.map(connected)).collect(),
            heard: true,
            of,
        }
    }

    #[test]
    fn a_proxy_that_lacks_only_what_came_later_has_the_object() {
        let start = Instant::now();
        let at = |ms| Some(start + Duration::from_millis(ms));
        let mut open = Open::default();
        let before = [None, at(0)];
        assert_eq!(proxies(Whose::All, &before).count(&open), (2, 1));
        open.begin("u", 1, start);
        for (lacking, current) in [(at(0), 1), (at(500), 1), (at(501), 2), (None, 2)] {
            let all = [None, lacking];
            assert_eq!(proxies(Whose::All, &all).count(&open), (2, current));
            assert_eq!(proxies(Whose::Own, &all).count(&open), (2, current));
            // Nobody knows yet when the others took it in.
            let sure = if lacking.is_none() { 2 } else { 1 };
            assert_eq!(proxies(Whose::Everybody, &all).count(&open), (2, sure));
        }
        open.begin("u", 1, start + Duration::from_secs(9));
        assert_eq!(proxies(Whose::All, &[at(501)]).count(&open), (1, 1));
        open.begin("u", 2, start + Duration::from_secs(9));
        assert_eq!(proxies(Whose::All, &[at(501)]).count(&open), (1, 0));
    }

    #[test]
    fn what_others_have_counts_from_when_they_had_read_it() {
        let start = Instant::now();
        let mut work = Work::default();
        work.touch([key("a")]);
        work.open.get_mut(&key("a")).unwrap().begin("u", 1, start);
        let later = start + Duration::from_secs(3);
        work.known_everywhere(&[key("a"), key("gone")], later);
        work.known_everywhere(&[key("a")], later + Duration::from_secs(9));
        let count = |ms| {
            let lacking = [Some(later + Duration::from_millis(ms))];
            proxies(Whose::Everybody, &lacking).count(&work.open[&key("a")])
        };
        assert_eq!((count(500), count(501)), ((1, 0), (1, 1)));
    }

    #[test]
    fn nobody_is_asked_about_what_did_not_change() {
        let (mut work, start) = (Work::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        work.touch([key("a"), key("b")]);
        assert!(!work.is_due(&[], (1, 1), start), "none is ready");
        let ready = [key("a")];
        assert!(work.is_due(&ready, (1, 1), start));
        assert!(work.is_due(&ready, (1, 1), start), "not settled yet");
        work.open.get_mut(&key("a")).unwrap().is_right = true;
        assert!(!work.is_due(&ready, (1, 1), after(1)));
        assert!(
            work.is_due(&ready, (1, 0), after(2)),
            "the proxies did change"
        );
        assert!(!work.is_due(&ready, (1, 0), after(6)));
        assert!(work.is_due(&ready, (1, 0), after(7)), "others did, perhaps");
        work.touch([key("a")]);
        assert!(work.is_due(&ready, (1, 0), after(8)));
    }
}
