//! What serving counts. Plain atomics: they are read by `admin.rs`, which alone spells their names.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything the servers count since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections closed at once, because their address has too many.
    pub connections_refused: Counter,
    /// Connections that ended in the TLS handshake, or whose certificate names no workload of ours.
    pub handshakes_failed: Counter,
    /// Times accepting failed for want of descriptors or memory.
    pub accept_errors: Counter,
    /// Items sent on Sync streams, by kind: `unchanged`, `whole`, `delta`.
    pub items: [Counter; 3],
    /// Answers not sent because no proxy could take them.
    pub too_large: Counter,
    /// Messages sent on Sync streams.
    pub messages: Counter,
    /// Versions proxies took over.
    pub acks: Counter,
    /// Versions proxies refused.
    pub nacks: Counter,
    /// Sync streams refused.
    pub streams_refused: Counter,
    /// Certificates signed.
    pub certificates: Counter,
    /// Traffic summaries taken in.
    pub summaries: Counter,
    /// Answers of other controllers.
    pub peers_asked: Counter,
    /// Times another controller did not answer.
    pub peers_silent: Counter,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    webhook: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts a certificate that was not signed. `reason` is one of a fixed list of labels.
    pub fn certificate_refused(&self, reason: &'static str) {
        *self.refused.lock().entry(reason).or_default() += 1;
    }

    /// Counts an answer of the webhook. `outcome` is one of a fixed list of labels.
    pub fn webhook_answered(&self, outcome: &'static str) {
        *self.webhook.lock().entry(outcome).or_default() += 1;
    }

    /// Answers of the webhook, by outcome.
    pub fn webhook_answers(&self) -> BTreeMap<&'static str, u64> {
        self.webhook.lock().clone()
    }

    /// Certificates not signed, by reason.
    pub fn certificates_refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().clone()
    }
}
