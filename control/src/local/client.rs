//! The handle on a running node: blocking calls over its Unix socket, from the CLI, the demo and the tests.

use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;

use super::wire::{PodInfo, Reply, Request, ServiceInfo, Status};

/// Name of the socket in the state folder.
pub(crate) const SOCKET: &str = "node.sock";
/// How long a node may take to end.
const ENDED: Duration = Duration::from_secs(60);

/// A handle on a running node. Cheap; every call is its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    state: PathBuf,
}

/// A command to run in a pod.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// Namespace; empty means `default`.
    pub namespace: String,
    /// Pod name, `deploy/NAME` for one of its pods, or `node` for the node's own namespace.
    pub pod: String,
    /// Container whose mounts and environment to use; the first one by default.
    pub container: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

impl Exec {
    /// `command` in `pod` of the namespace `default`.
    pub fn new<S: Into<String>>(pod: &str, command: impl IntoIterator<Item = S>) -> Self {
        Self {
            pod: pod.into(),
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Client {
    /// The node with this state folder; an error if none runs there.
    pub fn open(state: &Path) -> Result<Self> {
        let client = Self {
            state: state.to_owned(),
        };
        client.connect()?;
        Ok(client)
    }

    /// State folder of the node.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The node as a whole.
    pub fn status(&self) -> Result<Status> {
        self.ask(&Request::Status)
    }

    /// Every pod, ordered by namespace and name.
    pub fn pods(&self) -> Result<Vec<PodInfo>> {
        self.ask(&Request::Pods)
    }

    /// Every Service, ordered by namespace and name.
    pub fn services(&self) -> Result<Vec<ServiceInfo>> {
        self.ask(&Request::Services)
    }

    /// Keep these manifests under that file name; the same name again replaces them. Returns what is wrong with them.
    pub fn apply(&self, name: &str, text: &str) -> Result<Vec<String>> {
        self.ask(&Request::Apply {
            name: name.into(),
            text: text.into(),
        })
    }

    /// Forget what was applied under that file name. Returns what is odd about it.
    pub fn delete_file(&self, name: &str) -> Result<Vec<String>> {
        self.ask(&Request::DeleteFile { name: name.into() })
    }

    /// Forget one applied object; deleting a pod of a workload makes a new one. Returns what is odd about it.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<Vec<String>> {
        self.ask(&Request::DeleteObject {
            kind: kind.into(),
            namespace: or_default(namespace),
            name: name.into(),
        })
    }

    /// Replace the pods of a workload one after another.
    pub fn restart(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.ask(&Request::Restart {
            kind: kind.into(),
            namespace: or_default(namespace),
            name: name.into(),
        })
    }

    /// Wait until every pod is ready (or finished) and every rollout is done.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        self.ask(&Request::Wait {
            seconds: timeout.as_secs().max(1),
        })
    }

    /// Run a command in a pod on the given descriptors; returns its exit code.
    pub fn exec(&self, exec: &Exec, stdio: [BorrowedFd<'_>; 3]) -> Result<i32> {
        let request = Request::Exec {
            namespace: or_default(&exec.namespace),
            pod: exec.pod.clone(),
            container: exec.container.clone(),
            command: exec.command.clone(),
            env: exec.env.clone(),
        };
        let stream = self.connect()?;
        send(&stream, &request, &stdio.map(|fd| fd.as_raw_fd()))?;
        answer(BufReader::new(stream))
    }

    /// Run a command in a pod with no input and collect what it prints.
    pub fn output(&self, exec: &Exec) -> Result<Output> {
        let null = std::fs::File::open("/dev/null")?;
        let (mut out, out_end) = std::io::pipe()?;
        let (mut err, err_end) = std::io::pipe()?;
        let (client, exec) = (self.clone(), exec.clone());
        let run = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            client.exec(&exec, [null.as_fd(), out_end.as_fd(), err_end.as_fd()])
        });
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            err.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut stdout = Vec::new();
        out.read_to_end(&mut stdout)?;
        let stderr = errors
            .join()
            .map_err(|_| anyhow!("reader of stderr ended"))??;
        let code = run.join().map_err(|_| anyhow!("exec ended"))??;
        Ok(Output {
            code,
            stdout,
            stderr,
        })
    }

    /// A TCP connection made inside the node (or inside `(namespace, pod)`), usable from outside.
    pub fn dial(&self, from: Option<(&str, &str)>, to: SocketAddr) -> Result<std::net::TcpStream> {
        let (namespace, pod) = from.map_or((String::new(), None), |(ns, pod)| {
            (ns.into(), Some(pod.into()))
        });
        let stream = self.connect()?;
        send(&stream, &Request::Dial { namespace, pod, to }, &[])?;
        let (reply, fd) = receive_with_descriptor(&stream)?;
        let _: serde_json::Value = open_reply(&reply)?;
        Ok(fd.ok_or_else(|| anyhow!("the node sent no socket"))?.into())
    }

    /// File with the output of a container.
    pub fn log_file(&self, namespace: &str, pod: &str, container: Option<&str>) -> Result<PathBuf> {
        self.ask(&Request::LogFile {
            namespace: or_default(namespace),
            pod: pod.into(),
            container: container.map(Into::into),
        })
    }

    /// Send a signal to the controller (9 kills it, as a fault); it comes back by itself if it is restarted.
    pub fn signal_control(&self, signal: i32) -> Result<()> {
        self.ask(&Request::Control {
            signal: Some(signal),
            start: false,
        })
    }

    /// Start the controller if it is not running, with `restart_control` off.
    pub fn start_control(&self) -> Result<()> {
        self.ask(&Request::Control {
            signal: None,
            start: true,
        })
    }

    /// End the node; returns when everything is gone.
    pub fn down(&self) -> Result<()> {
        let _: serde_json::Value = self.ask(&Request::Down)?;
        let deadline = Instant::now() + ENDED;
        let lock = self.state.join(super::start::LOCK);
        while !super::start::is_free(&lock) {
            if Instant::now() > deadline {
                bail!("the node has not ended within {ENDED:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn connect(&self) -> Result<UnixStream> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        let state = self.state.display();
        super::sys::connect_in(&self.state, SOCKET).map_err(|error| match error.kind() {
            NotFound | ConnectionRefused => {
                anyhow!("no node runs at {state} (start one: meshctl local up; that of a demonstration is named by --state)")
            }
            PermissionDenied => {
                anyhow!("the node at {state} belongs to another user; name your own with --state")
            }
            _ => anyhow!(error).context(format!("cannot reach the node at {state}")),
        })
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let stream = self.connect()?;
        send(&stream, request, &[])?;
        answer(BufReader::new(stream))
    }
}

fn or_default(namespace: &str) -> String {
    if namespace.is_empty() {
        "default".into()
    } else {
        namespace.into()
    }
}

fn send(stream: &UnixStream, request: &Request, fds: &[RawFd]) -> Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[std::io::IoSlice::new(&line)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    let mut rest = stream;
    rest.write_all(&line[sent..])?;
    Ok(())
}

fn answer<T: DeserializeOwned>(mut from: impl BufRead) -> Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    open_reply(line.as_bytes())
}

fn open_reply<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    if line.is_empty() {
        bail!("the node ended before it answered");
    }
    match serde_json::from_slice(line)? {
        Reply::Ok(value) => Ok(serde_json::from_value(value)?),
        Reply::Error(message) => bail!(message),
    }
}

/// One line and at most one descriptor.
fn receive_with_descriptor(stream: &UnixStream) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; 64 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut found = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            found = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok((bytes, found))
}
