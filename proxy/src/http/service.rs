//! A whole stack behind one pointer: the only place where a request's future is boxed.

use super::{Request, Response};
use crate::error::Error;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::Service;

/// What a boxed stack returns.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// A stack, cheap to clone. Always ready: nothing in it queues, what cannot be served is refused.
#[derive(Clone)]
pub struct HttpService(Arc<dyn Call>);

trait Call: Send + Sync {
    fn call(&self, request: Request) -> ServiceFuture;
}

impl HttpService {
    /// Boxes a stack.
    pub fn new<S>(stack: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Error> + Send + 'static,
        S::Future: Send + 'static,
    {
        Self(Arc::new(Erased(Mutex::new(stack))))
    }

    /// A service that boxes its futures itself, as the lowest one does: they are not boxed again.
    pub fn at_seam<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Error, Future = ServiceFuture>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Self(Arc::new(Seam(service)))
    }

    /// Sends one request through.
    pub fn send(&self, request: Request) -> ServiceFuture {
        self.0.call(request)
    }
}

/// A stack belongs to one thread and does not call itself, so the lock is always free: two plain steps in place of the
/// dozen reference counts that a clone of the stack would take.
struct Erased<S>(Mutex<S>);

impl<S> Call for Erased<S>
where
    S: Service<Request, Response = Response, Error = Error> + Send + 'static,
    S::Future: Send + 'static,
{
    fn call(&self, request: Request) -> ServiceFuture {
        Box::pin(self.0.lock().call(request))
    }
}

struct Seam<S>(S);

impl<S> Call for Seam<S>
where
    S: Service<Request, Response = Response, Error = Error, Future = ServiceFuture>
        + Clone
        + Send
        + Sync
        + 'static,
{
    fn call(&self, request: Request) -> ServiceFuture {
        self.0.clone().call(request)
    }
}

impl Service<Request> for HttpService {
    type Response = Response;
    type Error = Error;
    type Future = ServiceFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ServiceFuture {
        self.send(request)
    }
}

impl std::fmt::Debug for HttpService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpService")
    }
}
