//! Folders of manifests, watched for changes: the kernel says when to look, and a look now and then finds what it does
//! not tell (links that lead elsewhere, network file systems).

use super::Event;
use super::scan::{Look, Scanner, is_manifest};
use crate::smi::Groups;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

/// Between two looks when the kernel tells of every change.
const SAFETY: Duration = Duration::from_secs(3);
/// Between two looks when it does not.
const POLL: Duration = Duration::from_millis(250);
/// Changes come in bursts; and what was just written may be half written.
const BURST: Duration = Duration::from_millis(30);

/// Watches `dirs` until the receiver is dropped. An object of a later folder replaces the same one of an earlier folder.
/// The first events end with [`Event::Synced`]. A folder that is missing is reported, and waited for.
pub fn watch(dirs: Vec<PathBuf>, tx: mpsc::Sender<Vec<Event>>) -> JoinHandle<()> {
    let (_, nobody) = mpsc::channel(1);
    watch_and_answer(dirs, Groups::Current, tx, nobody)
}

/// As [`watch`]. Who sends a number is answered by [`Event::Reached`] with it (or a later one) after the events of all that
/// was in the folders by then.
pub fn watch_and_answer(
    dirs: Vec<PathBuf>,
    groups: Groups,
    tx: mpsc::Sender<Vec<Event>>,
    asks: mpsc::Receiver<u64>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let bell = Bell::new();
        follow(Scanner::new(dirs, groups), tx, bell, asks).await;
    })
}

/// Without a bell the folders are polled.
async fn follow(
    mut scanner: Scanner,
    tx: mpsc::Sender<Vec<Event>>,
    bell: Option<Arc<Bell>>,
    mut asks: mpsc::Receiver<u64>,
) {
    let mut asked = None;
    loop {
        // Before the look, which then sees whatever was there when it was asked for.
        while let Ok(number) = asks.try_recv() {
            asked = asked.max(Some(number));
        }
        let Some((next, mut look)) = look(scanner, bell.clone()).await else {
            return;
        };
        scanner = next;
        let pause = match (look.unsettled, look.blind || bell.is_none()) {
            (true, _) => BURST,
            (false, true) => POLL,
            (false, false) => SAFETY,
        };
        if !look.unsettled {
            look.events.extend(asked.take().map(Event::Reached));
        }
        if !look.events.is_empty() && tx.send(look.events).await.is_err() {
            return;
        }
        tokio::select! {
            () = tx.closed() => return,
            Some(number) = asks.recv(), if !look.unsettled => asked = Some(number),
            () = ring(bell.as_deref(), pause) => {}
        }
    }
}

/// A look blocks on the file system, so it is done elsewhere. `None`: it panicked, or the runtime is going down.
async fn look(mut scanner: Scanner, bell: Option<Arc<Bell>>) -> Option<(Scanner, Look)> {
    let looked = spawn_blocking(move || {
        let look = scanner.look(|folder| bell.iter().for_each(|bell| bell.add(folder)));
        (scanner, look)
    });
    looked.await.ok()
}

/// Returns when it is time to look again, at the latest after `pause`.
async fn ring(bell: Option<&Bell>, pause: Duration) {
    match bell {
        None => sleep(pause).await,
        Some(bell) => {
            if timeout(pause, bell.rung()).await.is_ok() {
                sleep(BURST).await;
                bell.drain();
            }
        }
    }
}

/// The kernel's notice of changes.
struct Bell(AsyncFd<Fd>);

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Bell {
    fn new() -> Option<Arc<Self>> {
        Self::open()
            .inspect_err(
                |error| tracing::warn!(%error, "inotify is not available: folders are polled"),
            )
            .ok()
            .map(Arc::new)
    }

    fn open() -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: `Fd` owns one descriptor, always returns that one, and closes it only when dropped.
        let registered = unsafe { AsyncFd::register(Fd(inotify)) };
        Ok(Bell(registered.map_err(|error| error.into_parts().1)?))
    }

    /// A folder that cannot be watched is found by the look now and then.
    fn add(&self, folder: &Path) {
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if let Err(error) = self.0.get_ref().0.add_watch(folder, what) {
            tracing::debug!(%error, folder = %folder.display(), "not watched");
        }
    }

    /// Waits for a change that matters.
    async fn rung(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return;
            };
            if self.drain() {
                return;
            }
            ready.clear_ready();
        }
    }

    /// Takes what the kernel has to tell; true if something of it matters.
    fn drain(&self) -> bool {
        let mut matters = false;
        while let Ok(events) = self.0.get_ref().0.read_events() {
            matters |= events.iter().any(is_relevant);
        }
        matters
    }
}

/// A folder (or a link, such as `..data`) may contain anything; of files only manifests matter.
fn is_relevant(event: &InotifyEvent) -> bool {
    let Some(name) = &event.name else { return true };
    let hidden_link = name.as_encoded_bytes().starts_with(b"..");
    event.mask.contains(AddWatchFlags::IN_ISDIR)
        || hidden_link
        || is_manifest(Path::new(name))
        || is_link_made(event)
}

/// A link to a folder is told about as a file.
fn is_link_made(event: &InotifyEvent) -> bool {
    let made = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM;
    let bare = event
        .name
        .as_ref()
        .is_some_and(|name| !name.as_encoded_bytes().contains(&b'.'));
    bare && event.mask.intersects(made)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// How long anything may take on a busy machine; nobody waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_kernel_tells_of_every_change() {
        let (dir, bell) = (tempfile::tempdir().unwrap(), Bell::new().unwrap());
        bell.add(dir.path());
        for round in 0..5 {
            std::fs::write(dir.path().join("a.yaml"), round.to_string()).unwrap();
            timeout(PATIENCE, bell.rung()).await.expect("it rings");
        }
        std::fs::write(dir.path().join("a.txt"), "").unwrap();
        assert!(!bell.drain(), "no manifest");
    }

    #[tokio::test]
    async fn without_notices_the_folder_is_polled() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, mut events) = mpsc::channel(16);
        let (asks, asked) = mpsc::channel(1);
        let scanner = Scanner::new(vec![dir.path().to_owned()], Groups::Current);
        tokio::spawn(follow(scanner, tx, None, asked));
        assert_eq!(events.recv().await.unwrap(), [Event::Synced]);
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
        std::fs::write(dir.path().join("a.yaml"), text).unwrap();
        let heard = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        assert!(matches!(&heard[..], [Event::Apply(_)]), "{heard:?}");
        std::fs::write(dir.path().join("a.yaml"), text.replace(": a", ": b")).unwrap();
        asks.send(7).await.unwrap();
        let mut all = Vec::new();
        while all.last() != Some(&Event::Reached(7)) {
            all.extend(events.recv().await.unwrap());
        }
        let told = |wanted: &Event| {
            all.iter()
                .any(|it| std::mem::discriminant(it) == std::mem::discriminant(wanted))
        };
        assert!(told(&heard[0]), "what was there is told first: {all:?}");
    }
}
