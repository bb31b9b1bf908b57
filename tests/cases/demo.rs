//! The demonstration, told in full, by its own account.

use crate::Case;
use anyhow::{Context, ensure};
use harness::program;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

pub(crate) const CASES: &[Case] = &[
    ("the_story_holds", &[], story),
    (
        "the_story_holds_for_an_ordinary_user",
        &["setpriv"],
        ordinary_user,
    ),
    (
        "the_story_holds_without_namespaces",
        &[],
        without_namespaces,
    ),
];

fn story() -> anyhow::Result<()> {
    tell(Command::new(program("meshctl")?), &[])
}

fn without_namespaces() -> anyhow::Result<()> {
    tell(Command::new(program("meshctl")?), &["--rung", "loopback"])
}

fn ordinary_user() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return story();
    }
    // The build folder may be closed to others.
    let folder = tempfile::Builder::new().prefix("weft-user-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    for name in ["meshctl", "weft-control", "weft-init", "weft-proxy"] {
        std::fs::copy(program(name)?, folder.path().join(name))?;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(folder.path().join("meshctl"));
    tell(command, &[])
}

fn tell(mut command: Command, options: &[&str]) -> anyhow::Result<()> {
    command
        .args(["demo", "--seconds", "16", "--headless", "-o", "json"])
        .args(options)
        .current_dir("/")
        .stdin(Stdio::null());
    command.env_remove("XDG_RUNTIME_DIR").env("HOME", "/tmp");
    let output = command.output().context("cannot run meshctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        summary["mtlsShare"] == 1.0 && summary["unexpectedFailures"] == 0,
        "{summary}"
    );
    ensure!(
        summary["denied"].as_u64().is_some_and(|denied| denied > 0),
        "{summary}"
    );
    Ok(())
}
