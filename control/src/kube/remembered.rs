//! Answers of the API server that count for a moment, so that who asks the same again costs it nothing.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long an answer counts. A token outlives the pod it is bound to by this and the ten seconds that the API server
/// itself remembers.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10);
/// Answers remembered at once.
const MOST: usize = 4_096;

/// Answers by question.
pub(super) struct Remembered<Q, A>(Mutex<HashMap<Q, (Instant, A)>>);

impl<Q, A> Default for Remembered<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q: Eq + Hash, A: Clone> Remembered<Q, A> {
    /// The answer, if there was one lately.
    pub(super) fn recall(&self, question: &Q, now: Instant) -> Option<A> {
        let remembered = self.0.lock();
        let (until, answer) = remembered.get(question)?;
        (now < *until).then(|| answer.clone())
    }

    /// Keeps an answer; when there are too many, those that count no more are forgotten, and all if that is not enough.
    pub(super) fn keep(&self, question: Q, answer: A, now: Instant) {
        let mut remembered = self.0.lock();
        if remembered.len() >= MOST {
            remembered.retain(|_, (until, _)| now < *until);
        }
        if remembered.len() >= MOST {
            remembered.clear();
        }
        remembered.insert(question, (now + REMEMBERED, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_a_moment_and_there_are_never_too_many() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        remembered.keep(0, "early", now);
        let later = now + REMEMBERED;
        for question in 1..MOST {
            remembered.keep(question, "late", later);
        }
        let soon = later - Duration::from_millis(1);
        assert_eq!(remembered.recall(&0, soon), Some("early"));
        assert_eq!(remembered.recall(&0, later), None);
        // Full: those that count no more go first.
        remembered.keep(MOST, "late", later);
        assert_eq!(remembered.recall(&1, later), Some("late"));
        assert_eq!(remembered.0.lock().len(), MOST);
        // Full of answers that count: all go.
        remembered.keep(MOST + 1, "last", later);
        assert_eq!(remembered.0.lock().len(), 1);
        assert_eq!(remembered.recall(&(MOST + 1), later), Some("last"));
    }
}
