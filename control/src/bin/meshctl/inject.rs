//! `meshctl inject` and `uninject`: files, folders or stdin in; manifests to stdout (or back into the files), report to stderr.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft_control::inject::{self, Output, Settings, Sidecar, Trust};
use weft_proxy_api::names::keys;

/// Add the sidecar to every pod in manifests; everything else in them stays as it is, byte by byte
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    #[command(flatten)]
    files: Files,
    /// How the proxy is run: native needs Kubernetes 1.29
    #[arg(long, value_enum, default_value_t = SidecarArg::Native)]
    sidecar: SidecarArg,
    /// Inbound ports that bypass the proxy, e.g. 22,9000-9100
    #[arg(long, value_name = "PORTS")]
    skip_inbound_ports: Option<String>,
    /// Outbound ports that bypass the proxy
    #[arg(long, value_name = "PORTS")]
    skip_outbound_ports: Option<String>,
    /// Destination networks that bypass the proxy, e.g. 10.0.0.0/8
    #[arg(long, value_name = "NETWORKS")]
    skip_subnets: Option<String>,
    /// Ports that are never treated as HTTP
    #[arg(long, value_name = "PORTS")]
    opaque_ports: Option<String>,
    /// Log filter of the proxy, e.g. info,weft=debug
    #[arg(long, value_name = "FILTER")]
    proxy_log_level: Option<String>,
    /// Image of proxy and init
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// CPU request of the proxy [default: 10m]
    #[arg(long, value_name = "QUANTITY")]
    proxy_cpu_request: Option<String>,
    /// CPU limit of the proxy [default: none]
    #[arg(long, value_name = "QUANTITY")]
    proxy_cpu_limit: Option<String>,
    /// Memory request of the proxy [default: 16Mi]
    #[arg(long, value_name = "QUANTITY")]
    proxy_memory_request: Option<String>,
    /// Memory limit of the proxy [default: none]
    #[arg(long, value_name = "QUANTITY")]
    proxy_memory_limit: Option<String>,
    /// Address of the controller
    #[arg(long, value_name = "HOST:PORT")]
    control_addr: Option<String>,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// Put the roots of this file (PEM) into the manifests, instead of taking them from the controller's ConfigMap
    #[arg(long, value_name = "FILE")]
    trust_anchors: Option<PathBuf>,
    /// Add no annotations for Prometheus
    #[arg(long)]
    no_scrape: bool,
}

/// Take the sidecar out of manifests again: gives back the very bytes they had before
#[derive(Debug, Args)]
pub(crate) struct UninjectArgs {
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
struct Files {
    /// Files or folders (*.yaml, *.yml, *.json), or - for stdin
    #[arg(required_unless_present = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The same, as kubectl has it
    #[arg(short = 'f', long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Write the result back into the files
    #[arg(short, long)]
    in_place: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SidecarArg {
    /// An init container that keeps running
    Native,
    /// The first ordinary container
    Plain,
}

/// 0, or 1 if something could not be injected; then nothing is written.
pub(crate) fn inject(args: &InjectArgs) -> Result<ExitCode> {
    let settings = args.settings()?;
    args.files.change(|text| inject::inject(text, &settings))
}

/// 0, or 1 if something could not be taken out; then nothing is written.
pub(crate) fn uninject(args: &UninjectArgs) -> Result<ExitCode> {
    args.files.change(inject::uninject)
}

impl InjectArgs {
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings {
            scrape: !self.no_scrape,
            ..Settings::default()
        };
        if let SidecarArg::Plain = self.sidecar {
            settings.sidecar = Sidecar::Plain;
        }
        for (flag, key, value) in self.annotations() {
            if let Some(value) = value {
                settings
                    .set(key, value)
                    .unwrap_or_else(|e| usage(&format!("--{flag}: {e}")));
            }
        }
        settings.control_addr = self.control_addr.clone().unwrap_or(settings.control_addr);
        settings.trust_domain = self.trust_domain.clone().unwrap_or(settings.trust_domain);
        if let Some(file) = &self.trust_anchors {
            settings.trust = Trust::Text(
                std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {}", file.display()))?,
            );
        }
        settings.check().unwrap_or_else(|e| usage(&e));
        Ok(settings)
    }

    fn annotations(&self) -> [(&'static str, &'static str, &Option<String>); 10] {
        [
            (
                "skip-inbound-ports",
                keys::SKIP_INBOUND_PORTS,
                &self.skip_inbound_ports,
            ),
            (
                "skip-outbound-ports",
                keys::SKIP_OUTBOUND_PORTS,
                &self.skip_outbound_ports,
            ),
            ("skip-subnets", keys::SKIP_SUBNETS, &self.skip_subnets),
            ("opaque-ports", keys::OPAQUE_PORTS, &self.opaque_ports),
            (
                "proxy-log-level",
                keys::PROXY_LOG_LEVEL,
                &self.proxy_log_level,
            ),
            ("proxy-image", keys::PROXY_IMAGE, &self.proxy_image),
            (
                "proxy-cpu-request",
                keys::PROXY_CPU_REQUEST,
                &self.proxy_cpu_request,
            ),
            (
                "proxy-cpu-limit",
                keys::PROXY_CPU_LIMIT,
                &self.proxy_cpu_limit,
            ),
            (
                "proxy-memory-request",
                keys::PROXY_MEMORY_REQUEST,
                &self.proxy_memory_request,
            ),
            (
                "proxy-memory-limit",
                keys::PROXY_MEMORY_LIMIT,
                &self.proxy_memory_limit,
            ),
        ]
    }
}

impl Files {
    fn change(&self, change: impl Fn(&str) -> Output) -> Result<ExitCode> {
        let sources = self.sources()?;
        let mut outputs = vec![];
        for source in &sources {
            let output = change(&read(source)?);
            report(source, sources.len() > 1, &output);
            outputs.push(output);
        }
        if outputs.iter().any(Output::failed) {
            eprintln!("meshctl: nothing was written, because of the errors above");
            return Ok(ExitCode::FAILURE);
        }
        match self.in_place {
            true => sources
                .iter()
                .zip(&outputs)
                .try_for_each(|(source, output)| replace(source, &output.text))?,
            false => std::io::stdout()
                .lock()
                .write_all(joined(&outputs).as_bytes())
                .context("cannot write to stdout")?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// All files meant, folders read in the order of their names.
    fn sources(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![];
        for path in self.files.iter().chain(&self.filename) {
            match path.is_dir() {
                true => folder(path, 0, &mut found)?,
                false if self.in_place && is_stdin(path) => {
                    bail!("stdin cannot be written in place")
                }
                false => found.push(path.clone()),
            }
        }
        if found.is_empty() {
            bail!("no *.yaml, *.yml or *.json in these folders");
        }
        Ok(found)
    }
}

fn folder(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(path).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut paths: Vec<_> = entries
        .with_context(|| format!("cannot read {}", path.display()))?
        .iter()
        .map(|e| e.path())
        .collect();
    paths.sort();
    let hidden = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    for path in paths.into_iter().filter(|path| !hidden(path)) {
        // A symbolic link may lead in a circle.
        if path.is_dir() && depth < 32 {
            folder(&path, depth + 1, found)?;
        } else if path
            .extension()
            .is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = vec![];
    let limit = inject::MAX_TEXT as u64 + 1;
    let result = match is_stdin(path) {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        }
    };
    result.with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|e| {
        anyhow::anyhow!(
            "{} is not UTF-8 text (byte {})",
            path.display(),
            e.utf8_error().valid_up_to()
        )
    })
}

/// Whole or not at all, with the permissions it had; a link stays a link.
fn replace(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let path = path.canonicalize()?;
        if std::fs::read(&path)? == text.as_bytes() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(std::fs::metadata(&path)?.permissions())?;
        file.persist(&path).map(drop).map_err(|e| e.error)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// One file is given back exactly; several become one stream of documents.
fn joined(outputs: &[Output]) -> String {
    let mut all = String::new();
    for (index, output) in outputs.iter().enumerate() {
        let text = if index == 0 {
            output.text.as_str()
        } else {
            output.text.trim_start_matches('\u{feff}')
        };
        if index > 0 {
            all.push_str(if all.is_empty() || all.ends_with('\n') {
                ""
            } else {
                "\n"
            });
            all.push_str(if text.starts_with("---") {
                ""
            } else if text.starts_with('%') {
                "...\n"
            } else {
                "---\n"
            });
        }
        all.push_str(text);
    }
    all
}

fn report(source: &Path, several: bool, output: &Output) {
    for line in &output.report {
        match several {
            true => eprintln!("{}: {line}", source.display()),
            false => eprintln!("{line}"),
        }
    }
}

/// A flag that makes no sense: as clap itself would end.
fn usage(message: &str) -> ! {
    clap::Error::raw(
        clap::error::ErrorKind::ValueValidation,
        format!("{message}\n"),
    )
    .exit()
}
