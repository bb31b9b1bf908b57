//! Starting a node from outside: find the programs, take the lock, start the supervisor, wait until it answers.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::client::Client;
use super::options::{Options, private_dir};
use super::{programs, roles};

/// Held by whoever runs a node in a state folder.
pub(crate) const LOCK: &str = "lock";
/// Options, as the supervisor reads them.
pub(crate) const CONFIG: &str = "config.json";

/// A node that this process started. Dropping it ends the node, unless it was started detached.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    child: Child,
    lifeline: Option<ChildStdin>,
    detached: bool,
}

impl Runtime {
    /// Start a node and wait until it takes orders (not until its pods are ready: see [`Client::wait`]).
    /// Blocks; call it from a thread that may.
    pub fn up(mut options: Options) -> Result<Self> {
        options.state = std::path::absolute(&options.state)?;
        for dir in &mut options.dirs {
            *dir = readable(dir)?;
        }
        let program = programs::find(options.program.as_deref())?;
        options.program = Some(program.clone());
        private_dir(&options.state)?;
        if !is_free(&options.state.join(LOCK)) {
            bail!(
                "a node is already running at {} (meshctl local down ends it)",
                options.state.display()
            );
        }
        clean(&options.state);
        std::fs::write(
            options.state.join(CONFIG),
            serde_json::to_vec_pretty(&options)?,
        )?;
        let mut child = spawn(&program, &options)?;
        let lifeline = child.stdin.take();
        let ready = child
            .stdout
            .take()
            .ok_or_else(|| anyhow!("no pipe to the supervisor"))?;
        let mut line = String::new();
        BufReader::new(ready).read_line(&mut line)?;
        match line.trim().strip_prefix("ready") {
            Some(_) => {}
            None => {
                let _ = child.wait();
                let said = line
                    .trim()
                    .strip_prefix("error ")
                    .unwrap_or("the supervisor ended at once");
                bail!("{}", said.replace('\u{1}', "\n"));
            }
        }
        Ok(Self {
            client: Client::open(&options.state)?,
            child,
            lifeline,
            detached: options.detach,
        })
    }

    /// The handle for everything else.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Has the node ended by itself?
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Wait until the node ends by itself (or through `meshctl local down`).
    pub fn join(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }

    /// End the node and wait until nothing of it is left.
    pub fn down(mut self) -> Result<()> {
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        drop(self.lifeline.take());
        if self.detached {
            return;
        }
        let _ = self.child.wait();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

/// A folder of manifests. What is wrong with it now is said now; later it is a problem among others.
fn readable(dir: &Path) -> Result<PathBuf> {
    let at = || format!("cannot read the folder {}", dir.display());
    let dir = dir.canonicalize().with_context(at)?;
    if !dir.is_dir() {
        bail!(
            "{} is not a folder; a single file is added to a running node by meshctl local apply -f",
            dir.display()
        );
    }
    std::fs::read_dir(&dir).with_context(at)?;
    Ok(dir)
}

fn spawn(program: &Path, options: &Options) -> Result<Child> {
    let mut command = Command::new(program);
    command
        .arg(roles::SUPERVISE)
        .arg(&options.state)
        .stdout(Stdio::piped());
    if options.detach {
        command
            .stdin(Stdio::null())
            .stderr(File::create(options.state.join("supervisor.log"))?);
    } else {
        command.stdin(Stdio::piped()).stderr(Stdio::inherit());
    }
    // SAFETY: setsid is async-signal-safe and touches no memory of ours. A session of its own keeps Ctrl-C with the
    // caller, who ends the node in order.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Nobody holds the lock.
pub(crate) fn is_free(lock: &Path) -> bool {
    let Ok(file) = File::options().write(true).open(lock) else {
        return true;
    };
    file.try_lock().is_ok()
}

/// What a node that was killed left behind.
fn clean(state: &Path) {
    for name in super::sandbox::OWNED {
        let path = state.join(name);
        let _ = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
    }
}
