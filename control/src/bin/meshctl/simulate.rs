//! `meshctl simulate`: what would happen to this request?

use crate::live::{Answered, Source, State, Told, WHERE};
use crate::manifests;
use crate::observe::{UNREACHABLE, connect::Unreachable};
use anyhow::{Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::manifest::{Problem, Severity};
use weft_control::simulate::answer::Verdict;
use weft_control::simulate::question::{self, Written};
use weft_control::simulate::{Simulation, answered, text};
use weft_proxy_api::policy::Access;

/// Bad usage, or something that cannot be read.
pub(crate) const USAGE: u8 = 2;

/// Say what would happen to a request, by the code the proxies run
///
/// Answers from manifests: Kubernetes and SMI objects in YAML or JSON, any number of documents, Lists. What they leave out
/// (pods, addresses, who is in the mesh) is assumed, and the answer says so. Or from the state in force of a running mesh.
#[derive(Debug, Args)]
#[command(after_help = WHERE)]
#[command(group(ArgGroup::new("caller").args(["from", "from_pod", "from_spiffe", "unmeshed"])))]
#[command(group(ArgGroup::new("called").args(["to", "to_pod"])))]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    state: State,
    /// The caller: a pod of this service account, with a proxy
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    from: Option<String>,
    /// The caller: this pod, or a pod of the workload of this name
    #[arg(long, value_name = "NAMESPACE/POD")]
    from_pod: Option<String>,
    /// The caller: whoever proves this identity
    #[arg(long, value_name = "ID")]
    from_spiffe: Option<String>,
    /// The caller: somebody without a proxy
    #[arg(long)]
    unmeshed: bool,
    /// The Service that is called
    #[arg(long, value_name = "SERVICE.NAMESPACE:PORT")]
    to: Option<String>,
    /// The pod that is called by its own address
    #[arg(long, value_name = "NAMESPACE/POD:PORT")]
    to_pod: Option<String>,
    /// What is spoken: http, h2, grpc, tcp or udp [default: http; tcp with --sni, h2 with --connect-protocol]
    #[arg(long)]
    protocol: Option<String>,
    /// TLS that the application speaks itself, to the server of this name (SNI)
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Extended CONNECT on HTTP/2 (RFC 8441) to this :protocol, e.g. websocket
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "sni")]
    connect_protocol: Option<String>,
    /// Method [default: GET, POST for gRPC, CONNECT with --connect-protocol]
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// Path, with or without query
    #[arg(long, default_value = "/")]
    path: String,
    /// Header field; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// JSON list of requests to answer in one run, or - for stdin: each {from…, to…, protocol, method, path, headers, sni, connect-protocol}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["caller", "called"])]
    requests: Option<PathBuf>,
    /// Complete states to apply one after the other (files or folders); the answer is given after each
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["state", "kubeconfig", "context", "control"])]
    steps: Vec<PathBuf>,
    /// Exit with 1 unless this is the verdict of every request (after the last step)
    #[arg(long, value_name = "VERDICT")]
    expect: Option<ExpectArg>,
    /// How to answer [default: text, or json for --requests]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AccessArg {
    Strict,
    Permissive,
    Audit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExpectArg {
    Allow,
    Deny,
    Refuse,
    Mixed,
    Passthrough,
}

/// What is said about one state.
struct Step {
    name: Option<String>,
    told: Told,
    problems: Vec<Problem>,
}

/// 0, 1 for another verdict than expected, 2 for bad usage or what cannot be read.
pub(crate) fn run(args: &SimulateArgs) -> ExitCode {
    match steps(args) {
        Ok(steps) => {
            print(args, &steps);
            ExitCode::from(u8::from(!args.is_as_expected(&steps)))
        }
        Err(error) => failed(&error),
    }
}

/// 3 where a running mesh cannot be reached, else 2.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("meshctl: {error:#}");
    ExitCode::from(match error.is::<Unreachable>() {
        true => UNREACHABLE,
        false => USAGE,
    })
}

fn steps(args: &SimulateArgs) -> Result<Vec<Step>> {
    let questions = args.questions()?;
    if args.steps.is_empty() {
        return Ok(vec![step(&args.state.source()?, questions, None)?]);
    }
    let mut files = args.state.files()?;
    let mut steps = Vec::new();
    for path in &args.steps {
        files.next(manifests::read_state(path)?);
        let problems = files.problems().cloned().collect();
        let simulation = Simulation::new(&files, args.state.mesh());
        let source = Source::Here(Box::new(simulation), problems, None);
        let name = Some(path.to_string_lossy().into_owned());
        steps.push(step(&source, questions.clone(), name)?);
    }
    Ok(steps)
}

fn step(source: &Source<'_>, questions: Vec<Value>, name: Option<String>) -> Result<Step> {
    Ok(Step {
        name,
        told: source.ask(questions)?,
        problems: source.problems().to_vec(),
    })
}

impl SimulateArgs {
    /// Each as in a list of requests.
    fn questions(&self) -> Result<Vec<Value>> {
        if let Some(file) = &self.requests {
            let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
            if is_stdin(file) && self.state.filename.iter().any(is_stdin) {
                bail!("stdin has either manifests (-f -) or requests (--requests -)");
            }
            let list = question::raw_list(&manifests::open(file)?);
            return list.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()));
        }
        let written = Written {
            from: self.from.clone(),
            from_pod: self.from_pod.clone(),
            from_spiffe: self.from_spiffe.clone(),
            unmeshed: self.unmeshed,
            to: self.to.clone(),
            to_pod: self.to_pod.clone(),
            protocol: self.protocol.clone(),
            method: self.method.clone(),
            path: Some(self.path.clone()),
            headers: self.headers.iter().cloned().map(Value::String).collect(),
            sni: self.sni.clone(),
            connect_protocol: self.connect_protocol.clone(),
        };
        match written.meant() {
            Ok(_) => Ok(vec![serde_json::to_value(written)?]),
            Err(why) => bail!("{why}"),
        }
    }

    fn is_as_expected(&self, steps: &[Step]) -> bool {
        let (Some(expected), Some(last)) = (self.expect, steps.last()) else {
            return true;
        };
        let expected = Verdict::from(expected);
        let is = |answer: &Answered| {
            answer
                .as_ref()
                .is_ok_and(|it| it.decision.verdict == expected)
        };
        last.told.answers.iter().all(is)
    }
}

fn print(args: &SimulateArgs, steps: &[Step]) {
    let is_list = args.requests.is_some();
    let default = if is_list { Format::Json } else { Format::Text };
    match args.output.unwrap_or(default) {
        Format::Text => steps.iter().for_each(print_text),
        Format::Json => {
            // In JSON they are part of an answer; a list of answers has no place for them, and a controller tells lines.
            let apart = |step: &&Step| is_list || step.problems.is_empty();
            steps.iter().filter(apart).for_each(print_problems);
            println!("{:#}", as_json(args, steps));
        }
    }
}

fn print_text(step: &Step) {
    print_problems(step);
    if let Some(name) = &step.name {
        println!("after {name}");
    }
    for answer in &step.told.answers {
        match answer {
            Ok(answer) => print!("{}", text::render(answer)),
            Err(why) => println!("ERROR: {why}"),
        }
    }
}

fn print_problems(step: &Step) {
    let lines = &step.told.lines;
    lines.iter().for_each(|line| eprintln!("{line}"));
}

fn as_json(args: &SimulateArgs, steps: &[Step]) -> Value {
    let answers = |step: &Step| -> Vec<Value> { step.told.answers.iter().map(answered).collect() };
    let single = |step: &Step| -> Value {
        let mut value = answers(step).pop().unwrap_or_default();
        value["problems"] = problems(step);
        if let Some(why) = &step.told.outdated {
            value["outdated"] = why.as_str().into();
        }
        value
    };
    match (args.requests.is_some(), args.steps.is_empty(), steps) {
        (true, true, [step]) => answers(step).into(),
        (false, true, [step]) => single(step),
        (is_list, _, steps) => steps
            .iter()
            .map(|step| match is_list {
                true => {
                    json!({"step": step.name, "answers": answers(step), "problems": problems(step)})
                }
                false => {
                    let mut value = json!({"step": step.name});
                    if let (Some(to), Value::Object(from)) = (value.as_object_mut(), single(step)) {
                        to.extend(from);
                    }
                    value
                }
            })
            .collect(),
    }
}

fn problems(step: &Step) -> Value {
    let worth = |problem: &&Problem| problem.severity > Severity::Info;
    let one = |problem: &Problem| {
        json!({
            "file": &*problem.origin.file,
            "line": problem.origin.line,
            "object": problem.object,
            "field": problem.field,
            "message": problem.message,
            "severity": problem.severity.to_string(),
        })
    };
    step.problems.iter().filter(worth).map(one).collect()
}

impl AccessArg {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            AccessArg::Strict => "strict",
            AccessArg::Permissive => "permissive",
            AccessArg::Audit => "audit",
        }
    }
}

impl From<AccessArg> for Access {
    fn from(access: AccessArg) -> Self {
        match access {
            AccessArg::Strict => Access::Strict,
            AccessArg::Permissive => Access::Permissive,
            AccessArg::Audit => Access::Audit,
        }
    }
}

impl From<ExpectArg> for Verdict {
    fn from(verdict: ExpectArg) -> Self {
        match verdict {
            ExpectArg::Allow => Verdict::Allow,
            ExpectArg::Deny => Verdict::Deny,
            ExpectArg::Refuse => Verdict::Refuse,
            ExpectArg::Mixed => Verdict::Mixed,
            ExpectArg::Passthrough => Verdict::Passthrough,
        }
    }
}
