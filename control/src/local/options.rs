//! What a caller can choose about a local node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How a node isolates itself, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// A user namespace: no privileges needed, one mapped user.
    User,
    /// Root: the same namespaces without a user namespace, and containers under their own users.
    Root,
    /// No namespaces: loopback addresses, no interception.
    Loopback,
}

impl Rung {
    /// Name as given to `--rung`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rung::User => "user",
            Rung::Root => "root",
            Rung::Loopback => "loopback",
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Rung::User => "user namespace (no privileges needed)",
            Rung::Root => "root",
            Rung::Loopback => "loopback without interception",
        }
    }
}

/// What the controller allows where no TrafficTarget speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Only what a TrafficTarget allows.
    Strict,
    /// Everything, unless a TrafficTarget names the destination.
    #[default]
    Permissive,
    /// Everything; what strict would deny is reported.
    Audit,
}

impl Access {
    /// Name as given to `--access`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Access::Strict => "strict",
            Access::Permissive => "permissive",
            Access::Audit => "audit",
        }
    }
}

/// Everything that `up` needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Folders with the user's manifests, watched.
    pub dirs: Vec<PathBuf>,
    /// Folder of the node's own files; made private, removed at the end.
    pub state: PathBuf,
    /// Given to the controller.
    pub access: Access,
    /// Force one rung; otherwise the first that works.
    pub rung: Option<Rung>,
    /// Start the controller at all.
    pub control: bool,
    /// Start the controller again when it dies.
    pub restart_control: bool,
    /// Leave the state folder behind.
    pub keep: bool,
    /// Live on after the caller has gone.
    pub detach: bool,
    /// The `meshctl` program; the others are found beside it. Default: the running program.
    pub program: Option<PathBuf>,
    /// More environment for the controller, e.g. its log filter.
    pub control_env: Vec<(String, String)>,
    /// The controller takes its objects from the API server of this kubeconfig, in place of the folders; the node still
    /// makes its pods from them.
    pub kubeconfig: Option<PathBuf>,
    /// Say on stderr what happens.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            state: default_state(),
            access: Access::default(),
            rung: None,
            control: true,
            restart_control: true,
            keep: false,
            detach: false,
            program: None,
            control_env: Vec::new(),
            kubeconfig: None,
            verbose: false,
        }
    }
}

/// One node per user unless told otherwise: below `$XDG_RUNTIME_DIR`, else a per-user folder in the temporary one.
#[must_use]
pub fn default_state() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_dir() => Path::new(&dir).join("weft-local"),
        _ => std::env::temp_dir().join(format!("weft-local-{}", nix::unistd::geteuid())),
    }
}

/// Make the folder if it is missing, and refuse one that others could have prepared for us.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("cannot make {}", dir.display()));
        }
        _ => {}
    }
    let meta =
        std::fs::symlink_metadata(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let own = nix::unistd::geteuid().as_raw();
    if !meta.is_dir() {
        bail!(
            "{} is not a folder; choose another one with --state",
            dir.display()
        );
    }
    if meta.uid() != own {
        bail!(
            "{} belongs to user {}, and this is user {own}; choose another one with --state",
            dir.display(),
            meta.uid()
        );
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}
