//! Several controllers, one mesh: each proxy reports to the controller it chose, so whoever is asked about traffic asks the
//! others as well, and answers with everything.
//!
//! ```text
//! meshctl, dashboard, SMI metrics ─▶ controller ─── Traffic, Tap, Detail (mutual TLS) ──▶ the others ─▶ their own proxies
//!                                        └──── [`heard`]: its own, and theirs, put together ◀──┘
//! ```
//!
//! Why so: figures are needed only while somebody looks, so nothing is copied between controllers before that, there is no
//! leader to lose and nothing to keep in step. That proxies report to every controller would cost them and the network as
//! many times more, always. A question goes one hop: who is asked tells what it heard itself.
//!
//! * Who the others are: [`Peers::new`] takes names with ports (`--peers`), and each address that a name has is a controller. In
//!   Kubernetes that is a headless Service; a controller that finds itself among them ([`Shared::instance`]) leaves itself out.
//! * Who may ask: only who shows a certificate with the controller's own identity, made for no pod; and only who shows the
//!   same is asked ([`channel`]). A proxy of the mesh is neither.
//! * Who does not answer in time is named in the answer ([`Controllers`]): figures that are not all are never shown as all.
//! * A connection for each question: questions come while somebody looks, and nothing has to be kept alive in between.

pub mod channel;
pub mod heard;
pub mod wire;

pub use heard::Heard;

use crate::live::fresh::PATIENCE;
use crate::pod_ref::PodRef;
use crate::serve::Shared;
use crate::serve::proxies::ProxyStatus;
use crate::serve::tls::OwnIdentity;
use crate::traffic::tap::Passed;
use channel::Link;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::Code;
use weft_proxy_api::wire::generated as pb;

/// Controllers asked; addresses beyond are told of as silent.
const MAX_PEERS: usize = 16;
/// How long a name may take to become addresses.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);
/// How long an answer may take: a little longer than the reports that it may wait for.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Names the process that answered, in the head of an answer: by two addresses it is still one.
pub const INSTANCE: &str = "weft-controller";
/// There in the head of an answer: not all that is written could be taken in before.
pub const OUTDATED: &str = "weft-outdated";

/// The other controllers.
#[derive(Clone)]
pub struct Peers {
    names: Arc<[String]>,
    shared: Arc<Shared>,
    own: Arc<OwnIdentity>,
}

/// Which controllers had a say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Controllers {
    /// All that are known of, the asked one among them.
    pub known: usize,
    /// Of these, those that told what they know.
    pub answered: usize,
    /// The others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<Silent>,
}

/// A controller that did not answer: what its proxies do is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Silent {
    /// Its address, or the name that has none.
    pub controller: String,
    /// Why.
    pub why: String,
}

/// What is asked of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// How far back; `None`: since the proxies started.
    pub window: Option<Duration>,
    /// Wait for the next reports.
    pub fresh: bool,
    /// Only who is connected.
    pub proxies_only: bool,
    /// First take in all that is written now.
    pub up_to_date: bool,
}

impl Question {
    /// Who is connected.
    pub const PROXIES: Self = Self {
        window: None,
        fresh: false,
        proxies_only: true,
        up_to_date: false,
    };

    /// How long an answer may take.
    fn limit(self) -> Duration {
        match self.up_to_date {
            true => ANSWER_LIMIT + PATIENCE,
            false => ANSWER_LIMIT,
        }
    }
}

/// One controller's answer.
struct Told {
    at: SocketAddr,
    instance: String,
    heard: Heard,
    up_to_date: bool,
}

/// What all of them said.
#[derive(Default)]
pub struct Gathered {
    /// By controller that answered.
    pub heard: Vec<(SocketAddr, Heard)>,
    /// Who had a say; `None`: there are no others.
    pub controllers: Option<Controllers>,
    /// Those that were to take in what is written, and could not.
    pub outdated: Vec<SocketAddr>,
}

/// All proxies of the mesh.
pub struct Everybody {
    /// Each as the controller says that has it.
    pub proxies: Vec<ProxyStatus>,
    /// Who had a say; `None`: this controller is the only one.
    pub controllers: Option<Controllers>,
    /// All that is written has been read, by each controller that answered.
    pub up_to_date: bool,
}

impl Controllers {
    /// In words; `None`: everybody answered.
    pub fn missing(&self) -> Option<String> {
        let names = self.silent.iter();
        let names: Vec<String> = names
            .map(|at| format!("{}: {}", at.controller, at.why))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} of {} controllers answered; what the proxies of the others do is missing ({})",
                self.answered,
                self.known,
                names.join("; ")
            )
        })
    }
}

impl Peers {
    /// Controllers at these names, each `HOST:PORT`; none: this one is alone.
    pub fn new(names: Vec<String>, shared: Arc<Shared>, own: Arc<OwnIdentity>) -> Self {
        Self {
            names: names.into(),
            shared,
            own,
        }
    }

    /// What this controller knows itself.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What the others heard.
    pub async fn ask(&self, question: Question) -> Gathered {
        if self.names.is_empty() {
            return Gathered::default();
        }
        let (addresses, mut silent) = self.addresses().await;
        let asked = addresses.into_iter().map(|at| async move {
            let limit = question.limit();
            let answer = timeout(limit, self.ask_one(at, question)).await;
            let late = || Err(format!("no answer within {} s", limit.as_secs()));
            (at, answer.unwrap_or_else(|_| late()))
        });
        let (mut heard, mut instances) = (Vec::new(), BTreeSet::new());
        let mut outdated = Vec::new();
        for (at, answer) in join_all(asked).await {
            match answer {
                Ok(None) => {} // this one
                Ok(Some(told)) if instances.insert(told.instance.clone()) => {
                    if !told.up_to_date {
                        outdated.push(told.at);
                    }
                    heard.push((told.at, told.heard));
                }
                Ok(Some(_)) => {}
                Err(why) => silent.push(Silent {
                    controller: at.to_string(),
                    why,
                }),
            }
        }
        let answered = heard.len() + 1;
        self.shared.counters.peers_asked.add(heard.len() as u64);
        self.shared.counters.peers_silent.add(silent.len() as u64);
        let controllers = Controllers {
            known: answered + silent.len(),
            answered,
            silent,
        };
        Gathered {
            heard,
            controllers: Some(controllers),
            outdated,
        }
    }

    /// Every proxy of the mesh. `up_to_date`: once each controller has taken in all that is written now.
    pub async fn everybody(&self, up_to_date: bool) -> Everybody {
        let question = Question {
            up_to_date,
            ..Question::PROXIES
        };
        let own = async { !up_to_date || self.shared.read().await };
        let (own, others) = tokio::join!(own, self.ask(question));
        let now = Instant::now();
        let mut heard = Heard::of(&self.shared, question, now);
        for (_, theirs) in others.heard {
            heard.add(theirs, None);
        }
        Everybody {
            proxies: heard.proxies,
            controllers: others.controllers,
            up_to_date: own && others.outdated.is_empty(),
        }
    }

    /// Is no other controller known of?
    pub fn is_alone(&self) -> bool {
        self.names.is_empty()
    }

    /// Looks at requests of pods whose proxies are connected there.
    pub async fn tap(
        &self,
        at: SocketAddr,
        start: pb::TapStart,
        pods: &BTreeSet<PodRef>,
    ) -> Result<BoxStream<'static, Passed>, String> {
        let asked = pb::PeerTap {
            start: Some(start),
            pods: pods.iter().map(wire::name).collect(),
        };
        let begun = timeout(ANSWER_LIMIT, async {
            let mut link = self.link(at).await?;
            let answer = link.client.tap(asked).await.map_err(told)?;
            Ok::<_, String>((link, answer.into_inner()))
        });
        let (link, shown) = begun.await.map_err(|_| "no answer".to_owned())??;
        Ok(shown
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(move |message| {
                let _held = &link; // the connection lives as long as it is read
                std::future::ready(message.ok().and_then(wire::shown))
            })
            .boxed())
    }

    /// Passes an order for another detail of metrics on, to all.
    pub async fn detail(&self, pods: &BTreeSet<PodRef>, metrics: pb::MetricsFor) {
        let (addresses, _) = self.addresses().await;
        let asked = addresses.into_iter().map(|at| async move {
            let order = pb::PeerDetail {
                pods: pods.iter().map(wire::name).collect(),
                metrics: Some(metrics),
            };
            let passed = timeout(ANSWER_LIMIT, async {
                let mut link = self.link(at).await?;
                link.client.detail(order).await.map(drop).map_err(told)
            });
            let why = match passed.await {
                Ok(Ok(())) => return,
                Ok(Err(why)) => why,
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(%at, why, "another controller did not take the order for metrics");
        });
        join_all(asked).await;
    }

    async fn ask_one(&self, at: SocketAddr, question: Question) -> Result<Option<Told>, String> {
        let window_ms = question.window.map_or(0, |it| it.as_millis());
        let asked = pb::PeerTraffic {
            asker: self.shared.instance,
            window_ms: u32::try_from(window_ms).unwrap_or(u32::MAX),
            fresh: question.fresh,
            proxies_only: question.proxies_only,
            up_to_date: question.up_to_date,
        };
        let mut link = self.link(at).await?;
        let answer = match link.client.traffic(asked).await {
            Ok(answer) => answer,
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(told(status)),
        };
        let instance = answer.metadata().get(INSTANCE);
        let instance = instance.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let up_to_date = answer.metadata().get(OUTDATED).is_none();
        let (instance, mut pods) = (instance.to_owned(), answer.into_inner());
        let (now, mut heard) = (Instant::now(), Heard::default());
        while let Some(pod) = pods.message().await.map_err(told)? {
            heard.enter(pod, now)?;
        }
        Ok(Some(Told {
            at,
            instance,
            heard,
            up_to_date,
        }))
    }

    async fn link(&self, at: SocketAddr) -> Result<Link, String> {
        let link = Link::open(at, &self.own, &self.shared.ca).await;
        link.map_err(|error| format!("{error:#}"))
    }

    /// Addresses of all names; the names that have none, and addresses beyond what is asked.
    async fn addresses(&self) -> (BTreeSet<SocketAddr>, Vec<Silent>) {
        let (mut all, mut silent) = (BTreeSet::<SocketAddr>::new(), Vec::new());
        let looked_up = self.names.iter().map(|name| async move {
            let found = timeout(RESOLVE_LIMIT, tokio::net::lookup_host(name)).await;
            (name, found)
        });
        for (name, found) in join_all(looked_up).await {
            let why = match found {
                Ok(Ok(found)) => {
                    all.extend(found);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "its name is not resolved in time".to_owned(),
            };
            silent.push(Silent {
                controller: name.clone(),
                why,
            });
        }
        let beyond = all.iter().nth(MAX_PEERS).copied();
        let beyond = beyond.map_or_else(BTreeSet::new, |first| all.split_off(&first));
        silent.extend(beyond.into_iter().map(|at| Silent {
            controller: at.to_string(),
            why: format!("only {MAX_PEERS} addresses are asked"),
        }));
        (all, silent)
    }
}

fn told(status: tonic::Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_is_named() {
        let mut controllers = Controllers {
            known: 2,
            answered: 2,
            silent: vec![],
        };
        assert_eq!(controllers.missing(), None);
        controllers.answered = 1;
        controllers.silent.push(Silent {
            controller: "10.0.0.2:8086".into(),
            why: "no answer within 4 s".into(),
        });
        let expected = "1 of 2 controllers answered; what the proxies of the others do is missing (10.0.0.2:8086: no \
                        answer within 4 s)";
        assert_eq!(controllers.missing().as_deref(), Some(expected));
    }
}
