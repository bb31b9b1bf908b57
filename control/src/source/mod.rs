//! Where objects come from. A source sends events; it knows nothing of what they mean.

pub mod dir;
pub mod folders;
pub mod kube;
mod scan;

use crate::manifest::{Loaded, ObjectKey, Problem};
use std::sync::Arc;

/// What happened in a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object is new or different.
    Apply(Loaded),
    /// An object is gone.
    Delete(ObjectKey),
    /// An object is new or different that is written under the old name of its group: it stands in for one that is not there.
    ApplyLegacy(Loaded),
    /// Such an object is gone.
    DeleteLegacy(ObjectKey),
    /// All that is wrong with one file now; empty: nothing any more.
    Problems {
        /// The file.
        file: Arc<str>,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// Everything that was there at the start has been sent. Once.
    Synced,
    /// Everything that was there when this number was asked for has been sent.
    Reached(u64),
}

#[cfg(test)]
mod tests;
