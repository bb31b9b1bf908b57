//! The running mesh asked: what would happen, what is suspicious, what of an object applies, and who has which state. The answers
//! are those that `meshctl` gives about files, of the state in force; asking changes nothing.
//!
//! | path below `/api/v1/` | answer |
//! |---|---|
//! | `simulate` (POST) | to [`Requests`]: [`Answers`] |
//! | `analyze` | findings, as `meshctl analyze -o json` has them |
//! | `describe` | `object` (`Kind/namespace/name`) described |
//! | `export` | `object` as Gateway API, or with `form=effective` as the policy that proxies have |
//! | `sync` | [`sync::Standing`]: is the source read, is `object` in force, which proxies are behind; who lacks only what came in the last `recent` milliseconds is not |
//!
//! All but `sync` take `access` to ask what would be with another one. Before each answer the source is read anew ([`fresh`]);
//! an answer says as `outdated` that this could not be done, and `analyze` has a finding of it. How many proxies there are is
//! told of the whole mesh: other controllers are asked ([`crate::peers`]).

pub mod cluster;
pub mod fresh;
pub mod sync;

use crate::admin::Overview;
use crate::analyze;
use crate::describe::{self, describe, effective};
use crate::export::gateway_api;
use crate::manifest::{Kind, ObjectKey, Severity};
use crate::peers::Peers;
use crate::serve::Shared;
use crate::simulate::{Completed, Simulation, answered, question};
use crate::traffic::Report;
use crate::traffic::api::decoded;
use crate::views::world::World;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use weft_proxy_api::policy::Access;

/// Most bytes of a list of requests.
pub const MAX_BODY: usize = 32 << 20;
/// Answers worked out at once; others wait.
const AT_ONCE: usize = 2;
/// Why an answer is perhaps of a state before.
const OUTDATED: &str =
    "what is written could not be read in time; this is of what the controller knows";

/// Requests to answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// Each as in a file of requests.
    pub requests: Vec<Value>,
    /// `strict`, `permissive` or `audit`; absent: what the mesh has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// Their answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Answers {
    /// One for each request, in order: an answer, or `{"error": …}`.
    pub answers: Vec<Value>,
    /// What is wrong within the objects that were written.
    pub problems: Vec<String>,
    /// Why this is perhaps of a state before; absent: it is of what is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
}

/// What is asked.
pub struct Live {
    overview: Arc<dyn Overview>,
    shared: Arc<Shared>,
    peers: Peers,
    slots: Semaphore,
}

/// A copy of the state in force.
struct State {
    world: World,
    /// Why it is perhaps one of before.
    outdated: Option<String>,
}

/// Why there is no answer.
pub type Refused = (StatusCode, String);

fn bad(why: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, why.into())
}

impl Live {
    /// Of this state; the other controllers are asked about their proxies.
    pub fn new(overview: Arc<dyn Overview>, peers: Peers) -> Self {
        Self {
            overview,
            shared: peers.shared().clone(),
            peers,
            slots: Semaphore::new(AT_ONCE),
        }
    }

    /// Answers a GET; `None`: the path is not one of these.
    pub async fn get(&self, path: &str, query: &str) -> Option<Result<Value, Refused>> {
        if !["analyze", "describe", "export", "sync"].contains(&path) {
            return None;
        }
        Some(match Asked::read(query) {
            Ok(asked) => self.answer(path, asked).await,
            Err(why) => Err(bad(why)),
        })
    }

    async fn answer(&self, path: &str, asked: Asked) -> Result<Value, Refused> {
        if path == "sync" {
            let recent = asked.recent.unwrap_or_default();
            let standing = self.standing(asked.object.as_ref(), recent).await;
            return Ok(json!(standing));
        }
        if path == "analyze" {
            let problems = self.overview.file_problems();
            let found = move |State { world, outdated }: State| {
                Ok(analyze::running(&world, problems, outdated))
            };
            return self.work(asked.access, found).await;
        }
        let key = asked.object.ok_or_else(|| bad("object is missing"))?;
        let (form, object) = (asked.form, key.clone());
        let is_export = path == "export";
        let mut tree = self
            .work(asked.access, move |State { world, outdated }| {
                let sim = Simulation::of(Completed::of(world));
                let tree = match (is_export, form.as_deref()) {
                    (false, _) => describe(&sim, &object),
                    (true, Some("effective")) => effective(&sim, &object),
                    (true, _) => gateway_api(&sim, &object).map(|it| json!(it)),
                };
                let mut tree = tree.map_err(|why| (StatusCode::NOT_FOUND, why))?;
                if let Some(why) = outdated {
                    tree["outdated"] = why.into();
                }
                Ok(tree)
            })
            .await?;
        if !is_export {
            tree["live"] = self.told_of(&describe::described(&tree, &key)).await;
        }
        Ok(tree)
    }

    /// Answers requests.
    pub async fn simulate(&self, asked: Requests) -> Result<Value, Refused> {
        if asked.requests.len() > question::MAX_REQUESTS {
            let most = question::MAX_REQUESTS;
            return Err(bad(format!("there may be {most} requests")));
        }
        let access = asked.access.as_deref().map(access).transpose();
        let access = access.map_err(bad)?;
        let (answers, outdated) = self
            .work(access, move |State { world, outdated }| {
                let sim = Simulation::of(Completed::of(world));
                let ask = |request| question::read_one(request).map(|it| sim.ask(&it));
                let one = |request| answered(&ask(request));
                let answers = asked.requests.into_iter().map(one);
                Ok((answers.collect::<Vec<_>>(), outdated))
            })
            .await?;
        let problems = self.overview.file_problems().into_iter();
        let problems = problems.filter(|it| it.severity > Severity::Info);
        Ok(json!(Answers {
            answers,
            problems: problems.map(|it| it.to_string()).collect(),
            outdated,
        }))
    }

    /// Works on a copy of the state, where it holds nobody up. A source that cannot be read keeps nobody from an answer.
    async fn work<T: Send + 'static>(
        &self,
        access: Option<Access>,
        work: impl FnOnce(State) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let gone = |_| (StatusCode::SERVICE_UNAVAILABLE, "no answer".to_owned());
        let Ok(_slot) = self.slots.acquire().await else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "stopping".to_owned()));
        };
        let outdated = (!self.shared.read().await).then(|| OUTDATED.to_owned());
        let world = self.overview.world();
        let world = match access {
            Some(access) => world.with_access(access),
            None => world,
        };
        let state = State { world, outdated };
        let done = tokio::task::spawn_blocking(move || work(state)).await;
        done.unwrap_or_else(|error| Err(gone(error)))
    }

    /// What only the controller knows of an object: its proxy, or how many proxies have what it became.
    async fn told_of(&self, key: &ObjectKey) -> Value {
        let everybody = self.peers.everybody(false).await;
        let object = (key.namespace.as_str(), key.name.as_str());
        let own = everybody
            .proxies
            .iter()
            .find(|it| (&*it.pod.namespace, &*it.pod.name) == object);
        match own.filter(|_| key.kind == Kind::Pod) {
            Some(proxy) => json!({
                "state": sync::state(proxy),
                "version": proxy.version,
                "connectedSeconds": proxy.connected.elapsed().as_secs(),
                "subscriptions": proxy.subscriptions,
                "lastRefusal": proxy.last_nack,
                "certificateEnds": self.certificate_end(key),
            }),
            None => json!({ "proxies": self.proxies(everybody, Duration::ZERO) }),
        }
    }

    /// When a pod's certificate ends, as its proxy said last.
    fn certificate_end(&self, key: &ObjectKey) -> Option<String> {
        let (now, proxies) = (Instant::now(), self.shared.proxies.list());
        let traffic = self.shared.traffic.snapshot(None, now);
        let report = Report::new(None, self.overview.inventory(), &proxies, traffic, now);
        let mut pods = report.pods.iter();
        let pod =
            pods.find(|it| it.facts.namespace == key.namespace && it.facts.name == key.name)?;
        let ends = pod.proxy.as_ref()?.certificate_expiry?;
        let time = jiff::Timestamp::from_second(ends as i64).ok()?;
        Some(time.to_string())
    }
}

/// What the query says.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    object: Option<ObjectKey>,
    form: Option<String>,
    access: Option<Access>,
    recent: Option<Duration>,
}

impl Asked {
    fn read(query: &str) -> Result<Self, String> {
        let mut fields = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = decoded(value).ok_or_else(|| format!("{key}: {value:?} is no text"))?;
            fields.insert(key, value);
        }
        let mut take = |name| fields.remove(name);
        let object = take("object").map(|text| object(&text)).transpose()?;
        let access = take("access").map(|text| access(&text)).transpose()?;
        let form = take("form");
        let recent = take("recent").map(|text| recent(&text)).transpose()?;
        match fields.keys().next() {
            None => Ok(Self {
                object,
                form,
                access,
                recent,
            }),
            Some(key) => Err(format!("{key:?} is unknown")),
        }
    }
}

/// Milliseconds.
fn recent(text: &str) -> Result<Duration, String> {
    let ms: Option<u32> = text.parse().ok();
    let ms = ms.ok_or_else(|| format!("recent: {text:?} is no number of milliseconds"))?;
    Ok(Duration::from_millis(ms.into()))
}

/// `Kind/namespace/name`.
fn object(text: &str) -> Result<ObjectKey, String> {
    let expected = || format!("object: {text:?} is not of the form KIND/NAMESPACE/NAME");
    let mut parts = text.splitn(3, '/');
    let (Some(kind), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(expected());
    };
    let kind = describe::kind(kind).ok_or_else(expected)?;
    Ok(ObjectKey::new(kind, namespace, name))
}

/// As [`Access`] is written.
pub fn access(text: &str) -> Result<Access, String> {
    [Access::Strict, Access::Permissive, Access::Audit]
        .into_iter()
        .find(|access| access.to_string() == text)
        .ok_or_else(|| format!("access: {text:?} is not strict, permissive or audit"))
}

#[cfg(test)]
mod tests;
