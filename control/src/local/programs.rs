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
    if given.is_none() {
        build(dir)?;
    }
    let missing = missing(dir);
    if !missing.is_empty() {
        bail!(
            "{} must lie beside {} (build them: cargo build --bins)",
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

/// `cargo run` builds one program only; the others come from the same sources in the same profile, or would be older ones.
fn build(dir: &Path) -> Result<()> {
    let of_cargo = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let (Some(cargo), Some(manifest)) = (of_cargo("CARGO"), of_cargo("CARGO_MANIFEST_DIR")) else {
        return Ok(());
    };
    // Whom a test under cargo starts is not cargo's own.
    if of_cargo("CARGO_PKG_NAME") != Some(env!("CARGO_PKG_NAME").into()) {
        return Ok(());
    }
    eprintln!("building weft-proxy, weft-init and weft-control …");
    let mut command = Command::new(cargo);
    // In the workspace's own folder: there it selects what `cargo run` has selected, and builds nothing twice.
    command.current_dir(Path::new(&manifest).parent().unwrap_or(Path::new(".")));
    command.args(["build", "--profile", profile(dir)]);
    command.args(NEEDED.map(|name| format!("--bin={name}")));
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

/// The profile whose programs cargo puts into a folder.
fn profile(dir: &Path) -> &str {
    match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_its_profile() {
        for (dir, expected) in [
            ("/src/target/debug", "dev"),
            ("/src/target/release", "release"),
            ("/src/target/quick", "quick"),
        ] {
            assert_eq!(profile(Path::new(dir)), expected);
        }
    }
}
