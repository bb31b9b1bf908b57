//! The access log: a line for each request that a filter lets pass, on standard output.
//!
//! Lines are formatted and written by a thread of their own: whoever reads slowly, or not at all, holds up nobody. What
//! does not fit into the queue is not written, and counted. Queries are left out unless asked for: they carry what
//! belongs into no log.

mod line;

use super::Story;
use crate::http::body::End;
use crate::metrics::{Count, Metrics};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that wait to be written.
const QUEUE: usize = 8192;
/// Of these, how many may wait as they are, each with the buffer that its request came in.
const AS_THEY_ARE: usize = 256;
/// Bytes that are written at once.
const TOGETHER: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As web servers write them ("common log format"), with more behind.
    Common,
    /// One JSON object for each line.
    Json,
}

/// Which requests get a line: all, or those that one of the conditions names, and a share of the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// First digits of the statuses, as bits.
    classes: u8,
    slower: Option<Duration>,
    errors: bool,
    denied: bool,
    /// Of those that nothing else names; `None`: none, or all where nothing else is said.
    share: Option<f64>,
}

/// How it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How lines look.
    pub form: Form,
    /// Which requests get one.
    pub filter: Filter,
    /// With queries?
    pub query: bool,
}

/// Takes stories in.
pub struct AccessLog {
    filter: Filter,
    queue: SyncSender<Told>,
    waiting: Arc<AtomicUsize>,
    dropped: Count,
}

enum Told {
    Story(Box<Story>),
    /// Everything before it is to be written; then this is to be answered.
    Flush(SyncSender<()>),
}

impl std::str::FromStr for Filter {
    type Err = String;

    /// `5xx,4xx,errors,denied,slower=250ms,sample=0.01`
    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match word.split_once('=') {
                None => match word {
                    "errors" => filter.errors = true,
                    "denied" => filter.denied = true,
                    "1xx" | "2xx" | "3xx" | "4xx" | "5xx" => {
                        filter.classes |= 1 << (word.as_bytes()[0] - b'0');
                    }
                    _ => return Err(wrong()),
                },
                Some(("slower", time)) => filter.slower = Some(crate::config::duration(time)?),
                Some(("sample", share)) => filter.share = Some(super::share(share)?),
                _ => return Err(wrong()),
            }
        }
        Ok(filter)
    }
}

fn wrong() -> String {
    "must be conditions like 5xx,errors,denied,slower=250ms,sample=0.01".to_owned()
}

impl Filter {
    fn wants(&self, story: &Story, chance: f64) -> bool {
        let ending = story.ending();
        let class = u32::from(story.status / 100).min(7);
        let named = self.classes & (1 << class) != 0
            || (self.errors && (story.error.is_some() || broke_off(ending.body)))
            || (self.denied && story.denied())
            || self.slower.is_some_and(|slower| ending.took >= slower);
        let says_nothing = *self == Self::default();
        named || says_nothing || self.share.is_some_and(|share| chance < share)
    }
}

/// The client did not get its whole answer, and did not give it up itself.
fn broke_off(body: Option<End>) -> bool {
    matches!(body, Some(End::Broken | End::Late))
}

impl AccessLog {
    /// Begins to write to `out`.
    pub fn start(
        settings: Settings,
        metrics: &Metrics,
        out: impl Write + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, told) = sync_channel(QUEUE);
        let dropped = metrics.access_lines("dropped");
        let waiting = Arc::<AtomicUsize>::default();
        let writer = Writer {
            form: settings.form,
            query: settings.query,
            waiting: waiting.clone(),
            written: metrics.access_lines("written"),
            dropped: dropped.clone(),
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&told, out))?;
        Ok(Self {
            filter: settings.filter,
            queue,
            waiting,
            dropped,
        })
    }

    pub(super) fn tell(&self, mut story: Box<Story>) {
        if !self.filter.wants(&story, fastrand::f64()) {
            return;
        }
        if self.waiting.fetch_add(1, Relaxed) >= AS_THEY_ARE {
            story.detach();
        }
        if self.queue.try_send(Told::Story(story)).is_err() {
            self.waiting.fetch_sub(1, Relaxed);
            self.dropped.inc();
        }
    }

    /// Waits until everything told so far is written, not for long.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Told::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

struct Writer {
    form: Form,
    query: bool,
    waiting: Arc<AtomicUsize>,
    written: Count,
    dropped: Count,
}

impl Writer {
    fn run(self, told: &Receiver<Told>, mut out: impl Write) {
        let mut text = Vec::with_capacity(TOGETHER);
        while let Ok(first) = told.recv() {
            let (mut next, mut lines, mut flushes) = (Some(first), 0, Vec::new());
            while let Some(one) = next {
                match one {
                    Told::Story(story) => {
                        self.waiting.fetch_sub(1, Relaxed);
                        line::write(&mut text, &story, self.form, self.query);
                        lines += 1;
                    }
                    Told::Flush(done) => flushes.push(done),
                }
                next = (text.len() < TOGETHER)
                    .then(|| told.try_recv().ok())
                    .flatten();
            }
            // A log that cannot be written is no reason to stop; the next line may fare better.
            let done = out.write_all(&text).and_then(|()| out.flush());
            let count = match done {
                Ok(()) => &self.written,
                Err(_) => &self.dropped,
            };
            count.add(lines);
            text.clear();
            for done in flushes {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
