//! Hot upgrade: a new process takes the listening sockets over from the old one while the application runs.
//!
//! | step | who | what |
//! |---|---|---|
//! | ask | new | connects to the old one's door ([`Door`]) and says which protocol it speaks |
//! | give | old | sends a copy of every listening socket, and of the door; goes on accepting |
//! | get ready | new | obtains an identity and the policy; accepts nothing yet |
//! | accept | new | opens what it lacks, accepts on everything |
//! | ready | new | says so |
//! | leave | old | accepts nothing any more, lets its connections end, exits |
//!
//! A copy shares the queue of the original: what the kernel has accepted for either is found by whoever looks, so nothing
//! is lost with a process that goes, nor with one that has more or fewer workers. Until "ready" the old one serves as if
//! nobody had asked, and if the word never comes it goes on.
//!
//! Both ends belong to one user: the kernel says whose process is on the other side, and anyone else is turned away.
//! Messages are one datagram each, of bounded size and number, in a versioned protocol.

mod channel;
mod door;
mod taken;

pub use door::{Door, Doorway};
pub use taken::{Taken, take};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is spoken; a process with another one is told so, and both go on as they are.
const PROTOCOL: u32 = 1;
/// Most sockets that are passed on. A proxy has a few for each worker.
const MOST_SOCKETS: usize = 8192;
/// Longest wait for one message that needs no thinking.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a new process may take to obtain an identity and the policy.
pub const GET_READY: Duration = Duration::from_secs(60);
/// How long the old one waits for it: longer, so that never both believe to be the one.
const HOLD: Duration = Duration::from_secs(90);

/// What the two say to each other.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// New: may I have the sockets?
    Take { protocol: u32, version: String },
    /// Old: no, and why not.
    Refused { why: String },
    /// Old: here is one.
    Socket { what: What },
    /// Old: those were all.
    End { count: usize },
    /// New: I accept.
    Ready,
    /// Old: I do not any more.
    Yours,
}

/// What a passed socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// A TCP listener; its address says which.
    Listener,
    /// Where the next process asks.
    Door,
}

#[cfg(test)]
mod tests;
