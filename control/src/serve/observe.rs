//! `Observe.Attach`: proxies report their traffic into the traffic table, slowly as long as nobody looks, and show the
//! single requests that somebody wants to see.

use super::proxies::{MAX_REPORTING, Reporting};
use super::rate::Rate;
use super::tls::Peer;
use super::{HELLO_LIMIT, Shared, caller, expired, stopped};
use crate::pod_ref::PodRef;
use crate::traffic::tap::Shown;
use crate::traffic::tiers::Asked;
use crate::traffic::{measure, read};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, sleep_until};
use tonic::{Request, Response, Status, Streaming};
use weft_proxy_api::wire::generated::{self as pb, observe_command::Command, observe_event::Event};

/// How often a proxy reports.
const SLOW_MS: u32 = 5_000;
/// The same while somebody looks.
const FAST_MS: u32 = 1_000;
/// How long after the last question somebody is taken to be looking.
const LOOKING: Duration = Duration::from_secs(15);
/// No proxy is asked more often than this, however often somebody looks.
const AGAIN: Duration = Duration::from_millis(200);
/// Summaries of one pod: far more than a proxy is ever asked for, and little to take in.
pub(super) const SUMMARIES: Rate = Rate {
    burst: 50,
    interval: Duration::from_millis(100),
};
/// Messages of one pod, of any kind: three times what a proxy with every tap has to say. Who says more waits.
pub(super) const REPORTS: Rate = Rate {
    burst: 400,
    interval: Duration::from_millis(5),
};

/// The service.
pub struct Attach(pub Arc<Shared>);

#[tonic::async_trait]
impl pb::observe_server::Observe for Attach {
    type AttachStream = BoxStream<'static, Result<pb::ObserveCommand, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::ObserveEvent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = caller(&request)?;
        let (shared, events) = (self.0.clone(), request.into_inner());
        let open = shared.proxies.report(&caller.common_name);
        let too_many = || Status::resource_exhausted(format!("{MAX_REPORTING} streams are open"));
        let listener = Listener {
            _open: open.ok_or_else(too_many)?,
            stopping: shared.stopping.subscribe(),
            looked_at: shared.looked_at.subscribe(),
            tapped: shared.taps.changes(),
            taps: BTreeSet::new(),
            asked_of: shared.tiers.changes(),
            tier: None,
            shared,
            expiry: caller.expiry(),
            caller,
            events,
            pod: None,
            pace: Pace::New,
        };
        let commands = unfold(Some(listener), |listener| async move {
            let mut listener = listener?;
            match Box::pin(listener.listen()).await {
                Ok(Some(command)) => Some((Ok(command), Some(listener))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(commands.boxed()))
    }
}

struct Listener {
    _open: Reporting,
    shared: Arc<Shared>,
    caller: Peer,
    expiry: Pin<Box<Sleep>>,
    events: Streaming<pb::ObserveEvent>,
    stopping: watch::Receiver<bool>,
    looked_at: watch::Receiver<Option<Instant>>,
    tapped: watch::Receiver<()>,
    /// Taps the proxy has been told of.
    taps: BTreeSet<u32>,
    asked_of: watch::Receiver<()>,
    /// The detail of metrics it has been asked for.
    tier: Option<Asked>,
    /// `None`: it has not said hello yet.
    pod: Option<PodRef>,
    pace: Pace,
}

/// How often reports are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nothing was asked yet.
    New,
    Slow,
    /// Until then.
    Fast(tokio::time::Instant),
}

/// What a listener waits for.
enum Happened {
    Event(Box<pb::ObserveEvent>),
    Ended,
    Looked,
    /// Something may be wanted of it.
    Asked,
    NobodyLooks,
}

impl Listener {
    /// Takes in what the proxy says until there is something to ask of it; `None`: it has ended.
    async fn listen(&mut self) -> Result<Option<pb::ObserveCommand>, Status> {
        if self.pace == Pace::New {
            self.pace = Pace::Slow;
            return Ok(Some(every(SLOW_MS)));
        }
        let pod = match self.pod.clone() {
            Some(pod) => pod,
            None => self.hello().await?,
        };
        self.pod = Some(pod.clone());
        loop {
            if let Some(command) = self.shared.taps.next_command(&pod, &mut self.taps) {
                return Ok(Some(ask(command)));
            }
            let tiers = &self.shared.tiers;
            if let Some(command) = tiers.next_command(&pod, &mut self.tier, Instant::now()) {
                return Ok(Some(ask(command)));
            }
            match self.next().await? {
                Happened::Asked => {}
                Happened::Ended => return Ok(None),
                Happened::Event(event) => {
                    turn(&self.shared, &pod).await;
                    self.take_in(&pod, *event)?;
                }
                Happened::Looked => {
                    let now = tokio::time::Instant::now();
                    if matches!(self.pace, Pace::Fast(until) if until > now + LOOKING - AGAIN) {
                        continue;
                    }
                    self.pace = Pace::Fast(now + LOOKING);
                    return Ok(Some(every(FAST_MS)));
                }
                Happened::NobodyLooks => {
                    self.pace = Pace::Slow;
                    return Ok(Some(every(SLOW_MS)));
                }
            }
        }
    }

    async fn hello(&mut self) -> Result<PodRef, Status> {
        let first = tokio::time::timeout(HELLO_LIMIT, self.events.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        match first.and_then(|event| event.event) {
            Some(Event::Hello(hello)) => self.shared.greet(&hello, &self.caller).await,
            _ => Err(Status::invalid_argument(
                "the first message must be a hello",
            )),
        }
    }

    async fn next(&mut self) -> Result<Happened, Status> {
        let slow_down = async |pace| match pace {
            Pace::Fast(until) => sleep_until(until).await,
            Pace::New | Pace::Slow => std::future::pending().await,
        };
        tokio::select! {
            () = stopped(&mut self.stopping) => Err(Status::unavailable("the controller is stopping")),
            () = &mut self.expiry => Err(expired()),
            Ok(()) = self.looked_at.changed() => Ok(Happened::Looked),
            Ok(()) = self.tapped.changed() => Ok(Happened::Asked),
            Ok(()) = self.asked_of.changed() => Ok(Happened::Asked),
            () = slow_down(self.pace) => Ok(Happened::NobodyLooks),
            event = self.events.message() => Ok(match event? {
                Some(event) => Happened::Event(Box::new(event)),
                None => Happened::Ended,
            }),
        }
    }

    fn take_in(&self, pod: &PodRef, event: pb::ObserveEvent) -> Result<(), Status> {
        match event.event {
            Some(Event::Summary(summary)) => {
                let now = Instant::now();
                let turn = self.shared.summaries.lock().check(pod.clone(), now);
                turn.map_err(|_| Status::resource_exhausted("summaries come without a pause"))?;
                self.shared.counters.summaries.add(1);
                let summary = measure::summary(&summary).map_err(Status::invalid_argument)?;
                let summary = read::summary(&summary).map_err(Status::invalid_argument)?;
                self.shared.traffic.record(pod, summary, now);
                Ok(())
            }
            // Nobody looks here, or not any more: not worth the reading.
            Some(Event::Tap(_) | Event::Taps(_)) if self.taps.is_empty() => Ok(()),
            Some(Event::Tap(look)) => {
                let look = measure::look(&look).map_err(Status::invalid_argument)?;
                self.show(pod, look);
                Ok(())
            }
            Some(Event::Taps(looks)) => {
                let looks = measure::looks(&looks).map_err(Status::invalid_argument)?;
                self.show(pod, looks);
                Ok(())
            }
            Some(Event::TapState(state)) => {
                self.shared.taps.show(pod, state.id, Shown::State(state));
                Ok(())
            }
            // A kind of event from a newer proxy.
            None => Ok(()),
            Some(Event::Hello(_)) => Err(Status::invalid_argument(
                "only the first message may be a hello",
            )),
        }
    }

    fn show(&self, pod: &PodRef, looks: impl IntoIterator<Item = pb::TapEvent>) {
        for look in looks {
            let id = look.id;
            self.shared.taps.show(pod, id, Shown::Look(Box::new(look)));
        }
    }
}

/// Waits until a pod may say more. Meanwhile nothing is read, and the proxy counts what it cannot send.
async fn turn(shared: &Shared, pod: &PodRef) {
    loop {
        let turn = shared.reports.lock().check(pod.clone(), Instant::now());
        match turn {
            Ok(()) => return,
            Err(wait) => sleep(wait).await,
        }
    }
}

/// A proxy reports at once when it is asked, and then as often as it was asked.
fn every(interval_ms: u32) -> pb::ObserveCommand {
    ask(Command::Summary(pb::SummaryEvery { interval_ms }))
}

fn ask(command: Command) -> pb::ObserveCommand {
    pb::ObserveCommand {
        command: Some(command),
    }
}
