//! Destinations in use by one worker: where an address leads, its HTTP stack, and who speaks first there.

use crate::discover::Discover;
use crate::error::Error;
use crate::http::HttpService;
use crate::metrics::EdgeMetrics;
use crate::policy::Destination;
use crate::stack::{self, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Destinations kept for later connections; beyond that each connection has its own.
const MAX: usize = 4096;
/// How long a destination is kept after its last connection.
const IDLE: Duration = Duration::from_secs(60);
/// The same where there are [`MANY`].
const IDLE_AMONG_MANY: Duration = Duration::from_secs(10);
/// So many that somebody seems to call another one each time.
const MANY: usize = MAX / 4;

/// The destinations of one worker.
#[derive(Default)]
pub struct Destinations(Mutex<HashMap<SocketAddr, Entry>>);

struct Entry {
    known: Arc<Known>,
    used: Instant,
}

/// One destination.
pub struct Known {
    /// Where it leads.
    pub destination: Arc<Destination>,
    http: Mutex<Option<Stack>>,
    first: AtomicU8,
}

/// A stack, and the series that it was made with: those of another kind of destination have other labels.
struct Stack {
    edge: Arc<EdgeMetrics>,
    service: HttpService,
}

/// Who spoke first on earlier connections to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum First {
    /// Not seen yet.
    Unknown = 0,
    /// The client, as in HTTP.
    Client = 1,
    /// The server, as in MySQL and SMTP.
    Server = 2,
}

impl Destinations {
    /// Where `target` leads.
    pub async fn get(&self, discover: &Discover, target: SocketAddr) -> Result<Arc<Known>, Error> {
        if let Some(entry) = self.0.lock().get_mut(&target) {
            entry.used = Instant::now();
            return Ok(entry.known.clone());
        }
        let destination = discover.outbound(target).await?;
        let known = Arc::new(Known::new(destination));
        let mut all = self.0.lock();
        if all.len() < MAX || all.contains_key(&target) {
            // Somebody else may have asked meanwhile; the first answer stays.
            let entry = all.entry(target).or_insert(Entry {
                known,
                used: Instant::now(),
            });
            return Ok(entry.known.clone());
        }
        Ok(known)
    }

    /// Forgets what has had no connection for a while.
    pub fn sweep(&self, now: Instant) {
        let mut all = self.0.lock();
        let idle = if all.len() < MANY {
            IDLE
        } else {
            IDLE_AMONG_MANY
        };
        all.retain(|_, entry| {
            let in_use = Arc::strong_count(&entry.known) > 1;
            if in_use {
                entry.used = now;
            }
            in_use || now.saturating_duration_since(entry.used) < idle
        });
        if all.capacity() > 4 * all.len().max(MANY) {
            all.shrink_to(MANY);
        }
    }
}

impl Known {
    /// Nothing was seen of it yet.
    pub fn new(destination: Arc<Destination>) -> Self {
        Self {
            destination,
            http: Mutex::default(),
            first: AtomicU8::new(0),
        }
    }

    /// The stack that the HTTP requests of a connection go through; made for the first one, and anew when the destination
    /// has become something else.
    pub fn http(&self, shared: &Arc<Shared>) -> HttpService {
        let edge = stack::edge(shared, &self.destination);
        let mut http = self.http.lock();
        match &*http {
            Some(known) if Arc::ptr_eq(&known.edge, &edge) => known.service.clone(),
            _ => {
                let service = stack::outbound(shared, &self.destination);
                let known = http.insert(Stack { edge, service });
                known.service.clone()
            }
        }
    }

    /// Who spoke first.
    pub fn first(&self) -> First {
        match self.first.load(Ordering::Relaxed) {
            1 => First::Client,
            2 => First::Server,
            _ => First::Unknown,
        }
    }

    /// Remembers who spoke first.
    pub fn saw(&self, first: First) {
        self.first.store(first as u8, Ordering::Relaxed);
    }
}
