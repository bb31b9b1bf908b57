//! `meshctl describe` and `meshctl export`: one object, what of it applies, and what it became.

use crate::live::{Source, State, WHERE};
use crate::simulate::failed;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::process::ExitCode;
use weft_control::describe;
use weft_control::manifest::ObjectKey;

/// Say what of a Service, pod or object of the mesh applies, to whom, and what does not and why
#[derive(Debug, Args)]
#[command(after_help = WHERE)]
pub(crate) struct DescribeArgs {
    /// svc, pod, split, target, servicepolicy, httproutegroup, tcproute or udproute
    kind: String,
    /// The object; it stands before -f, which takes all that follows for files
    #[arg(value_name = "NAMESPACE/NAME")]
    name: String,
    #[command(flatten)]
    about: About,
}

/// Print an SMI object as what it became
#[derive(Debug, Args)]
#[command(after_help = WHERE)]
pub(crate) struct ExportArgs {
    /// E.g. trafficsplit/web; it stands before -f, which takes all that follows for files
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The policy that proxies have, or objects of Gateway API
    #[arg(long, value_enum, default_value_t = Form::Effective)]
    to: Form,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct About {
    #[command(flatten)]
    state: State,
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
    result.unwrap_or_else(|error| failed(&error))
}

fn described(args: &DescribeArgs) -> Result<ExitCode> {
    let (namespace, name) = args.name.split_once('/').unwrap_or(("default", &args.name));
    let key = key(&args.kind, namespace, name)?;
    let tree = args.about.source()?.describe(&key)?;
    args.about.print(&tree)?;
    Ok(ExitCode::SUCCESS)
}

fn exported(args: &ExportArgs) -> Result<ExitCode> {
    let (kind, name) = args
        .object
        .split_once('/')
        .with_context(|| format!("{}: expected KIND/NAME, e.g. trafficsplit/web", args.object))?;
    let key = key(kind, &args.namespace, name)?;
    let source = args.about.source()?;
    if args.to == Form::Effective {
        args.about.print(&source.effective(&key)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let exported = source.gateway_api(&key)?;
    if args.about.output == Format::Json {
        args.about.print(&json!(exported))?;
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
            args.about.print(object)?;
        }
    }
    Ok(ExitCode::from(u8::from(!exported.lost.is_empty())))
}

fn key(kind: &str, namespace: &str, name: &str) -> Result<ObjectKey> {
    let kind = describe::kind(kind).with_context(|| {
        format!("{kind}: expected svc, pod, split, target, servicepolicy or a route")
    })?;
    Ok(ObjectKey::new(kind, namespace, name))
}

impl About {
    fn source(&self) -> Result<Source<'_>> {
        let source = self.state.source()?;
        if self.state.is_files() {
            source.problems().iter().for_each(|it| eprintln!("{it}"));
        }
        Ok(source)
    }

    fn print(&self, tree: &Value) -> Result<()> {
        match self.output {
            Format::Json => println!("{tree:#}"),
            Format::Yaml => print!("{}", serde_saphyr::to_string(tree)?),
        }
        Ok(())
    }
}
