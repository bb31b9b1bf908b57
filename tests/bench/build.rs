//! One command: `cargo run` builds this program alone, so the programs of the mesh are built here.

use anyhow::{Context, ensure};
use std::process::Command;

/// Builds them beside this program. Does nothing where cargo did not start us, or we were told where they are.
pub(crate) fn programs(args: &[String]) -> anyhow::Result<()> {
    let told = args
        .iter()
        .any(|arg| arg == "--no-build" || arg == "--weft");
    let Some(cargo) = std::env::var_os("CARGO").filter(|_| !told && !crate::world::inside()) else {
        return Ok(());
    };
    let release = !cfg!(debug_assertions);
    let mut build = Command::new(cargo);
    build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--workspace", "--bins"])
        .args(release.then_some("--release"));
    let status = build.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the programs of the mesh do not build; --no-build takes what is there"
    );
    Ok(())
}
