//! Goes into a pod's namespaces and becomes a container's program there, or a command of `exec`.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::rootfs;

/// What to become, as a file that is removed once read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Enter {
    /// Process whose namespaces to join, where there are any.
    pub(crate) join: Option<i32>,
    /// Join the mounts too; not for the node's own namespace.
    pub(crate) join_mounts: bool,
    /// Mount these first, in mounts of its own (a container, not a command beside it).
    pub(crate) mounts: Option<Vec<Mount>>,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// A volume at its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// Exit codes as shells use them: 127 not found, 126 not allowed.
pub(crate) fn run(spec: &Path) -> i32 {
    match become_program(spec) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("weft: {error:#}");
            let kind = error.downcast_ref::<nix::errno::Errno>();
            if kind == Some(&nix::errno::Errno::ENOENT) {
                127
            } else {
                126
            }
        }
    }
}

fn become_program(file: &Path) -> Result<std::convert::Infallible> {
    let spec: Enter =
        serde_json::from_slice(&std::fs::read(file).context("cannot read what to run")?)?;
    let _ = std::fs::remove_file(file);
    join(&spec)?;
    if let Some(mounts) = &spec.mounts {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make the container's mounts")?;
        let mut done = Vec::new();
        for volume in mounts {
            mount(volume, &done)?;
            done.push(volume.target.clone());
        }
        // The rest of the pod's folder is nobody's business.
        let _ = umount2(rootfs::POD, MntFlags::MNT_DETACH);
    }
    become_user(&spec)?;
    let workdir = spec.workdir.as_deref().unwrap_or("/");
    nix::unistd::chdir(workdir)
        .with_context(|| format!("cannot enter the working folder {workdir}"))?;
    let Some(name) = spec.argv.first() else {
        bail!("no command")
    };
    let program = find(name, &spec.env)
        .ok_or(nix::errno::Errno::ENOENT)
        .with_context(|| format!("cannot find {name}"))?;
    let argv = spec
        .argv
        .iter()
        .map(|arg| CString::new(arg.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    let env = spec
        .env
        .iter()
        .map(|(k, v)| CString::new(format!("{k}={v}")))
        .collect::<Result<Vec<_>, _>>()?;
    let path = CString::new(program.as_os_str().as_bytes())?;
    nix::unistd::execve(&path, &argv, &env).with_context(|| format!("cannot run {name}"))
}

fn join(spec: &Enter) -> Result<()> {
    let Some(process) = spec.join else {
        return Ok(());
    };
    let mut kinds = vec![
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
    ];
    if spec.join_mounts {
        // Last: afterwards /proc is the pod's.
        kinds.push(("mnt", CloneFlags::CLONE_NEWNS));
    }
    for (name, kind) in kinds {
        let namespace =
            File::open(format!("/proc/{process}/ns/{name}")).context("the pod is gone")?;
        setns(namespace, kind).with_context(|| format!("cannot enter the pod ({name})"))?;
    }
    Ok(())
}

fn mount(volume: &Mount, done: &[PathBuf]) -> Result<()> {
    let is_file = volume.source.is_file();
    rootfs::mount_point(&volume.target, is_file, done)?;
    rootfs::bind(&volume.source, &volume.target)?;
    if volume.read_only {
        rootfs::read_only(&volume.target)?;
    }
    Ok(())
}

fn become_user(spec: &Enter) -> Result<()> {
    if spec.user.is_none() && spec.group.is_none() {
        return Ok(());
    }
    let group = spec.group.or(spec.user).unwrap_or(0);
    nix::unistd::setgroups(&[]).context("cannot drop groups")?;
    nix::unistd::setgid(Gid::from_raw(group))
        .with_context(|| format!("cannot become group {group}"))?;
    let user = spec.user.unwrap_or(0);
    nix::unistd::setuid(Uid::from_raw(user)).with_context(|| format!("cannot become user {user}"))
}

fn find(name: &str, env: &[(String, String)]) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into());
    }
    let path = env
        .iter()
        .rev()
        .find(|(key, _)| key == "PATH")
        .map_or("/usr/bin:/bin", |(_, value)| value);
    path.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| super::programs::is_program(candidate))
}
