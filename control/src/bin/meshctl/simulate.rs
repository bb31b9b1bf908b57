//! `meshctl simulate`: what would happen to this request?

use crate::manifests;
use anyhow::{Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::manifest::{Problem, Severity};
use weft_control::simulate::answer::{Answer, Verdict};
use weft_control::simulate::question::{self, Question, Written};
use weft_control::simulate::{Files, Simulation, text};
use weft_control::views::Mesh;
use weft_proxy_api::names::DEFAULT_TRUST_DOMAIN;
use weft_proxy_api::policy::Access;

/// Bad usage, or something that cannot be read.
pub(crate) const USAGE: u8 = 2;

/// Say what would happen to a request, by the code the proxies run
///
/// Answers from manifests: Kubernetes and SMI objects in YAML or JSON, any number of documents, Lists. What they leave out
/// (pods, addresses, who is in the mesh) is assumed, and the answer says so.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("caller").args(["from", "from_pod", "from_spiffe", "unmeshed"])))]
#[command(group(ArgGroup::new("called").args(["to", "to_pod"])))]
pub(crate) struct SimulateArgs {
    /// File or folder with manifests, or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE", num_args = 1.., required_unless_present = "steps")]
    filename: Vec<PathBuf>,
    /// What happens to traffic that no TrafficTarget allows, where no annotation says otherwise
    #[arg(long, value_enum, default_value_t = AccessArg::Permissive)]
    access: AccessArg,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
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
    /// What is spoken: http, h2, grpc, tcp or udp
    #[arg(long, default_value = "http")]
    protocol: String,
    /// Method [default: GET, or POST for gRPC]
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// Path, with or without query
    #[arg(long, default_value = "/")]
    path: String,
    /// Header field; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// JSON list of requests to answer in one run, or - for stdin: each {from…, to…, protocol, method, path, headers}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["caller", "called"])]
    requests: Option<PathBuf>,
    /// Complete states to apply one after the other (files or folders); the answer is given after each
    #[arg(long, value_name = "FILE", num_args = 1..)]
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

/// A request that was read, and its answer; or why there is none.
type Answered = Result<Answer, String>;

/// What is said about one state.
struct Step {
    name: Option<String>,
    answers: Vec<Answered>,
    problems: Vec<Problem>,
}

/// 0, 1 for another verdict than expected, 2 for bad usage or what cannot be read.
pub(crate) fn run(args: &SimulateArgs) -> ExitCode {
    match steps(args) {
        Ok(steps) => {
            print(args, &steps);
            ExitCode::from(u8::from(!args.is_as_expected(&steps)))
        }
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

fn steps(args: &SimulateArgs) -> Result<Vec<Step>> {
    let questions = args.questions()?;
    let mesh = Mesh {
        trust_domain: args.trust_domain.clone(),
        access: args.access.into(),
        ..Mesh::default()
    };
    let mut files = Files::new(manifests::read(&args.filename)?);
    let answer = |files: &Files, name| {
        let simulation = Simulation::new(files, mesh.clone());
        let ask = |question: &Result<Question, String>| match question {
            Ok(question) => Ok(simulation.ask(question)),
            Err(why) => Err(why.clone()),
        };
        Step {
            name,
            answers: questions.iter().map(ask).collect(),
            problems: files.problems().cloned().collect(),
        }
    };
    if args.steps.is_empty() {
        return Ok(vec![answer(&files, None)]);
    }
    let mut steps = Vec::new();
    for path in &args.steps {
        files.next(manifests::read_state(path)?);
        steps.push(answer(&files, Some(path.to_string_lossy().into_owned())));
    }
    Ok(steps)
}

impl SimulateArgs {
    fn questions(&self) -> Result<Vec<Result<Question, String>>> {
        if let Some(file) = &self.requests {
            let list = question::read_list(&manifests::open(file)?);
            return list.map_err(|why| anyhow::anyhow!("{}: {why}", file.display()));
        }
        let written = Written {
            from: self.from.clone(),
            from_pod: self.from_pod.clone(),
            from_spiffe: self.from_spiffe.clone(),
            unmeshed: self.unmeshed,
            to: self.to.clone(),
            to_pod: self.to_pod.clone(),
            protocol: Some(self.protocol.clone()),
            method: self.method.clone(),
            path: Some(self.path.clone()),
            headers: self.headers.iter().cloned().map(Value::String).collect(),
        };
        match written.meant() {
            Ok(question) => Ok(vec![Ok(question)]),
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
        last.answers.iter().all(is)
    }
}

fn print(args: &SimulateArgs, steps: &[Step]) {
    let is_list = args.requests.is_some();
    let default = if is_list { Format::Json } else { Format::Text };
    match args.output.unwrap_or(default) {
        Format::Text => steps.iter().for_each(print_text),
        Format::Json => {
            // In JSON they are part of an answer; a list of answers has no place for them.
            if is_list {
                steps.iter().for_each(print_problems);
            }
            println!("{:#}", as_json(args, steps));
        }
    }
}

fn print_text(step: &Step) {
    print_problems(step);
    if let Some(name) = &step.name {
        println!("after {name}");
    }
    for answer in &step.answers {
        match answer {
            Ok(answer) => print!("{}", text::render(answer)),
            Err(why) => println!("ERROR: {why}"),
        }
    }
}

fn print_problems(step: &Step) {
    let worth = |problem: &&Problem| problem.severity > Severity::Info;
    step.problems
        .iter()
        .filter(worth)
        .for_each(|problem| eprintln!("{problem}"));
}

fn as_json(args: &SimulateArgs, steps: &[Step]) -> Value {
    let answers = |step: &Step| -> Vec<Value> { step.answers.iter().map(answered).collect() };
    let single = |step: &Step| -> Value {
        let mut value = answers(step).pop().unwrap_or_default();
        value["problems"] = problems(step);
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

fn answered(answer: &Answered) -> Value {
    match answer {
        Ok(answer) => serde_json::to_value(answer).unwrap_or_default(),
        Err(why) => json!({ "error": why }),
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
