//! The state folder: keys, trust anchors and the list of enrolled pods. Everything that must survive a restart of the
//! controller when there is no Kubernetes API to keep it. `meshctl token` may open it at the same moment as the
//! controller, so files appear whole (written aside, then renamed) and are made under one lock.

use crate::pod_ref::PodRef;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the state folder inside the first folder of manifests; hidden, so that the source passes it by.
pub const DEFAULT_NAME: &str = ".weft";
/// Private key of the issuer (PEM).
pub const CA_KEY: &str = "ca.key";
/// Issuer and root certificate (PEM).
pub const CA_CERT: &str = "ca.crt";
/// Private key of the issuer that takes over next (PEM); only while roots are rotated.
pub const CA_NEXT_KEY: &str = "ca-next.key";
/// Its certificate and root (PEM).
pub const CA_NEXT_CERT: &str = "ca-next.crt";
/// Private key that signs tokens (PEM).
pub const TOKEN_KEY: &str = "token.key";
/// The roots of the mesh (PEM); may be given to anyone.
pub const TRUST_ANCHORS: &str = "trust-anchors.pem";
/// What `meshctl` shows to be told the traffic; made anew at every start.
pub const OBSERVE_TOKEN: &str = "observe.token";
/// Pods that ever got a certificate, one `namespace/name` a line.
pub const ENROLLED: &str = "enrolled";
const LOCK: &str = "lock";

/// No file of ours is larger; a larger one is not ours.
const MAX_FILE: u64 = 16 << 20;

/// An open state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Tells a file from the one that replaced it.
pub type Stamp = (u64, u64, i64);

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Only its owner (0600); refused when others can.
    Private,
    /// Anyone who can enter the folder (0644).
    Public,
}

impl StateDir {
    /// Opens the folder, made with mode 0700 (and its parents) where it is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create the state folder {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the roots of the mesh are, for whoever starts a proxy by hand.
    pub fn trust_anchors(&self) -> PathBuf {
        self.path.join(TRUST_ANCHORS)
    }

    /// Waits until nobody else is creating files here; free again when dropped.
    pub fn lock(&self) -> Result<Flock<File>> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("cannot lock {}", path.display()))
    }

    /// The text of a file; `None` where there is none.
    pub fn read(&self, name: &str, secrecy: Secrecy) -> Result<Option<String>> {
        let path = self.path.join(name);
        match File::open(&path) {
            Ok(file) => read_checked(file, secrecy)
                .with_context(|| format!("cannot use {}", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces a file as a whole: a reader sees the old text or the new one.
    pub fn write(&self, name: &str, secrecy: Secrecy, text: &str) -> Result<()> {
        let path = self.path.join(name);
        self.replace(&path, secrecy, text)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Changes whenever a file of the authority is replaced.
    pub fn fingerprint(&self) -> [Option<Stamp>; 3] {
        [CA_CERT, CA_KEY, TRUST_ANCHORS].map(|name| self.stamp(name))
    }

    /// Changes whenever this file is replaced; `None`: there is none.
    pub fn stamp(&self, name: &str) -> Option<Stamp> {
        let known = std::fs::metadata(self.path.join(name)).ok()?;
        Some((known.ino(), known.size(), known.mtime_nsec()))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, path: &Path, secrecy: Secrecy, text: &str) -> Result<()> {
        let mode = if secrecy == Secrecy::Private {
            0o600
        } else {
            0o644
        };
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
            .tempfile_in(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.path)?.sync_all()?; // the rename itself must survive a crash
        Ok(())
    }

    /// A new token for whoever may look at the traffic: who can read this folder. `shared` with other controllers: the one
    /// that is there, since they know that one.
    pub fn observe_token(&self, shared: bool) -> Result<String> {
        if shared
            && let Some(token) = self.read(OBSERVE_TOKEN, Secrecy::Private)?
            && token.len() == 64
        {
            return Ok(token);
        }
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).context("no random bytes")?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write(OBSERVE_TOKEN, Secrecy::Private, &token)?;
        Ok(token)
    }

    /// Pods that ever got a certificate. Lines that are not `namespace/name` are passed by.
    pub fn enrolled(&self) -> Result<BTreeSet<PodRef>> {
        let text = self.read(ENROLLED, Secrecy::Public)?.unwrap_or_default();
        Ok(text
            .lines()
            .filter_map(|line| line.trim().split_once('/'))
            .map(|(namespace, name)| PodRef::new(namespace, name))
            .collect())
    }

    /// Remembers the whole list of enrolled pods.
    pub fn set_enrolled(&self, pods: &BTreeSet<PodRef>) -> Result<()> {
        let text: String = pods.iter().map(|pod| format!("{pod}\n")).collect();
        self.write(ENROLLED, Secrecy::Public, &text)
    }
}

fn read_checked(mut file: File, secrecy: Secrecy) -> Result<String> {
    let meta = file.metadata()?;
    if secrecy == Secrecy::Private && meta.mode() & 0o077 != 0 {
        bail!(
            "others can read this key (mode {:04o}); `chmod 600` it, or remove it if it may have leaked",
            meta.mode() & 0o7777
        );
    }
    if meta.len() > MAX_FILE {
        bail!("{} bytes are more than this file can have", meta.len());
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Where the state is when nothing else was said: hidden in the first folder of manifests.
pub fn default_path(first_dir: &Path) -> PathBuf {
    first_dir.join(DEFAULT_NAME)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("a/.weft")).unwrap();
        (dir, state)
    }

    #[test]
    fn folder_and_keys_are_private() {
        let (_dir, state) = state();
        state.write(CA_KEY, Secrecy::Private, "k").unwrap();
        state.write(TRUST_ANCHORS, Secrecy::Public, "r").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join(CA_KEY)), 0o600);
        assert_eq!(mode(&state.trust_anchors()), 0o644);
        assert_eq!(
            state.read(CA_KEY, Secrecy::Private).unwrap().as_deref(),
            Some("k")
        );
        assert_eq!(state.read("absent", Secrecy::Private).unwrap(), None);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_dir, state) = state();
        state.write(CA_KEY, Secrecy::Private, "k").unwrap();
        for mode in [0o640, 0o604, 0o666] {
            fs::set_permissions(state.path().join(CA_KEY), fs::Permissions::from_mode(mode))
                .unwrap();
            let error = format!("{:#}", state.read(CA_KEY, Secrecy::Private).unwrap_err());
            assert!(error.contains("others can read"), "{error}");
            assert!(state.read(CA_KEY, Secrecy::Public).is_ok());
        }
    }

    #[test]
    fn enrolled_pods_are_remembered_and_junk_is_passed_by() {
        let (_dir, state) = state();
        assert!(state.enrolled().unwrap().is_empty());
        let pods = BTreeSet::from([PodRef::new("a", "x"), PodRef::new("b", "y")]);
        state.set_enrolled(&pods).unwrap();
        assert_eq!(state.enrolled().unwrap(), pods);
        state
            .write(ENROLLED, Secrecy::Public, "a/x\njunk\n\nb/y\n")
            .unwrap();
        assert_eq!(state.enrolled().unwrap(), pods);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_clear_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", StateDir::open(file.path().join("x")).unwrap_err());
        assert!(error.contains("cannot create the state folder"), "{error}");
    }
}
