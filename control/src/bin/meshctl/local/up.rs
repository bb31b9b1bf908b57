//! `meshctl local up`: a node until Ctrl-C, or until `meshctl local down`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use weft_control::local::{Options, Rung, Runtime};

use super::Up;
use super::files::is_empty;

/// Start a node, and stay with it unless it is detached.
pub(super) fn up(args: Up, state: PathBuf) -> Result<ExitCode> {
    let detach = args.detach;
    let options = Options {
        dirs: args.filename,
        state,
        access: args.access,
        rung: args.rung,
        control: !args.no_control,
        restart_control: !args.no_restart_control,
        keep: args.keep,
        detach,
        kubeconfig: args.kubeconfig,
        control_env: args
            .control_log
            .map(|filter| (weft_proxy_api::names::control_env::LOG.to_owned(), filter))
            .into_iter()
            .collect(),
        verbose: true,
        ..Options::default()
    };
    // Before the node starts, so that a hasty Ctrl-C is not lost; the node is ended by dropping it.
    let signals = nix::sys::signal::SigSet::from_iter([
        nix::sys::signal::Signal::SIGINT,
        nix::sys::signal::Signal::SIGTERM,
        nix::sys::signal::Signal::SIGHUP,
    ]);
    signals.thread_block()?;
    let dirs = options.dirs.clone();
    let runtime = Runtime::up(options)?;
    say_if_empty(&dirs);
    let status = runtime.client().status()?;
    eprintln!("node up on rung {}", status.rung_reason);
    eprintln!("state {}", status.state.display());
    if status.rung == Rung::Loopback {
        eprintln!(
            "weft-init is skipped: nothing is redirected. Applications listen on ${} and find Services in ${}",
            weft_proxy_api::names::app_env::BIND,
            weft_proxy_api::names::app_env::HOSTS_FILE
        );
    }
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("Ctrl-C ends it");
    let client = runtime.client().clone();
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("ending …");
            let _ = client.down();
        }
    });
    runtime.join()?;
    Ok(ExitCode::SUCCESS)
}

/// A node without manifests is legal, and rarely what was meant.
fn say_if_empty(dirs: &[PathBuf]) {
    if dirs.is_empty() {
        eprintln!("note: no folder was given (-f DIR); meshctl local apply -f FILE adds manifests");
    }
    for dir in dirs {
        if is_empty(dir) {
            eprintln!(
                "note: there are no manifests (*.yaml, *.yml, *.json) in {} yet; it is watched",
                dir.display()
            );
        }
    }
}
