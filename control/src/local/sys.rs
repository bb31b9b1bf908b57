//! Small kernel corners: sockets in deep folders, settings under /proc/sys, errors in words.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;

/// A Unix socket's path may have 107 bytes; a folder may be deeper. So go through a descriptor of the folder.
pub(crate) fn connect_in(dir: &Path, name: &str) -> std::io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// The listening side of [`connect_in`].
pub(crate) fn listen_in(dir: &Path, name: &str) -> std::io::Result<UnixListener> {
    let dir = File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Set a kernel setting; `false` if this kernel does not have it or refuses.
pub(crate) fn sysctl(name: &str, value: &str) -> bool {
    std::fs::write(format!("/proc/sys/{name}"), value).is_ok()
}

/// The first port that this user may listen on.
pub(crate) fn lowest_port() -> u16 {
    if nix::unistd::geteuid().is_root() {
        return 0;
    }
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// An error of the kernel, said for people.
pub(crate) fn in_words(errno: Errno) -> String {
    let hint = match errno {
        Errno::EPERM | Errno::EACCES => {
            " (forbidden here: by a container's missing capabilities or seccomp profile, or by AppArmor's \
             kernel.apparmor_restrict_unprivileged_userns=1)"
        }
        Errno::ENOSPC => " (limit reached: user.max_user_namespaces is too low)",
        Errno::EINVAL | Errno::ENOSYS => " (this kernel was built without it)",
        _ => "",
    };
    format!("{}{hint}", errno.desc())
}
