//! Answers to the questions of clients, from the cluster's state.

mod exec;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::controller::{self, Controller};
use super::files::Applied;
use super::kubelet::{End, LONGEST};
use super::lookup::{kind_named, log_file};
use super::server::{self, Asked};
use super::services::Resolved;
use super::shown::info;
use super::wire::{Reply, Request, Status};
use crate::manifest::{self, Kind, Object, ObjectKey};
use exec::{exec, way_out};

/// How long the source may take to see what was applied.
const SEEN: Duration = Duration::from_secs(5);
/// What is said where it takes longer.
const UNSEEN: &str = "it is written, and the node has not taken it over within 5 s: it goes by what was there before, or another \
    file says otherwise";

type Answer = oneshot::Sender<(Reply, Option<OwnedFd>)>;

/// Does the node go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Continue,
    End,
}

/// Takes questions; keeps those that must wait.
pub(crate) struct Desk {
    controller: Option<Controller>,
    applied: Applied,
    reason: String,
    waiting: Vec<(Instant, Answer)>,
    unseen: Vec<Unseen>,
    last: Vec<Answer>,
}

/// Answered when the cluster has seen it.
struct Unseen {
    there: Vec<(ObjectKey, Object)>,
    gone: Vec<ObjectKey>,
    /// What is wrong with it.
    said: Vec<String>,
    deadline: Instant,
    answer: Answer,
}

impl Unseen {
    fn gone(gone: Vec<ObjectKey>, answer: Answer) -> Self {
        Self {
            there: vec![],
            gone,
            said: vec![],
            deadline: Instant::now() + SEEN,
            answer,
        }
    }
}

impl Desk {
    pub(crate) fn new(controller: Option<Controller>, applied: Applied, reason: String) -> Self {
        Self {
            controller,
            applied,
            reason,
            waiting: vec![],
            unseen: vec![],
            last: vec![],
        }
    }

    pub(crate) fn answer(&mut self, asked: Asked, cluster: &mut Cluster) -> Verdict {
        let Asked {
            request,
            fds,
            reply,
        } = asked;
        match request {
            Request::Down => {
                self.last.push(reply);
                return Verdict::End;
            }
            Request::Wait { seconds } => {
                let limit = Duration::from_secs(seconds).min(LONGEST);
                self.waiting.push((Instant::now() + limit, reply));
            }
            Request::Apply { name, text } => self.apply(&name, &text, reply),
            Request::DeleteFile { name } => self.delete_file(&name, reply),
            Request::DeleteObject {
                kind,
                namespace,
                name,
            } => self.delete(&kind, &namespace, &name, cluster, reply),
            Request::Exec {
                namespace,
                pod,
                container,
                command,
                env,
            } => {
                if let Err((error, reply)) = exec(
                    cluster,
                    &namespace,
                    &pod,
                    container.as_deref(),
                    command,
                    env,
                    fds,
                    reply,
                ) {
                    tell(reply, Err::<(), _>(error));
                }
            }
            Request::Dial { namespace, pod, to } => {
                let from = match pod {
                    Some(pod) => way_out(cluster, &namespace, &pod, to),
                    None => Ok((None, to)),
                };
                tokio::spawn(async move {
                    let dialled = match from {
                        Ok((namespace_of, to)) => server::dial(namespace_of, to).await,
                        Err(error) => Err(error),
                    };
                    let _ = match dialled {
                        Ok(fd) => reply.send((Reply::Ok(Value::Null), Some(fd))),
                        Err(error) => reply.send((Reply::Error(format!("{error:#}")), None)),
                    };
                });
            }
            simple => tell(reply, self.simple(simple, cluster)),
        }
        Verdict::Continue
    }

    fn simple(&mut self, request: Request, cluster: &mut Cluster) -> Result<Value> {
        let value = match request {
            Request::Status => serde_json::to_value(self.status(cluster)),
            Request::Pods => {
                serde_json::to_value(cluster.pods.values().map(info).collect::<Vec<_>>())
            }
            Request::Services => serde_json::to_value(
                cluster
                    .services
                    .iter()
                    .map(Resolved::info)
                    .collect::<Vec<_>>(),
            ),
            Request::Restart {
                kind,
                namespace,
                name,
            } => serde_json::to_value(restart(cluster, &kind, &namespace, &name)?),
            Request::LogFile {
                namespace,
                pod,
                container,
            } => serde_json::to_value(log_file(cluster, &namespace, &pod, container.as_deref())?),
            Request::Control { signal, start } => {
                serde_json::to_value(self.control(signal, start)?)
            }
            _ => bail!("this question is answered elsewhere"),
        };
        Ok(value?)
    }

    fn status(&self, cluster: &Cluster) -> Status {
        let files = cluster.file_problems.values().flatten();
        let own = cluster.own_problems.values();
        let control = self.controller.as_ref();
        Status {
            rung: cluster.node.rung,
            rung_reason: self.reason.clone(),
            control_addr: controller::address(cluster.node.space()),
            control_pid: control.and_then(Controller::pid),
            control_starts: control.map_or(0, Controller::starts),
            state: cluster.node.options.state.clone(),
            problems: files
                .chain(own)
                .cloned()
                .chain(control.and_then(Controller::problem))
                .collect(),
        }
    }

    fn control(&self, signal: Option<i32>, start: bool) -> Result<()> {
        let controller = self
            .controller
            .as_ref()
            .context("this node has no controller")?;
        if let Some(signal) = signal {
            let pid = controller.pid().context("the controller does not run")?;
            super::children::signal_process(pid, signal)?;
        }
        if start {
            controller.start_now();
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, text: &str, answer: Answer) {
        let kept = self.applied.keep(name, text);
        let there = manifest::parse(name, text)
            .0
            .into_iter()
            .map(|l| (l.key, l.object))
            .collect();
        match kept {
            Ok(said) => self.unseen.push(Unseen {
                there,
                gone: vec![],
                said,
                deadline: Instant::now() + SEEN,
                answer,
            }),
            Err(error) => tell(answer, Err::<(), _>(error)),
        }
    }

    fn delete_file(&mut self, name: &str, answer: Answer) {
        match self.applied.forget_file(name) {
            Ok(gone) => self.unseen.push(Unseen::gone(gone, answer)),
            Err(error) => tell(answer, Err::<(), _>(error)),
        }
    }

    fn delete(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        cluster: &mut Cluster,
        answer: Answer,
    ) {
        let deleted = (|| {
            let kind = kind_named(kind)?;
            let key = ObjectKey::new(
                kind.clone(),
                if kind == Kind::Namespace {
                    ""
                } else {
                    namespace
                },
                name,
            );
            if self.applied.forget(&key)? {
                return Ok(vec![key]);
            }
            if kind == Kind::Pod
                && let Some(entry) = cluster
                    .pods
                    .get_mut(&(namespace.to_owned(), name.to_owned()))
            {
                entry.delete(End::Gently);
                return Ok(vec![]);
            }
            match cluster.objects.get(&key) {
                Some(loaded) => bail!("{key} was not applied: it is written at {}", loaded.origin),
                None => bail!("there is no {key}"),
            }
        })();
        match deleted {
            Ok(gone) => self.unseen.push(Unseen::gone(gone, answer)),
            Err(error) => tell(answer, Err::<(), _>(error)),
        }
    }

    /// Answer what has come true, or has waited long enough.
    pub(crate) fn settle(&mut self, cluster: &mut Cluster) {
        let now = Instant::now();
        for unseen in std::mem::take(&mut self.unseen) {
            let seen = unseen.there.iter().all(|(key, object)| {
                cluster
                    .objects
                    .get(key)
                    .is_some_and(|l| l.object == *object)
            }) && unseen
                .gone
                .iter()
                .all(|key| !cluster.objects.contains_key(key));
            if seen {
                tell(unseen.answer, Ok(unseen.said));
            } else if now > unseen.deadline {
                let mut said = unseen.said;
                said.push(UNSEEN.to_owned());
                tell(unseen.answer, Ok(said));
            } else {
                self.unseen.push(unseen);
            }
        }
        self.waiting.retain(|(_, answer)| !answer.is_closed());
        if self.waiting.is_empty() || !self.unseen.is_empty() {
            return;
        }
        let missing = cluster.unfinished();
        for (deadline, answer) in std::mem::take(&mut self.waiting) {
            if missing.is_empty() {
                tell(answer, Ok(()));
            } else if now > deadline {
                tell(
                    answer,
                    Err::<(), _>(anyhow!("not ready in time:\n{}", missing.join("\n"))),
                );
            } else {
                self.waiting.push((deadline, answer));
            }
        }
    }

    /// The node has ended, as it was asked to.
    pub(crate) fn farewell(&mut self) {
        for answer in self.last.drain(..) {
            tell(answer, Ok(()));
        }
    }
}

fn tell<T: Serialize>(answer: Answer, result: Result<T>) {
    let reply = match result.and_then(|value| Ok(serde_json::to_value(value)?)) {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(format!("{error:#}")),
    };
    let _ = answer.send((reply, None));
}

fn restart(cluster: &mut Cluster, kind: &str, namespace: &str, name: &str) -> Result<()> {
    let key = ObjectKey::new(kind_named(kind)?, namespace, name);
    if !cluster.objects.contains_key(&key) {
        bail!("there is no {key}");
    }
    *cluster.stamps.entry(key).or_default() += 1;
    Ok(())
}
