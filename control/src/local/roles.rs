//! Hidden programs inside `meshctl`: what the node starts itself as. They must run before any thread exists.

use std::path::Path;

use super::{enter, pause, sandbox};

/// The node: sandbox and supervisor.
pub(crate) const SUPERVISE: &str = "local-supervise";
/// Holds a pod's namespaces.
pub(crate) const PAUSE: &str = "local-pause";
/// Goes into a pod and becomes a program there.
pub(crate) const ENTER: &str = "local-enter";

/// To be called first in `main`, before any runtime is built. If the arguments name a hidden role, plays it and returns
/// its exit code.
#[must_use]
pub fn dispatch() -> Option<i32> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    let path = args.next();
    let path = path.as_deref().map(Path::new);
    match (role.to_str()?, path) {
        (SUPERVISE, Some(path)) => Some(sandbox::supervise(path)),
        (PAUSE, Some(path)) => Some(pause::run(path)),
        (ENTER, Some(path)) => Some(enter::run(path)),
        _ => None,
    }
}
