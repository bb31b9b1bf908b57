//! `Policy.Sync`: one multiplexed stream for each proxy.
//!
//! The stream that tonic polls *is* the session: no task, no queue. While a proxy does not read, nothing is polled and
//! nothing is kept for it; when it reads again it gets the newest version of what changed. When it goes, all is dropped.

use super::proxies::{Entry, MAX_OF_POD, MAX_SUBSCRIPTIONS_OF_POD, ProxyStatus};
use super::session::Subscriptions;
use super::tls::Peer;
use super::{HELLO_LIMIT, Shared, View, caller, expired, stopped};
use crate::pod_ref::PodRef;
use futures_util::FutureExt;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::Sleep;
use tonic::{Request, Response, Status, Streaming};
use weft_proxy_api::wire::generated::{self as pb, sync_request::Message};
use weft_proxy_api::wire::{Body, Item, Resource, decode, encode};

/// Requests handled before an answer is written, so that many subscriptions share one message.
const MAX_REQUESTS_AT_ONCE: usize = 512;
/// Longest reason of a refusal kept.
const MAX_REASON: usize = 500;
/// Longest zone or version kept.
const MAX_WORD: usize = 100;

/// The service.
pub struct Sync(pub Arc<Shared>);

#[tonic::async_trait]
impl pb::policy_server::Policy for Sync {
    type SyncStream = BoxStream<'static, Result<pb::SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<pb::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let caller = caller(&request)?;
        // The hello is read inside the stream: a proxy may wait for our head before it says anything.
        let stage = Stage::Greeting(Box::new(Greeting {
            shared: self.0.clone(),
            caller,
            requests: request.into_inner(),
        }));
        Ok(Response::new(
            unfold(stage, |stage| Box::pin(stage.next())).boxed(),
        ))
    }
}

enum Stage {
    Greeting(Box<Greeting>),
    Open(Box<Session>),
    Over,
}

impl Stage {
    async fn next(self) -> Option<(Result<pb::SyncResponse, Status>, Self)> {
        let mut session = match self {
            Self::Greeting(greeting) => match greeting.open().await {
                Ok(session) => Box::new(session),
                Err(status) => return Some((Err(status), Self::Over)),
            },
            Self::Open(session) => session,
            Self::Over => return None,
        };
        match session.next().await {
            Ok(Some(response)) => Some((Ok(response), Self::Open(session))),
            Ok(None) => None,
            Err(status) => Some((Err(status), Self::Over)),
        }
    }
}

struct Greeting {
    shared: Arc<Shared>,
    caller: Peer,
    requests: Streaming<pb::SyncRequest>,
}

impl Greeting {
    async fn open(self) -> Result<Session, Status> {
        let shared = self.shared.clone();
        self.hello().await.inspect_err(|status| {
            shared.counters.streams_refused.add(1);
            if shared.limits.is_told() {
                tracing::info!(reason = status.message(), "Sync refused");
            }
        })
    }

    async fn hello(mut self) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO_LIMIT, self.requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(Message::Hello(hello)) = first.and_then(|request| request.message) else {
            return Err(Status::invalid_argument(
                "the first message must be a hello",
            ));
        };
        let pod = self.shared.greet(&hello, &self.caller).await?;
        // What each of them subscribes to is bounded; so must be how many there are.
        if self.shared.proxies.streams_of(&pod) >= MAX_OF_POD {
            return Err(Status::resource_exhausted(format!(
                "{pod} has {MAX_OF_POD} streams open already"
            )));
        }
        tracing::debug!(%pod, version = hello.version, zone = hello.zone, "proxy connected");
        Ok(Session::new(self, pod, hello))
    }
}

/// One proxy, after its hello.
struct Session {
    shared: Arc<Shared>,
    pod: PodRef,
    entry: Entry,
    requests: Streaming<pb::SyncRequest>,
    subscriptions: Subscriptions,
    stopping: watch::Receiver<bool>,
    expiry: Pin<Box<Sleep>>,
}

/// What happened on a stream.
enum Happened {
    Asked(Option<pb::SyncRequest>),
    Changed,
}

impl Session {
    fn new(greeting: Greeting, pod: PodRef, hello: pb::Hello) -> Self {
        let Greeting {
            shared,
            requests,
            caller,
        } = greeting;
        let entry = shared.proxies.enter(ProxyStatus {
            pod: pod.clone(),
            zone: clipped(&hello.zone, MAX_WORD),
            version: clipped(&hello.version, MAX_WORD),
            connected: Instant::now(),
            stale_since: None,
            subscriptions: 0,
            last_nack: None,
        });
        let stopping = shared.stopping.subscribe();
        Self {
            shared,
            pod,
            entry,
            requests,
            subscriptions: Subscriptions::default(),
            stopping,
            expiry: caller.expiry(),
        }
    }

    /// The next message for the proxy; `None` when it left.
    async fn next(&mut self) -> Result<Option<pb::SyncResponse>, Status> {
        loop {
            let items = self.subscriptions.next_items();
            self.note_too_large();
            self.tell_status();
            if !items.is_empty() {
                self.count(&items);
                return Ok(Some(encode::response(&items)));
            }
            match self.wait().await? {
                Happened::Changed => {}
                Happened::Asked(None) => return Ok(None),
                Happened::Asked(Some(request)) => {
                    self.handle(request)?;
                    self.handle_waiting()?;
                }
            }
        }
    }

    async fn wait(&mut self) -> Result<Happened, Status> {
        tokio::select! {
            () = stopped(&mut self.stopping) => Err(Status::unavailable("the controller is stopping")),
            () = &mut self.expiry => Err(expired()),
            request = self.requests.message() => Ok(Happened::Asked(request?)),
            () = self.subscriptions.changed(Instant::now) => Ok(Happened::Changed),
        }
    }

    /// Takes in what has arrived already.
    fn handle_waiting(&mut self) -> Result<(), Status> {
        for _ in 0..MAX_REQUESTS_AT_ONCE {
            match self.requests.message().now_or_never() {
                Some(request) => match request? {
                    Some(request) => self.handle(request)?,
                    None => return Ok(()), // noticed again by `wait`
                },
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn handle(&mut self, request: pb::SyncRequest) -> Result<(), Status> {
        match request.message {
            Some(Message::Subscribe(subscribe)) => self.subscribe(subscribe),
            Some(Message::Unsubscribe(pb::Unsubscribe { id })) => {
                self.subscriptions.unsubscribe(id);
                Ok(())
            }
            Some(Message::Ack(pb::Ack { id, version })) => {
                self.shared.counters.acks.add(1);
                self.subscriptions.ack(id, version);
                Ok(())
            }
            Some(Message::Nack(nack)) => {
                self.refused(nack);
                Ok(())
            }
            Some(Message::Hello(_)) => Err(Status::invalid_argument(
                "only the first message may be a hello",
            )),
            None => Err(Status::invalid_argument(
                "a message of a kind this controller does not know",
            )),
        }
    }

    fn subscribe(&mut self, subscribe: pb::Subscribe) -> Result<(), Status> {
        let resource = subscribe.resource.unwrap_or_default();
        let resource = decode::resource(&resource)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.entry.may_subscribe(self.subscriptions.len()) {
            let most = MAX_SUBSCRIPTIONS_OF_POD;
            let why = format!("{} has {most} subscriptions", self.pod);
            return Err(Status::resource_exhausted(why));
        }
        let view = self.view(&resource);
        self.subscriptions
            .subscribe(subscribe.id, view, subscribe.version, Instant::now())
            .map_err(|error| Status::resource_exhausted(error.to_string()))
    }

    fn view(&self, resource: &Resource) -> watch::Receiver<Arc<View>> {
        match resource {
            Resource::Trust => self.shared.trust.subscribe(),
            other => self.shared.views.subscribe(&self.pod, other),
        }
    }

    fn refused(&mut self, nack: pb::Nack) {
        self.shared.counters.nacks.add(1);
        let reason = clipped(&nack.reason, MAX_REASON);
        if self.shared.limits.is_told() {
            tracing::warn!(pod = %self.pod, subscription = nack.id, reason, "a proxy refused an update");
        }
        self.entry.update(|status| status.last_nack = Some(reason));
        self.subscriptions
            .nack(nack.id, nack.version, Instant::now());
    }

    fn note_too_large(&mut self) {
        let Some(size) = self.subscriptions.too_large() else {
            return;
        };
        self.shared.counters.too_large.add(1);
        let reason =
            format!("an answer of {size} bytes is more than a proxy takes; it keeps what it has");
        tracing::error!(pod = %self.pod, "{reason}");
        self.entry.update(|status| status.last_nack = Some(reason));
    }

    fn tell_status(&self) {
        let (stale_since, subscriptions) =
            (self.subscriptions.stale_since(), self.subscriptions.len());
        self.entry.update(|status| {
            status.stale_since = stale_since;
            status.subscriptions = subscriptions;
        });
    }

    fn count(&self, items: &[Item]) {
        let counters = &self.shared.counters;
        counters.messages.add(1);
        for item in items {
            let kind = match item.body {
                Body::Unchanged => 0,
                Body::Delta { .. } => 2,
                _ => 1,
            };
            counters.items[kind].add(1);
        }
    }
}

/// What a proxy says of itself is shown and kept, but not at any length.
fn clipped(text: &str, most: usize) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(most).collect()
}
