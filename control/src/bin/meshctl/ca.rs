//! `meshctl ca`: a new root for a mesh whose controller keeps its authority in a folder.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use weft_control::ca::rotate;
use weft_control::state::StateDir;
use weft_proxy_api::names;

/// See to the certificate authority of a mesh
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replace the root in three steps; the running controller takes each up by itself
    Rotate {
        /// State folder of the controller
        #[arg(long)]
        state: PathBuf,
        /// Trust domain of the mesh
        #[arg(long, default_value = names::DEFAULT_TRUST_DOMAIN)]
        trust_domain: String,
        /// Which step
        step: Step,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Step {
    /// Make a new root and trust it beside the old one
    Begin,
    /// Sign with the new root
    Switch,
    /// Trust the new root only
    Finish,
}

/// Takes one step, and says what to wait for before the next.
pub(crate) fn run(args: &CaArgs) -> anyhow::Result<()> {
    let Command::Rotate {
        state,
        trust_domain,
        step,
    } = &args.command;
    anyhow::ensure!(state.is_dir(), "{} is no folder", state.display());
    let state = StateDir::open(state)?;
    let next = match step {
        Step::Begin => {
            rotate::begin(&state, trust_domain)?;
            "the new root is trusted beside the old one; once every proxy has heard of it: switch"
        }
        Step::Switch => {
            rotate::switch(&state)?;
            "the new root signs, and proxies ask for new certificates; once every one has its own: finish"
        }
        Step::Finish => {
            rotate::finish(&state)?;
            "only the new root is trusted"
        }
    };
    println!("{next}");
    Ok(())
}
