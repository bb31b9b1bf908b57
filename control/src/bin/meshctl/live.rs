//! The state that a command is about: that of files, of a node or controller, or of a Kubernetes cluster.

use crate::install::block_on;
use crate::manifests;
use crate::observe::connect::{Target, Unreachable};
use crate::simulate::AccessArg;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use weft_control::check::Asked;
use weft_control::export::{Exported, gateway_api};
use weft_control::index::Index;
use weft_control::install::live::Live;
use weft_control::kube::connect;
use weft_control::live::{Answers, Requests, cluster};
use weft_control::manifest::{ObjectKey, Problem, Severity};
use weft_control::simulate::{Answer, Completed, Files, Simulation, question};
use weft_control::smi::Groups;
use weft_control::source::kube::once;
use weft_control::traffic::api::{SIMULATE, encoded};
use weft_control::views::Mesh;
use weft_control::views::findings::{Code, Finding};
use weft_control::{analyze, describe};
use weft_proxy_api::names::DEFAULT_TRUST_DOMAIN;

/// How long a controller may think about a long list.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the help of each command says about where it looks.
pub(crate) const WHERE: &str = "With -f it is about files. Without, about a running mesh: the API server of --kubeconfig or \
    --context, or the controller of --state or --control; where none of these is named, the node that runs on this machine \
    (meshctl local), and else the API server that kubectl would ask.";

/// Which state
#[derive(Debug, Clone, Args)]
pub(crate) struct State {
    /// File or folder with manifests, or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["state", "control", "kubeconfig", "context"])]
    pub(crate) filename: Vec<PathBuf>,
    /// What happens to traffic that no TrafficTarget allows, where no annotation says otherwise [default: what the running mesh
    /// has; permissive for files]
    #[arg(long, value_enum)]
    access: Option<AccessArg>,
    /// Trust domain of the mesh [default: that of the running mesh; cluster.local for files]
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// Let HTTPRouteGroup and TCPRoute of spec.smi-spec.io/v1alpha1 in the files count as those of specs.smi-spec.io
    #[arg(long, requires = "filename")]
    legacy_spec_group: bool,
    #[command(flatten)]
    running: Running,
}

/// Which running mesh
#[derive(Debug, Clone, Args)]
pub(crate) struct Running {
    #[command(flatten)]
    target: Target,
}

/// Where a running mesh is asked.
pub(crate) enum Place<'a> {
    /// Its controller.
    Controller(&'a Target),
    /// The API server; the settings name the namespace of the controller.
    Kubernetes(connect::Settings),
}

/// A request that was read, and its answer; or why there is none.
pub(crate) type Answered = Result<Answer, String>;

/// What was answered.
pub(crate) struct Told {
    /// To each request.
    pub(crate) answers: Vec<Answered>,
    /// What is wrong with what was written, for people.
    pub(crate) lines: Vec<String>,
    /// Why this is perhaps of a state before.
    pub(crate) outdated: Option<String>,
}

/// Something that answers.
pub(crate) enum Source<'a> {
    /// A state that is known here; what is wrong within what was written; and the cluster that it was read from.
    Here(Box<Simulation>, Vec<Problem>, Option<connect::Settings>),
    /// A controller, and the access to ask for.
    Controller(&'a Target, Option<String>),
}

impl Running {
    /// What was named, else the node on this machine if one runs, else what kubectl would ask.
    pub(crate) fn place(&self) -> Place<'_> {
        let target = &self.target;
        let cluster = || Place::Kubernetes(target.cluster.settings(&target.system_namespace));
        match (target.cluster.is_named(), target.is_named()) {
            (true, _) => cluster(),
            (false, true) => Place::Controller(&self.target),
            (false, false) if self.target.is_there() => Place::Controller(&self.target),
            (false, false) => cluster(),
        }
    }
}

impl State {
    /// Is it about files?
    pub(crate) fn is_files(&self) -> bool {
        !self.filename.is_empty()
    }

    /// The mesh that files are taken to be of.
    pub(crate) fn mesh(&self) -> Mesh {
        let domain = self.trust_domain.as_deref();
        Mesh {
            trust_domain: domain.unwrap_or(DEFAULT_TRUST_DOMAIN).to_owned(),
            access: self.access.unwrap_or(AccessArg::Permissive).into(),
            ..Mesh::default()
        }
    }

    /// The files.
    pub(crate) fn files(&self) -> Result<Files> {
        let groups = groups(self.legacy_spec_group);
        Ok(Files::of(groups, manifests::read(&self.filename)?))
    }

    /// What answers.
    pub(crate) fn source(&self) -> Result<Source<'_>> {
        if self.is_files() {
            let files = self.files()?;
            let problems = files.problems().cloned().collect();
            let simulation = Simulation::new(&files, self.mesh());
            return Ok(Source::Here(Box::new(simulation), problems, None));
        }
        match self.running.place() {
            Place::Controller(target) => {
                if self.trust_domain.is_some() {
                    bail!("--trust-domain: a running controller has its own");
                }
                let access = self.access.map(|it| it.name().to_owned());
                Ok(Source::Controller(target, access))
            }
            Place::Kubernetes(settings) => block_on(self.read(&settings)),
        }
    }

    /// Everything that a controller would read.
    async fn read(&self, settings: &connect::Settings) -> Result<Source<'static>> {
        let client = connect::client(settings).await.map_err(Unreachable)?;
        let (mesh, groups) = self.installed(client.clone(), &settings.namespace).await;
        let events = tokio::time::timeout(PATIENCE, once::read(&client, groups)).await;
        let events = events.unwrap_or_else(|_| Err(anyhow!("the API server takes too long")));
        let events = events.map_err(Unreachable)?;
        let index = Index::new(mesh, []);
        index.apply(events);
        let simulation = Simulation::of(Completed::of(index.read(Clone::clone)));
        let (problems, settings) = (index.file_problems(), settings.clone());
        Ok(Source::Here(Box::new(simulation), problems, Some(settings)))
    }

    /// What holds for the whole mesh, as far as the installation says it.
    async fn installed(
        &self,
        client: weft_control::kube::Client,
        namespace: &str,
    ) -> (Mesh, Groups) {
        let (mut mesh, mut legacy) = (self.mesh(), false);
        match Live::new(client).values(namespace).await {
            Ok(values) => {
                legacy = values.get("legacySpecGroup") == true;
                let text = |key| values.get(key).as_str().map(str::to_owned);
                let access = text("access").and_then(|it| weft_control::live::access(&it).ok());
                if let (None, Some(access)) = (self.access, access) {
                    mesh.access = access;
                }
                if let (None, Some(domain)) = (&self.trust_domain, text("trustDomain")) {
                    mesh.trust_domain = domain;
                }
            }
            Err(error) if self.access.is_none() || self.trust_domain.is_none() => eprintln!(
                "meshctl: access {} and trust domain {} are taken: {error:#}",
                mesh.access, mesh.trust_domain
            ),
            Err(_) => {}
        }
        (mesh, groups(legacy))
    }
}

fn groups(legacy: bool) -> Groups {
    match legacy {
        true => Groups::Legacy,
        false => Groups::Current,
    }
}

impl Source<'_> {
    /// Answers requests, each as it is written in a list.
    pub(crate) fn ask(&self, requests: Vec<Value>) -> Result<Told> {
        let (target, access) = match self {
            Self::Here(simulation, problems, _) => {
                let one = |it| question::read_one(it).map(|it| simulation.ask(&it));
                let answers = requests.into_iter().map(one).collect();
                let worth = problems.iter().filter(|it| it.severity > Severity::Info);
                return Ok(Told {
                    answers,
                    lines: worth.map(ToString::to_string).collect(),
                    outdated: None,
                });
            }
            Self::Controller(target, access) => (target, access),
        };
        let count = requests.len();
        let asked = Requests {
            requests,
            access: access.clone(),
        };
        let said = target.post_json(SIMULATE, &serde_json::to_string(&asked)?, PATIENCE)?;
        let said: Answers = serde_json::from_str(&said).context(UNREADABLE)?;
        if said.answers.len() != count {
            bail!(UNREADABLE);
        }
        let read = |it: Value| match it.get("error").and_then(Value::as_str) {
            Some(why) => Ok(Err(why.to_owned())),
            None => serde_json::from_value(it).map(Ok).context(UNREADABLE),
        };
        let answers = said.answers.into_iter().map(read).collect::<Result<_>>()?;
        let mut lines = said.problems;
        lines.extend(said.outdated.as_deref().map(warning));
        Ok(Told {
            answers,
            lines,
            outdated: said.outdated,
        })
    }

    /// Everything suspicious.
    pub(crate) fn findings(&self) -> Result<Vec<Finding>> {
        let said = match self {
            Self::Here(simulation, problems, _) => {
                analyze::running(&simulation.state().world, problems.clone(), None)
            }
            Self::Controller(..) => self.get("analyze", &[])?,
        };
        let findings = analyze::read(&said).context(UNREADABLE)?;
        let outdated = findings.iter().filter(|it| it.code == Code::NotRead);
        outdated.for_each(|it| eprintln!("{}", warning(&it.problem.message)));
        Ok(findings)
    }

    /// One object.
    pub(crate) fn describe(&self, key: &ObjectKey) -> Result<Value> {
        match self {
            Self::Here(simulation, _, cluster) => {
                let mut tree = describe::describe(simulation, key).map_err(|why| anyhow!(why))?;
                if let Some(settings) = cluster {
                    let key = describe::described(&tree, key);
                    tree["live"] = block_on(async {
                        let asked = Asked::open(settings).await?;
                        Ok(cluster::told_of(&asked, &key).await)
                    })?;
                }
                Ok(tree)
            }
            Self::Controller(..) => self.get("describe", &[("object", object(key))]),
        }
    }

    /// What an object became.
    pub(crate) fn effective(&self, key: &ObjectKey) -> Result<Value> {
        match self {
            Self::Here(simulation, ..) => {
                describe::effective(simulation, key).map_err(|why| anyhow!(why))
            }
            Self::Controller(..) => {
                let form = ("form", "effective".to_owned());
                self.get("export", &[("object", object(key)), form])
            }
        }
    }

    /// An object as Gateway API.
    pub(crate) fn gateway_api(&self, key: &ObjectKey) -> Result<Exported> {
        match self {
            Self::Here(simulation, ..) => gateway_api(simulation, key).map_err(|why| anyhow!(why)),
            Self::Controller(..) => {
                let said = self.get("export", &[("object", object(key))])?;
                serde_json::from_value(said).context(UNREADABLE)
            }
        }
    }

    /// What is wrong within what was written; a controller tells it with its other answers.
    pub(crate) fn problems(&self) -> &[Problem] {
        match self {
            Self::Here(_, problems, _) => problems,
            Self::Controller(..) => &[],
        }
    }

    fn get(&self, path: &str, fields: &[(&str, String)]) -> Result<Value> {
        let Self::Controller(target, access) = self else {
            return Ok(json!(null));
        };
        let access = access.clone().map(|access| ("access", access));
        let fields = fields.iter().cloned().chain(access);
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name}={}", encoded(&value)))
            .collect();
        let said = target.get(&format!("/api/v1/{path}?{}", fields.join("&")))?;
        let said: Value = serde_json::from_str(&said).context(UNREADABLE)?;
        if let Some(why) = said["outdated"].as_str() {
            eprintln!("{}", warning(why));
        }
        Ok(said)
    }
}

/// Said beside an answer that is perhaps of a state before.
fn warning(why: &str) -> String {
    format!("meshctl: {why}")
}

const UNREADABLE: &str = "the controller's answer cannot be read: is it of another version?";

/// As the controller's API names an object.
pub(crate) fn object(key: &ObjectKey) -> String {
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}
