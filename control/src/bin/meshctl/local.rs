//! `meshctl local`: a node without Kubernetes, on this machine.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use weft_control::local::{
    Access, Client, Exec, Options, PodInfo, Rung, Runtime, ServiceInfo, default_state,
};

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
        #[arg(long, default_value_t = 60)]
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
        end_with_reader()?;
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

/// `… | head -1` ends us quietly, as it ends any program that prints.
fn end_with_reader() -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

fn up(args: Up, state: PathBuf) -> Result<ExitCode> {
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

/// Neither manifests nor folders that may hold some.
fn is_empty(dir: &Path) -> bool {
    let folders = |entries: std::fs::ReadDir| entries.flatten().any(|e| e.path().is_dir());
    manifests_in(dir).is_ok_and(|files| files.is_empty())
        && !std::fs::read_dir(dir).is_ok_and(folders)
}

/// Manifests of a folder, in order.
fn manifests_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    let mut inside: Vec<_> = entries.map(|entry| entry.path()).collect();
    inside.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str());
        file.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
    });
    inside.sort();
    Ok(inside)
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
    for path in files(paths)? {
        client.delete_file(&path.to_string_lossy())?;
    }
    for object in objects {
        let (kind, name) = kind_and_name(object)?;
        client.delete(kind, namespace, name)?;
    }
    Ok(())
}

fn kind_and_name(object: &str) -> Result<(&str, &str)> {
    object
        .split_once('/')
        .with_context(|| format!("{object}: expected KIND/NAME, e.g. deploy/web"))
}

fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let read = |path: PathBuf| -> Result<(String, String)> {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            return Ok(("stdin".into(), text));
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.to_string_lossy().into_owned(), text))
    };
    files(paths)?.into_iter().map(read).collect()
}

/// Folders become the manifests in them.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            let kept = if path == Path::new("-") {
                path.clone()
            } else {
                std::path::absolute(path)?
            };
            all.push(kept);
            continue;
        }
        let inside = manifests_in(path)?;
        if inside.is_empty() {
            bail!("there are no manifests in {}", path.display());
        }
        for file in inside {
            all.push(std::path::absolute(file)?);
        }
    }
    Ok(all)
}

fn logs(path: &Path, follow: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let older = path.with_extension("log.1");
    if let Ok(mut file) = File::open(older) {
        std::io::copy(&mut file, &mut out)?;
    }
    let mut at = 0;
    loop {
        if let Ok(mut file) = File::open(path) {
            // A file that shrank was put aside: begin with the new one.
            if file.metadata()?.len() < at {
                at = 0;
            }
            file.seek(SeekFrom::Start(at))?;
            at += std::io::copy(&mut file, &mut out)?;
            out.flush()?;
        }
        if !follow || !path.parent().is_some_and(Path::exists) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn status(client: &Client, output: Format) -> Result<()> {
    let status = client.status()?;
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("rung        {}", status.rung_reason);
    println!("state       {}", status.state.display());
    match status.control_pid {
        Some(_) => println!(
            "controller  running at {}, started {} ×",
            status.control_addr, status.control_starts
        ),
        None => println!("controller  not running"),
    }
    for problem in &status.problems {
        println!("problem     {problem}");
    }
    Ok(())
}

fn pods(pods: &[PodInfo], output: Format) -> Result<()> {
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(pods)?);
        return Ok(());
    }
    let wide = output == Format::Wide;
    let mut rows = vec![
        vec![
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "MESH",
        ]
        .into_iter()
        .map(String::from)
        .collect::<Vec<_>>(),
    ];
    if wide {
        rows[0].extend(["IP", "OWNER", "MESSAGE"].map(String::from));
    }
    for pod in pods {
        let lasting: Vec<_> = pod
            .containers
            .iter()
            .filter(|c| !c.init || c.sidecar)
            .collect();
        let ready = lasting.iter().filter(|c| c.ready).count();
        let restarts: u32 = pod.containers.iter().map(|c| c.restarts).sum();
        let mut row = vec![
            pod.namespace.clone(),
            pod.name.clone(),
            format!("{ready}/{}", lasting.len()),
            pod.status.clone(),
            restarts.to_string(),
            format!("{}s", pod.age_seconds),
            if pod.meshed { "yes" } else { "no" }.into(),
        ];
        if wide {
            let reason = pod
                .containers
                .iter()
                .filter(|c| !c.ready)
                .find_map(|c| Some(format!("{}: {}", c.name, c.reason.as_ref()?)));
            row.push(pod.ips.first().map_or("-".into(), ToString::to_string));
            row.push(pod.owner.clone().unwrap_or_else(|| "-".into()));
            row.push(pod.message.clone().or(reason).unwrap_or_default());
        }
        rows.push(row);
    }
    print(&rows, "no pods");
    Ok(())
}

fn services(services: &[ServiceInfo], output: Format) -> Result<()> {
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(services)?);
        return Ok(());
    }
    let mut rows = vec![
        ["NAMESPACE", "NAME", "CLUSTER-IP", "PORTS", "ENDPOINTS"]
            .map(String::from)
            .to_vec(),
    ];
    for service in services {
        let list = |items: Vec<String>| {
            if items.is_empty() {
                "-".to_owned()
            } else {
                items.join(",")
            }
        };
        rows.push(vec![
            service.namespace.clone(),
            service.name.clone(),
            list(
                service
                    .cluster_ips
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
            list(
                service
                    .ports
                    .iter()
                    .map(|p| format!("{}/{}", p.port, p.protocol))
                    .collect(),
            ),
            list(service.endpoints.iter().map(ToString::to_string).collect()),
        ]);
    }
    print(&rows, "no services");
    Ok(())
}

/// Columns as wide as their widest cell.
fn print(rows: &[Vec<String>], nothing: &str) {
    if rows.len() < 2 {
        if std::io::stderr().is_terminal() {
            eprintln!("{nothing}");
        }
        return;
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        println!("{}", line.trim_end());
    }
}
