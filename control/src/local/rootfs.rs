//! What a pod sees as its file system: the host's, with a root, `/run` and `/dev/shm` of its own and generated names.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where the programs of Weft are, inside a pod.
pub(crate) const BIN: &str = "/.weft/bin";
/// Where the pod's own folder is until a container is about to start.
pub(crate) const POD: &str = "/.weft/pod";

const NONE: Option<&str> = None;
/// The new root grows here; it hides the host's `/run`, which a pod must not see anyway.
const NEW_ROOT: &str = "/run";
const RESOLV: &str = "# Names come from /etc/hosts; there is no DNS in here.\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// Change the root of this process (alone in its mount namespace). `pod` holds the file `hosts`.
pub(crate) fn change(pod: &Path, programs: &[PathBuf]) -> Result<()> {
    // Both may lie below /run, so they are held open before it is hidden.
    let pod = open_path(pod)?;
    let programs: Vec<_> = programs
        .iter()
        .filter_map(|path| Some((path.file_name()?.to_owned(), open_path(path).ok()?)))
        .collect();
    let root = Path::new(NEW_ROOT);
    tmpfs(root).context("cannot mount the pod's root")?;
    mirror(root)?;
    own_run(root, &pod, &programs)?;
    names(root, &pod);
    let _ = tmpfs(&root.join("dev/shm"));
    nix::unistd::chdir(root)?;
    // With the same folder twice the old root ends up on top of the new one, and is taken away from there.
    nix::unistd::pivot_root(".", ".").context("cannot change the pod's root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Bind `from` onto `to`, with everything below it.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(
        Some(from),
        to,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )
    .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

/// Make a mount read-only. Flags the host has locked (nosuid, nodev) must be repeated, so they are asked for in turn.
pub(crate) fn read_only(at: &Path) -> Result<()> {
    let base = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let locked = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, at, NONE, base, NONE)
        .or_else(|_| mount(NONE, at, NONE, base | locked, NONE))
        .or_else(|_| mount(NONE, at, NONE, base | locked | MsFlags::MS_NOEXEC, NONE))
        .with_context(|| format!("cannot make {} read-only", at.display()))
}

/// A folder (or file) to mount on: made where it is missing. Parts of the host are covered by an overlay first, so that
/// nothing is ever made on the host itself. `volumes` are mounted already, and may be made folders in.
pub(crate) fn mount_point(target: &Path, file: bool, volumes: &[PathBuf]) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let parent = target.parent().context("no folder to mount in")?;
    let mut there = parent;
    while !there.exists() {
        there = there.parent().context("no folder to mount in")?;
    }
    if !is_ours(there) && !volumes.iter().any(|volume| there.starts_with(volume)) {
        overlay(there).with_context(|| {
            format!(
                "cannot make {} (its folder belongs to the host)",
                target.display()
            )
        })?;
    }
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    if file {
        File::create(target).map(drop)
    } else {
        fs::create_dir_all(target)
    }
    .with_context(|| format!("cannot make {}", target.display()))
}

/// The pod's own root, `/run` and `/dev/shm`, or an overlay of ours: nothing made there reaches the host.
fn is_ours(dir: &Path) -> bool {
    use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
    let Ok(found) = statfs(dir) else { return false };
    let place = dir == Path::new("/") || dir.starts_with("/run") || dir.starts_with("/dev/shm");
    match found.filesystem_type() {
        TMPFS_MAGIC => place,
        OVERLAYFS_SUPER_MAGIC => dir
            .ancestors()
            .any(|above| above.join(".weft-overlay").exists()),
        _ => false,
    }
}

fn overlay(dir: &Path) -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("overlay-")
        .tempdir_in("/.weft")?
        .keep();
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    fs::write(upper.join(".weft-overlay"), "")?;
    // An overlay shows the file system, not what is mounted in it (the hosts file above all): that is put back on top.
    let inner: Vec<_> = mounts_in(dir)
        .into_iter()
        .filter_map(|at| Some((open_path(&at).ok()?, at)))
        .collect();
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        dir.display(),
        upper.display(),
        work.display()
    );
    let in_user_namespace = format!("{data},userxattr");
    let try_with = |data: &str| {
        mount(
            Some("overlay"),
            dir,
            Some("overlay"),
            MsFlags::empty(),
            Some(data),
        )
    };
    try_with(&in_user_namespace).or_else(|_| try_with(&data))?;
    inner.iter().try_for_each(|(fd, at)| bind(&held(fd), at))
}

/// Mount points below a folder, outermost first.
fn mounts_in(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)));
    points
        .filter(|point| point != dir && point.starts_with(dir))
        .collect()
}

/// Blanks in mountinfo are written as octal numbers.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.into())
}

fn held(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn tmpfs(at: &Path) -> nix::Result<()> {
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755"),
    )
}

/// Everything in the host's root, at the same place in the new one.
fn mirror(root: &Path) -> Result<()> {
    for entry in fs::read_dir("/").context("cannot list /")? {
        let entry = entry?;
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type()?;
        if from == Path::new(NEW_ROOT) {
            continue;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            bind(&from, &to)?;
        } else if kind.is_file() {
            File::create(&to)?;
            bind(&from, &to)?;
        }
    }
    Ok(())
}

fn own_run(root: &Path, pod: &OwnedFd, programs: &[(std::ffi::OsString, OwnedFd)]) -> Result<()> {
    let run = root.join("run");
    fs::create_dir(&run)?;
    tmpfs(&run)?;
    // Beside /run, which a volume may cover.
    for path in [POD, BIN, "/run/lock"] {
        fs::create_dir_all(root.join(&path[1..]))?;
    }
    bind(&held(pod), &root.join(&POD[1..]))?;
    for (name, fd) in programs {
        let at = root.join(&BIN[1..]).join(name);
        File::create(&at)?;
        bind(&held(fd), &at)?;
    }
    Ok(())
}

/// /etc/hosts and /etc/resolv.conf. A host without one of them gets along without.
fn names(root: &Path, pod: &OwnedFd) {
    let hosts = held(pod).join("hosts");
    let resolv = root.join(".weft/resolv.conf");
    let _ = fs::write(&resolv, RESOLV);
    for (from, name) in [(hosts, "etc/hosts"), (resolv, "etc/resolv.conf")] {
        let to = root.join(name);
        let to = match fs::read_link(&to) {
            // Often a link into /run, which is empty now.
            Ok(link) => {
                let to = root.join("etc").join(
                    link.strip_prefix("/")
                        .map(|l| Path::new("..").join(l))
                        .unwrap_or(link),
                );
                if !to.exists() {
                    let _ = to.parent().map(fs::create_dir_all);
                    let _ = File::create(&to);
                }
                to
            }
            Err(_) => to,
        };
        if let Err(error) = bind(&from, &to) {
            eprintln!("note: {error:#}");
        }
    }
}
