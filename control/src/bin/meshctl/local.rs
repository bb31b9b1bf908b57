//! `meshctl local`: a node without Kubernetes, on this machine.

mod files;
mod shown;
mod up;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use files::{files, read};
use shown::{logs, pods, services, status};
use up::up;
use weft_control::local::{Access, Client, Exec, PodInfo, Rung, ServiceInfo, default_state};

/// Run pods from manifests on this machine, without Kubernetes
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    #[command(subcommand)]
    command: Command,
    /// Folder of the node's own files [default: weft-local in $XDG_RUNTIME_DIR, or a per-user one in /tmp]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node, until Ctrl-C or `meshctl local down`
    Up(Up),
    /// End the node and everything on it
    Down,
    /// Add or replace objects, from files, folders or - (stdin)
    Apply {
        /// File or folder with manifests, or -
        #[arg(short, long = "filename", required = true)]
        filename: Vec<PathBuf>,
    },
    /// Remove objects that were applied; a pod of a workload is made anew
    Delete {
        /// File or folder that was applied
        #[arg(short, long = "filename")]
        filename: Vec<PathBuf>,
        /// E.g. pod/web-1 or trafficsplit/web
        #[arg(required_unless_present = "filename", value_name = "KIND/NAME")]
        objects: Vec<String>,
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Show pods or services
    Get {
        /// What to show
        what: What,
        /// Only this namespace [default: all]
        #[arg(short, long)]
        namespace: Option<String>,
        /// How
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Show what is wrong, the rung and the controller
    Status {
        /// How
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Run a command in a pod, in deploy/NAME, or on the node itself (node)
    Exec {
        /// Pod, deploy/NAME or node
        pod: String,
        /// Container whose mounts and environment to use
        #[arg(short, long)]
        container: Option<String>,
        #[command(flatten)]
        namespace: Namespace,
        /// Command and arguments, after --
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show the output of a container, or of weft-control
    Logs {
        /// Pod, deploy/NAME or weft-control
        pod: String,
        /// Container [default: the first that is not the proxy]
        #[arg(short, long)]
        container: Option<String>,
        #[command(flatten)]
        namespace: Namespace,
        /// Go on as more is written
        #[arg(short, long)]
        follow: bool,
    },
    /// Replace the pods of a workload one after another
    Restart {
        /// E.g. deploy/web
        #[arg(value_name = "KIND/NAME")]
        object: String,
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Wait until all pods are ready
    Wait {
        /// Seconds to wait at most
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
        timeout: u64,
    },
}

#[derive(Debug, Args)]
struct Namespace {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

#[derive(Debug, Args)]
struct Up {
    /// Folder with manifests, watched for changes; may be repeated
    #[arg(short, long = "filename", value_name = "DIR")]
    filename: Vec<PathBuf>,
    /// Return once the node runs; it stays until `meshctl local down`
    #[arg(long)]
    detach: bool,
    /// What happens to traffic no TrafficTarget allows
    #[arg(long, value_enum, default_value_t = Access::Permissive)]
    access: Access,
    /// Force one way to isolate the node [default: the first that works]
    #[arg(long, value_enum)]
    rung: Option<Rung>,
    /// Leave the node's files behind
    #[arg(long)]
    keep: bool,
    /// Let the controller stay dead when it dies
    #[arg(long)]
    no_restart_control: bool,
    /// Run pods without a controller
    #[arg(long)]
    no_control: bool,
    /// The controller takes its objects from the API server of this kubeconfig, not from the folders
    #[arg(long, value_name = "FILE", conflicts_with = "no_control")]
    kubeconfig: Option<PathBuf>,
    /// Filter for the log of the controller (meshctl local logs weft-control)
    #[arg(long, value_name = "FILTER")]
    control_log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "pod", alias = "po")]
    Pods,
    #[value(alias = "service", alias = "svc")]
    Services,
}

/// The exit code is that of the command for `exec`.
pub(crate) fn run(args: LocalArgs) -> Result<ExitCode> {
    let state = args.state.unwrap_or_else(default_state);
    if let Command::Up(up_args) = args.command {
        return up(up_args, state);
    }
    let client = Client::open(&std::path::absolute(state)?)?;
    if matches!(
        args.command,
        Command::Get { .. } | Command::Status { .. } | Command::Logs { .. }
    ) {
        crate::end_with_reader();
    }
    match args.command {
        Command::Up(_) => {}
        Command::Down => client.down()?,
        Command::Apply { filename } => apply(&client, &filename)?,
        Command::Delete {
            filename,
            objects,
            namespace,
        } => delete(&client, &filename, &objects, &namespace.namespace)?,
        Command::Get {
            what: What::Pods,
            namespace,
            output,
        } => {
            let wanted = |pod: &PodInfo| namespace.as_ref().is_none_or(|ns| *ns == pod.namespace);
            pods(
                &client
                    .pods()?
                    .into_iter()
                    .filter(wanted)
                    .collect::<Vec<_>>(),
                output,
            )?;
        }
        Command::Get {
            what: What::Services,
            namespace,
            output,
        } => {
            let wanted = |service: &ServiceInfo| {
                namespace.as_ref().is_none_or(|ns| *ns == service.namespace)
            };
            services(
                &client
                    .services()?
                    .into_iter()
                    .filter(wanted)
                    .collect::<Vec<_>>(),
                output,
            )?;
        }
        Command::Status { output } => status(&client, output)?,
        Command::Exec {
            pod,
            container,
            namespace,
            command,
        } => {
            let exec = Exec {
                namespace: namespace.namespace,
                pod,
                container,
                command,
                ..Exec::default()
            };
            let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            let code = client.exec(&exec, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Command::Logs {
            pod,
            container,
            namespace,
            follow,
        } => {
            logs(
                &client.log_file(&namespace.namespace, &pod, container.as_deref())?,
                follow,
            )?;
        }
        Command::Restart { object, namespace } => {
            let (kind, name) = kind_and_name(&object)?;
            client.restart(kind, &namespace.namespace, name)?;
        }
        Command::Wait { timeout } => client.wait(Duration::from_secs(timeout))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(client: &Client, paths: &[PathBuf]) -> Result<()> {
    for (name, text) in read(paths)? {
        for warning in client.apply(&name, &text)? {
            eprintln!("{warning}");
        }
        eprintln!("applied {name}");
    }
    Ok(())
}

fn delete(client: &Client, paths: &[PathBuf], objects: &[String], namespace: &str) -> Result<()> {
    let mut warnings = Vec::new();
    for path in files(paths)? {
        warnings.extend(client.delete_file(&path.to_string_lossy())?);
    }
    for object in objects {
        let (kind, name) = kind_and_name(object)?;
        warnings.extend(client.delete(kind, namespace, name)?);
    }
    warnings.iter().for_each(|warning| eprintln!("{warning}"));
    Ok(())
}

fn kind_and_name(object: &str) -> Result<(&str, &str)> {
    object
        .split_once('/')
        .with_context(|| format!("{object}: expected KIND/NAME, e.g. deploy/web"))
}
