//! Failures made on purpose, in place of the called Service: below retries and timeouts, so that these meet a made
//! failure as they would meet a real one. Each try draws anew; what is aborted never leaves this proxy. The answer says in
//! `weft-error` that it was made.

use super::retry::Attempt;
use super::{Below, Call};
use crate::error::{Error, ErrorKind};
use crate::http::{Response, ServiceFuture};
use crate::metrics::Metrics;
use http::StatusCode;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};
use weft_proxy_api::policy::settings::{Fault, MILLION};

/// Makes failures where the policy says so.
#[derive(Clone)]
pub struct FaultLayer {
    metrics: Arc<Metrics>,
    service: Arc<str>,
}

/// Makes failures.
#[derive(Clone)]
pub struct Faults<S> {
    inner: S,
    layer: FaultLayer,
}

impl FaultLayer {
    /// `service`: what the destination is called, if it is a Service.
    pub fn new(metrics: Arc<Metrics>, service: &str) -> Self {
        Self {
            metrics,
            service: service.into(),
        }
    }

    fn count(&self, kind: &'static str) {
        self.metrics.faults(&self.service, kind).inc();
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faults<S>;

    fn layer(&self, inner: S) -> Faults<S> {
        Faults {
            inner,
            layer: self.clone(),
        }
    }
}

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drawn {
    delay: Option<Duration>,
    abort: bool,
}

/// Draws with the generator of this thread.
fn draw(fault: &Fault) -> Option<Drawn> {
    let hit = |ppm: u32| ppm > 0 && fastrand::u32(0..MILLION) < ppm;
    let drawn = Drawn {
        delay: hit(fault.delay_ppm).then_some(fault.delay),
        abort: hit(fault.abort_ppm),
    };
    (drawn.delay.is_some() || drawn.abort).then_some(drawn)
}

fn abort(fault: &Fault) -> Error {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Error::new(ErrorKind::FaultInjected).answered_with(status, fault.grpc_status())
}

impl<S> Service<Attempt> for Faults<S>
where
    S: Below<Attempt> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Error;
    type Future = Faulted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let fault = attempt.terms.as_ref().map(|terms| terms.fault);
        let Some((fault, drawn)) = fault.and_then(|fault| Some((fault, draw(&fault)?))) else {
            return Faulted::Passed {
                inner: Call::Below {
                    inner: self.inner.call(attempt),
                },
            };
        };
        if drawn.abort {
            self.layer.count("abort");
        }
        let Some(delay) = drawn.delay else {
            return Faulted::Passed {
                inner: Call::refused(abort(&fault)),
            };
        };
        self.layer.count("delay");
        let mut inner = self.inner.clone();
        Faulted::Delayed {
            inner: Box::pin(async move {
                wait(delay, &attempt).await?;
                if drawn.abort {
                    return Err(abort(&fault));
                }
                inner.call(attempt).await
            }),
        }
    }
}

/// Waits, but not longer than the try may take.
async fn wait(delay: Duration, attempt: &Attempt) -> Result<(), Error> {
    let Some((at, kind)) = attempt.head else {
        tokio::time::sleep(delay).await;
        return Ok(());
    };
    let late = |_| Error::new(kind);
    tokio::time::timeout_at(at, tokio::time::sleep(delay))
        .await
        .map_err(late)
}

pin_project! {
    /// A try, perhaps with a failure made for it.
    #[allow(missing_docs)] // The macro takes no comments on pinned fields.
    #[project = FaultedProjection]
    pub enum Faulted<F> {
        Passed { #[pin] inner: Call<F> },
        Delayed { inner: ServiceFuture },
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Faulted<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FaultedProjection::Passed { inner } => inner.poll(cx),
            FaultedProjection::Delayed { inner } => inner.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_drawn_and_nothing_where_nothing_is_asked() {
        fastrand::seed(3);
        assert_eq!(draw(&Fault::default()), None);
        let fault = Fault {
            abort_ppm: 100_000,
            status: 503,
            delay_ppm: 500_000,
            delay: Duration::from_secs(1),
            ..Fault::default()
        };
        let drawn: Vec<_> = (0..10_000).filter_map(|_| draw(&fault)).collect();
        let aborts = drawn.iter().filter(|drawn| drawn.abort).count();
        let delays = drawn.iter().filter(|drawn| drawn.delay.is_some()).count();
        // Four standard deviations.
        assert!((880..=1120).contains(&aborts), "{aborts}");
        assert!((4800..=5200).contains(&delays), "{delays}");
        let always = Fault {
            abort_ppm: MILLION,
            ..fault
        };
        assert!((0..1000).all(|_| draw(&always).is_some_and(|drawn| drawn.abort)));
    }

    #[test]
    fn an_abort_answers_what_was_asked_for_under_its_own_name() {
        for (status, grpc, expected) in [
            (503, None, (503, 14)),
            (404, None, (404, 12)),
            (500, Some(8), (500, 8)),
            (418, None, (418, 2)),
        ] {
            let error = abort(&Fault {
                status,
                grpc,
                ..Fault::default()
            });
            assert_eq!((error.status().as_u16(), error.grpc_status()), expected);
            assert_eq!(error.name(), "fault-injected");
            assert!(!error.retry_is_safe());
        }
    }
}
