//! `meshctl describe` and `meshctl export`: one object, what of it applies, and what it became.

use crate::manifests;
use crate::simulate::{AccessArg, USAGE};
use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::describe::{self, describe, effective};
use weft_control::export::gateway_api;
use weft_control::manifest::ObjectKey;
use weft_control::simulate::{Files, Simulation};
use weft_control::views::Mesh;
use weft_proxy_api::names::DEFAULT_TRUST_DOMAIN;

/// Say what of a Service, pod, TrafficSplit or TrafficTarget applies, to whom, and what does not and why
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// svc, pod, split, target or httproutegroup
    kind: String,
    /// The object
    #[arg(value_name = "NAMESPACE/NAME")]
    name: String,
    #[command(flatten)]
    source: Source,
}

/// Print an SMI object as what it became
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// E.g. trafficsplit/web
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The policy that proxies have, or objects of Gateway API
    #[arg(long, value_enum, default_value_t = Form::Effective)]
    to: Form,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Source {
    /// File or folder with manifests, or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE", num_args = 1.., required = true)]
    filename: Vec<PathBuf>,
    /// What happens to traffic that no TrafficTarget allows, where no annotation says otherwise
    #[arg(long, value_enum, default_value_t = AccessArg::Permissive)]
    access: AccessArg,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// How
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Effective,
    GatewayApi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// 0, or 2 for what cannot be read or does not exist.
pub(crate) fn run(args: &DescribeArgs) -> ExitCode {
    finish(described(args))
}

/// 0, 1 if something cannot be said in that form, 2 for what cannot be read or does not exist.
pub(crate) fn export(args: &ExportArgs) -> ExitCode {
    finish(exported(args))
}

fn finish(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("meshctl: {error:#}");
        ExitCode::from(USAGE)
    })
}

fn described(args: &DescribeArgs) -> Result<ExitCode> {
    let (namespace, name) = args.name.split_once('/').unwrap_or(("default", &args.name));
    let key = key(&args.kind, namespace, name)?;
    let tree = describe(&args.source.simulation()?, &key).map_err(|why| anyhow!(why))?;
    args.source.print(&tree)?;
    Ok(ExitCode::SUCCESS)
}

fn exported(args: &ExportArgs) -> Result<ExitCode> {
    let (kind, name) = args
        .object
        .split_once('/')
        .with_context(|| format!("{}: expected KIND/NAME, e.g. trafficsplit/web", args.object))?;
    let key = key(kind, &args.namespace, name)?;
    let simulation = args.source.simulation()?;
    if args.to == Form::Effective {
        let tree = effective(&simulation, &key).map_err(|why| anyhow!(why))?;
        args.source.print(&tree)?;
        return Ok(ExitCode::SUCCESS);
    }
    let exported = gateway_api(&simulation, &key).map_err(|why| anyhow!(why))?;
    if args.source.output == Format::Json {
        let all = json!({ "objects": exported.objects, "notExpressed": exported.lost, "notes": exported.notes });
        args.source.print(&all)?;
    } else {
        exported
            .lost
            .iter()
            .for_each(|lost| println!("# not expressed: {lost}"));
        exported
            .notes
            .iter()
            .for_each(|note| println!("# note: {note}"));
        for object in &exported.objects {
            println!("---");
            args.source.print(object)?;
        }
    }
    Ok(ExitCode::from(u8::from(!exported.lost.is_empty())))
}

fn key(kind: &str, namespace: &str, name: &str) -> Result<ObjectKey> {
    let kind = describe::kind(kind)
        .with_context(|| format!("{kind}: expected svc, pod, split, target or httproutegroup"))?;
    Ok(ObjectKey::new(kind, namespace, name))
}

impl Source {
    fn simulation(&self) -> Result<Simulation> {
        let files = Files::new(manifests::read(&self.filename)?);
        files.problems().for_each(|problem| eprintln!("{problem}"));
        let mesh = Mesh {
            trust_domain: self.trust_domain.clone(),
            access: self.access.into(),
            ..Mesh::default()
        };
        Ok(Simulation::new(&files, mesh))
    }

    fn print(&self, tree: &Value) -> Result<()> {
        match self.output {
            Format::Json => println!("{tree:#}"),
            Format::Yaml => print!("{}", serde_saphyr::to_string(tree)?),
        }
        Ok(())
    }
}
