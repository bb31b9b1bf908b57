//! Runs a shell script in network namespaces of its own, for the cases that drive the programs by hand.

use anyhow::Context;
use std::process::{Command, Stdio};

/// Seconds until a script that waits for ever is ended: what it printed shows how far it came.
const LIMIT: &str = "900";

/// Runs `script` with bash in a fresh network and mount namespace (and user namespace, where we are not root); `$1` and
/// on are `args`. The error carries everything it printed.
pub fn script(script: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "-k", "10", LIMIT, "unshare"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        "case",
    ]);
    let output = command
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run timeout and unshare")?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(
        output.status.success(),
        "the script ended with {}:\n{text}",
        output.status
    );
    Ok(text)
}

/// Why cases that need namespaces cannot run here; `None` if they can.
pub fn unavailable() -> Option<String> {
    match script("true", &[]) {
        Ok(_) => None,
        Err(error) => Some(format!("no network namespaces: {error:#}")),
    }
}

/// Why a case that needs these programs cannot run here; `None` if it can.
pub fn missing(programs: &[&str]) -> Option<String> {
    let absent = |name: &&&str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .stdout(Stdio::null())
            .status();
        !found.is_ok_and(|status| status.success())
    };
    let absent: Vec<_> = programs.iter().filter(absent).copied().collect();
    (!absent.is_empty()).then(|| format!("not installed: {}", absent.join(", ")))
}
