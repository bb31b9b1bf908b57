#![allow(clippy::unwrap_used)]
use super::channel::Channel;
use super::door::new_socket;
use super::*;
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A folder nobody else may write into.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weft-door-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn door(&self) -> PathBuf {
        self.0.join("door")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An old process with these listeners; how often a new one failed, and the end of the hand-over.
fn old(
    at: &Path,
    listeners: Vec<std::net::TcpListener>,
) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<bool>) {
    let doorway = Door::open(at).unwrap().giving(listeners).unwrap();
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = failed.clone();
    let given = tokio::spawn(async move {
        let mut left = false;
        let count = move || {
            counted.fetch_add(1, Relaxed);
        };
        doorway.hand_over(count, || left = true).await;
        left
    });
    (failed, given)
}

fn connect(at: &Path) -> Channel {
    let socket = new_socket().unwrap();
    socket.connect(&SockAddr::unix(at).unwrap()).unwrap();
    Channel::new(socket).unwrap()
}

#[tokio::test]
async fn a_new_process_gets_every_listener_and_what_waits_in_its_queue() {
    let folder = Folder::new("all");
    let listeners = [listener(), listener()];
    let addresses = listeners.each_ref().map(|one| one.local_addr().unwrap());
    let waiting = std::net::TcpStream::connect(addresses[1]).unwrap();
    let (_, given) = old(&folder.door(), listeners.into());
    let taken = take(&folder.door()).await.unwrap();
    let got: Vec<_> = taken
        .listeners
        .iter()
        .map(|one| one.local_addr().unwrap())
        .collect();
    assert_eq!(got, addresses);
    assert!(!given.is_finished(), "nothing is left before the word");
    taken.word.ready().await;
    assert!(given.await.unwrap());
    // The old process is gone, and the client that it never accepted is still there.
    let (_, client) = taken.listeners[1].accept().unwrap();
    assert_eq!(client, waiting.local_addr().unwrap());
    // And the next process can ask in its turn.
    let again = taken.door.unwrap().giving(taken.listeners).unwrap();
    let next = tokio::spawn(async move { again.hand_over(|| {}, || {}).await });
    let taken = take(&folder.door()).await.unwrap();
    assert_eq!(taken.listeners.len(), 2);
    taken.word.ready().await;
    next.await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_get_ready_changes_nothing() {
    let folder = Folder::new("fails");
    let (failed, given) = old(&folder.door(), vec![listener()]);
    drop(take(&folder.door()).await.unwrap());
    // Out of turn, of another protocol, and nonsense.
    let channel = connect(&folder.door());
    channel.send(&Message::Ready, None).await.unwrap();
    assert!(channel.receive().await.is_err());
    let channel = connect(&folder.door());
    let (protocol, version) = (PROTOCOL + 1, "9".to_owned());
    let other = Message::Take { protocol, version };
    channel.send(&other, None).await.unwrap();
    let (answer, none) = channel.receive().await.unwrap();
    assert!(matches!(answer, Message::Refused { .. }) && none.is_none());
    let nonsense = new_socket().unwrap();
    nonsense
        .connect(&SockAddr::unix(folder.door()).unwrap())
        .unwrap();
    nonsense.send(&[0xff; 4000]).unwrap();
    // Still there for one that does.
    let taken = take(&folder.door()).await.unwrap();
    taken.word.ready().await;
    assert!(given.await.unwrap());
    assert_eq!(failed.load(Relaxed), 4);
}

#[tokio::test]
async fn what_is_passed_must_be_a_listener() {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    for end in [&ours, &theirs] {
        end.set_nonblocking(true).unwrap();
    }
    let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
    ours.check_peer().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let what = What::Listener;
    let message = Message::Socket { what };
    ours.send(&message, Some(file.as_fd())).await.unwrap();
    let (_, descriptor) = theirs.receive().await.unwrap();
    assert!(super::taken::listener(descriptor.unwrap()).is_err());
    let longest = Message::Refused {
        why: "x".repeat(2000),
    };
    ours.send(&longest, None).await.unwrap();
    assert!(theirs.receive().await.is_err(), "longer than any message");
}

#[tokio::test]
async fn a_door_stands_where_nobody_else_may_put_one() {
    let folder = Folder::new("where");
    let door = Door::open(&folder.door()).unwrap();
    assert!(Door::open(&folder.door()).is_err(), "somebody lives there");
    drop(door);
    let door = Door::open(&folder.door()).unwrap();
    drop(door);
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        Door::open(&folder.door()).is_err(),
        "others may write there"
    );
    assert!(take(&folder.0.join("none")).await.is_err());
}
