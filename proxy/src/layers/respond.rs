//! Turns a failure into the answer the client gets: the status of the table, `weft-error`, and a text that says what
//! happened and what would help. gRPC clients get the same as trailers-only response.

use super::Below;
use crate::connection::Direction;
use crate::error::{Error, ErrorKind};
use crate::http::{Body, HttpVersion, Request, Response, headers, is_grpc};
use crate::metrics::Metrics;
use http::header::RETRY_AFTER;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pin_project_lite::pin_project;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tower::{Layer, Service};

/// Answers failures, and counts them by code.
#[derive(Clone)]
pub struct RespondLayer {
    metrics: Arc<Metrics>,
    direction: Direction,
}

/// Answers failures.
#[derive(Clone)]
pub struct Respond<S> {
    inner: S,
    layer: RespondLayer,
}

impl RespondLayer {
    /// For one direction.
    pub fn new(metrics: Arc<Metrics>, direction: Direction) -> Self {
        Self { metrics, direction }
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Below> Service<Request> for Respond<S> {
    type Response = Response;
    type Error = Error;
    type Future = Responding<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = Asked {
            version: HttpVersion::of(request.version()),
            grpc: is_grpc(request.headers()),
        };
        Responding {
            inner: self.inner.call(request),
            asked,
            layer: self.layer.clone(),
        }
    }
}

/// What the form of the answer depends on.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Codec of the request.
    pub version: HttpVersion,
    /// Is it gRPC?
    pub grpc: bool,
}

pin_project! {
    /// A request whose failure will be answered.
    pub struct Responding<F> {
        #[pin]
        inner: F,
        asked: Asked,
        layer: RespondLayer,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Responding<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(match ready!(this.inner.poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                this.layer.count(&error);
                answer(error, *this.asked)
            }
        }))
    }
}

impl RespondLayer {
    fn count(&self, error: &Error) {
        self.metrics
            .error(self.direction, error.code(), error.name())
            .inc();
        tracing::debug!(%error, direction = self.direction.label(), "request failed");
    }
}

/// The answer to a failure.
pub fn answer(mut error: Error, asked: Asked) -> Response {
    let attribution = error.take_attribution();
    let mut response = if asked.grpc {
        grpc(&error)
    } else {
        plain(&error)
    };
    if let Some(named) = named(&error) {
        response.headers_mut().insert(headers::ERROR, named);
    }
    if let Some(words) = error.take_denied_by() {
        response.headers_mut().insert(headers::DENIED_BY, words);
    }
    if let Some(wait) = error.retry_after() {
        say_when(response.headers_mut(), wait, asked.grpc);
    }
    // After a head that could be read in two ways, what follows on the connection could be as well.
    use ErrorKind::*;
    let ends = matches!(
        error.kind(),
        BadRequest | HeaderTimeout | HeaderTooLarge | NotHttp | ShuttingDown | UnsupportedUpgrade
    );
    if ends && asked.version == HttpVersion::Http1 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(edge) = attribution {
        response.body_mut().attribute(edge);
    }
    response
}

/// When to come again: whole seconds for HTTP, and milliseconds where a gRPC client would try again by itself.
fn say_when(fields: &mut HeaderMap, wait: Duration, grpc: bool) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    fields.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    if grpc {
        let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        fields.insert("grpc-retry-pushback-ms", HeaderValue::from(milliseconds));
    }
}

fn plain(error: &Error) -> Response {
    let row = error.kind().row();
    let text = format!(
        "{} {}: {}\n{}\n",
        row.code,
        row.name,
        error.detail(),
        row.remedy
    );
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = error.status();
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Trailers-only: gRPC puts its status into the head of a response without a body.
fn grpc(error: &Error) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    say_status(fields, error);
    response
}

/// What ends a gRPC answer that had begun.
pub(crate) fn trailers(error: &Error) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(3);
    say_status(&mut fields, error);
    if let Some(named) = named(error) {
        fields.insert(headers::ERROR, named);
    }
    fields
}

fn say_status(fields: &mut HeaderMap, error: &Error) {
    fields.insert(
        "grpc-status",
        HeaderValue::from(u16::from(error.grpc_status())),
    );
    let text = format!("{} {}: {}", error.code(), error.name(), error.detail());
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&text)) {
        fields.insert("grpc-message", message);
    }
}

fn named(error: &Error) -> Option<HeaderValue> {
    HeaderValue::from_str(&error.kind().row().to_string()).ok()
}

/// As gRPC wants its messages: everything but printable ASCII, and `%`, as escapes.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte as char),
            // Writing into a string does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    const HTTP1: Asked = Asked {
        version: HttpVersion::Http1,
        grpc: false,
    };
    const GRPC: Asked = Asked {
        version: HttpVersion::Http2,
        grpc: true,
    };

    #[tokio::test]
    async fn a_plain_client_gets_code_name_and_remedy() {
        let response = answer(Error::new(ErrorKind::NoEndpoints), HTTP1);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["weft-error"], "E104 no-endpoints");
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        assert!(!response.headers().contains_key(CONNECTION));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"E104 no-endpoints: "), "{body:?}");
    }

    #[test]
    fn a_grpc_client_gets_a_status_without_a_body() {
        let response = answer(Error::new(ErrorKind::Denied).with_detail("50 % of é"), GRPC);
        assert_eq!(
            (response.status(), &response.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from(7))
        );
        assert_eq!(
            response.headers()["grpc-message"],
            "E111 denied: 50 %25 of %C3%A9"
        );
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn a_bad_request_ends_its_connection() {
        let response = answer(Error::new(ErrorKind::BadRequest), HTTP1);
        assert_eq!(response.headers()[CONNECTION], "close");
    }
}
