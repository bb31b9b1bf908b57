//! Counts requests and answers. Stands on top, so that what the proxy refuses is counted like any other answer.
//!
//! Below it, whoever finds out where the request goes says where to count it (`Body::attribute`, `Error::attributed_to`);
//! what nobody claims is counted on the edge this layer was made with. The answer is counted when its body has ended.
//! One clock read at the start, one at the end; no lookup, no text. Whoever wants to see single requests ([`crate::tap`])
//! sees them here; as long as nobody does, that is one load.

use super::Below;
use crate::connection::Direction;
use crate::error::Error;
use crate::http::outcome::ResponseHead;
use crate::http::{Attribution, Request, Response};
use crate::metrics::Metrics;
use crate::tap::Begun;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower::{Layer, Service};

/// Counts on this edge unless somebody below knows better.
#[derive(Clone)]
pub struct RecordLayer {
    otherwise: Attribution,
    direction: Direction,
    metrics: Arc<Metrics>,
}

/// Counts requests.
#[derive(Clone)]
pub struct Record<S> {
    inner: S,
    layer: RecordLayer,
}

impl RecordLayer {
    /// `otherwise`: for what never got as far as a backend.
    pub fn new(otherwise: Attribution, direction: Direction, metrics: Arc<Metrics>) -> Self {
        Self {
            otherwise,
            direction,
            metrics,
        }
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Record<S> {
        Record {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Record<S> {
    type Response = Response;
    type Error = Error;
    type Future = Recorded<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let layer = &self.layer;
        let unanswered = Unanswered {
            edge: Some(layer.otherwise.clone()),
        };
        let taps = layer.metrics.taps();
        let tapped = match taps.on() {
            true => taps.begin(layer.direction, &request),
            false => None,
        };
        Recorded {
            started: Instant::now(),
            unanswered,
            tapped: tapped.map(|begun| (begun, layer.metrics.clone())),
            inner: self.inner.call(request),
        }
    }
}

/// A client that leaves before there is a response drops the future.
struct Unanswered {
    edge: Option<Attribution>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.request();
            edge.cancelled();
        }
    }
}

pin_project! {
    /// A request being counted.
    pub struct Recorded<F> {
        #[pin]
        inner: F,
        started: Instant,
        unanswered: Unanswered,
        tapped: Option<(Box<Begun>, Arc<Metrics>)>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Recorded<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(otherwise) = this.unanswered.edge.take() {
            let head = ResponseHead::of(&response);
            let edge = response
                .body_mut()
                .count_response(&head, *this.started, &otherwise);
            edge.request();
            if let Some((begun, metrics)) = this.tapped.take() {
                let edge = edge.clone();
                let followed = begun.answered(&response, &head, &edge, *this.started, &metrics);
                if let Some(followed) = followed {
                    response.body_mut().follow(followed);
                }
            }
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;
    use http_body_util::BodyExt;
    use std::str::FromStr;
    use tower::service_fn;
    use weft_proxy_api::identity::SpiffeId;

    /// Requests, successes and failures of every edge.
    fn counted(metrics: &Metrics) -> Vec<(u64, u64, u64)> {
        metrics
            .summary()
            .into_iter()
            .map(|edge| (edge.requests, edge.success, edge.failure))
            .collect()
    }

    fn layer(metrics: &Arc<Metrics>, edge: Attribution) -> RecordLayer {
        RecordLayer::new(edge, Direction::Inbound, metrics.clone())
    }

    #[tokio::test]
    async fn an_answer_is_counted_when_its_body_has_ended() {
        let metrics = Metrics::new("shop");
        let below =
            service_fn(async |_: Request| Ok::<_, Error>(Response::new(Body::full("hello"))));
        let mut stack = layer(&metrics, metrics.inbound_edge(None)).layer(below);
        let response = stack.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(counted(&metrics), [(1, 0, 0)]);
        response.into_body().collect().await.unwrap();
        assert_eq!(counted(&metrics), [(1, 1, 0)]);
    }

    #[tokio::test]
    async fn the_status_in_the_trailers_of_grpc_decides() {
        let metrics = Metrics::new("shop");
        let below = service_fn(async |_: Request| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
            let mut response =
                Response::new(Body::frames([Ok(http_body::Frame::trailers(trailers))]));
            response.headers_mut().insert(
                "content-type",
                http::HeaderValue::from_static("application/grpc"),
            );
            Ok::<_, Error>(response)
        });
        let mut stack = layer(&metrics, metrics.inbound_edge(None)).layer(below);
        let response = stack.call(Request::new(Body::empty())).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(counted(&metrics), [(1, 0, 1)]);
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_nobodys_failure() {
        let metrics = Metrics::new("shop");
        let below =
            service_fn(async |_: Request| std::future::pending::<Result<Response, Error>>().await);
        let mut stack = layer(&metrics, metrics.inbound_edge(None)).layer(below);
        drop(stack.call(Request::new(Body::empty())));
        assert_eq!(counted(&metrics), [(1, 0, 0)]);
    }

    #[tokio::test]
    async fn whoever_knows_the_backend_says_where_to_count() {
        let metrics = Metrics::new("shop");
        let id = SpiffeId::from_str("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let (top, backend) = (metrics.inbound_edge(None), metrics.inbound_edge(Some(&id)));
        let below = service_fn(move |_: Request| {
            let mut response = Response::new(Body::empty());
            response.body_mut().attribute(backend.clone());
            std::future::ready(Ok::<_, Error>(response))
        });
        let mut stack = layer(&metrics, top).layer(below);
        drop(stack.call(Request::new(Body::empty())).await.unwrap());
        let mut counted = counted(&metrics);
        counted.sort_unstable();
        assert_eq!(counted, [(0, 0, 0), (1, 1, 0)]);
    }
}
