//! `meshctl install`, `upgrade`, `uninstall`: objects for `kubectl` on standard output, words for people on standard error.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft_control::install::live::path;
use weft_control::install::removal::{Keep, objects_to_delete};
use weft_control::install::{self, Install, Values, chart, text, values};
use weft_control::kube::connect;
use weft_proxy_api::names;

/// Print everything that Kubernetes needs to run the mesh: meshctl install | kubectl apply -f -
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Only the CustomResourceDefinitions
    #[arg(long)]
    crds: bool,
    /// Write the installation as a Helm chart into this folder, and print nothing
    #[arg(long, value_name = "DIR")]
    chart: Option<PathBuf>,
    /// List the values and end
    #[arg(long)]
    values_help: bool,
}

/// Print an installation anew with the values it has, and say what changes: meshctl upgrade | kubectl apply -f -
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    cluster: Cluster,
}

/// Print everything that has to go: meshctl uninstall | kubectl delete -f -
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Namespace of the controller
    #[arg(short, long, default_value = names::SYSTEM_NAMESPACE)]
    namespace: String,
    /// Keep the CustomResourceDefinitions, and with them all objects of SMI
    #[arg(long)]
    keep_crds: bool,
    /// Keep the namespace
    #[arg(long)]
    keep_namespace: bool,
    /// Do not ask the API server what is there: print all that could be
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
struct Chosen {
    /// Namespace of the controller
    #[arg(short, long, default_value = names::SYSTEM_NAMESPACE)]
    namespace: String,
    /// Choose a value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// File with values (YAML); --set counts more
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Image of all programs: --set image=IMAGE
    #[arg(long)]
    image: Option<String>,
    /// Three replicas, on different nodes
    #[arg(long)]
    ha: bool,
}

/// Which API server
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Cluster {
    /// Kubeconfig that says where the API server is [default: as kubectl]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Cluster {
    /// Did somebody say which?
    pub(crate) fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Settings of a client.
    pub(crate) fn settings(&self, namespace: &str) -> connect::Settings {
        connect::Settings {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: namespace.to_owned(),
        }
    }
}

impl Chosen {
    /// The installation: what it had, then presets, files and flags, the later ones counting more.
    fn install(&self, had: Values) -> Result<Install> {
        let (mut values, mut mistakes) = (had, Vec::new());
        for (key, value) in values::HA.iter().filter(|_| self.ha) {
            mistakes.extend(values.set(key, value).err());
        }
        for path in &self.values {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let file = path.display();
            match values::read_file(&text) {
                Ok(tree) => {
                    let wrong = values.set_tree(&tree).err().unwrap_or_default();
                    mistakes.extend(wrong.iter().map(|mistake| format!("{file}: {mistake}")));
                }
                Err(mistake) => mistakes.push(format!("{file}: {mistake}")),
            }
        }
        if let Some(image) = &self.image {
            mistakes.extend(values.set("image", image).err());
        }
        for pair in &self.set {
            mistakes.extend(values.set_pair(pair).err().map(|it| format!("--set {it}")));
        }
        if !is_label(&self.namespace) {
            mistakes.push(format!("--namespace: {:?} is no name", self.namespace));
        }
        match mistakes.is_empty() {
            true => Ok(Install {
                namespace: self.namespace.clone(),
                values,
            }),
            false => bail!("{}", mistakes.join("\n")),
        }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Nothing is asked of an API server.
pub(crate) fn install(args: &InstallArgs) -> Result<ExitCode> {
    if args.values_help {
        return print(&values::table());
    }
    if let Some(folder) = &args.chart {
        return write_chart(folder);
    }
    let install = args.chosen.install(Values::default())?;
    let objects = match args.crds {
        true => install
            .render()
            .into_iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .collect(),
        false => install.render(),
    };
    print(&text::yaml(&objects))
}

fn write_chart(folder: &Path) -> Result<ExitCode> {
    for (path, text) in chart::files() {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the values of the installation that is there.
pub(crate) fn upgrade(args: &UpgradeArgs) -> Result<ExitCode> {
    let namespace = &args.chosen.namespace;
    let objects = block_on(async {
        let live = install::live::Live::open(&args.cluster.settings(namespace)).await?;
        let had = live.values(namespace).await?;
        let before = had.clone();
        let install = args.chosen.install(had)?;
        for (key, from, to) in before.differences(&install.values) {
            eprintln!("value {key}: {from} -> {to}");
        }
        let objects = install.render();
        for (object, change) in live.changes(&objects).await? {
            eprintln!("{object}: {change}");
        }
        let old = Install {
            namespace: namespace.clone(),
            values: before,
        };
        for left in live.present(dropped(&old, &objects)).await? {
            let title = install::live::title(&left);
            eprintln!("{title}: no part of it any more, and there until somebody deletes it");
        }
        Ok(objects)
    })?;
    print(&text::yaml(&objects))
}

/// What was installed and is not among these objects.
fn dropped(old: &Install, objects: &[Value]) -> Vec<Value> {
    let mut all = old.render();
    all.retain(|it| objects.iter().all(|new| path(new) != path(it)));
    all
}

/// Prints what is there, or all that could be where no API server answers.
pub(crate) fn uninstall(args: &UninstallArgs) -> Result<ExitCode> {
    let keep = Keep {
        definitions: args.keep_crds,
        namespace: args.keep_namespace,
    };
    let settings = args.cluster.settings(&args.namespace);
    let values = match args.all {
        true => None,
        false => block_on(async {
            let live = install::live::Live::open(&settings).await?;
            live.values(&args.namespace).await
        })
        .ok(),
    };
    let install = Install {
        namespace: args.namespace.clone(),
        values: values.unwrap_or_default(),
    };
    let mut objects = objects_to_delete(&install, keep);
    if !args.all {
        let present = block_on(async {
            let live = install::live::Live::open(&settings).await?;
            live.present(objects.clone()).await
        });
        match present {
            Ok(present) if is_elsewhere(&present, &args.namespace) => bail!(
                "nothing of the mesh is in the namespace {}, and what belongs to the whole cluster is there: name the \
                 controller's namespace with -n, or take all away that could be there with --all",
                args.namespace
            ),
            Ok(present) => objects = present,
            Err(error) => eprintln!(
                "meshctl: all that could be there is printed, because the API server does not say: {error:#}"
            ),
        }
    }
    if !args.keep_crds && objects.iter().any(is_definition) {
        eprintln!(
            "meshctl: every object of SMI and every ServicePolicy goes with its definition; --keep-crds keeps them"
        );
    }
    if objects.is_empty() {
        eprintln!("meshctl: nothing of the mesh is there");
        return Ok(ExitCode::SUCCESS);
    }
    print(&text::yaml(&objects))
}

/// Is what was found only what serves an installation in any namespace? Whoever mistook the namespace must not take it away.
fn is_elsewhere(found: &[Value], namespace: &str) -> bool {
    let is_own = |object: &Value| object["metadata"]["namespace"] == namespace;
    let is_shared = |object: &Value| object["kind"] != "Namespace";
    found.iter().any(is_shared) && !found.iter().any(is_own)
}

fn is_definition(object: &Value) -> bool {
    object["kind"] == "CustomResourceDefinition"
}

fn print(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs what talks to an API server. One that hangs up is an error to be told; only a reader that leaves ends us quietly.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    // SAFETY: to ignore a signal runs no code of ours.
    let before = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let done = runtime.block_on(work);
    if let Ok(before) = before {
        // SAFETY: what was there before is the default action, or to ignore it.
        let _ = unsafe { signal(Signal::SIGPIPE, before) };
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_switched_off_is_dropped() {
        let old = Install::default();
        assert!(dropped(&old, &old.render()).is_empty());
        let mut new = Install::default();
        assert!(new.values.set("metricsApi", "false").is_ok());
        let kinds = dropped(&old, &new.render());
        let kinds: Vec<_> = kinds.iter().map(|it| &it["kind"]).collect();
        assert_eq!(kinds, ["RoleBinding", "APIService", "APIService"]);
    }

    #[test]
    fn what_serves_another_namespace_is_not_taken_away() {
        let object = |kind: &str, metadata: Value| json!({"kind": kind, "metadata": metadata});
        let shared = object("ClusterRole", json!({"name": "weft-control"}));
        let own = object(
            "Service",
            json!({"name": "weft-control", "namespace": "mesh"}),
        );
        let namespace = object("Namespace", json!({"name": "mesh"}));
        for (found, namespace, expected) in [
            (vec![shared.clone(), own, namespace.clone()], "mesh", false),
            (vec![shared, namespace.clone()], "mesh", true),
            (vec![namespace], "mesh", false),
            (vec![], "mesh", false),
        ] {
            assert_eq!(is_elsewhere(&found, namespace), expected, "{found:?}");
        }
    }
}
