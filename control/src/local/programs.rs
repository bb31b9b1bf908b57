//! The programs of Weft, found beside the running one; built first when we were started by `cargo run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Programs a node needs, beside `meshctl` itself.
pub(crate) const NEEDED: [&str; 3] = ["weft-control", "weft-proxy", "weft-init"];

/// `meshctl`, once the others are there too.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf> {
    let meshctl = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot tell which program this is")?,
    };
    let meshctl = meshctl
        .canonicalize()
        .with_context(|| format!("cannot find {}", meshctl.display()))?;
    let dir = meshctl.parent().unwrap_or(Path::new("/"));
    if missing(dir).is_empty() {
        return Ok(meshctl);
    }
    build(dir)?;
    let missing = missing(dir);
    if !missing.is_empty() {
        bail!(
            "{} must lie beside {} (build them: cargo build -p weft-proxy -p weft-init -p weft-control --bins)",
            missing.join(", "),
            meshctl.display()
        );
    }
    Ok(meshctl)
}

fn missing(dir: &Path) -> Vec<&'static str> {
    NEEDED
        .into_iter()
        .filter(|name| !is_program(&dir.join(name)))
        .collect()
}

/// `cargo run` builds one program only; the others come from the same sources in the same profile.
fn build(dir: &Path) -> Result<()> {
    let (Some(cargo), Some(_)) = (
        std::env::var_os("CARGO"),
        std::env::var_os("CARGO_MANIFEST_DIR"),
    ) else {
        return Ok(());
    };
    eprintln!("building weft-proxy, weft-init and weft-control first …");
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--bins",
        "-p",
        "weft-proxy",
        "-p",
        "weft-init",
        "-p",
        "weft-control",
    ]);
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(manifest);
    }
    if dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

/// Everything a pod finds in its [`super::rootfs::BIN`].
pub(crate) fn for_pods(meshctl: &Path) -> Vec<PathBuf> {
    let dir = meshctl.parent().unwrap_or(Path::new("/"));
    let mut all = vec![meshctl.to_owned()];
    all.extend(
        NEEDED
            .iter()
            .map(|name| dir.join(name))
            .filter(|path| is_program(path)),
    );
    all
}

/// A file that may be run.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A program of the machine.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| is_program(candidate))
}
