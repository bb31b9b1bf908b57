//! The namespaces a node lives in, and the ladder of ways to get them. Everything here runs while the process has a
//! single thread: a user namespace cannot be entered otherwise.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};

use super::bridge::Bridge;
use super::options::{Options, Rung};
use super::start::{CONFIG, LOCK};
use super::sys::in_words;

/// What a node keeps in its state folder, and removes.
pub(crate) const OWNED: &[&str] = &[
    "node.sock",
    "pods",
    "objects",
    "applied",
    "control",
    "logs",
    "supervisor.log",
    "xtables.lock",
    CONFIG,
];

/// The step that failed, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    step: &'static str,
    why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.why)
    }
}

fn step(step: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| Refused {
        step,
        why: in_words(errno),
    }
}

fn io_step(name: &'static str) -> impl Fn(std::io::Error) -> Refused {
    move |error| step(name)(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// The supervisor's role: make the sandbox, run the node as its PID 1, clean up after it. Returns the exit code.
pub(crate) fn supervise(state: &Path) -> i32 {
    match prepare(state) {
        Ok(prepared) => run(state, prepared),
        Err(error) => {
            report(&format!("{error:#}"));
            1
        }
    }
}

/// One line to whoever started us. Line breaks are kept as \u{1}.
pub(crate) fn report(error: &str) {
    println!("error {}", error.replace('\n', "\u{1}"));
    let _ = std::io::stdout().flush();
}

struct Prepared {
    options: Options,
    rung: Rung,
    reason: String,
    _lock: File,
}

fn prepare(state: &Path) -> Result<Prepared> {
    let text = fs::read(state.join(CONFIG)).context("cannot read the node's options")?;
    let options: Options = serde_json::from_slice(&text)?;
    let lock = File::create(state.join(LOCK))?;
    if lock.try_lock().is_err() {
        bail!("a node is already running at {}", state.display());
    }
    let (rung, reason) = choose(options.rung)?;
    if rung != Rung::Loopback {
        namespaces(rung).map_err(|refused| anyhow::anyhow!("{refused}"))?;
    }
    Ok(Prepared {
        options,
        rung,
        reason,
        _lock: lock,
    })
}

/// The first rung that works, and a sentence on why this one.
fn choose(forced: Option<Rung>) -> Result<(Rung, String)> {
    if let Some(rung) = forced {
        if rung != Rung::Loopback {
            probe(rung).map_err(|why| {
                anyhow::anyhow!("--rung {} does not work here: {why}", rung.name())
            })?;
        }
        return Ok((rung, format!("{}: asked for", rung.describe())));
    }
    let root = geteuid().is_root();
    let ladder: &[Rung] = if root {
        &[Rung::Root, Rung::User]
    } else {
        &[Rung::User]
    };
    let mut failed = Vec::new();
    for &rung in ladder {
        match probe(rung) {
            Ok(()) => return Ok((rung, reason(rung, &failed))),
            Err(why) => failed.push((rung, why)),
        }
    }
    Ok((Rung::Loopback, reason(Rung::Loopback, &failed)))
}

/// One line: the rung, and what is wrong with those above it.
fn reason(rung: Rung, failed: &[(Rung, String)]) -> String {
    let why: Vec<_> = failed
        .iter()
        .map(|(rung, why)| format!("rung {} does not work here: {why}", rung.name()))
        .collect();
    match why.as_slice() {
        [] => format!("{}: works here", rung.describe()),
        why => format!("{}: {}", rung.describe(), why.join("; ")),
    }
}

/// Try in a child, so that a failure half way leaves nothing behind.
fn probe(rung: Rung) -> Result<(), String> {
    if rung == Rung::Root && !geteuid().is_root() {
        return Err("this is not root".into());
    }
    let (mut read, write) = std::io::pipe().map_err(|e| e.to_string())?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }.map_err(|e| e.desc().to_string())? {
        ForkResult::Child => {
            drop(read);
            let tried = namespaces(rung)
                .and_then(|()| try_rights())
                .and_then(|()| try_network());
            if let Err(refused) = &tried {
                let _ = (&write).write_all(refused.to_string().as_bytes());
            }
            std::process::exit(i32::from(tried.is_err()));
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut said = String::new();
            let _ = read.read_to_string(&mut said);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok(()),
                _ if said.is_empty() => Err("the probe ended unexpectedly".into()),
                _ => Err(said),
            }
        }
    }
}

/// Into new namespaces; the PID namespace counts from the next child on.
fn namespaces(rung: Rung) -> Result<(), Refused> {
    if rung == Rung::User {
        let (uid, gid) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER).map_err(step("make a user namespace"))?;
        fs::write("/proc/self/setgroups", "deny").map_err(io_step("switch off setgroups"))?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(io_step("map the user"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(io_step("map the group"))?;
    }
    for (flag, name) in [
        (CloneFlags::CLONE_NEWNS, "make a mount namespace"),
        (CloneFlags::CLONE_NEWNET, "make a network namespace"),
        (CloneFlags::CLONE_NEWUTS, "make a host-name namespace"),
        (CloneFlags::CLONE_NEWIPC, "make an IPC namespace"),
        (CloneFlags::CLONE_NEWPID, "make a PID namespace"),
    ] {
        unshare(flag).map_err(step(name))?;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(step("make mounts private"))
}

/// AppArmor lets a namespace be made and then takes its rights away: only using them shows it.
fn try_rights() -> Result<(), Refused> {
    let none: Option<&str> = None;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .map_err(step("mount a tmpfs"))?;
    raise_loopback().map_err(step("switch on the loopback link"))
}

/// A kernel may have network namespaces and yet no bridges or cables.
fn try_network() -> Result<(), Refused> {
    let tried = (|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let bridge = Bridge::set_up().await?;
            bridge.plug("pod0", std::process::id().cast_signed()).await
        })
    })();
    tried.map_err(|error: anyhow::Error| Refused {
        step: "make a network",
        why: format!("{error:#}"),
    })
}

fn raise_loopback() -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")
        .or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    // SAFETY: an all-zero ifreq is valid; the kernel reads and writes only inside it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as i16;
        Errno::result(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &request,
        ))
        .map(drop)
    }
}

fn run(state: &Path, prepared: Prepared) -> i32 {
    let watched = SigSet::from_iter([
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ]);
    let _ = watched.thread_block();
    let (keep, alone) = (prepared.options.keep, prepared.rung == Rung::Loopback);
    if alone {
        // No namespace ends with the node: what it leaves behind must come to us.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
    // SAFETY: this process has one thread, so the child may do anything.
    let code = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let _ = watched.thread_unblock();
            std::process::exit(first_process(prepared));
        }
        Ok(ForkResult::Parent { child }) => {
            close_pipes();
            let code = guard(child, &watched);
            if alone {
                bury();
            }
            code
        }
        Err(error) => {
            report(&format!("cannot start the node: {}", in_words(error)));
            1
        }
    };
    remove(state, keep);
    code
}

/// End everything that is still below us, deeper and deeper.
fn bury() {
    for _ in 0..100 {
        for pid in own_children() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn own_children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else {
        return vec![];
    };
    let pids = processes.flatten().filter_map(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        let pid = process.file_name().to_str()?.parse().ok()?;
        (parent == own).then_some(Pid::from_raw(pid))
    });
    pids.collect()
}

/// PID 1 of the sandbox. If its guard is killed, it goes too, and with it everything in the namespace.
fn first_process(prepared: Prepared) -> i32 {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let none: Option<&str> = None;
    if prepared.rung == Rung::Loopback {
        let _ = nix::sys::prctl::set_child_subreaper(true);
    } else if let Err(error) = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none) {
        eprintln!("note: no /proc of the node's own ({})", in_words(error));
    }
    let Prepared {
        options,
        rung,
        reason,
        _lock,
    } = prepared;
    match super::supervisor::run(options, rung, reason) {
        Ok(()) => 0,
        Err(error) => {
            report(&format!("{error:#}"));
            eprintln!("error: {error:#}");
            1
        }
    }
}

/// The pipes belong to PID 1: with a copy held here, the caller would not see it end.
fn close_pipes() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let null: OwnedFd = null.into();
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

/// Pass signals on, wait for the end; a second request to end is an order.
fn guard(child: Pid, watched: &SigSet) -> i32 {
    let mut asked = false;
    loop {
        match watched.wait() {
            Ok(Signal::SIGCHLD) => match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => return code,
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
                _ => {}
            },
            Ok(_) => {
                let _ = kill(
                    child,
                    if asked {
                        Signal::SIGKILL
                    } else {
                        Signal::SIGTERM
                    },
                );
                asked = true;
            }
            Err(_) => {}
        }
    }
}

fn remove(state: &Path, keep: bool) {
    let _ = fs::remove_file(state.join("node.sock"));
    if !keep {
        for name in OWNED {
            let path = state.join(name);
            let _ = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
        let _ = fs::remove_file(state.join(LOCK));
        let _ = fs::remove_dir(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_what_failed_above() {
        assert_eq!(reason(Rung::Root, &[]), "root: works here");
        let refused = step("make a user namespace")(Errno::ENOSPC).to_string();
        assert_eq!(
            reason(Rung::Loopback, &[(Rung::User, refused)]),
            "loopback without interception: rung user does not work here: make a user namespace: \
             No space left on device (limit reached: user.max_user_namespaces is too low)"
        );
    }
}
