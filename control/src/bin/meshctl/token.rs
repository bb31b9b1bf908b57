//! `meshctl token`: a token with which the proxy of one pod proves who it is, for folders of manifests.

use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
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
    for dir in dirs {
        for file in files(dir)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let (objects, _) = manifest::parse(&file.display().to_string(), &text);
            for loaded in objects {
                if let Object::Pod(pod) = loaded.object
                    && (loaded.key.namespace.as_str(), loaded.key.name.as_str())
                        == (namespace, name)
                {
                    found = Some(pod.spec.account().to_owned());
                }
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

/// Manifests below a folder, as the controller finds them.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let kind = path
            .extension()
            .is_some_and(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known));
        match path.is_dir() {
            true if !hidden => files.extend(self::files(&path)?),
            false if !hidden && kind => files.push(path),
            _ => {}
        }
    }
    files.sort();
    Ok(files)
}
