//! Tells what happened to a request: to the access log, to a trace. Stands above `respond`, where every failure has
//! become an answer, and below `record`. Where nobody listens it is one branch.

use super::Below;
use crate::error::Error;
use crate::http::{Request, Response, headers};
use crate::tell::{Place, Story, Teller};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// Tells, if there is somebody to tell.
#[derive(Clone)]
pub struct TellLayer(Option<(Arc<Teller>, Arc<Place>)>);

/// Tells.
#[derive(Clone)]
pub struct Tell<S> {
    inner: S,
    layer: TellLayer,
}

impl TellLayer {
    /// `place` is only asked for where somebody listens.
    pub fn new(teller: Option<&Arc<Teller>>, place: impl FnOnce() -> Place) -> Self {
        Self(teller.map(|teller| (teller.clone(), Arc::new(place()))))
    }
}

impl<S> Layer<S> for TellLayer {
    type Service = Tell<S>;

    fn layer(&self, inner: S) -> Tell<S> {
        Tell {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Tell<S> {
    type Response = Response;
    type Error = Error;
    type Future = Telling<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let listening = self.layer.0.as_ref();
        let story = listening.and_then(|(teller, place)| teller.begin(place, &mut request));
        Telling {
            inner: self.inner.call(request),
            story: Unanswered(story),
        }
    }
}

/// A client that leaves before there is a response drops the future.
struct Unanswered(Option<Box<Story>>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(story) = self.0.take() {
            story.ended(0, None, None);
        }
    }
}

pin_project! {
    /// A request that will be told about.
    pub struct Telling<F> {
        #[pin]
        inner: F,
        story: Unanswered,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Telling<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(mut story) = this.story.0.take() {
            story.status = response.status().as_u16();
            story.error = response.headers().get(headers::ERROR).cloned();
            response.body_mut().tell(story);
        }
        Poll::Ready(Ok(response))
    }
}
