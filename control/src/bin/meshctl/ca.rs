//! `meshctl ca`: a new root for a mesh, whether its controller keeps its authority in a folder or in a Secret.

use super::install::{Cluster, block_on};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use weft_control::ca::rotate;
use weft_control::kube::{connect, secret};
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
    /// Replace the root in three steps; every running controller takes each up by itself
    Rotate {
        /// State folder of the controller, for one that keeps its authority there [default: the Secret in Kubernetes]
        #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
        state: Option<PathBuf>,
        /// Namespace of the controller
        #[arg(short, long, default_value = names::SYSTEM_NAMESPACE)]
        namespace: String,
        #[command(flatten)]
        cluster: Cluster,
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

impl Step {
    fn take(self, state: &StateDir, trust_domain: &str) -> anyhow::Result<()> {
        match self {
            Self::Begin => rotate::begin(state, trust_domain),
            Self::Switch => rotate::switch(state),
            Self::Finish => rotate::finish(state),
        }
    }

    /// What holds now, and what to wait for.
    fn told(self) -> &'static str {
        match self {
            Self::Begin => {
                "the new root is trusted beside the old one; once every proxy has heard of it: switch"
            }
            Self::Switch => {
                "the new root signs, and proxies ask for new certificates; once every one has its own: finish"
            }
            Self::Finish => "only the new root is trusted",
        }
    }
}

/// Takes one step, and says what to wait for before the next.
pub(crate) fn run(args: &CaArgs) -> anyhow::Result<()> {
    let Command::Rotate {
        state,
        namespace,
        cluster,
        trust_domain,
        step,
    } = &args.command;
    match state {
        Some(folder) => {
            anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
            step.take(&StateDir::open(folder)?, trust_domain)?;
        }
        None => block_on(async {
            let client = connect::client(&cluster.settings(namespace)).await?;
            let change = |state: &StateDir| step.take(state, trust_domain);
            secret::change(client, namespace, change).await
        })?,
    }
    println!("{}", step.told());
    Ok(())
}
