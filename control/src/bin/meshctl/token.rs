//! `meshctl token`: a token with which the proxy of one pod proves who it is, for folders of manifests.

use crate::manifests;
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use weft_control::manifest::{self, Object};
use weft_control::pod_ref::PodRef;
use weft_control::state::{self, StateDir};
use weft_control::token;

/// Make a token with which the proxy of one pod proves who it is
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The pod
    #[arg(value_name = "NAMESPACE/POD")]
    pod: String,
    /// Folder of manifests that holds the pod
    #[arg(long, required = true)]
    dir: Vec<PathBuf>,
    /// State folder of the controller [default: .weft in the first folder]
    #[arg(long)]
    state: Option<PathBuf>,
    /// Days the token lives
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

/// Prints the token.
pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let Some((namespace, name)) = args
        .pod
        .split_once('/')
        .filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
    else {
        bail!("{:?} is not of the form NAMESPACE/POD", args.pod);
    };
    let account = account(&args.dir, namespace, name)?;
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| state::default_path(&args.dir[0]));
    let pod = PodRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let life = Duration::from_secs(args.days * 24 * 3600);
    println!(
        "{}",
        token::issue_for_pod(&StateDir::open(state)?, &pod, &account, life)?
    );
    Ok(())
}

/// Service account of the pod, as its manifest says.
fn account(dirs: &[PathBuf], namespace: &str, name: &str) -> anyhow::Result<String> {
    let mut found = None;
    for file in manifests::read(dirs)? {
        let (objects, _) = manifest::parse(&file.shown, &file.text);
        for loaded in objects {
            if let Object::Pod(pod) = loaded.object
                && (loaded.key.namespace.as_str(), loaded.key.name.as_str()) == (namespace, name)
            {
                found = Some(pod.spec.account().to_owned());
            }
        }
    }
    found.with_context(|| format!("no Pod {namespace}/{name} in {}", shown(dirs)))
}

fn shown(dirs: &[PathBuf]) -> String {
    dirs.iter()
        .map(|dir| dir.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
